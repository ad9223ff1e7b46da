package compaction

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
)

// parseVersion reads lines such as "L1 7:a-f:200" or, with an excluded end,
// "L1 7:a-f):200"; sizes are bytes and numbers double as sequence numbers. A
// fourth and fifth part are the numbers of entries, 10 if left out, and deletes.
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
			m.Entries = 10
			for i, n := range []*uint64{&m.Entries, &m.Deletes} {
				if len(parts) > 3+i {
					if _, err := fmt.Sscan(parts[3+i], n); err != nil {
						t.Fatalf("%q: %v", f, err)
					}
				}
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
	what := ""
	if j.Move {
		what = " move"
	}
	return fmt.Sprintf("L%d [%s] + L%d [%s]%s, %s\n", j.Level, names(j.Inputs), j.Output, names(j.Below), what, j.Reason)
}

func names(files []*manifest.FileMeta) string {
	var s []string
	for _, f := range files {
		s = append(s, fmt.Sprint(f.Num))
	}
	return strings.Join(s, " ")
}

// pickAll picks jobs one beside the other until there is none that could begin.
func pickAll(t *testing.T, tree *Tree, c Context) string {
	var b strings.Builder
	var jobs []*Job
	for {
		j := tree.Pick(c)
		if j == nil {
			return b.String() + "no more\n"
		}
		for _, k := range jobs {
			if err := apart(j, k); err != nil {
				t.Errorf("%s and %s: %v", describe(j), describe(k), err)
			}
		}
		if !c.fits(j) {
			t.Errorf("%s needs %d bytes, %d are free", describe(j), j.Need(), c.Room)
		}
		b.WriteString(describe(j))
		jobs = append(jobs, j)
		c.Busy.Add(j)
	}
}

// apart is Busy's invariant, spelled out.
func apart(j, k *Job) error {
	for _, f := range j.Files() {
		if slices.Contains(k.Files(), f) {
			return fmt.Errorf("both have table %d", f.Num)
		}
	}
	for level := max(1, j.Level); level <= j.Output; level++ {
		if level < max(1, k.Level) || level > k.Output {
			continue
		}
		if !before(j.End, j.Excl, k.Start) && !before(k.End, k.Excl, j.Start) {
			return fmt.Errorf("both span level %d in [%s,%s] and [%s,%s]", level, j.Start, j.End, k.Start, k.End)
		}
	}
	return nil
}

func TestPicker(t *testing.T) {
	datadriven.RunTest(t, "testdata/picker", func(t *testing.T, d *datadriven.TestData) string {
		opts := Options{L0Trigger: 3, BaseBytes: 1000, Multiplier: 10, TargetFileSize: 100}
		v := parseVersion(t, d.Input)
		if err := v.Check(); err != nil {
			t.Fatal(err)
		}
		tree := NewTree(opts, v)
		c := Context{Busy: &Busy{}, Cursors: make([][]byte, 5), Floor: base.MaxSeqNum}
		for level := range c.Cursors {
			var at string
			if d.MaybeScanArgs(t, fmt.Sprintf("cursor%d", level), &at) {
				c.Cursors[level] = []byte(at)
			}
		}
		var floor uint64
		if d.MaybeScanArgs(t, "floor", &floor) {
			c.Floor = base.SeqNum(floor)
		}
		var room, since int
		d.MaybeScanArgs(t, "room", &room)
		d.MaybeScanArgs(t, "since", &since)
		c.Room, c.Since = int64(room), base.SeqNum(since)
		switch d.Cmd {
		case "pick":
			return describe(tree.Pick(c))
		case "pick-all":
			return pickAll(t, tree, c)
		case "range":
			var level int
			var start, end string
			d.ScanArgs(t, "level", &level)
			d.ScanArgs(t, "start", &start)
			d.ScanArgs(t, "end", &end)
			return describe(tree.PickRange(level, []byte(start), []byte(end)))
		case "scores":
			var b strings.Builder
			for level := range v.Levels {
				fmt.Fprintf(&b, "L%d %.2f of %d\n", level, tree.Score(level), tree.Target(level))
			}
			fmt.Fprintf(&b, "base %d depth %d debt %d space %.2f\n", tree.Base, tree.Depth, tree.Debt(), tree.SpaceAmp())
			return b.String()
		case "split":
			var n int
			d.ScanArgs(t, "n", &n)
			var b strings.Builder
			for _, k := range tree.Pick(c).Split(n, nil) {
				fmt.Fprintf(&b, "%s\n", k)
			}
			return b.String()
		default:
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		}
	})
}
