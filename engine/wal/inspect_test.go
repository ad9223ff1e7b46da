package wal

import (
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// inspectSegment returns what Inspect says of segment num and its records.
func inspectSegment(fs vfs.FS, num uint64) (s Segment, groups []Group, records []string, err error) {
	s, err = Inspect(fs, "wal/"+NumberedName(num), func(g Group, payloads iter.Seq[[]byte]) error {
		groups = append(groups, g)
		for p := range payloads {
			records = append(records, string(p))
		}
		return nil
	})
	return s, groups, records, err
}

func TestInspect(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		fx := makeFixture(t, sealed)
		m := fx.files.mount(t)
		var all []string
		for num := uint64(1); num <= 2; num++ {
			s, groups, records, err := inspectSegment(m, num)
			must(t, err)
			all = append(all, records...)
			if s.Number != num || s.Groups != int64(len(groups)) || s.Records != int64(len(records)) || s.Size != int64(len(fx.files[num-1])) {
				t.Errorf("segment %d: %+v", num, s)
			}
			at := int64(segmentHeaderLen)
			for _, g := range groups {
				if g.Offset != at || g.Durable > at {
					t.Errorf("segment %d: group %+v at %d", num, g, at)
				}
				at += g.Length
			}
			if s.End != at || s.Seen != at {
				t.Errorf("segment %d ends at %d, want %d", num, s.End, at)
			}
			if num == 1 && (s.Next != 2 || s.End != fx.prevEnd || s.Durable != fx.prevEnd) {
				t.Errorf("first segment: %+v, want the end %d", s, fx.prevEnd)
			}
			if num == 2 && (s.Sealed != sealed || s.Prev != End{Segment: 1, Length: fx.prevEnd} || s.Next != 0) {
				t.Errorf("last segment: %+v", s)
			}
		}
		if !slices.Equal(all, fx.records) {
			t.Errorf("records %q, want %q", all, fx.records)
		}
	}
}

// A tail that nobody was told of is shown, damage below what was durable is told
// apart from it, and what came before is there either way.
func TestInspectDamage(t *testing.T) {
	fx := makeFixture(t, false)
	n := len(fx.ends)
	last, before := fx.ends[n-1], fx.ends[n-2]
	torn := logFiles{fx.files[0], slices.Clone(fx.files[1])}
	torn[1][last.off-1] ^= 1 // the padding or the last record of the last group
	s, _, records, err := inspectSegment(torn.mount(t), 2)
	must(t, err)
	if s.End != before.off || s.Seen != last.off || len(records) != before.records-fx.ends[0].records {
		t.Errorf("torn: %+v", s)
	}
	bad := logFiles{slices.Clone(fx.files[0]), slices.Clone(fx.files[1])}
	bad[1][before.off-1] ^= 1
	s, _, _, err = inspectSegment(bad.mount(t), 2)
	var ce *base.CorruptError
	if !errors.As(err, &ce) || ce.Offset != fx.ends[n-3].off || s.End != ce.Offset || s.Durable != before.off {
		t.Errorf("damaged: %v, %+v", err, s)
	}
	// The first segment has no header behind the damage that would tell; the
	// second one does.
	bad[0][fx.prevEnd-1] ^= 1
	if s, _, _, err = inspectSegment(bad.mount(t), 1); !errors.Is(err, base.ErrCorrupt) || s.Durable != fx.prevEnd {
		t.Errorf("damaged before another segment: %v, %+v", err, s)
	}
	if s, _, _, err = inspectSegment(logFiles{bad[0]}.mount(t), 1); err != nil || s.Seen != fx.prevEnd {
		t.Errorf("the same without the other: %v, %+v", err, s)
	}
}

// Inspect and Verify are of one mind about a log of one segment, whatever bytes
// it has.
func FuzzInspect(f *testing.F) {
	for _, sealed := range []bool{false, true} {
		fx := makeFixture(f, sealed)
		for _, raw := range fx.files {
			f.Add(raw, false)
			f.Add(raw[:700], true)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, fix bool) {
		raw = slices.Clone(raw)
		if fix && len(raw) >= segmentHeaderLen {
			makeSound(raw)
		}
		m := logFiles{raw}.mount(t)
		stats, verr := Verify(m, "wal", []uint64{1})
		s, _, records, err := inspectSegment(m, 1)
		if (err == nil) != (verr == nil) || errors.Is(err, base.ErrFormat) != errors.Is(verr, base.ErrFormat) {
			t.Fatalf("Inspect %v, Verify %v", err, verr)
		}
		if err != nil && !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrFormat) {
			t.Fatalf("untyped error %v", err)
		}
		if err == nil && (s.End != stats.End.Length || s.Records != stats.Records || s.Bytes != stats.Bytes ||
			s.Seen-s.End != stats.TornBytes || int64(len(records)) != s.Records) {
			t.Fatalf("Inspect %+v, Verify %+v", s, stats)
		}
	})
}
