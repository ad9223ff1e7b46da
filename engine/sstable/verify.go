package sstable

import (
	"errors"

	"github.com/pairdb/pairdb/engine/base"
)

var (
	errGap    = errors.New("blocks do not tile the file")
	errCounts = errors.New("properties do not match the contents")
	errUnsort = errors.New("keys out of order")
	errMissed = errors.New("key missing from the filter")
)

// fetchBlock reads a block past the cache.
func (r *Reader) fetchBlock(h handle) (block, error) {
	b, err := r.fetch(h)
	if err != nil {
		return block{}, err
	}
	blk, ok := parseBlock(b)
	if !ok {
		return block{}, r.corrupt(h.offset, errBlock)
	}
	return blk, nil
}

// VerifyChecksums reads every block from the file, past the cache, and returns
// the first damage it finds: a checksum that does not match, bytes that belong
// to no block, keys out of order or outside the table's bounds, entries that
// the index or the filter would hide, counts that differ from the properties.
func (r *Reader) VerifyChecksums() error { return r.Verify(nil) }

// Verify is VerifyChecksums that also calls each, if it is not nil, with every
// point entry in order once it is known to be sound; an error from it ends the
// walk. Key and value are valid during the call.
func (r *Reader) Verify(each func(base.InternalKey, []byte) error) error {
	if r.closed.Load() {
		return base.ErrClosed
	}
	stored := uint64(0) // bytes of the blocks seen
	for _, h := range []handle{r.foot.index, r.foot.props, r.foot.filter, r.foot.rangeDel} {
		if h.empty() {
			continue
		}
		if _, err := r.fetch(h); err != nil {
			return err
		}
		stored += h.length + trailerSize
	}
	it, err := r.newIter(modeDirect)
	if err != nil {
		return err
	}
	v := verifier{r: r, it: it, stored: stored, each: each}
	err = v.run()
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return err
}

// verifier counts what a walk over a table finds.
type verifier struct {
	r      *Reader
	it     *Iter
	got    Properties
	stored uint64
	each   func(base.InternalKey, []byte) error

	last            base.InternalKey
	indexAt, dataAt handle
}

func (v *verifier) run() error {
	it, want := v.it, v.r.props
	for _, rd := range v.r.rangeDels {
		if base.Compare(rd.StartKey(), want.Smallest) < 0 || base.Compare(rd.EndKey(), want.Largest) > 0 ||
			rd.Seq < want.SmallestSeq || rd.Seq > want.LargestSeq {
			return v.r.corrupt(v.r.foot.rangeDel.offset, errCounts)
		}
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := v.entry(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	if it.err != nil {
		return it.err
	}
	if v.got.Entries != want.Entries || v.got.Deletes != want.Deletes ||
		v.got.RawKeyBytes != want.RawKeyBytes || v.got.RawValueBytes != want.RawValueBytes ||
		v.got.DataBlocks != want.DataBlocks || v.got.DataBytes != want.DataBytes {
		return v.r.corrupt(v.r.foot.props.offset, errCounts)
	}
	if v.stored != v.r.limit {
		return v.r.corrupt(v.r.limit, errGap)
	}
	return nil
}

// entry checks one entry and the blocks it is the first of.
func (v *verifier) entry(k base.InternalKey, value []byte) error {
	it, r := v.it, v.r
	if r.foot.levels == 2 && it.indexAt != v.indexAt {
		v.indexAt = it.indexAt
		v.stored += it.indexAt.length + trailerSize
	}
	if it.dataAt != v.dataAt {
		v.dataAt = it.dataAt
		v.got.DataBlocks++
		v.got.DataBytes += it.dataAt.length + trailerSize
		v.stored += it.dataAt.length + trailerSize
	}
	if v.got.Entries > 0 && base.Compare(v.last, k) >= 0 ||
		base.Compare(k, it.index.internalKey()) > 0 {
		return r.corrupt(it.dataAt.offset, errUnsort)
	}
	p := r.props
	if base.Compare(k, p.Smallest) < 0 || base.Compare(k, p.Largest) > 0 ||
		k.SeqNum() < p.SmallestSeq || k.SeqNum() > p.LargestSeq {
		return r.corrupt(it.dataAt.offset, errCounts)
	}
	if !r.MayContain(k.UserKey) {
		return r.corrupt(r.foot.filter.offset, errMissed)
	}
	v.got.Entries++
	if k.Kind() == base.KindDelete {
		v.got.Deletes++
	}
	v.got.RawKeyBytes += uint64(len(k.UserKey))
	v.got.RawValueBytes += uint64(len(value))
	v.last = base.InternalKey{UserKey: append(v.last.UserKey[:0], k.UserKey...), Trailer: k.Trailer}
	if v.each != nil {
		return v.each(k, value)
	}
	return nil
}
