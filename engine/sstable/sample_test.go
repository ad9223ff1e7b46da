package sstable

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// TestSample checks that the keys part the table evenly.
func TestSample(t *testing.T) {
	const n = 10_000
	mem := vfs.NewMem()
	f, err := mem.Create("t")
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(f, WriterOptions{Nonce: 1, BlockSize: 512})
	for i := range n {
		key := base.MakeInternalKey(fmt.Appendf(nil, "%06d", i), 1, base.KindSet)
		if err := w.Add(key, make([]byte, 20)); err != nil {
			t.Fatal(err)
		}
	}
	meta, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(f, meta.Size, ReaderOptions{Nonce: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, parts := range []int{1, 2, 4, 9} {
		keys, err := r.Sample(parts - 1)
		if err != nil || len(keys) != parts-1 {
			t.Fatalf("%d keys for %d parts: %v", len(keys), parts, err)
		}
		for i, k := range keys {
			want := fmt.Appendf(nil, "%06d", n*(i+1)/parts)
			lo, hi := fmt.Appendf(nil, "%06d", n*(i+1)/parts-n/50), fmt.Appendf(nil, "%06d", n*(i+1)/parts+n/50)
			if bytes.Compare(k, lo) < 0 || bytes.Compare(k, hi) > 0 {
				t.Errorf("border %d of %d is %s, want about %s", i, parts, k, want)
			}
		}
	}
}
