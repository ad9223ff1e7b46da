package wal

import (
	"slices"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
)

func TestDiskFull(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	commit(t, w, "before")
	m.SetLimit(testSegment + 1000)
	wantIs(t, w.Rotate(2), base.ErrDiskFull)
	wantIs(t, w.Rotate(2), syscall.ENOSPC)
	commit(t, w, "the old segment lives on")
	// A group that does not fit is refused whole.
	must(t, w.Append(make([]byte, 2*testSegment)))
	wantIs(t, w.Commit(), base.ErrDiskFull)
	commit(t, w, "nothing of it was written")
	wantRecords(t, m, "before", "the old segment lives on", "nothing of it was written")
	// One that needs less than the usual extension is taken.
	must(t, w.Append(make([]byte, testSegment-int(w.Size()))))
	must(t, w.Commit())
	names, err := m.List("wal")
	must(t, err)
	if !slices.Equal(names, []string{NumberedName(1)}) {
		t.Errorf("left behind %q", names)
	}
	m.SetLimit(0)
	must(t, w.Rotate(2))
	commit(t, w, "after")
	must(t, w.Close())
	got, _, err := replayAll(m, 0)
	must(t, err)
	if len(got) != 5 || got[4] != "after" {
		t.Errorf("replayed %d records, last %q", len(got), got[len(got)-1])
	}
}

// TestRecycledSegmentIsAReserve rotates on a full disk.
func TestRecycledSegmentIsAReserve(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	must(t, w.Rotate(2))
	must(t, w.Recycle(1))
	m.SetLimit(1)
	must(t, w.Rotate(3))
	commit(t, w, "x")
	must(t, w.Close())
	wantRecords(t, m, "x")
}

func TestCreateOnAFullDisk(t *testing.T) {
	m := memDir(t)
	m.SetLimit(100)
	_, err := Create(testOptions(m), 1)
	wantIs(t, err, base.ErrDiskFull)
	names, err := m.List("wal")
	if err != nil || len(names) != 0 {
		t.Errorf("left behind %q, %v", names, err)
	}
}
