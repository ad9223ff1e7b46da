package memtable_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/memtable"
)

// TestMoreKeysThanTheIndexHolds: entries so small that there are several for each
// slot are found all the same, old versions and new ones, and absent keys are not.
func TestMoreKeysThanTheIndexHolds(t *testing.T) {
	tab := memtable.New(64 << 10)
	defer tab.Close()
	type version struct {
		key string
		seq base.SeqNum
	}
	var added []version
	newest := map[string]base.SeqNum{}
	for seq := base.SeqNum(1); ; seq++ {
		v := version{fmt.Sprintf("%04d", int(seq)*7919%1500), seq}
		err := tab.Add(ik(v.key, seq, base.KindSet), nil)
		if errors.Is(err, memtable.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		added, newest[v.key] = append(added, v), seq
	}
	if len(newest) != 1500 || len(added) < 1600 {
		t.Fatalf("%d keys, %d versions", len(newest), len(added))
	}
	for _, v := range added {
		if _, _, at, ok := tab.Get([]byte(v.key), v.seq); !ok || at != v.seq {
			t.Fatalf("%s at %d: version %d, %t", v.key, v.seq, at, ok)
		}
		if _, _, at, ok := tab.Get([]byte(v.key), base.MaxSeqNum); !ok || at != newest[v.key] {
			t.Fatalf("%s: version %d of %d, %t", v.key, at, newest[v.key], ok)
		}
		if _, _, _, ok := tab.Get([]byte("x"+v.key), base.MaxSeqNum); ok {
			t.Fatalf("x%s is there", v.key)
		}
	}
}

// TestOldVersionsOfOneKey: each of many versions is found at its sequence number,
// and none before the first.
func TestOldVersionsOfOneKey(t *testing.T) {
	const n = 100
	tab := memtable.New(64 << 10)
	defer tab.Close()
	for i := range base.SeqNum(n) {
		// Not in the order of the numbers, which the engine's are.
		if err := tab.Add(ik("k", 10+2*(i*37%n), base.KindSet), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.Add(ik("k", 10, base.KindSet), nil); !errors.Is(err, memtable.ErrDuplicate) {
		t.Errorf("the same version again: %v", err)
	}
	if err := tab.Add(ik("k", 10+2*(n-1), base.KindSet), nil); !errors.Is(err, memtable.ErrDuplicate) {
		t.Errorf("the newest version again: %v", err)
	}
	for seq := base.SeqNum(10); seq < 10+2*n; seq++ {
		if _, _, at, ok := tab.Get([]byte("k"), seq); !ok || at != seq&^1 {
			t.Errorf("at %d: version %d, %t", seq, at, ok)
		}
	}
	if _, _, at, ok := tab.Get([]byte("k"), 9); ok {
		t.Errorf("before all: version %d", at)
	}
}

// TestAddedIsFound: whoever has added a version finds it or a newer one, while
// others add versions of the same keys.
func TestAddedIsFound(t *testing.T) {
	const writers, per = 4, 3000
	tab := memtable.New(2 << 20)
	defer tab.Close()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range per {
				key, seq := fmt.Sprintf("%02d", i*7919%50), base.SeqNum(i*writers+w+1)
				if k := ik(key, seq, base.KindSet); tab.Add(k, valueOf(k)) != nil {
					t.Errorf("add %s", k)
					return
				}
				if _, _, at, ok := tab.Get([]byte(key), base.MaxSeqNum); !ok || at < seq {
					t.Errorf("%s: version %d after %d was added, %t", key, at, seq, ok)
					return
				}
				if _, _, at, ok := tab.Get([]byte(key), seq); !ok || at != seq {
					t.Errorf("%s at %d: version %d, %t", key, seq, at, ok)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, forward := range []bool{true, false} {
		if !walk(t, tab, forward) {
			t.Fatal("not sorted")
		}
	}
}
