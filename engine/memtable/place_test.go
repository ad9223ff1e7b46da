package memtable_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/memtable"
)

// TestStalePlaces: places found at any time before, also in the empty table, are
// as good as those found at the insert, whatever came in between: neighbours on
// either side, older versions of the same key, and so many that towers grow.
func TestStalePlaces(t *testing.T) {
	const n = 3000
	rnd := rand.New(rand.NewPCG(1, 2))
	tab, plain := memtable.New(4<<20), memtable.New(4<<20)
	type waiting struct {
		key   string
		place memtable.Place
	}
	var held []*waiting
	for seq := base.SeqNum(1); seq <= n; {
		if len(held) < 200 || rnd.IntN(3) == 0 {
			w := &waiting{key: fmt.Sprintf("%03d", rnd.IntN(700))}
			tab.Find([]byte(w.key), &w.place)
			held = append(held, w)
			if len(held) < 400 {
				continue
			}
		}
		i := rnd.IntN(len(held))
		w := held[i]
		held = slices.Delete(held, i, i+1)
		k := ik(w.key, seq, base.KindSet)
		if err := tab.AddAt(&w.place, k, valueOf(k)); err != nil {
			t.Fatal(err)
		}
		if err := plain.Add(k, valueOf(k)); err != nil {
			t.Fatal(err)
		}
		seq++
	}
	got, want := tab.NewIter(), plain.NewIter()
	ok, more := got.First(), want.First()
	for ; ok && more; ok, more = got.Next(), want.Next() {
		if !checkEntry(t, got) || base.Compare(got.Key(), want.Key()) != 0 {
			t.Fatalf("%s where %s belongs", got.Key(), want.Key())
		}
		if v, _, at, found := tab.Get(want.Key().UserKey, want.Key().SeqNum()); !found || at != want.Key().SeqNum() || string(v) != string(want.Value()) {
			t.Fatalf("get %s: %x at %d, %t", want.Key(), v, at, found)
		}
	}
	if ok != more || tab.Len() != n {
		t.Errorf("%d entries of %d, one ended first: %t", tab.Len(), n, ok != more)
	}
}

// TestPlacesOfMany: writers find their places at once and insert in turns, in the
// order of their sequence numbers, as the engine's do.
func TestPlacesOfMany(t *testing.T) {
	const writers, per = 4, 2000
	tab := memtable.New(8 << 20)
	var mu sync.Mutex
	var seq base.SeqNum
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var p memtable.Place
			for i := range per {
				key := fmt.Sprintf("%04d", (i*7919+w)%500)
				tab.Find([]byte(key), &p)
				mu.Lock()
				seq++
				k := ik(key, seq, base.KindSet)
				err := tab.AddAt(&p, k, valueOf(k))
				mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if tab.Len() != writers*per {
		t.Errorf("%d entries", tab.Len())
	}
	for _, forward := range []bool{true, false} {
		if !walk(t, tab, forward) {
			t.Fatal("not sorted")
		}
	}
}
