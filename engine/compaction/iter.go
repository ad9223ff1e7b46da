package compaction

import (
	"bytes"
	"slices"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/rangedel"
)

// IterOptions say what Iter merges and what it may leave out.
type IterOptions struct {
	// In yields the merged point entries of all inputs.
	In base.InternalIterator
	// RangeDels are those of all inputs.
	RangeDels []base.RangeDel
	// Snapshots are the sequence numbers that readers may hold, ascending.
	Snapshots []base.SeqNum
	// NothingBelow reports whether no older version of a key in [start, end)
	// exists outside the inputs; for a single key, start and end are equal.
	// nil means that it never is so.
	NothingBelow func(start, end []byte) bool
	// Lower and Upper bound the user keys taken from In, Upper excluded; nil
	// is open. RangeDels are to be clipped by the caller.
	Lower, Upper []byte
	// KeepDeletesAfter, if not 0, is a sequence number above which tombstones stay even
	// if nothing is below.
	KeepDeletesAfter base.SeqNum
	// Filter, if not nil, is asked about each value that no snapshot sees and
	// that is the newest of its key here: true drops it. What it hid stays
	// hidden. Key and value are valid during the call.
	Filter func(key, value []byte) bool
}

// Iter yields what has to be kept of the inputs: of each user key the newest
// version in each stripe of sequence numbers that no snapshot tells apart,
// unless a range delete of the same stripe hides it. A tombstone goes too when
// it lies in the oldest stripe and hides nothing outside the inputs.
//
// Invariant: for every snapshot, and for readers of the newest state, what is
// yielded together with RangeDels means the same as the inputs, but for values
// that Filter drops, which the newest state no longer has.
type Iter struct {
	opts IterOptions
	del  *rangedel.List

	started bool
	key     []byte // user key of the last entry read
	stripe  int    // of the last entry yielded or dropped for key; -1: none

	filtered bool // the entry is a value that became a tombstone
	dropped  int64
}

// NewIter returns an iterator that stands before the first entry.
func NewIter(opts IterOptions) *Iter {
	return &Iter{opts: opts, del: rangedel.Build(opts.RangeDels), stripe: -1}
}

// stripeOf returns the index of the oldest snapshot that sees seq,
// len(Snapshots) if none does.
func (it *Iter) stripeOf(seq base.SeqNum) int {
	i, _ := slices.BinarySearch(it.opts.Snapshots, seq)
	return i
}

// Next moves to the next entry to keep. After false, Error tells whether the
// inputs failed.
func (it *Iter) Next() bool {
	for {
		if !it.advance() {
			return false
		}
		k := it.opts.In.Key()
		if it.opts.Upper != nil && bytes.Compare(k.UserKey, it.opts.Upper) >= 0 {
			return false
		}
		it.filtered = false
		if it.stripe < 0 || !bytes.Equal(k.UserKey, it.key) {
			it.key = append(it.key[:0], k.UserKey...)
			it.stripe = len(it.opts.Snapshots) + 1
		}
		if it.keep(k) {
			return true
		}
	}
}

func (it *Iter) advance() bool {
	if !it.started {
		it.started = true
		if it.opts.Lower != nil {
			return it.opts.In.SeekGE(base.SearchKey(it.opts.Lower, base.MaxSeqNum))
		}
		return it.opts.In.First()
	}
	return it.opts.In.Valid() && it.opts.In.Next()
}

// keep decides on one version of the current user key.
func (it *Iter) keep(k base.InternalKey) bool {
	s := it.stripeOf(k.SeqNum())
	if s >= it.stripe {
		return false // hidden by a newer version of the same stripe
	}
	newest := it.stripe > len(it.opts.Snapshots)
	it.stripe = s
	if by := it.del.OldestAbove(k.UserKey, k.SeqNum()); by != 0 && it.stripeOf(by) == s {
		return false
	}
	kind := k.Kind()
	if it.opts.Filter != nil && newest && s == len(it.opts.Snapshots) && kind == base.KindSet &&
		it.opts.Filter(k.UserKey, it.opts.In.Value()) {
		// Older versions, here for the sake of snapshots or below, must not
		// come to light: it goes on as a tombstone.
		it.filtered, kind = true, base.KindDelete
		it.dropped++
	}
	if kind == base.KindDelete && s == 0 && it.mayGo(k.SeqNum()) && it.nothingBelow(k.UserKey, k.UserKey) {
		return false
	}
	return true
}

// mayGo reports whether nobody wants to know of a delete.
func (it *Iter) mayGo(seq base.SeqNum) bool {
	return it.opts.KeepDeletesAfter == 0 || seq <= it.opts.KeepDeletesAfter
}

func (it *Iter) nothingBelow(start, end []byte) bool {
	return it.opts.NothingBelow != nil && it.opts.NothingBelow(start, end)
}

// Key and Value return the entry, valid until Next.
func (it *Iter) Key() base.InternalKey {
	k := it.opts.In.Key()
	if it.filtered {
		k.Trailer = base.MakeTrailer(k.SeqNum(), base.KindDelete)
	}
	return k
}

// Value returns the entry's value.
func (it *Iter) Value() []byte {
	if it.filtered {
		return nil
	}
	return it.opts.In.Value()
}

// Filtered returns how many values Filter dropped so far.
func (it *Iter) Filtered() int64 { return it.dropped }

// Error returns the first failure of the inputs.
func (it *Iter) Error() error { return it.opts.In.Error() }

// RangeDels returns the range deletes to keep, as fragments that do not
// overlap but for those of the same bounds, in key order.
func (it *Iter) RangeDels() []base.RangeDel {
	var out []base.RangeDel
	for _, f := range it.del.Fragments() {
		last := len(it.opts.Snapshots) + 1
		for _, seq := range f.Seqs {
			s := it.stripeOf(seq)
			if s >= last {
				continue // a newer one of the same stripe hides as much
			}
			last = s
			if s == 0 && it.mayGo(seq) && it.nothingBelow(f.Start, f.End) {
				continue
			}
			out = append(out, base.RangeDel{Start: f.Start, End: f.End, Seq: seq})
		}
	}
	return out
}

// Clip returns the parts of rds, which are in key order and as RangeDels
// returns them, that lie in [start, end); nil bounds are open.
func Clip(rds []base.RangeDel, start, end []byte) []base.RangeDel {
	var out []base.RangeDel
	for _, rd := range rds {
		if start != nil && bytes.Compare(rd.Start, start) < 0 {
			rd.Start = start
		}
		if end != nil && bytes.Compare(rd.End, end) > 0 {
			rd.End = end
		}
		if !rd.Empty() {
			out = append(out, rd)
		}
	}
	return out
}
