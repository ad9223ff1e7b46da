package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Nothing here waits without an end: what hangs is asked for its goroutines, by SIGQUIT,
// and killed, and the test fails and shows them.
const (
	// testLimit is for a test of the gate. The longest take about three minutes there.
	testLimit = 6 * time.Minute
	// longRun is the -timeout of go test beyond which tests take as long as they are told to.
	longRun = 30 * time.Minute
	// lastMoment is how long before go test ends everything, and says nothing of the nodes,
	// a test that still runs is ended.
	lastMoment = time.Minute
	// endLimit is how long a node may take to end: timeouts.shutdown, and more than the
	// minute that it tells a service manager beyond that.
	endLimit = 2 * time.Minute
	// killWait is how long what is asked for its goroutines may take to tell them, and how
	// long the kernel may take to end what is killed.
	killWait = 10 * time.Second
	// webLimit is for a request over HTTP.
	webLimit = 30 * time.Second
	// dumpBytes is the most that is shown of goroutines.
	dumpBytes = 32 << 10
)

// timeFor is how long a test may take, of a run that has whole and of which left is left.
func timeFor(whole, left time.Duration) time.Duration {
	last := max(left-lastMoment, left/2)
	if whole > longRun {
		return last
	}
	return min(testLimit, last)
}

func TestTimeFor(t *testing.T) {
	for _, c := range []struct{ whole, left, want time.Duration }{
		{20 * time.Minute, 20 * time.Minute, testLimit},
		{20 * time.Minute, 4 * time.Minute, 3 * time.Minute},
		{20 * time.Minute, time.Minute, 30 * time.Second},
		{time.Hour, time.Hour, 59 * time.Minute},
	} {
		if got := timeFor(c.whole, c.left); got != c.want {
			t.Errorf("%s of %s are left: a test may take %s, want %s", c.left, c.whole, got, c.want)
		}
	}
}

// bounded is a command that tells its goroutines when ctx ends, if it has any, and ends
// with all that it started. Nor is what it started waited for when it has ended itself.
func bounded(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGQUIT) }
	cmd.WaitDelay = killWait
	return cmd
}

// TestChildrenAreNotWaitedFor: a command whose child has its pipe ends when its time is
// over, though the child goes on.
func TestChildrenAreNotWaitedFor(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	// The shell dies of the signal, which its child is told to ignore.
	cmd := bounded(ctx, "sh", "-c", "(trap '' QUIT; echo begun; exec sleep 60) & wait")
	out := &firstWord{said: cancel}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if took := time.Since(began); err == nil || took > 30*time.Second || out.String() != "begun\n" {
		t.Errorf("after %s: %v: %q", took, err, out)
	}
}

// firstWord keeps what is written, and calls said when that begins.
type firstWord struct {
	strings.Builder
	said func()
}

func (w *firstWord) Write(b []byte) (int, error) {
	defer w.said()
	return w.Builder.Write(b)
}

// goroutines are those of a dump that have a word in their stack, no more than dumpBytes.
func goroutines(dump, word string) string {
	var b strings.Builder
	for block := range strings.SplitSeq(dump, "\n\n") {
		if !strings.HasPrefix(block, "goroutine ") || !strings.Contains(block, word) {
			continue
		}
		if b.Len()+len(block) > dumpBytes {
			b.WriteString("…\n")
			break
		}
		b.WriteString(block + "\n\n")
	}
	return b.String()
}

// interrogate ends a process that hangs, and returns where it did.
func (a *agent) interrogate() string {
	a.mu.Lock()
	done := a.done
	a.mu.Unlock()
	a.signal(syscall.SIGCONT)
	a.signal(syscall.SIGQUIT)
	for _, next := range []syscall.Signal{syscall.SIGKILL, 0} {
		select {
		case <-done:
		case <-time.After(killWait):
			if next != 0 {
				a.signal(next)
			}
		}
	}
	log := tail(filepath.Join(a.dir, "log"), 4<<20)
	before, dump, told := cutLast(log, "SIGQUIT: quit")
	if !told {
		before = log
	}
	return fmt.Sprintf("--- last log lines of %s\n%s\n--- goroutines of %s\n%s", a.name, before[max(0, len(before)-4000):], a.name, goroutines(dump, "pairdb/pairdb/"))
}

// cutLast is strings.Cut at the last of sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// endWithin waits for the end of the present process. One that takes longer is ended, and
// the error says where it hung.
func (a *agent) endWithin(limit time.Duration) error {
	a.mu.Lock()
	done := a.done
	a.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s has not ended in %s\n%s", a.name, limit, a.interrogate())
	}
}

