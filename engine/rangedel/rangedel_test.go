package rangedel

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/engine/base"
)

// TestAgainstScan holds lookups against a scan of what the list was made of.
func TestAgainstScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rds []base.RangeDel
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			key := rapid.SliceOfN(rapid.ByteRange('a', 'e'), 1, 2)
			rds = append(rds, base.RangeDel{
				Start: key.Draw(t, "start"), End: key.Draw(t, "end"),
				Seq: base.SeqNum(rapid.IntRange(1, 20).Draw(t, "seq")),
			})
		}
		l := Build(rds)
		for i, f := range l.Fragments() {
			if bytes.Compare(f.Start, f.End) >= 0 || len(f.Seqs) == 0 ||
				i > 0 && bytes.Compare(l.Fragments()[i-1].End, f.Start) > 0 {
				t.Fatalf("fragment %d of %v", i, l.Fragments())
			}
		}
		key := rapid.SliceOfN(rapid.ByteRange('a', 'e'), 1, 3).Draw(t, "key")
		seq := base.SeqNum(rapid.IntRange(0, 21).Draw(t, "at"))
		var newest, oldest base.SeqNum
		for _, rd := range rds {
			if !rd.Contains(key) {
				continue
			}
			if rd.Seq <= seq {
				newest = max(newest, rd.Seq)
			}
			if rd.Seq > seq && (oldest == 0 || rd.Seq < oldest) {
				oldest = rd.Seq
			}
		}
		if got := l.Newest(key, seq); got != newest {
			t.Fatalf("newest at %d: %d, want %d", seq, got, newest)
		}
		if got := l.OldestAbove(key, seq); got != oldest {
			t.Fatalf("oldest above %d: %d, want %d", seq, got, oldest)
		}
	})
}
