package manifest

import (
	"bytes"
	"errors"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// The records of a log are its states one after the other.
func TestInspect(t *testing.T) {
	mem := vfs.NewMem()
	l, states := build(t, mem, 5)
	path := "d/" + Name(l.Num())
	var got []State
	at := int64(headerLen)
	info, err := Inspect(mem, path, func(r Record) error {
		if r.Offset != at || r.Edit == nil {
			t.Errorf("record %+v at %d", r, at)
		}
		at += r.Length
		got = append(got, r.State)
		return nil
	})
	if err != nil || info.Records != int64(len(got)) || info.Number != l.Num() || info.End != at || info.Torn {
		t.Fatalf("%+v, %v", info, err)
	}
	for i, s := range got {
		if want := states[len(states)-len(got)+i]; !same(s, want) {
			t.Errorf("record %d: %+v, want %+v", i, s, want)
		}
	}
	if !same(info.State, states[5]) {
		t.Errorf("state %+v", info.State)
	}
	boom := errors.New("boom")
	if _, err := Inspect(mem, path, func(Record) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}

// What comes before the damage is shown with it, and an unfinished edit at the
// end is no damage.
func TestInspectDamage(t *testing.T) {
	mem := vfs.NewMem()
	l, states := build(t, mem, 5)
	raw, err := readFile(mem, "d/"+Name(l.Num()), maxFile)
	if err != nil {
		t.Fatal(err)
	}
	inspect := func(b []byte) (Info, error) { return walk(bytes.NewReader(b), int64(len(b)), "f", 0, nil) }
	whole, err := inspect(raw)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	if _, err := walk(bytes.NewReader(raw), int64(len(raw)), "f", 0, func(r Record) error {
		ends = append(ends, r.Offset+r.Length)
		return nil
	}); err != nil || len(ends) < 3 {
		t.Fatal(err, ends)
	}
	flip := func(at int64) []byte {
		b := bytes.Clone(raw)
		b[at] ^= 1
		return b
	}
	n := len(ends)
	info, err := inspect(flip(ends[n-2] + 1))
	if err != nil || !info.Torn || info.Records != whole.Records-1 || !same(info.State, states[4]) {
		t.Errorf("last edit: %+v, %v", info, err)
	}
	info, err = inspect(flip(ends[n-3] + 1))
	var ce *base.CorruptError
	if !errors.As(err, &ce) || ce.Offset != ends[n-3] || info.Records != whole.Records-2 || !same(info.State, states[3]) {
		t.Errorf("edit before the last: %+v, %v", info, err)
	}
	for _, b := range [][]byte{nil, raw[:headerLen-1], flip(3), bytes.Repeat([]byte{7}, 1<<20)} {
		if info, err := inspect(b); !errors.Is(err, base.ErrCorrupt) || info.Records != 0 {
			t.Errorf("%d bytes: %+v, %v", len(b), info, err)
		}
	}
}
