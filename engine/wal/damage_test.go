package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// logFiles is the raw bytes of a log's segments, numbered from 1.
type logFiles [][]byte

func (l logFiles) mount(t testing.TB) *vfs.MemFS {
	m := memDir(t)
	for i, raw := range l {
		f, err := m.Create("wal/" + NumberedName(uint64(i+1)))
		must(t, err)
		_, err = f.Write(raw)
		must(t, err)
		must(t, f.Close())
	}
	return m
}

func readRaw(t testing.TB, fs vfs.FS, num uint64) []byte {
	f, err := fs.Open("wal/" + NumberedName(num))
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	raw := make([]byte, size)
	_, err = f.ReadAt(raw, 0)
	must(t, err)
	return raw
}

// fixture is a log of two small segments.
type fixture struct {
	files   logFiles
	records []string
	// ends are the offsets behind each group of the last segment and how
	// many records come before that offset in the whole log.
	ends []groupEnd
	// prevEnd is the length of the first segment.
	prevEnd int64
}

type groupEnd struct {
	off     int64
	records int
}

func makeFixture(t testing.TB, seal bool) fixture {
	m := memDir(t)
	opts := testOptions(m)
	opts.SegmentSize = MinSegmentSize
	w, err := Create(opts, 1)
	must(t, err)
	var fx fixture
	add := func(n, size int) {
		var group []string
		for range n {
			group = append(group, fmt.Sprintf("%0*d", size, len(fx.records)))
			fx.records = append(fx.records, group[len(group)-1])
		}
		commit(t, w, group...)
	}
	add(3, 20)
	add(1, 400)
	fx.prevEnd = w.Size()
	must(t, w.Rotate(2))
	fx.ends = append(fx.ends, groupEnd{w.Size(), len(fx.records)})
	for i := range 5 {
		add(1+i%2, 10+i*37)
		fx.ends = append(fx.ends, groupEnd{w.Size(), len(fx.records)})
	}
	if seal {
		must(t, w.Close())
	}
	fx.files = logFiles{readRaw(t, m, 1), readRaw(t, m, 2)}
	return fx
}

// check replays files, whose segment seg was changed in [from, to), and says
// what is wrong with the outcome.
func (fx *fixture) check(t testing.TB, files logFiles, seg int, from, to int64, sealed bool) {
	t.Helper()
	got, _, err := replayAll(files.mount(t), 0)
	want, damaged := fx.records, false
	switch last := fx.ends[len(fx.ends)-1]; {
	case seg == 0:
		damaged = from < fx.prevEnd
	case sealed:
		damaged = from < last.off
	default:
		before := fx.ends[len(fx.ends)-2]
		if damaged = from < before.off; !damaged && from < last.off {
			want = want[:before.records]
		}
	}
	switch {
	case damaged && !errors.Is(err, base.ErrCorrupt):
		t.Errorf("segment %d damaged in [%d, %d): %d records, error %v", seg+1, from, to, len(got), err)
	case damaged:
		if !slices.Equal(got, fx.records[:len(got)]) {
			t.Errorf("segment %d damaged in [%d, %d): wrong records before the error", seg+1, from, to)
		}
	case err != nil:
		t.Errorf("segment %d damaged in [%d, %d): %v", seg+1, from, to, err)
	case !slices.Equal(got, want):
		t.Errorf("segment %d damaged in [%d, %d): %d records, want %d", seg+1, from, to, len(got), len(want))
	}
}

// TestEveryByteFlipped flips one bit, then all, of every byte.
func TestEveryByteFlipped(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		fx := makeFixture(t, sealed)
		for seg, raw := range fx.files {
			for i := range raw {
				for _, flip := range []byte{1 << (i % 8), 0xff} {
					files := slices.Clone(fx.files)
					files[seg] = slices.Clone(raw)
					files[seg][i] ^= flip
					fx.check(t, files, seg, int64(i), int64(i+1), sealed)
				}
			}
		}
	}
}

// TestEverySectorZeroed loses every run of 64 bytes and of 512.
func TestEverySectorZeroed(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		fx := makeFixture(t, sealed)
		for seg, raw := range fx.files {
			for _, unit := range []int{64, 512} {
				for i := 0; i < len(raw); i += unit {
					files := slices.Clone(fx.files)
					files[seg] = slices.Clone(raw)
					clear(files[seg][i : i+unit])
					to := int64(i + unit)
					lastHeader := fx.ends[len(fx.ends)-2].off
					if sealed {
						lastHeader = fx.ends[len(fx.ends)-1].off
					}
					if seg == 1 && to > lastHeader && i >= segmentHeaderLen {
						// No later header is left to tell how much was durable.
						fx.checkTail(t, files, int64(i))
						continue
					}
					fx.check(t, files, seg, int64(i), to, sealed)
				}
			}
		}
	}
}

// checkTail replays a log whose last segment lost everything from off on.
func (fx *fixture) checkTail(t testing.TB, files logFiles, off int64) {
	t.Helper()
	got, _, err := replayAll(files.mount(t), 0)
	keep := 0
	for _, end := range fx.ends {
		if end.off <= off {
			keep = end.records
		}
	}
	must(t, err)
	if !slices.Equal(got, fx.records[:keep]) {
		t.Errorf("lost from %d on: %d records, want %d", off, len(got), keep)
	}
}

func TestEveryLengthTruncated(t *testing.T) {
	fx := makeFixture(t, false)
	for seg, raw := range fx.files {
		for n := range raw {
			files := slices.Clone(fx.files)
			files[seg] = raw[:n]
			if _, _, err := replayAll(files.mount(t), 0); !errors.Is(err, base.ErrCorrupt) {
				t.Fatalf("segment %d cut to %d bytes: %v", seg+1, n, err)
			}
		}
	}
}

