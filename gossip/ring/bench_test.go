package ring

import (
	"slices"
	"testing"
)

func BenchmarkKeyToken(b *testing.B) {
	key := []byte("src/runtime/proc.go")
	for b.Loop() {
		KeyToken(1, key)
	}
}

func BenchmarkOwners(b *testing.B) {
	l := mustLayout(b, 1024, testNodes(0, 1, 1, 1, 1, 1))
	buf := make([]NodeID, 0, MaxRF)
	var p Partition
	for b.Loop() {
		p = (p + 1) % 1024
		buf = l.Owners(buf[:0], p, 3)
	}
}

func BenchmarkNewLayout(b *testing.B) {
	nodes := testNodes(5, slices.Repeat([]uint32{1, 2, 3}, 33)...)
	for b.Loop() {
		mustLayout(b, 4096, nodes)
	}
}

func BenchmarkRebalance(b *testing.B) {
	nodes := testNodes(3, slices.Repeat([]uint32{1, 2, 3}, 10)...)
	l := mustLayout(b, 1024, nodes[:27])
	for b.Loop() {
		mustRebalance(b, l, nodes)
	}
}
