package disk_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/engine/vfs"
)

// limits are those of a disk of 1000 MiB.
func limits() disk.Limits {
	return disk.Limits{Warn: 80, Throttle: 90, Stop: 95, Reserve: 10 << 20}
}

func usage(usedMiB float64) vfs.Usage {
	const total = 1000 << 20
	return vfs.Usage{Total: total, Free: total - int64(usedMiB*(1<<20))}
}

// TestDecisions runs scripts: "use" follows a disk through usages in MiB of
// 1000; "write" asks at a state and usage for batches, of which each line gives
// the bytes, those of the largest operation, and whether they free space.
func TestDecisions(t *testing.T) {
	datadriven.RunTest(t, "testdata/disk", func(t *testing.T, d *datadriven.TestData) string {
		l := limits()
		var out strings.Builder
		switch d.Cmd {
		case "use":
			var s disk.State
			for f := range strings.FieldsSeq(d.Input) {
				var used float64
				if _, err := fmt.Sscan(f, &used); err != nil {
					t.Fatal(err)
				}
				s = l.Next(s, usage(used))
				fmt.Fprintf(&out, "%s %s, unasked %d\n", f, s, l.Unasked(s, usage(used)))
			}
		case "write":
			var used float64
			d.ScanArgs(t, "used", &used)
			s := l.Next(disk.OK, usage(used))
			for line := range strings.Lines(d.Input) {
				var w disk.Write
				if _, err := fmt.Sscan(line, &w.Bytes, &w.Largest, &w.Frees); err != nil {
					t.Fatal(err)
				}
				verdict := map[disk.Verdict]string{
					disk.Admit: "admitted", disk.TooFull: "full", disk.Throttled: "throttled", disk.NoSpace: "no space",
				}[l.Admit(s, usage(used), w)]
				fmt.Fprintf(&out, "%s: %s\n", strings.TrimSpace(line), verdict)
			}
		case "fit":
			const mib = 1 << 20
			want := disk.Sizes{Segment: 64 * mib, MemTable: 64 * mib, Base: 256 * mib, Table: 32 * mib, Manifest: 4 * mib}
			for f := range strings.FieldsSeq(d.Input) {
				var total int64
				if _, err := fmt.Sscan(f, &total); err != nil {
					t.Fatal(err)
				}
				s := disk.Fit(want, total*mib)
				fmt.Fprintf(&out, "%d MiB: log %d KiB, memtable %d KiB, base %d KiB, table %d KiB, manifest %d KiB, reserve %.1f %%\n", total,
					s.Segment>>10, s.MemTable>>10, s.Base>>10, s.Table>>10, s.Manifest>>10, float64(100*disk.Reserve(s, 2))/float64(total*mib))
			}
		default:
			t.Fatalf("unknown command %s", d.Cmd)
		}
		return out.String()
	})
}

// TestStateLaws: a state is never below what the usage says, never more than
// the hysteresis above it, and once reached does not flap.
func TestStateLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits()
		l.Warn = rapid.IntRange(1, 90).Draw(t, "warn")
		l.Throttle = rapid.IntRange(l.Warn+1, 95).Draw(t, "throttle")
		l.Stop = rapid.IntRange(l.Throttle+1, 100).Draw(t, "stop")
		s := disk.OK
		for _, used := range rapid.SliceOf(rapid.Float64Range(0, 1000)).Draw(t, "used") {
			u := usage(used)
			least := l.Next(disk.OK, u)
			most := l.Next(disk.OK, usage(min(1000, used+20.1)))
			next := l.Next(s, u)
			if next < least || next > max(least, most) || next > max(s, least) {
				t.Fatalf("at %.1f from %v: %v, want between %v and %v", used, s, next, least, most)
			}
			if again := l.Next(next, u); again != next {
				t.Fatalf("at %.1f: %v, then %v", used, next, again)
			}
			s = next
			// Whoever need not ask would have been let through.
			if n := l.Unasked(s, u); n >= 0 {
				if v := l.Admit(s, u, disk.Write{Bytes: n, Largest: n}); v != disk.Admit {
					t.Fatalf("at %.1f, %v: %d bytes unasked, but %v", used, s, n, v)
				}
			}
			// What is let through leaves the reserve.
			w := disk.Write{Bytes: rapid.Int64Range(0, 1<<30).Draw(t, "bytes"), Frees: rapid.Bool().Draw(t, "frees")}
			w.Largest = w.Bytes
			if l.Admit(s, u, w) == disk.Admit && u.Free-2*w.Bytes < l.Reserve {
				t.Fatalf("at %.1f, %v: %+v is let through", used, s, w)
			}
		}
	})
}

// TestSmallDisksKeepEnough: whatever the size of the disk, what the breaker
// keeps is enough for the reserve and a merge of the largest base level that
// there is before another level is used, with one table of level 0.
func TestSmallDisksKeepEnough(t *testing.T) {
	want := disk.Sizes{Segment: 64 << 20, MemTable: 64 << 20, Base: 256 << 20, Table: 32 << 20, Manifest: 4 << 20}
	for total := int64(56 << 20); total < 1<<42; total += total / 3 {
		s := disk.Fit(want, total)
		kept := total / 100 * 5
		if need := disk.Reserve(s, 2) + 3*s.Base + s.MemTable; need > kept {
			t.Errorf("%d MiB: %d KiB are needed, %d KiB kept", total>>20, need>>10, kept>>10)
		}
	}
}

func TestRetry(t *testing.T) {
	var r disk.Retry
	due := func(looks int, free int64) (at []int) {
		for i := range looks {
			if r.Due(free) {
				at = append(at, i)
				r.Failed(free)
			}
		}
		return at
	}
	r.Failed(100)
	if got := fmt.Sprint(due(130, 100)); got != "[0 2 6 14 30 62 126]" {
		t.Errorf("with nothing changed, tried at %s", got)
	}
	if r.Due(99) || !r.Due(101) || r.Due(101) {
		t.Error("a rise of the free space is not taken for a reason, once")
	}
	r.Worked()
	r.Failed(5)
	if got := fmt.Sprint(due(4, 5)); got != "[0 2]" {
		t.Errorf("after it worked in between, tried at %s", got)
	}
}
