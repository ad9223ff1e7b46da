package sstable

import (
	"bytes"

	"github.com/pairdb/pairdb/engine/base"
)

// Sample returns up to n user keys that part the table's point entries into
// pieces of about equal size, ascending. They are taken from the pinned index,
// without I/O, and need not be keys of the table.
func (r *Reader) Sample(n int) ([][]byte, error) {
	if r.closed.Load() {
		return nil, base.ErrClosed
	}
	if n < 1 {
		return nil, nil
	}
	var it blockIter
	it.init(r.index)
	total := 0
	for it.step() {
		total++
	}
	if it.bad {
		return nil, r.corrupt(r.foot.index.offset, errBlock)
	}
	var keys [][]byte
	it.init(r.index)
	for i := 1; it.step(); i++ {
		// The separator ends block i.
		if len(keys) < n && i*(n+1) >= (len(keys)+1)*total && i < total {
			keys = append(keys, bytes.Clone(it.key))
		}
	}
	return keys, nil
}
