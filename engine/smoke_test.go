package engine

import (
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

func TestSmoke(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, MemTableSize: 16 << 10, LBaseBytes: 64 << 10, TargetFileSize: 16 << 10, WALSegmentSize: 16 << 10}
	db, err := Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch()
	for i := 0; i < 5000; i++ {
		b.Reset()
		b.Set(fmt.Appendf(nil, "k%05d", i*7919%5000), fmt.Appendf(nil, "v%d", i))
		if _, err := db.Apply(b, WriteOptions{Sync: true}); err != nil {
			t.Fatal(err)
		}
	}
	for r := 0; r < 2; r++ {
		for i := 0; i < 5000; i++ {
			v, err := db.Get(nil, fmt.Appendf(nil, "k%05d", i*7919%5000))
			if err != nil || string(v) != fmt.Sprintf("v%d", i) {
				t.Fatal(i, string(v), err)
			}
		}
		it, _ := db.NewIter(nil, nil)
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		if n != 5000 || it.Close() != nil {
			t.Fatal(n)
		}
		if err := db.Verify(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", db.Metrics())
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if r == 0 {
			if db, err = Open("db", o); err != nil {
				t.Fatal(err)
			}
		}
	}
}
