package kerneltest_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/kerneltest"
)

const (
	// scriptSteps is the number of batches of a script.
	scriptSteps = 70
	// gatePoints is at how many of a script's calls a run of the gate kills, or
	// fails, unless PAIRDB_CRASH_FULL asks for all.
	gatePoints = 12
)

// mutating are the system calls that may change a disk; ? is for those that not
// every machine has.
const mutating = "openat,write,pwrite64,fdatasync,fsync,?rename,renameat,renameat2,?link,linkat,?unlink,unlinkat,?mkdir,mkdirat,?rmdir,ftruncate,fallocate"

// call is a system call that changes a file of the database.
type call struct {
	name string
	// n is the how-manieth of its name it is on its thread, as strace counts.
	n int
	// path is below the database, "" the database itself.
	path string
	// failed says that it returned an error.
	failed bool
}

func (c call) String() string { return fmt.Sprintf("%s %d of %q", c.name, c.n, c.path) }

// traced is the command that runs a driver under strace, which does to it what
// inject says, if anything.
func traced(trace, inject string) []string {
	front := []string{"strace", "-f", "-qq", "-y", "-s", "0", "-o", trace, "-e", "trace=" + mutating}
	if inject != "" {
		front = append(front, "-e", "inject="+inject)
	}
	return append(front, "--")
}

var (
	traceLine = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	tracePath = regexp.MustCompile(`[<"]([^<>"]*)[>"]`)
)

