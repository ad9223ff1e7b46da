package engine

import (
	"bytes"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/sstable"
)

// A table that was made elsewhere carries sequence numbers of elsewhere. Its
// file stays as it is; whoever reads it through an openTable sees the number it
// was ingested at (manifest.FileMeta.Renumbered). Each user key is in it once,
// so that this changes no order.

// Get is that of sstable.Reader with the table's own numbers.
func (o *openTable) Get(dst, key []byte, seq base.SeqNum) (value []byte, kind base.Kind, at base.SeqNum, ok bool, err error) {
	return o.getBy(nil, dst, key, seq)
}

// getBy is Get, by way of by if that is not nil. It counts what the filter was
// good for.
func (o *openTable) getBy(by *sstable.Finder, dst, key []byte, seq base.SeqNum) (value []byte, kind base.Kind, at base.SeqNum, ok bool, err error) {
	f := o.t.set.filters.of(key)
	filtered := o.Filtered()
	if filtered && !o.MayContain(key) {
		f.negatives.Add(1)
		return dst, 0, 0, false, nil
	}
	own := o.t.Renumbered
	if own {
		if o.t.LargestSeq > seq {
			return dst, 0, 0, false, nil
		}
		seq = base.MaxSeqNum // whatever the file says
	}
	if by != nil {
		value, kind, at, ok, err = by.Lookup(dst, key, seq)
	} else {
		value, kind, at, ok, err = o.Lookup(dst, key, seq)
	}
	if own {
		at = o.t.LargestSeq
	}
	if filtered && err == nil {
		if ok {
			f.found.Add(1)
		} else {
			f.falsePositives.Add(1)
		}
	}
	return value, kind, at, ok, err
}

// NewIter is that of sstable.Reader with the table's own numbers.
func (o *openTable) NewIter() (base.InternalIterator, error) {
	it, err := o.Reader.NewIter()
	if err != nil {
		return nil, err
	}
	return o.renumbered(it), nil
}

// NewCompactionIter is that of sstable.Reader with the table's own numbers.
func (o *openTable) NewCompactionIter() (base.InternalIterator, error) {
	it, err := o.Reader.NewCompactionIter()
	if err != nil {
		return nil, err
	}
	return o.renumbered(it), nil
}

func (o *openTable) renumbered(it base.InternalIterator) base.InternalIterator {
	if !o.t.Renumbered {
		return it
	}
	return &renumberIter{InternalIterator: it, seq: o.t.LargestSeq}
}

// RangeDels is that of sstable.Reader with the table's own numbers.
func (o *openTable) RangeDels() []base.RangeDel { return o.rangeDels }

// renumber returns rds with the number of f if that has one of its own.
func renumber(f *manifest.FileMeta, rds []base.RangeDel) []base.RangeDel {
	if !f.Renumbered {
		return rds
	}
	out := make([]base.RangeDel, len(rds))
	for i, rd := range rds {
		out[i] = base.RangeDel{Start: rd.Start, End: rd.End, Seq: f.LargestSeq}
	}
	return out
}

// cacheID names the blocks of f in a cache that several DBs may share. The nonce
// of a table made elsewhere may be that of another one here, if the generators
// began alike, and then the number it got tells them apart.
func cacheID(f *manifest.FileMeta) uint64 {
	if !f.Renumbered {
		return f.Nonce
	}
	return f.Nonce ^ uint64(f.LargestSeq)*0x9e3779b97f4a7c15
}

// renumberIter shows the entries of a table at one sequence number. The table
// has each user key once.
type renumberIter struct {
	base.InternalIterator
	seq base.SeqNum
}

// Key returns the entry's key at the number.
func (r *renumberIter) Key() base.InternalKey {
	k := r.InternalIterator.Key()
	k.Trailer = base.MakeTrailer(r.seq, k.Kind())
	return k
}

// SeekGE moves to the first entry at or after key, as they are numbered here.
func (r *renumberIter) SeekGE(key base.InternalKey) bool {
	if !r.InternalIterator.SeekGE(base.SearchKey(key.UserKey, base.MaxSeqNum)) {
		return false
	}
	if base.Compare(r.Key(), key) < 0 {
		return r.Next() // the one entry of the user key lies before key
	}
	return true
}

// SeekLT moves to the last entry before key, as they are numbered here.
func (r *renumberIter) SeekLT(key base.InternalKey) bool {
	first := base.SearchKey(key.UserKey, base.MaxSeqNum)
	if r.InternalIterator.SeekGE(first) {
		if k := r.Key(); bytes.Equal(k.UserKey, key.UserKey) && base.Compare(k, key) < 0 {
			return true
		}
	} else if r.Error() != nil {
		return false
	}
	return r.InternalIterator.SeekLT(first)
}
