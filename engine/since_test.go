package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// told collects what KeysSince and OnRecovered tell.
type told struct {
	keys   map[string]bool
	ranges [][2]string
}

func (o *told) key(k []byte) { o.keys[string(k)] = true }

func (o *told) recovered(k []byte, _ base.SeqNum) { o.key(k) }

func (o *told) deleted(start, end []byte) {
	o.ranges = append(o.ranges, [2]string{string(start), string(end)})
}

func (o *told) of(k string) bool {
	if o.keys[k] {
		return true
	}
	for _, r := range o.ranges {
		if r[0] <= k && k < r[1] {
			return true
		}
	}
	return false
}

func never() bool { return false }

// TestKeysSince: after a crash or a close, with flushes and compactions in between,
// every key that was written after a sequence number is told of by the tables or by
// the recovery of the log, deleted ones included.
func TestKeysSince(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		mem := vfs.NewMem()
		db := mustOpen(t, tiny(mem, seed))
		step := func(written map[string]bool) {
			k := modelKey(rng.IntN(80))
			b := NewBatch()
			switch n := rng.IntN(40); {
			case n < 24:
				b.Set([]byte(k), bytes.Repeat([]byte("v"), rng.IntN(60)))
				written[k] = true
			case n < 38:
				b.Delete([]byte(k))
				written[k] = true
			case n == 38:
				end := k + "5"
				b.DeleteRange([]byte(k), []byte(end))
				for i := range 80 {
					if m := modelKey(i); k <= m && m < end {
						written[m] = true
					}
				}
			default:
				if err := db.Compact(nil, nil); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.Apply(b, WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for range rng.IntN(300) {
			step(map[string]bool{})
		}
		since := db.VisibleSeq()
		db.KeepDeletesAfter(since)
		written := map[string]bool{}
		for range rng.IntN(300) {
			step(written)
		}
		if err := db.WaitDurable(db.VisibleSeq()); err != nil {
			t.Fatal(err)
		}
		if since == 0 {
			continue
		}
		disk := mem.Crash(vfs.CrashDropUnsynced, nil)
		if seed%2 == 0 {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			disk = mem
		}
		o := told{keys: map[string]bool{}}
		opts := tiny(disk, seed)
		opts.OnRecovered, opts.KeepDeletesAfter = o.recovered, since
		again := mustOpen(t, opts)
		if err := again.Compact(nil, nil); err != nil {
			t.Fatal(err)
		}
		tables := told{keys: map[string]bool{}}
		if err := again.KeysSince(since, tables.key, tables.deleted, never); err != nil {
			t.Fatal(err)
		}
		for i := range 80 {
			k := modelKey(i)
			if written[k] && !tables.of(k) && !o.of(k) {
				t.Errorf("seed %d: %s was written after %d and nobody tells", seed, k, since)
			}
			if !written[k] && tables.of(k) {
				t.Errorf("seed %d: %s was not written after %d and is told of", seed, k, since)
			}
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeletesGoOnceNobodyAsks: what KeepDeletesAfter keeps goes when it ends, and
// keeping them makes no compaction that is in vain again and again.
func TestDeletesGoOnceNobodyAsks(t *testing.T) {
	db := mustOpen(t, tiny(vfs.NewMem(), 1))
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range 40 {
		mustSet(t, db, modelKey(i), "value")
	}
	db.KeepDeletesAfter(db.VisibleSeq())
	b := NewBatch()
	for i := range 40 {
		b.Delete(fmt.Append(nil, modelKey(i)))
	}
	if _, err := db.Apply(b, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		if err := db.Compact(nil, nil); err != nil {
			t.Fatal(err)
		}
		o := told{keys: map[string]bool{}}
		if err := db.KeysSince(base.SeqNum(0), o.key, o.deleted, never); err != nil {
			t.Fatal(err)
		}
		return len(o.keys)
	}
	if n := count(); n != 40 {
		t.Errorf("%d of 40 deletes are left while they are asked for", n)
	}
	db.KeepDeletesAfter(0)
	b.Reset()
	for i := range 40 {
		b.Set(fmt.Append(nil, modelKey(i)), []byte("again"))
	}
	if _, err := db.Apply(b, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	for i := range 40 {
		b.Delete(fmt.Append(nil, modelKey(i)))
	}
	if _, err := db.Apply(b, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 0 {
		t.Errorf("%d deletes are left though nobody asks", n)
	}
}
