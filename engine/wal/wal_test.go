package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

const testSegment = 8 << 10

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want %v", err, target)
	}
}

// memDir returns an empty log directory whose name is durable.
func memDir(t testing.TB) *vfs.MemFS {
	t.Helper()
	m := vfs.NewMem()
	must(t, m.MkdirAll("wal"))
	must(t, m.SyncDir(""))
	return m
}

func testOptions(fs vfs.FS) Options {
	rng := rand.New(rand.NewPCG(1, 2))
	return Options{FS: fs, Dir: "wal", SegmentSize: testSegment, Rand: rng.Uint64}
}

func commit(t testing.TB, w *Writer, records ...string) {
	t.Helper()
	for _, r := range records {
		must(t, w.Append([]byte(r)))
	}
	must(t, w.Commit())
}

// replayAll returns every record of the segments from min on.
func replayAll(fs vfs.FS, min uint64) ([]string, ReplayStats, error) {
	segs, err := ListSegments(fs, "wal")
	if err != nil {
		return nil, ReplayStats{}, err
	}
	segs = slices.DeleteFunc(segs, func(n uint64) bool { return n < min })
	var got []string
	stats, err := Replay(fs, "wal", segs, func(_ uint64, p []byte) error {
		got = append(got, string(p))
		return nil
	})
	return got, stats, err
}

func wantRecords(t testing.TB, fs vfs.FS, want ...string) ReplayStats {
	t.Helper()
	got, stats, err := replayAll(fs, 0)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Fatalf("replayed %d records %.200q, want %d %.200q", len(got), got, len(want), want)
	}
	return stats
}

func TestRoundTrip(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	commit(t, w, "a", "", "bcd")
	commit(t, w) // nothing appended
	big := strings.Repeat("x", 3<<20)
	must(t, w.Append([]byte(big)))
	must(t, w.CommitNoSync())
	must(t, w.Rotate(7))
	if w.Segment() != 7 || w.Size() != segmentHeaderLen {
		t.Errorf("live segment %d of %d bytes", w.Segment(), w.Size())
	}
	commit(t, w, "e")
	must(t, w.Append([]byte("never committed")))
	must(t, w.Close())
	must(t, w.Close())
	wantIs(t, w.Append(nil), base.ErrClosed)
	wantIs(t, w.Commit(), base.ErrClosed)
	wantIs(t, w.Rotate(8), base.ErrClosed)
	stats := wantRecords(t, m, "a", "", "bcd", big, "e")
	if stats.Segments != 2 || stats.Records != 5 || stats.Bytes != int64(5+len(big)) || stats.TornBytes != 0 || stats.End.Segment != 7 {
		t.Errorf("stats %+v", stats)
	}
	segs, err := ListSegments(m, "wal")
	if err != nil || !slices.Equal(segs, []uint64{1, 7}) {
		t.Errorf("ListSegments = %v, %v", segs, err)
	}
}

func TestRoundTripLargeGroup(t *testing.T) {
	m := memDir(t)
	opts := testOptions(m)
	opts.SegmentSize = 1 << 20
	w, err := Create(opts, 1)
	must(t, err)
	big := bytes.Repeat([]byte("0123456789abcdef"), 17<<20/16)
	must(t, w.Append(big))
	must(t, w.Commit())
	if cap(w.buf) > keepBuffer {
		t.Errorf("kept a buffer of %d bytes", cap(w.buf))
	}
	commit(t, w, "after")
	must(t, w.Close())
	wantRecords(t, m, string(big), "after")
}

func TestRealDisk(t *testing.T) {
	opts := Options{FS: vfs.OS(), Dir: t.TempDir(), SegmentSize: 1 << 20}
	w, err := Create(opts, 1)
	must(t, err)
	commit(t, w, "one")
	must(t, w.Rotate(2))
	must(t, w.Recycle(1))
	commit(t, w, "two")
	must(t, w.Rotate(3))
	commit(t, w, "three")
	must(t, w.Close())
	var got []string
	stats, err := Replay(opts.FS, opts.Dir, []uint64{2, 3}, func(seg uint64, p []byte) error {
		got = append(got, fmt.Sprint(seg, string(p)))
		return nil
	})
	must(t, err)
	if !slices.Equal(got, []string{"2two", "3three"}) {
		t.Errorf("got %q", got)
	}
	opts.Prev = stats.End
	w, err = Create(opts, 4)
	must(t, err)
	must(t, w.Close())
}

func TestReplayStopsAtFnError(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	commit(t, w, "a", "b", "c")
	stop := errors.New("stop")
	n := 0
	_, err = Replay(m, "wal", []uint64{1}, func(uint64, []byte) error {
		if n++; n == 2 {
			return stop
		}
		return nil
	})
	if err != stop || n != 2 {
		t.Errorf("Replay = %v after %d records", err, n)
	}
	if stats, err := Replay(m, "wal", nil, nil); err != nil || stats != (ReplayStats{}) {
		t.Errorf("Replay of nothing = %+v, %v", stats, err)
	}
}

