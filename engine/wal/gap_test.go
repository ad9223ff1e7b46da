package wal

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

func TestGapBefore(t *testing.T) {
	const full = 1 << 20
	for _, c := range []struct{ off, n, allocated, want int64 }{
		{4096 - 100, 168, full, 96 + 4}, // one page instead of two
		{4096 - 168, 168, full, 0},      // fits
		{4096, 168, full, 0},            // is at a page
		{4096 - 512, 600, full, 512},    // the widest
		{4096 - 520, 600, full, 0},      // too wide
		{4096 - 100, 4096, full, 100},   // fills a page
		{4096 - 100, 4104, full, 0},     // takes two anyway
		{4096 - 100, 8192, full, 100},   // two instead of three
		{4096 - 100, 168, 4096 + 168, 100},
		{4096 - 100, 168, 4096 + 160, 0}, // would have to grow
	} {
		if got := gapBefore(c.off, c.n, c.allocated); got != c.want {
			t.Errorf("gapBefore(%d, %d, %d) = %d, want %d", c.off, c.n, c.allocated, got, c.want)
		}
	}
}

// groupsOf returns the groups of segment 1.
func groupsOf(t testing.TB, fs vfs.FS) []Group {
	t.Helper()
	var all []Group
	_, err := Inspect(fs, segmentPath("wal", 1), func(g Group, _ iter.Seq[[]byte]) error {
		all = append(all, g)
		return nil
	})
	must(t, err)
	return all
}

// gapLog returns a log of many small groups, each synced, of four pages with a
// gap at the end of two, and its records.
func gapLog(t testing.TB) (*vfs.MemFS, []string) {
	m := memDir(t)
	opts := testOptions(m)
	opts.SegmentSize = 16 << 10
	w, err := Create(opts, 1)
	must(t, err)
	var records []string
	for i := range 80 {
		records = append(records, fmt.Sprintf("%03d %s", i, strings.Repeat("x", 130)))
		commit(t, w, records[i])
	}
	// It is not closed, so that there is no seal.
	return m, records
}

// TestOnePageForASmallGroup: a group that is smaller than a page lies in one, at
// the price of little space; all that was written is read.
func TestOnePageForASmallGroup(t *testing.T) {
	m, records := gapLog(t)
	gaps, end := 0, int64(segmentHeaderLen)
	for _, g := range groupsOf(t, m) {
		if pages(g.Offset, g.Length) != 1 {
			t.Errorf("group at %d of %d bytes is in two pages", g.Offset, g.Length)
		}
		if g.Offset != end+g.Gap {
			t.Errorf("group at %d behind a gap of %d, the one before ends at %d", g.Offset, g.Gap, end)
		}
		if g.Gap > 0 {
			gaps++
		}
		end = g.Offset + g.Length
	}
	if gaps != 2 {
		t.Errorf("%d gaps", gaps)
	}
	stats := wantRecords(t, m, records...)
	if stats.End.Length != end || stats.TornBytes != 0 {
		t.Errorf("%+v, want an end at %d", stats, end)
	}
}

// TestDamageAroundAGap: what is in a gap does not matter; every byte of the groups
// on both sides does; and a group behind a gap is never read when the one before
// the gap is lost.
func TestDamageAroundAGap(t *testing.T) {
	m, records := gapLog(t)
	raw := readRaw(t, m, 1)
	groups := groupsOf(t, m)
	i := slices.IndexFunc(groups, func(g Group) bool { return g.Gap > 0 })
	before, behind := groups[i-1], groups[i]
	for off := before.Offset; off < behind.Offset+behind.Length; off++ {
		bad := slices.Clone(raw)
		bad[off] ^= 0x10
		got, _, err := replayAll(logFiles{bad}.mount(t), 0)
		if inGap := off >= before.Offset+before.Length && off < behind.Offset; inGap {
			if err != nil || !slices.Equal(got, records) {
				t.Errorf("byte %d of the gap: %d records, %v", off, len(got), err)
			}
		} else if !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("byte %d: %d records, %v", off, len(got), err)
		}
	}

	// The tail from the group behind the gap on was never synced, as the last
	// header says, and the power cut took the page before it.
	tail := slices.Clone(raw[:behind.Offset+behind.Length])
	tail = append(tail, make([]byte, len(raw)-len(tail))...)
	h, ok := decodeGroupHeader(tail[behind.Offset:], nonceOf(raw), behind.Offset)
	if !ok {
		t.Fatal("no group behind the gap")
	}
	h.durable = before.Offset
	putGroup(tail[behind.Offset:behind.Offset+behind.Length], nonceOf(raw), behind.Offset, h)
	if got, _, err := replayAll(logFiles{tail}.mount(t), 0); err != nil || !slices.Equal(got, records[:i+1]) {
		t.Fatalf("%d records of %d, %v", len(got), i+1, err)
	}
	clear(tail[before.Offset:behind.Offset])
	got, stats, err := replayAll(logFiles{tail}.mount(t), 0)
	if err != nil || !slices.Equal(got, records[:i-1]) || stats.TornBytes != behind.Offset+behind.Length-before.Offset {
		t.Errorf("with the group before the gap lost: %d records, %+v, %v; want %d", len(got), stats, err, i-1)
	}

	// A wrong gap, with right checksums.
	for _, gap := range []int64{0, 8, behind.Gap - 8, behind.Gap + 8, behind.Gap + 1, maxGap + 8, 4096} {
		bad := slices.Clone(raw)
		h.durable, h.gap = before.Offset, gap
		putGroup(bad[behind.Offset:behind.Offset+behind.Length], nonceOf(raw), behind.Offset, h)
		if got, _, err := replayAll(logFiles{bad}.mount(t), 0); !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("gap %d instead of %d: %d records, %v", gap, behind.Gap, len(got), err)
		}
	}
}

func nonceOf(raw []byte) uint64 {
	h, err := decodeSegmentHeader(raw[:segmentHeaderLen])
	if err != nil {
		panic(err)
	}
	return h.nonce
}
