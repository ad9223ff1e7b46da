package memtable_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/memtable"
)

func valueOf(k base.InternalKey) []byte {
	return binary.LittleEndian.AppendUint64([]byte(k.UserKey), uint64(k.Trailer))
}

// checkEntry fails when an iterator shows a torn entry.
func checkEntry(t *testing.T, it *memtable.Iter) bool {
	k := it.Key()
	if string(it.Value()) != string(valueOf(k)) {
		t.Errorf("value of %s is %x", k, it.Value())
		return false
	}
	return true
}

// Readers walk both ways while writers insert: what they see is sorted,
// complete as to what was there before, and never torn.
func TestReadersDuringInserts(t *testing.T) {
	const writers, perWriter = 3, 3000
	tab := memtable.New(4 << 20)
	var acked [writers]atomic.Int64
	var done atomic.Bool
	var wg, rg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range perWriter {
				// Neighbours of different writers interleave.
				k := ik(fmt.Sprintf("%05d", (i*7919)%perWriter), base.SeqNum(w+1), base.KindSet)
				if err := tab.Add(k, valueOf(k)); err != nil {
					t.Error(err)
					return
				}
				acked[w].Store(int64(i + 1))
			}
		})
	}
	for r := range 2 {
		rg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(r), 9))
			for !done.Load() {
				if !walk(t, tab, r == 0) {
					return
				}
				w := rnd.IntN(writers)
				if n := acked[w].Load(); n > 0 {
					i := rnd.IntN(int(n))
					user := fmt.Sprintf("%05d", (i*7919)%perWriter)
					if _, _, at, ok := tab.Get([]byte(user), base.SeqNum(w+1)); !ok || at != base.SeqNum(w+1) {
						t.Errorf("acknowledged %s#%d not found (%d, %v)", user, w+1, at, ok)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	done.Store(true)
	rg.Wait()
	if tab.Len() != writers*perWriter {
		t.Fatalf("Len = %d", tab.Len())
	}
	for _, forward := range []bool{true, false} {
		if !walk(t, tab, forward) {
			t.Fatal("final walk")
		}
	}
}

// walk checks the order of one pass and that it sees at least what was counted
// before it.
func walk(t *testing.T, tab *memtable.Table, forward bool) bool {
	least := tab.Len()
	it := tab.NewIter()
	first, step := it.First, it.Next
	if !forward {
		first, step = it.Last, it.Prev
	}
	var last base.InternalKey
	seen := 0
	for ok := first(); ok; ok = step() {
		if !checkEntry(t, it) {
			return false
		}
		if c := base.Compare(last, it.Key()); seen > 0 && (c >= 0) == forward {
			t.Errorf("%s then %s, forward %v", last, it.Key(), forward)
			return false
		}
		last = it.Key()
		seen++
	}
	if seen < least {
		t.Errorf("saw %d of at least %d entries, forward %v", seen, least, forward)
		return false
	}
	return true
}

// Of several goroutines that add one internal key, exactly one succeeds.
func TestConcurrentDuplicates(t *testing.T) {
	const keys = 2000
	tab := memtable.New(4 << 20)
	var won, lost atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := range keys {
				k := ik(fmt.Sprintf("%05d", i), 1, base.KindSet)
				switch err := tab.Add(k, valueOf(k)); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, memtable.ErrDuplicate):
					lost.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if won.Load() != keys || lost.Load() != 2*keys || tab.Len() != keys {
		t.Fatalf("%d won, %d lost, Len %d", won.Load(), lost.Load(), tab.Len())
	}
	walk(t, tab, true)
	walk(t, tab, false)
}

func BenchmarkAdd(b *testing.B) {
	value := make([]byte, 100)
	tab := memtable.New(64 << 20)
	key := make([]byte, 16)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		copy(key, fmt.Appendf(key[:0], "%016d", uint64(i)*0x9e3779b97f4a7c15%1e15))
		if err := tab.Add(base.MakeInternalKey(key, base.SeqNum(i+1), base.KindSet), value); err != nil {
			tab.Close()
			tab = memtable.New(64 << 20)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	const n = 200_000
	tab := memtable.New(64 << 20)
	for i := range n {
		if err := tab.Add(ik(fmt.Sprintf("%016d", i), 1, base.KindSet), make([]byte, 100)); err != nil {
			b.Fatal(err)
		}
	}
	key := make([]byte, 16)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key = fmt.Appendf(key[:0], "%016d", uint64(i)*0x9e3779b97f4a7c15%n)
		if _, _, _, ok := tab.Get(key, 2); !ok {
			b.Fatal("lost")
		}
	}
}