// TestContinue reopens a log again and again with a torn tail each time.
func TestContinue(t *testing.T) {
	m := memDir(t)
	opts := testOptions(m)
	var want []string
	for i := range uint64(6) {
		w, err := Create(opts, i+1)
		must(t, err)
		commit(t, w, fmt.Sprint("acked", i))
		want = append(want, fmt.Sprint("acked", i))
		must(t, w.Append([]byte("torn")))
		must(t, w.CommitNoSync())
		m = m.Crash(vfs.CrashDropUnsynced, nil)
		opts.FS = m
		opts.Prev = wantRecords(t, m, want...).End
	}
	// Without Prev the chain is broken, and that is noticed.
	opts.Prev = End{}
	w, err := Create(opts, 9)
	must(t, err)
	must(t, w.Close())
	_, _, err = replayAll(m, 0)
	wantIs(t, err, base.ErrCorrupt)
}

// TestRecycledGarbage fills a recycled segment less than its former life did.
func TestRecycledGarbage(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	for i := range 100 {
		commit(t, w, fmt.Sprintf("former life %d", i))
	}
	must(t, w.Rotate(2))
	must(t, w.Recycle(1))
	must(t, w.Rotate(3))
	must(t, w.Recycle(2))
	f, err := m.Open("wal/" + NumberedName(3))
	must(t, err)
	raw := make([]byte, testSegment)
	if _, err := f.ReadAt(raw, 0); err != nil || !bytes.Contains(raw, []byte("former life 99")) {
		t.Fatalf("segment 3 is not the recycled one: %v", err)
	}
	must(t, f.Close())
	commit(t, w, "new life")
	stats := wantRecords(t, m, "new life")
	if stats.TornBytes != 0 {
		t.Errorf("garbage taken for a torn tail of %d bytes", stats.TornBytes)
	}
	must(t, w.Close())
	wantRecords(t, m, "new life")
}

func TestRecycleBounds(t *testing.T) {
	m := memDir(t)
	opts := testOptions(m)
	w, err := Create(opts, 1)
	must(t, err)
	for n := uint64(2); n <= 6; n++ {
		must(t, w.Rotate(n))
	}
	var wg sync.WaitGroup
	for n := uint64(1); n <= 4; n++ {
		wg.Go(func() {
			if err := w.Recycle(n); err != nil {
				t.Error(err)
			}
		})
	}
	commit(t, w, "meanwhile")
	wg.Wait()
	must(t, w.Remove(5))
	names, err := m.List("wal")
	must(t, err)
	if len(names) != 3 || !slices.Contains(names, NumberedName(6)) {
		t.Errorf("files %q, want the live one and two recycled ones", names)
	}
	must(t, w.Append([]byte(strings.Repeat("x", 2*testSegment))))
	must(t, w.Commit())
	must(t, w.Rotate(7))  // takes one of the two
	must(t, w.Recycle(6)) // of another size: removed
	names, err = m.List("wal")
	must(t, err)
	if len(names) != 2 {
		t.Errorf("files %q", names)
	}
	if err := w.Recycle(6); err == nil {
		t.Error("recycled a segment twice")
	}
	must(t, w.Close())
	// The next Writer takes over what is left and removes what is not whole.
	for _, name := range []string{"000009.wal.tmp", "000000.wal.free", "other"} {
		f, err := m.Create("wal/" + name)
		must(t, err)
		must(t, f.Close())
	}
	stats := wantRecords(t, m)
	opts.Prev = stats.End
	w, err = Create(opts, 8)
	must(t, err)
	names, err = m.List("wal")
	must(t, err)
	if want := []string{NumberedName(7), NumberedName(8), "other"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	must(t, w.Close())
}

func TestOptionsAreChecked(t *testing.T) {
	m := memDir(t)
	for what, opts := range map[string]Options{
		"no file system": {Dir: "wal"},
		"no directory":   {FS: m},
		"small segment":  {FS: m, Dir: "wal", SegmentSize: 100},
		"number":         {FS: m, Dir: "wal", Prev: End{Segment: 1, Length: 64}},
	} {
		if _, err := Create(opts, 1); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := Create(testOptions(m), 0); err == nil {
		t.Error("segment 0 was created")
	}
	w, err := Create(testOptions(m), 5)
	must(t, err)
	if err := w.Rotate(5); err == nil {
		t.Error("rotated to the live segment's number")
	}
	commit(t, w, "still usable")
	must(t, w.Close())
	for _, num := range []uint64{4, 5} {
		_, err := Create(testOptions(m), num)
		wantIs(t, err, fs.ErrExist)
	}
	wantRecords(t, m, "still usable")
}

func TestNames(t *testing.T) {
	for n, want := range map[uint64]string{1: "000001.wal", 12: "000012.wal", 1234567: "1234567.wal"} {
		if got := NumberedName(n); got != want {
			t.Errorf("NumberedName(%d) = %q, want %q", n, got, want)
		}
		if got, ok := parseName(want, segmentSuffix); !ok || got != n {
			t.Errorf("parseName(%q) = %d, %v", want, got, ok)
		}
	}
	for _, name := range []string{"1.wal", "0000001.wal", "+00001.wal", "000001.wal.tmp", ".wal", "000001", "99999999999999999999.wal"} {
		if _, ok := parseName(name, segmentSuffix); ok {
			t.Errorf("%q passes for a segment", name)
		}
	}
}
