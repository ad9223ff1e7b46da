package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

// multiCompare holds MultiGet against what r's state must be; keys are given in
// no order, and some twice.
func multiCompare(r multiReader, v *Values, keys []string, want map[string]string) error {
	in := make([][]byte, len(keys))
	for i, k := range keys {
		in[i] = []byte(k)
	}
	if err := r.MultiGet(v, in); err != nil {
		return fmt.Errorf("multiget: %w", err)
	}
	if v.Len() != len(keys) {
		return fmt.Errorf("multiget: %d results for %d keys", v.Len(), len(keys))
	}
	for i, k := range keys {
		got, ok := v.Get(i)
		if w, has := want[k]; ok != has || string(got) != w || ok && v.Seq(i) == 0 {
			return fmt.Errorf("multiget %s, the %d of %v: got %.20q, %v at %d; want %.20q, %v", k, i, keys, got, ok, v.Seq(i), w, has)
		}
	}
	return nil
}

type multiReader interface {
	MultiGet(v *Values, keys [][]byte) error
}

func TestMultiGet(t *testing.T) {
	mem := vfs.NewMem()
	opts := tiny(mem, 1)
	db := mustOpen(t, opts)
	want := map[string]string{}
	for i := 0; i < 40; i += 2 {
		want[modelKey(i)] = fmt.Sprint("v", i)
		mustSet(t, db, modelKey(i), want[modelKey(i)])
	}
	if err := db.Compact(nil, nil); err != nil {
		t.Fatal(err)
	}
	mustSet(t, db, modelKey(4), "")
	want[modelKey(4)] = ""
	b := NewBatch()
	b.DeleteRange([]byte(modelKey(10)), []byte(modelKey(13)))
	b.Delete([]byte(modelKey(20)))
	c, err := db.Apply(b, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{10, 12, 20} {
		delete(want, modelKey(i))
	}
	keys := []string{"", "zz"}
	for i := range 45 {
		keys = append(keys, modelKey(i*7%45), modelKey(44-i))
	}
	var v Values
	for _, flush := range []bool{false, true} {
		if flush {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second time into used memory
			if err := multiCompare(db, &v, keys, want); err != nil {
				t.Fatalf("flushed %v: %v", flush, err)
			}
		}
	}
	if err := multiCompare(db, &v, []string{modelKey(20), modelKey(12)}, want); err != nil {
		t.Fatal(err)
	}
	if v.Seq(0) != c.Seq() || v.Seq(1) != c.Seq()-1 {
		t.Errorf("deleted at %d and %d, want %d and one less", v.Seq(0), v.Seq(1), c.Seq())
	}
	s := db.Snapshot()
	mustSet(t, db, modelKey(1), "later")
	if err := errors.Join(multiCompare(s, &v, keys, want), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.MultiGet(&v, nil); !errors.Is(err, ErrClosed) || v.Len() != 0 {
		t.Errorf("closed snapshot: %v", err)
	}
	if err := db.MultiGet(&v, nil); err != nil || v.Len() != 0 {
		t.Errorf("no keys: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.MultiGet(&v, [][]byte{{1}}); !errors.Is(err, ErrClosed) || v.Len() != 0 {
		t.Errorf("closed: %v", err)
	}
}
