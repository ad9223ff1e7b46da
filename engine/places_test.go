package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// applyContended applies a batch that finds the lock taken, so that its places
// are looked for first; between does something while it waits for the lock.
func applyContended(t *testing.T, db *DB, b *Batch, between func()) error {
	t.Helper()
	db.mu.Lock()
	result := make(chan error)
	go func() {
		_, err := db.Apply(b, WriteOptions{Sync: true})
		result <- err
	}()
	if between != nil {
		between()
	}
	db.mu.Unlock()
	return <-result
}

// TestPlacesFoundWithoutTheLock: whatever happens to the memtable between the
// search for a batch's places and its insert, the batch is as it would be.
func TestPlacesFoundWithoutTheLock(t *testing.T) {
	db, err := Open("db", Options{FS: vfs.NewMem(), MemTableSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	want := map[string]string{}
	b := NewBatch()
	for i := range 300 {
		b.Reset()
		for j := range 1 + i%20 { // more than maxPlaces, too, and keys twice
			k, v := fmt.Sprintf("k%03d", (i*37+j*j)%200), fmt.Sprint(i, " ", j)
			b.Set([]byte(k), []byte(v))
			want[k] = v
		}
		gone := fmt.Sprintf("k%03d", i%200)
		b.Delete([]byte(gone))
		delete(want, gone)
		var between func()
		if i%7 == 0 {
			between = func() { db.rotateMemLocked(0) }
		}
		if i%14 == 13 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := applyContended(t, db, b, between); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		k := fmt.Sprintf("k%03d", i)
		v, err := db.Get(nil, []byte(k))
		if w, ok := want[k]; ok != (err == nil) || err != nil && !errors.Is(err, ErrNotFound) || string(v) != w {
			t.Errorf("%s is %q, %v; want %q", k, v, err, w)
		}
	}
}

// TestPlacesOfARefusedBatch: a batch that was refused after its places had been
// found, and is used again for other keys, does not go to those places.
func TestPlacesOfARefusedBatch(t *testing.T) {
	db, err := Open("db", Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	b := NewBatch()
	b.Set([]byte("m"), []byte("1"))
	b.places.find(db.mem, b) // as if it had waited, and then been refused
	b.Reset()
	for _, k := range []string{"z", "a", "m"} {
		b.Reset()
		b.Set([]byte(k), []byte("of "+k))
		if _, err := db.Apply(b, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{"a", "m", "z"} {
		if v, err := db.Get(nil, []byte(k)); err != nil || string(v) != "of "+k {
			t.Errorf("%s is %q, %v", k, v, err)
		}
	}
}

// TestPlacesOfAnotherTable: places that were found in a table which is no longer
// the one to write to are not used.
func TestPlacesOfAnotherTable(t *testing.T) {
	old, next := newMemTable(1<<20, 1), newMemTable(1<<20, 1)
	defer old.Close()
	defer next.Close()
	fill := func(m *memTable, first, n int) {
		for i := range n {
			b := NewBatch()
			b.Set(fmt.Appendf(nil, "k%03d", first+i), nil)
			b.number(base.SeqNum(first + i + 1))
			if err := m.apply(b.data, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(old, 0, 100)
	b := NewBatch()
	b.Set([]byte("k050"), []byte("new"))
	b.Delete([]byte("k051"))
	b.number(1000)
	b.places.find(old, b)
	fill(next, 20, 10)
	if err := next.apply(b.data, &b.places); err != nil {
		t.Fatal(err)
	}
	if v, kind, _, ok := next.Get([]byte("k050"), base.MaxSeqNum); !ok || kind != base.KindSet || string(v) != "new" {
		t.Errorf("%q %s %t", v, kind, ok)
	}
	if _, kind, _, ok := next.Get([]byte("k051"), base.MaxSeqNum); !ok || kind != base.KindDelete {
		t.Errorf("%s %t", kind, ok)
	}
	if next.Len() != 12 {
		t.Errorf("%d entries", next.Len())
	}
}
