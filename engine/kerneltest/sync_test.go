package kerneltest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/kerneltest"
)

func isSync(c call) bool { return c.name == "fdatasync" || c.name == "fsync" }

// syncedAgain returns the first sync of a file that comes after a failed one of
// the same: it would prove nothing, since the kernel reports an error once.
// A folder may be: what is renamed anew is synced anew.
func syncedAgain(calls []call) (call, bool) {
	failed := map[string]bool{}
	for _, c := range calls {
		file := strings.TrimSuffix(c.path, ".tmp")
		if c.name == "openat" {
			delete(failed, file) // made anew: another file of that name
		}
		if c.name == "fdatasync" && failed[file] {
			return c, true
		}
		if isSync(c) && c.failed {
			failed[file] = true
		}
	}
	return call{}, false
}

// TestFailedSync has strace make one sync of a script fail with EIO, without
// carrying it out, and cuts the power when the process has ended. A failed sync
// of the log or the manifest ends all writing, others are got over; no file is
// synced again, everything stays readable, and nothing that was acknowledged is
// lost. PAIRDB_CRASH_FULL=1 does so for every sync.
func TestFailedSync(t *testing.T) {
	seed := startSeed(t)
	l := kerneltest.Mount(t, 256<<20)
	syncs := slices.DeleteFunc(scripted(t, l, seed), func(c call) bool { return !isSync(c) })
	readOnly, unopened, gotOver, acks := 0, 0, 0, 0
	some := sample(syncs, seed, 2*gatePoints)
	for i, c := range some {
		dir := filepath.Join(l.Dir, fmt.Sprint("db", i))
		trace := filepath.Join(t.TempDir(), "trace")
		o := runDriver(t, job{Dir: dir, Seed: seed, Writers: 1, To: scriptSteps, Script: true}, []int{0},
			traced(trace, fmt.Sprintf("%s:error=EIO:when=%d", c.name, c.n)), nil)
		where := fmt.Sprintf("PAIRDB_SEED=%d, failed %s", seed, c)
		calls := readTrace(t, trace, dir)
		if !slices.ContainsFunc(calls, func(d call) bool { return d.failed && d.name == c.name && d.n == c.n && d.path == c.path }) {
			t.Fatalf("%s: it did not: %+v", where, o)
		}
		switch {
		case !o.opened:
			unopened++
		case strings.HasPrefix(o.ended[0], "readonly"):
			readOnly++
		default:
			gotOver++
		}
		if again, ok := syncedAgain(calls); ok {
			t.Errorf("%s: then came %s", where, again)
		}
		if o.opened && !o.readable {
			t.Errorf("%s: reads do not go on: %+v", where, o)
		}
		if err := l.Cut(); err != nil {
			t.Fatal(err)
		}
		l.PowerOn(t)
		acks += o.acks
		if err := newHistory(seed, 1).checkReopened(dir, o.acked, o.reached); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if readOnly == 0 || gotOver == 0 {
		t.Errorf("of %d failures %d ended writing and %d were got over: too few of a kind", len(some), readOnly, gotOver)
	}
	t.Logf("failed %d of %d syncs: %d ended writing, %d the opening, %d were got over; %d acknowledgements, 0 of them lost",
		len(some), len(syncs), readOnly, unopened, gotOver, acks)
}

// TestSyncThatTrulyFails lets the log grow on a disk that has less than it
// promised, so that a sync fails in the kernel itself.
func TestSyncThatTrulyFails(t *testing.T) {
	for _, journal := range []bool{true, false} {
		t.Run(fmt.Sprintf("journal=%v", journal), func(t *testing.T) {
			trulyFails(t, journal)
		})
	}
}

func trulyFails(t *testing.T, journal bool) {
	l, grow := kerneltest.Overcommitted(t, 4<<30, 16<<20, journal)
	seed := startSeed(t)
	dir := filepath.Join(l.Dir, "db")
	trace := filepath.Join(t.TempDir(), "trace")
	o := runDriver(t, job{Dir: dir, Seed: seed, Writers: 1, Script: true, LogOnly: true}, []int{0}, traced(trace, ""), nil)
	calls := readTrace(t, trace, dir)
	i := slices.IndexFunc(calls, func(c call) bool { return c.name == "fdatasync" && c.failed })
	if i < 0 || !strings.HasPrefix(o.ended[0], "readonly") || !strings.Contains(o.ended[0], "fdatasync") {
		t.Fatalf("PAIRDB_SEED=%d: no sync failed, or it did not end writing: %+v", seed, o)
	}
	if again, ok := syncedAgain(calls); ok {
		t.Errorf("PAIRDB_SEED=%d: %s failed, then came %s", seed, calls[i], again)
	}
	if !o.readable {
		t.Errorf("PAIRDB_SEED=%d: reads do not go on: %+v", seed, o)
	}
	t.Logf("PAIRDB_SEED=%d: %d acknowledgements, then: %s", seed, o.acks, o.ended[0])
	grow()
	l.PowerOn(t)
	if err := newHistory(seed, 1).checkReopened(dir, o.acked, o.reached); err != nil {
		t.Fatalf("PAIRDB_SEED=%d: %v", seed, err)
	}
}
