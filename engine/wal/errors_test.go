package wal

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// TestReplayFailsEveryRead fails the n-th read for every n: the cause comes
// back as it is and is never taken for damage or for the end of the log.
func TestReplayFailsEveryRead(t *testing.T) {
	small := makeFixture(t, true)
	t.Run("small", func(t *testing.T) { failEveryRead(t, small.files, small.records) })

	// Segments of several times the read-ahead.
	m := memDir(t)
	opts := testOptions(m)
	opts.SegmentSize = 2 << 20
	w, err := Create(opts, 1)
	must(t, err)
	var records []string
	for i := range 20 {
		if i == 10 {
			must(t, w.Rotate(2))
		}
		records = append(records, strings.Repeat(string(rune('a'+i)), 100<<10))
		commit(t, w, records[i])
	}
	must(t, w.Close())
	files := logFiles{readRaw(t, m, 1), readRaw(t, m, 2)}
	t.Run("large", func(t *testing.T) { failEveryRead(t, files, records) })
}

func failEveryRead(t *testing.T, files logFiles, records []string) {
	for n := 0; ; n++ {
		calls := 0
		fsys := vfs.Inject(files.mount(t), func(op vfs.Op) error {
			if calls++; calls == n+1 {
				return syscall.EIO
			}
			return nil
		})
		got, _, err := replayAll(fsys, 0)
		if calls <= n {
			must(t, err)
			if n < 8 {
				t.Errorf("only %d calls", n)
			}
			return
		}
		wantIs(t, err, syscall.EIO)
		if errors.Is(err, base.ErrCorrupt) {
			t.Errorf("a failed read counts as damage: %v", err)
		}
		if !slices.Equal(got, records[:len(got)]) {
			t.Errorf("wrong records before a failed read")
		}
	}
}

// TestCreateFailsEveryCall fails every call, reads included, of a Create that
// finds leftovers, and expects the next Create to succeed.
func TestCreateFailsEveryCall(t *testing.T) {
	for n := 0; ; n++ {
		m := memDir(t)
		for _, name := range []string{"000001.wal.free", "000002.wal.tmp"} {
			f, err := m.Create("wal/" + name)
			must(t, err)
			must(t, f.Close())
		}
		calls := 0
		fsys := vfs.Inject(m, func(op vfs.Op) error {
			if calls++; calls == n+1 {
				return syscall.EIO
			}
			return nil
		})
		w, err := Create(testOptions(fsys), 3)
		if calls <= n {
			must(t, err)
			must(t, w.Close())
			return
		}
		wantIs(t, err, syscall.EIO)
		w, err = Create(testOptions(m), 4)
		must(t, err)
		must(t, w.Close())
	}
}

// TestLeftoverThatCouldNotBeRemoved fails both the preparation of a segment and
// the removal of what there was of it.
func TestLeftoverThatCouldNotBeRemoved(t *testing.T) {
	m := memDir(t)
	sick := false
	fsys := vfs.Inject(m, func(op vfs.Op) error {
		if sick && (op.Kind == vfs.OpPreallocate || op.Kind == vfs.OpRemove) {
			return syscall.ENOSPC
		}
		return nil
	})
	w, err := Create(testOptions(fsys), 1)
	must(t, err)
	sick = true
	wantIs(t, w.Rotate(2), base.ErrDiskFull)
	if _, err := m.Stat("wal/000002.wal.tmp"); err != nil {
		t.Fatal("the leftover is not there:", err)
	}
	wantIs(t, w.Rotate(2), base.ErrDiskFull)
	commit(t, w, "a")
	sick = false
	must(t, w.Rotate(2))
	commit(t, w, "b")
	must(t, w.Close())
	wantRecords(t, m, "a", "b")
	if _, err := m.Stat("wal/000002.wal.tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the leftover stayed:", err)
	}
}

// TestReserve shows that a group that was reserved for cannot meet a full disk.
func TestReserve(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	big := strings.Repeat("x", 2*testSegment)
	must(t, w.Reserve(GroupBytes(len(big))+GroupBytes(len("usable"))))
	size := w.Size()
	m.SetLimit(1)
	must(t, w.Append([]byte(big)))
	if w.Buffered() == 0 {
		t.Error("nothing buffered after Append")
	}
	must(t, w.Commit())
	if got := w.Size() - size; got > GroupBytes(len(big)) {
		t.Errorf("a record of %d bytes took %d, GroupBytes says %d", len(big), got, GroupBytes(len(big)))
	}
	wantIs(t, w.Reserve(4<<20), base.ErrDiskFull)
	commit(t, w, "usable")
	must(t, w.Close())
	wantIs(t, w.Reserve(1), base.ErrClosed)
	wantRecords(t, m, big, "usable")
}

// TestGroupBytesIsEnough compares it with what groups take.
func TestGroupBytesIsEnough(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	for n := range 300 {
		before := w.Size()
		commit(t, w, strings.Repeat("x", n), strings.Repeat("y", n))
		if got := w.Size() - before; got > 2*GroupBytes(n) {
			t.Fatalf("two records of %d bytes took %d, GroupBytes says %d", n, got, GroupBytes(n))
		}
	}
	must(t, w.Close())
}