// TestHangingNodeTellsWhere: one that does not end is ended, and its goroutines are told.
func TestHangingNodeTellsWhere(t *testing.T) {
	t.Parallel()
	a := &agent{t: t, name: "solo", dir: t.TempDir(), args: []string{"--bootstrap"}}
	a.start()
	// It writes its addresses before it says that it listens.
	if err := poll(30*time.Second, func() (bool, error) {
		return strings.Contains(tail(filepath.Join(a.dir, "log"), 1<<20), `"msg":"listening"`), nil
	}); err != nil {
		t.Fatal(err)
	}
	a.signal(syscall.SIGSTOP)
	err := a.endWithin(time.Second)
	if err == nil || !strings.Contains(err.Error(), "node.(*Node).Serve") || !strings.Contains(err.Error(), `"msg":"listening"`) {
		t.Errorf("it is told %v", err)
	}
	var exit *exec.ExitError
	if err := a.wait(); !errors.As(err, &exit) {
		t.Errorf("it ends with %v", err)
	}
}

// watches are those of the tests under way that have nodes.
var watches = struct {
	sync.Mutex
	of map[testing.TB]*watch
}{of: map[testing.TB]*watch{}}

// watch ends the nodes of a test that takes too long, so that it ends: whatever a test
// waits for is a node, a call of one, or a program that has a limit of its own.
type watch struct {
	t      testing.TB
	out    io.Writer
	limit  time.Duration
	agents []*agent
}

// watched has the test of a node watched from its first node on.
func watched(a *agent) {
	deadline, ok := a.t.Deadline()
	if !ok {
		return // somebody looks on who has all the time
	}
	watches.Lock()
	defer watches.Unlock()
	w := watches.of[a.t]
	if w == nil {
		whole := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration)
		// A run that hangs ends with none of its tests' words, but with what is here.
		w = &watch{t: a.t, out: os.Stderr, limit: timeFor(whole, time.Until(deadline)).Round(time.Second)}
		watches.of[a.t] = w
		timer := time.AfterFunc(w.limit, w.bark)
		// It is the first of what the test's nodes clean up, and so the last: whatever
		// is waited for there is watched, too.
		a.t.Cleanup(func() {
			timer.Stop()
			watches.Lock()
			defer watches.Unlock()
			delete(watches.of, w.t)
		})
	}
	w.agents = append(w.agents, a)
}

// bark fails the test, tells where it and its nodes are, and ends those.
func (w *watch) bark() {
	watches.Lock() // the test does not end meanwhile
	defer watches.Unlock()
	if watches.of[w.t] != w {
		return
	}
	w.t.Errorf("it still ran after %s: its nodes were ended; where it was is told on standard error", w.limit)
	b := make([]byte, 4<<20)
	b = b[:runtime.Stack(b, true)]
	fmt.Fprintf(w.out, "=== %s still runs after %s. Goroutines of the tests:\n%s", w.t.Name(), w.limit, goroutines(string(b), "cmd/pairdb/e2e."))
	for _, a := range w.agents {
		if a.runs() {
			fmt.Fprintln(w.out, a.interrogate())
		}
	}
}

// noted is a test of which it is noted that it failed.
type noted struct {
	testing.TB
	failed bool
}

func (n *noted) Errorf(string, ...any) { n.failed = true }

// TestTestsAreWatched: a test that takes too long fails and tells where it and its nodes
// are; those end, and one that is over is left alone.
func TestTestsAreWatched(t *testing.T) {
	t.Parallel()
	a := &agent{t: t, name: "solo", dir: t.TempDir(), args: []string{"--bootstrap"}}
	a.start()
	var out strings.Builder
	slow := &noted{TB: t}
	w := &watch{t: slow, out: &out, limit: time.Minute, agents: []*agent{a}}
	if w.bark(); slow.failed || !a.runs() {
		t.Fatal("a test that is over was ended")
	}
	watches.Lock()
	watches.of[slow] = w
	watches.Unlock()
	w.bark()
	watches.Lock()
	delete(watches.of, slow)
	mine := watches.of[t]
	watches.Unlock()
	if !slow.failed || a.runs() {
		t.Errorf("failed: %t, and its node runs: %t", slow.failed, a.runs())
	}
	for _, want := range []string{"TestTestsAreWatched still runs after 1m0s", "e2e.(*watch).bark", "node.(*Node).Serve"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not tell %q:\n%s", want, out.String())
		}
	}
	if _, limited := t.Deadline(); limited && (mine == nil || len(mine.agents) != 1 || mine.agents[0] != a) {
		t.Errorf("this test is not watched: %+v", mine)
	}
}

// runs says whether there is a process.
func (a *agent) runs() bool {
	a.mu.Lock()
	done := a.done
	a.mu.Unlock()
	select {
	case <-done:
		return false
	default:
		return true
	}
}
