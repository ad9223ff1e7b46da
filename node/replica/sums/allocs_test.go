//go:build !race

// The race detector makes measurements of allocations useless.

package sums

import "testing"

// TestCountingAllocatesNothing: a write of a tenant and an actor that are known.
func TestCountingAllocatesNothing(t *testing.T) {
	f := newFixture()
	if n := testing.AllocsPerRun(1000, f.write); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