func TestGroupIsBounded(t *testing.T) {
	const most = MaxGroup - binary.MaxVarintLen64
	for _, c := range []struct {
		buffered, n int
		want        bool
	}{
		{groupHeaderLen, most, true},
		{groupHeaderLen, most + 1, false},
		{groupHeaderLen + 1000, most - 1000, true},
		{groupHeaderLen + 1000, most - 999, false},
		{groupHeaderLen, math.MaxInt, false},
	} {
		if got := fits(c.buffered, c.n); got != c.want {
			t.Errorf("fits(%d, %d) = %v", c.buffered, c.n, got)
		}
	}
}

// TestWellSummedNonsense has right checksums over wrong content.
func TestWellSummedNonsense(t *testing.T) {
	cases := map[string]func(a, b []byte){
		"record longer than its group": func(_, b []byte) {
			b[segmentHeaderLen+groupHeaderLen] = 0xff
			fixGroups(b)
		},
		"record length without end": func(_, b []byte) {
			for i := range 3 {
				b[segmentHeaderLen+groupHeaderLen+i] = 0xff
			}
			binary.LittleEndian.PutUint32(b[segmentHeaderLen+16:], 3)
			fixGroups(b)
		},
		"record nonsense in the first segment": func(a, _ []byte) {
			a[segmentHeaderLen+groupHeaderLen] = 0xff
			fixGroups(a)
		},
		"previous length inside a group": func(_, b []byte) {
			n := binary.LittleEndian.Uint64(b[40:])
			binary.LittleEndian.PutUint64(b[40:], n-8)
			fixHeader(b)
		},
		"previous length beyond the groups": func(_, b []byte) {
			n := binary.LittleEndian.Uint64(b[40:])
			binary.LittleEndian.PutUint64(b[40:], n+8)
			fixHeader(b)
		},
		"previous length negative": func(_, b []byte) {
			binary.LittleEndian.PutUint64(b[40:], 1<<63)
			fixHeader(b)
		},
		"allocated less than a header": func(_, b []byte) {
			binary.LittleEndian.PutUint64(b[48:], 1)
			fixHeader(b)
		},
	}
	for what, change := range cases {
		t.Run(what, func(t *testing.T) {
			fx := makeFixture(t, true)
			change(fx.files[0], fx.files[1])
			_, _, err := replayAll(fx.files.mount(t), 0)
			wantIs(t, err, base.ErrCorrupt)
		})
	}
}

// TestTornTailWithLaterGroups has a tail of which a later part reached the disk
// and an earlier one did not: it is cut, since no header says otherwise.
func TestTornTailWithLaterGroups(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	commit(t, w, "acked")
	hole := w.Size()
	for _, r := range []string{"lost", "there", "there too"} {
		must(t, w.Append([]byte(r)))
		must(t, w.CommitNoSync())
	}
	end := w.Size()
	raw := readRaw(t, m, 1)
	raw[hole+groupHeaderLen] ^= 1
	files := logFiles{raw}
	stats := wantRecords(t, files.mount(t), "acked")
	if stats.End.Length != hole || stats.TornBytes != end-hole {
		t.Errorf("stats %+v, want the end at %d and %d torn bytes", stats, hole, end-hole)
	}
	// One more group, written after a sync, turns the hole into damage.
	must(t, w.Commit())
	commit(t, w, "after a sync")
	raw = readRaw(t, m, 1)
	raw[hole+groupHeaderLen] ^= 1
	_, _, err = replayAll(logFiles{raw}.mount(t), 0)
	var corrupt *base.CorruptError
	if !errors.As(err, &corrupt) || corrupt.Offset != hole {
		t.Errorf("error %v, want corruption at %d", err, hole)
	}
}

// TestUnpublishedRotationIsFinal fails the publication of a new segment whose
// header fixes the length of the old one: writing on to the old one would lose
// what comes after.
func TestUnpublishedRotationIsFinal(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpRename, vfs.OpSyncDir} {
		m := memDir(t)
		sick := false
		w, err := Create(testOptions(vfs.Inject(m, func(op vfs.Op) error {
			if sick && op.Kind == kind {
				return syscall.EIO
			}
			return nil
		})), 1)
		must(t, err)
		commit(t, w, "a")
		sick = true
		err = w.Rotate(2)
		wantIs(t, err, base.ErrReadOnly)
		wantIs(t, err, syscall.EIO)
		sick = false
		wantIs(t, w.Commit(), base.ErrReadOnly)
		wantIs(t, w.Close(), base.ErrReadOnly)
		wantRecords(t, m, "a")
	}
}

// TestGroupInTheWrongPlace puts intact groups where they do not belong.
func TestGroupInTheWrongPlace(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	for _, r := range []string{"aaa", "bbb", "ccc"} {
		commit(t, w, r)
	}
	must(t, w.Close())
	raw := readRaw(t, m, 1)
	const n, first = 40, segmentHeaderLen
	for what, order := range map[string][3]int{"swapped": {1, 0, 2}, "repeated": {0, 0, 2}, "late": {0, 2, 2}} {
		mixed := slices.Clone(raw)
		for to, from := range order {
			copy(mixed[first+to*n:first+(to+1)*n], raw[first+from*n:])
		}
		if _, _, err := replayAll(logFiles{mixed}.mount(t), 0); !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("groups %s: %v", what, err)
		}
	}
}
