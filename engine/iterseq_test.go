package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// TestIteratorSeq: both ways an iterator tells the number of the write that a
// Get finds, and how much of its budget is left.
func TestIteratorSeq(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	db := mustOpen(t, Options{FS: vfs.NewMem(), CacheSize: -1})
	newest := map[string]base.SeqNum{}
	for i := range 400 {
		k := fmt.Sprint("k", rng.IntN(50))
		b := NewBatch()
		if rng.IntN(4) == 0 {
			b.Delete([]byte(k))
			delete(newest, k)
		} else {
			b.Set([]byte(k), []byte("v"))
		}
		if _, err := db.Apply(b, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, at, err := db.GetSeq(nil, []byte(k)); err == nil {
			newest[k] = at
		}
		if i == 200 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	it, err := db.NewIter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	it.SetBudget(10_000)
	check := func(way string, ok bool, next func() bool) {
		seen := 0
		for ; ok; ok = next() {
			seen++
			if it.Seq() != newest[string(it.Key())] {
				t.Errorf("%s: %s is of %d, want %d", way, it.Key(), it.Seq(), newest[string(it.Key())])
			}
		}
		if seen != len(newest) || it.Error() != nil {
			t.Errorf("%s: %d keys of %d: %v", way, seen, len(newest), it.Error())
		}
	}
	check("forward", it.First(), it.Next)
	if used := 10_000 - it.BudgetLeft(); used < len(newest) || used > 400 {
		t.Errorf("%d entries were looked at for %d keys", used, len(newest))
	}
	check("back", it.Last(), it.Prev)
}
