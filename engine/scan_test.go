package engine

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestScanThroughTombstones scans through a million tombstones, in tables and in
// a memtable, both ways, in portions: each stops at its work budget and the next
// one resumes where it stopped, until both live keys are found.
func TestScanThroughTombstones(t *testing.T) {
	const n, budget = 1_000_000, 50_000
	db := mustOpen(t, Options{
		FS: vfs.NewMem(), MemTableSize: 8 << 20, WALSegmentSize: 64 << 20, Scheduler: inline{},
		L0CompactionTrigger: 100, L0SlowdownTrigger: 101, L0StopTrigger: 102, // tombstones stay
	})
	b := NewBatch()
	key := func(i int) []byte { return binary.BigEndian.AppendUint32([]byte("k"), uint32(i)) }
	for i := range n {
		b.Delete(key(i + 1))
		if b.Len() == 10_000 || i == n-1 {
			if _, err := db.Apply(b, WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
	}
	b.Set(key(0), []byte("first"))
	b.Set(key(n+1), []byte("last"))
	if _, err := db.Apply(b, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if m := db.Metrics(); m.Flushes == 0 || m.MemTableBytes < 1<<20 {
		t.Fatalf("the tombstones lie on one side: %d flushes, %d bytes in memory", m.Flushes, m.MemTableBytes)
	}
	it, err := db.NewIter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, back := range []bool{false, true} {
		var found [][]byte
		stops := 0
		it.SetBudget(budget)
		ok := !back && it.First() || back && it.Last()
		for {
			if ok {
				found = append(found, slices.Clone(it.Value()))
				ok = !back && it.Next() || back && it.Prev()
				continue
			}
			if !errors.Is(it.Error(), ErrBudget) {
				break
			}
			stops++
			from := slices.Clone(it.ResumeKey())
			// What a client does that comes back later with the key.
			if err := it.Close(); err != nil {
				t.Fatal(err)
			}
			if it, err = db.NewIter(nil, nil); err != nil {
				t.Fatal(err)
			}
			it.SetBudget(budget)
			ok = !back && it.SeekGE(from) || back && it.SeekLT(from)
		}
		if it.Error() != nil || stops < n/budget || stops > n/budget+2 {
			t.Errorf("back %v: %d stops for %d tombstones at a budget of %d: %v", back, stops, n, budget, it.Error())
		}
		if back {
			slices.Reverse(found)
		}
		if len(found) != 2 || string(found[0]) != "first" || string(found[1]) != "last" {
			t.Errorf("back %v: found %q", back, found)
		}
	}
	if err := errors.Join(it.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
}