func TestSegmentsSwappedOrMissing(t *testing.T) {
	fx := makeFixture(t, true)
	m := logFiles{fx.files[1], fx.files[0]}.mount(t)
	_, _, err := replayAll(m, 0)
	wantIs(t, err, base.ErrCorrupt)
	m = logFiles{fx.files[0], fx.files[1]}.mount(t)
	must(t, m.Rename("wal/"+NumberedName(2), "wal/"+NumberedName(3)))
	_, _, err = replayAll(m, 0)
	wantIs(t, err, base.ErrCorrupt)
	var corrupt *base.CorruptError
	if !errors.As(err, &corrupt) || corrupt.File != "wal/000003.wal" || corrupt.Offset != 0 {
		t.Errorf("error %v does not say where", err)
	}
}

func TestMissingSegmentInTheMiddle(t *testing.T) {
	m := memDir(t)
	w, err := Create(testOptions(m), 1)
	must(t, err)
	must(t, w.Rotate(2))
	must(t, w.Rotate(3))
	must(t, w.Close())
	must(t, Remove(m, "wal", 2))
	_, _, err = replayAll(m, 0)
	wantIs(t, err, base.ErrCorrupt)
}

func TestNewerVersionIsRefused(t *testing.T) {
	fx := makeFixture(t, true)
	raw := slices.Clone(fx.files[0])
	raw[8] = formatVersion + 1
	fixHeader(raw)
	_, _, err := replayAll(logFiles{raw}.mount(t), 0)
	wantIs(t, err, base.ErrFormat)
	if errors.Is(err, base.ErrCorrupt) {
		t.Errorf("a newer version counts as damage: %v", err)
	}
}

// TestVersion1IsRead: what is written now without a gap is what version 1 wrote,
// but for the version byte.
func TestVersion1IsRead(t *testing.T) {
	fx := makeFixture(t, true)
	for i := range fx.files {
		fx.files[i] = slices.Clone(fx.files[i])
		fx.files[i][8] = oldFormatVersion
		fixHeader(fx.files[i])
	}
	m := fx.files.mount(t)
	wantRecords(t, m, fx.records...)
	if s, err := Inspect(m, segmentPath("wal", 1), nil); err != nil || s.FormatVersion != oldFormatVersion {
		t.Errorf("Inspect = %+v, %v", s, err)
	}
}

// fixHeader makes the segment header's checksum right.
func fixHeader(raw []byte) {
	binary.LittleEndian.PutUint32(raw[segmentHeaderLen-4:], crc32.Checksum(raw[:segmentHeaderLen-4], castagnoli))
}

// fixGroups makes the marks and checksums of the groups in raw right, as far
// as they can be followed.
func fixGroups(raw []byte) {
	nonce := binary.LittleEndian.Uint64(raw[24:])
	for off := segmentHeaderLen; off+groupHeaderLen <= len(raw); {
		if gap := -off & (pageSize - 1); gap > 0 && gap <= maxGap && off+gap+groupHeaderLen <= len(raw) &&
			int(binary.LittleEndian.Uint16(raw[off+gap+22:])) == gap && binary.LittleEndian.Uint16(raw[off+22:]) != 0 {
			off += gap
		}
		g := raw[off:]
		binary.LittleEndian.PutUint64(g, mark(nonce, int64(off)))
		n := align(groupHeaderLen + int(binary.LittleEndian.Uint32(g[16:])))
		if n <= len(g) {
			binary.LittleEndian.PutUint32(g[24:], bodyChecksum(g[:8], g[groupHeaderLen:n]))
		}
		binary.LittleEndian.PutUint32(g[28:], crc32.Checksum(g[:28], castagnoli))
		off += n
	}
}

// makeSound makes of raw, which is long enough for a header, segment 1 with right
// checksums.
func makeSound(raw []byte) {
	copy(raw, segmentMagic)
	raw[8] = formatVersion
	binary.LittleEndian.PutUint64(raw[16:], 1)
	binary.LittleEndian.PutUint64(raw[48:], uint64(len(raw)))
	fixHeader(raw)
	fixGroups(raw)
}

// FuzzReplay replays hostile bytes, as they are and with their checksums made
// right. Whatever it accepts, Verify accepts with the same figures, and what
// it delivers fits into the file.
func FuzzReplay(f *testing.F) {
	for _, sealed := range []bool{false, true} {
		fx := makeFixture(f, sealed)
		for _, raw := range fx.files {
			f.Add(raw, false)
			f.Add(raw[:700], true)
		}
	}
	gaps, _ := gapLog(f)
	f.Add(readRaw(f, gaps, 1), false)
	f.Add([]byte(segmentMagic), true)
	f.Fuzz(func(t *testing.T, raw []byte, fix bool) {
		raw = slices.Clone(raw)
		if fix && len(raw) >= segmentHeaderLen {
			makeSound(raw)
		}
		m := logFiles{raw}.mount(t)
		total := 0
		stats, err := Replay(m, "wal", []uint64{1}, func(_ uint64, p []byte) error {
			total += len(p)
			return nil
		})
		if total > len(raw) {
			t.Fatalf("%d bytes of records from a file of %d", total, len(raw))
		}
		again, verr := Verify(m, "wal", []uint64{1})
		if again != stats || fmt.Sprint(verr) != fmt.Sprint(err) {
			t.Fatalf("Verify = %+v, %v after Replay = %+v, %v", again, verr, stats, err)
		}
		if err == nil && (stats.End.Length > int64(len(raw)) || stats.TornBytes < 0) {
			t.Fatalf("stats %+v of a file of %d bytes", stats, len(raw))
		}
		if err != nil && !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrFormat) {
			t.Fatalf("untyped error %v", err)
		}
	})
}