// readTrace returns the calls on the main thread of a driver that change files
// below dir.
func readTrace(t *testing.T, trace, dir string) []call {
	t.Helper()
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // only read
	var calls []call
	main, count := "", map[string]int{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := traceLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue // the rest of a call, a signal
		}
		if main == "" {
			main = m[1]
		}
		if m[1] != main {
			continue
		}
		name, args := m[2], m[3]
		if strings.Contains(args, "<anon_inode:") {
			continue // the runtime wakes a thread, at times
		}
		count[name]++
		if name == "openat" && !strings.Contains(args, "O_CREAT") {
			continue
		}
		for _, p := range tracePath.FindAllStringSubmatch(args, -1) {
			if rest, ok := strings.CutPrefix(p[1], dir); ok && (rest == "" || rest[0] == '/' || rest[0] == '-') {
				calls = append(calls, call{name: name, n: count[name], path: rest, failed: strings.Contains(args, " = -1 ")})
				break
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return calls
}

// sample returns count of the calls, evenly spread from a place that the seed
// says, or all in a full run.
func sample(calls []call, seed uint64, count int) []call {
	if os.Getenv("PAIRDB_CRASH_FULL") != "" || len(calls) <= count {
		return calls
	}
	var some []call
	step := len(calls) / count
	for i := int(seed % uint64(step)); i < len(calls) && len(some) < count; i += step {
		some = append(some, calls[i])
	}
	return some
}

// scripted traces a script without a fault, and returns what it calls. It runs
// where the others will: the engine fits its sizes to the disk.
func scripted(t *testing.T, l *kerneltest.Loop, seed uint64) []call {
	t.Helper()
	dir := filepath.Join(l.Dir, "db")
	trace := filepath.Join(t.TempDir(), "trace")
	o := runDriver(t, job{Dir: dir, Seed: seed, Writers: 1, To: scriptSteps, Script: true}, []int{0}, traced(trace, ""), nil)
	if o.ended[0] != "done" || !o.readable || len(o.notes) > 0 {
		t.Fatalf("the script failed without a fault: %+v", o)
	}
	calls := readTrace(t, trace, dir)
	kinds := map[string]int{}
	for _, c := range calls {
		kinds[c.name]++
	}
	t.Logf("PAIRDB_SEED=%d: %d calls: %v", seed, len(calls), kinds)
	for _, name := range []string{"openat", "write", "fdatasync", "fsync", "renameat", "unlinkat", "linkat", "mkdirat", "fallocate"} {
		if kinds[name] == 0 {
			t.Errorf("the script never calls %s", name)
		}
	}
	return calls
}

// TestSystemCallsFollowTheSeam holds what the kernel is asked for against what
// goes through the file system seam, call by call: the tests that crash and fail
// at the seam, in memory, speak of the real order of writes and syncs.
func TestSystemCallsFollowTheSeam(t *testing.T) {
	seed := startSeed(t)
	dir := filepath.Join(t.TempDir(), "db")
	trace := filepath.Join(t.TempDir(), "trace")
	o := runDriver(t, job{Dir: dir, Seed: seed, Writers: 1, To: scriptSteps, Script: true, Ops: true}, []int{0}, traced(trace, ""), nil)
	kinds := map[string]string{
		"openat": "create", "write": "write", "fdatasync": "sync", "fsync": "syncdir", "rename": "rename", "renameat": "rename",
		"unlink": "remove", "unlinkat": "remove", "link": "link", "linkat": "link", "mkdir": "mkdir", "mkdirat": "mkdir",
		"fallocate": "preallocate", "ftruncate": "truncate",
	}
	var got, want []string
	for _, c := range readTrace(t, trace, dir) {
		if kinds[c.name] == "remove" && strings.HasPrefix(c.path, "-copy") {
			continue // the driver itself removes its copies
		}
		got = append(got, kinds[c.name]+" "+strings.TrimSuffix(c.path, ".tmp"))
	}
	for _, op := range o.ops {
		kind, path, _ := strings.Cut(op, " ")
		if kind == "reuse" {
			kind = "rename" // and an open that makes nothing
		}
		// A file keeps the name it was made with, at the seam.
		if rest, ok := strings.CutPrefix(path, dir); ok {
			want = append(want, kind+" "+strings.TrimSuffix(rest, ".tmp"))
		}
	}
	// One call of the seam makes all folders that are missing.
	for i := len(got) - 2; i >= 0; i-- {
		if strings.HasPrefix(got[i], "mkdir ") && strings.HasPrefix(got[i+1], got[i]+"/") {
			got = slices.Delete(got, i, i+1)
		}
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("PAIRDB_SEED=%d: call %d of %d and %d: the kernel got %q, the seam %q", seed, i, len(got), len(want),
				got[min(i, len(got)):min(i+3, len(got))], want[min(i, len(want)):min(i+3, len(want))])
		}
	}
	if len(got) < 100 {
		t.Errorf("only %d calls were compared", len(got))
	}
	t.Logf("compared %d calls", len(got))
}

// killAt runs a script that strace kills before the call c. Where the runtime made
// a call of its own before, strace has counted that, too, and it is tried again.
func killAt(t *testing.T, seed uint64, dir string, c call) *outcome {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	for range 3 {
		o := runDriver(t, job{Dir: dir, Seed: seed, Writers: 1, To: scriptSteps, Script: true}, []int{0},
			traced(trace, fmt.Sprintf("%s:signal=SIGKILL:when=%d", c.name, c.n)), nil)
		if o.killed != syscall.SIGKILL {
			t.Fatalf("PAIRDB_SEED=%d: not killed before %s: %+v", seed, c, o)
		}
		got := readTrace(t, trace, dir)
		if len(got) > 0 && got[len(got)-1].String() == c.String() {
			return o
		}
		t.Logf("PAIRDB_SEED=%d: killed not before %s, but at the last of %d calls, %v", seed, c, len(got), got[max(0, len(got)-1):])
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("PAIRDB_SEED=%d: never killed before %s", seed, c)
	return nil
}

// TestCrashAtEverySyscall has strace kill a process before a system call of a
// script: once the page cache survives, as after kill -9, once the power is cut
// as well. PAIRDB_CRASH_FULL=1 does so for every call, PAIRDB_SEED=n for that
// script.
func TestCrashAtEverySyscall(t *testing.T) {
	seed := startSeed(t)
	l := kerneltest.Mount(t, 256<<20)
	calls := scripted(t, l, seed)
	syncs := slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.name != "fdatasync" })
	others := slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.name == "fdatasync" })
	points, acks := 0, 0
	for _, c := range append(sample(syncs, seed, gatePoints), sample(others, seed, gatePoints)...) {
		for _, cut := range []bool{false, true} {
			points++
			dir := filepath.Join(l.Dir, fmt.Sprint("db", points))
			o := killAt(t, seed, dir, c)
			if cut {
				if err := l.Cut(); err != nil {
					t.Fatal(err)
				}
				l.PowerOn(t)
			}
			acks += o.acks
			if err := newHistory(seed, 1).checkReopened(dir, o.acked, o.reached); err != nil {
				t.Fatalf("PAIRDB_SEED=%d, killed before %s, power cut: %v: %v", seed, c, cut, err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d kills at %d of %d calls, half of them with a power cut; %d acknowledgements, 0 of them lost", points, points/2, len(calls), acks)
}
