package compaction

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
)

// parseVersion reads lines such as "L1 7:a-f:200" or, with an excluded end,
// "L1 7:a-f):200"; sizes are bytes and numbers double as sequence numbers.
func parseVersion(t *testing.T, text string) *manifest.Version {
	v := manifest.NewVersion(5)
	e := &manifest.Edit{}
	for line := range strings.Lines(text) {
		var level int
		fields := strings.Fields(line)
		if _, err := fmt.Sscanf(fields[0], "L%d", &level); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, f := range fields[1:] {
			parts := strings.Split(f, ":")
			start, end, _ := strings.Cut(parts[1], "-")
			m := &manifest.FileMeta{}
			if _, err := fmt.Sscan(parts[0], &m.Num); err != nil {
				t.Fatalf("%q: %v", f, err)
			}
			if _, err := fmt.Sscan(parts[2], &m.Size); err != nil {
				t.Fatalf("%q: %v", f, err)
			}
			m.SmallestSeq, m.LargestSeq = base.SeqNum(m.Num), base.SeqNum(m.Num)
			m.Smallest = base.MakeInternalKey([]byte(start), m.SmallestSeq, base.KindSet)
			m.Largest = base.MakeInternalKey([]byte(end), m.SmallestSeq, base.KindSet)
			if e, ok := strings.CutSuffix(end, ")"); ok {
				m.Largest = base.RangeDel{End: []byte(e)}.EndKey()
			}
			e.Added = append(e.Added, manifest.NewFile{Level: level, FileMeta: m})
		}
	}
	out, err := v.Apply(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func describe(j *Job) string {
	if j == nil {
		return "nothing\n"
	}
	names := func(files []*manifest.FileMeta) string {
		var s []string
		for _, f := range files {
			s = append(s, fmt.Sprint(f.Num))
		}
		return strings.Join(s, " ")
	}
	move := ""
	if j.Move {
		move = " move"
	}
	return fmt.Sprintf("L%d [%s] + L%d [%s]%s\n", j.Level, names(j.Inputs), j.Output, names(j.Below), move)
}

func TestPicker(t *testing.T) {
	datadriven.RunTest(t, "testdata/picker", func(t *testing.T, d *datadriven.TestData) string {
		opts := Options{L0Trigger: 3, BaseBytes: 1000, Multiplier: 10, TargetFileSize: 100}
		v := parseVersion(t, d.Input)
		if err := v.Check(); err != nil {
			t.Fatal(err)
		}
		switch d.Cmd {
		case "pick":
			cursors := make([][]byte, 5)
			for level := range cursors {
				var at string
				if d.MaybeScanArgs(t, fmt.Sprintf("cursor%d", level), &at) {
					cursors[level] = []byte(at)
				}
			}
			job := opts.Pick(v, cursors)
			if (job != nil) != opts.Needed(v) {
				t.Errorf("%s: Needed does not agree with Pick", d.Pos)
			}
			return describe(job)
		case "range":
			var level int
			var start, end string
			d.ScanArgs(t, "level", &level)
			d.ScanArgs(t, "start", &start)
			d.ScanArgs(t, "end", &end)
			return describe(opts.PickRange(v, level, []byte(start), []byte(end)))
		case "scores":
			var b strings.Builder
			for level := range v.Levels {
				fmt.Fprintf(&b, "L%d %.2f\n", level, opts.Score(v, level))
			}
			fmt.Fprintf(&b, "depth %d debt %d\n", L0Depth(v), opts.Debt(v))
			return b.String()
		default:
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		}
	})
}
