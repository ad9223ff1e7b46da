package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/sstable"
)

// Values holds what a MultiGet found. The zero Values is empty and usable; one
// that is used again allocates only what it has to grow by. One goroutine uses
// it at a time.
type Values struct {
	buf   []byte
	found []foundValue // in the order of the keys asked for
	todo  []int        // keys not decided yet, in key order
	order []sortKey

	finder sstable.Finder // in the table that is asked
}

// sortKey is the number of a key and where it sorts.
type sortKey struct {
	head uint64
	i    int
}

// foundValue is what is known of a key; the value is buf[start:end].
type foundValue struct {
	start, end int
	at         base.SeqNum
	ok         bool
}

// Len returns the number of keys asked for.
func (v *Values) Len() int { return len(v.found) }

// Get returns the value of the i-th key asked for; ok is false if it has none.
// The value is valid until v is used for another MultiGet.
func (v *Values) Get(i int) (value []byte, ok bool) {
	f := v.found[i]
	if !f.ok {
		return nil, false
	}
	return v.buf[f.start:f.end:f.end], true
}

// Seq returns the sequence number of what decided on the i-th key, as GetSeq
// does: that of the version found, or of the tombstone that hides the key, 0 if
// none is left.
func (v *Values) Seq(i int) base.SeqNum { return v.found[i].at }

// MultiGet looks up keys in one view, that of a moment during the call, and puts
// what it finds into v, whose former contents are gone. Keys may come in any
// order and more than once. It costs less than a Get for each, the more so the
// more keys lie in one table. After an error v holds nothing.
func (db *DB) MultiGet(v *Values, keys [][]byte) error {
	return db.multiGet(v, keys, base.MaxSeqNum)
}

// MultiGet is DB.MultiGet on the snapshot.
func (s *Snapshot) MultiGet(v *Values, keys [][]byte) error {
	if s.isClosed() {
		v.reset(nil)
		return ErrClosed
	}
	return s.db.multiGet(v, keys, s.seq)
}

func (db *DB) multiGet(v *Values, keys [][]byte, snap base.SeqNum) error {
	v.reset(keys)
	if db.closing.Load() {
		v.reset(nil)
		return ErrClosed
	}
	rs := db.acquireState() // before visible: see get
	seq := min(snap, base.SeqNum(db.visible.Load()))
	err := v.fill(rs, keys, seq)
	rs.release()
	if err != nil {
		v.reset(nil)
	}
	return err
}

// reset makes v that of keys of which nothing is known.
func (v *Values) reset(keys [][]byte) {
	v.buf = v.buf[:0]
	v.found = slices.Grow(v.found[:0], len(keys))[:len(keys)]
	clear(v.found)
	v.todo = slices.Grow(v.todo[:0], len(keys))
	for _, k := range v.sort(keys) {
		v.todo = append(v.todo, k.i)
	}
}

// sort returns the numbers of keys in key order. Most comparisons are of the
// eight bytes behind what all keys begin with.
func (v *Values) sort(keys [][]byte) []sortKey {
	shared := 0
	for i, k := range keys {
		if i == 0 {
			shared = len(k)
			continue
		}
		n := 0
		for n < min(shared, len(k)) && k[n] == keys[0][n] {
			n++
		}
		shared = n
	}
	v.order = slices.Grow(v.order[:0], len(keys))
	for i, k := range keys {
		var head [8]byte
		copy(head[:], k[shared:])
		v.order = append(v.order, sortKey{binary.BigEndian.Uint64(head[:]), i})
	}
	slices.SortFunc(v.order, func(a, b sortKey) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		return bytes.Compare(keys[a.i][shared:], keys[b.i][shared:])
	})
	return v.order
}

// fill asks the sources one after the other, newest first, each for all keys
// that no newer one knew.
func (v *Values) fill(rs *readState, keys [][]byte, seq base.SeqNum) error {
	v.memTable(rs.mem, keys, seq)
	for _, m := range rs.imm {
		v.memTable(m, keys, seq)
	}
	for level, tables := range rs.v.levels {
		if len(v.todo) == 0 {
			return nil
		}
		var err error
		if level == 0 {
			err = v.level0(tables, keys, seq)
		} else {
			err = v.level(tables, keys, seq)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *Values) memTable(m *memTable, keys [][]byte, seq base.SeqNum) {
	left := v.todo[:0]
	for _, i := range v.todo {
		out, at, done := m.get(v.buf, keys[i], seq)
		if !done {
			left = append(left, i)
			continue
		}
		v.decide(i, out, at)
	}
	v.todo = left
}

// decide notes what a source knows of key i: out is v.buf with the value behind
// it, nil if the key is deleted.
func (v *Values) decide(i int, out []byte, at base.SeqNum) {
	f := &v.found[i]
	f.at = at
	if out != nil {
		f.ok, f.start, f.end = true, len(v.buf), len(out)
		v.buf = out
	}
}

// level0 asks tables that may overlap, newest first.
func (v *Values) level0(tables []*table, keys [][]byte, seq base.SeqNum) error {
	for _, t := range tables {
		lo := sort.Search(len(v.todo), func(n int) bool { return !t.StartsAfter(keys[v.todo[n]]) })
		hi := lo + sort.Search(len(v.todo)-lo, func(n int) bool { return t.EndsBefore(keys[v.todo[lo+n]]) })
		undecided, err := v.table(t, lo, hi, keys, seq)
		if err != nil {
			return err
		}
		v.todo = slices.Delete(v.todo, undecided, hi)
	}
	return nil
}

// level asks tables that are sorted and disjoint: each key lies in one at most.
func (v *Values) level(tables []*table, keys [][]byte, seq base.SeqNum) error {
	left := 0
	for lo := 0; lo < len(v.todo); {
		key := keys[v.todo[lo]]
		i := sort.Search(len(tables), func(i int) bool { return !tables[i].EndsBefore(key) })
		tables = tables[i:]
		hi := len(v.todo)
		undecided := hi
		if len(tables) > 0 {
			hi = lo + 1
			t := tables[0]
			for hi < len(v.todo) && !t.EndsBefore(keys[v.todo[hi]]) {
				hi++
			}
			from := lo
			for from < hi && t.StartsAfter(keys[v.todo[from]]) {
				from++
			}
			var err error
			if undecided, err = v.table(t, from, hi, keys, seq); err != nil {
				return err
			}
		}
		left += copy(v.todo[left:], v.todo[lo:undecided])
		lo = hi
	}
	v.todo = v.todo[:left]
	return nil
}

// table asks t for the keys v.todo[lo:hi] and moves those it does not know to
// the front of them; it returns where these end.
func (v *Values) table(t *table, lo, hi int, keys [][]byte, seq base.SeqNum) (undecided int, err error) {
	if lo == hi || t.SmallestSeq > seq {
		return hi, nil
	}
	o, err := t.acquire()
	if err != nil {
		return 0, err
	}
	v.finder.Begin(o.Reader)
	defer func() {
		v.finder.End()
		o.release()
	}()
	undecided = lo
	for _, i := range v.todo[lo:hi] {
		out, at, done, err := o.find(&v.finder, v.buf, keys[i], seq)
		if err != nil {
			return 0, err
		}
		if done {
			v.decide(i, out, at)
			continue
		}
		v.todo[undecided] = i
		undecided++
	}
	return undecided, nil
}
