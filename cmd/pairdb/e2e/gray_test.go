package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Of the load under which a node goes gray: an even rate that leaves the machine
// room, and how the run is divided, in seconds.
const (
	grayRate   = 1200
	grayBefore = 6  // all well
	grayFor    = 10 // one node is in trouble
	grayAfter  = 10 // all well again
	// graySettle is how long the cluster may take to work around it, grayReturn
	// how long until the node's return is not felt any more.
	graySettle, grayReturn = 2, 5
	// grayFloor is a p99 that nobody minds, however low it was before.
	grayFloor = 25 * time.Millisecond
)

// grayFlags are the flags of that load.
func grayFlags(seconds int) []string {
	return []string{
		"--op", "mix", "--ratio", "0.25", "--keys", "3000", "--rate", fmt.Sprint(grayRate), "--arrivals", "even",
		"--duration", fmt.Sprintf("%ds", seconds), "--timeout", "5s", "--warmup", "4s",
	}
}

// compare holds a time of trouble against the time before.
func compare(t *testing.T, v *verdict, m measured, what string, before, during window) {
	t.Helper()
	t.Logf("%s: %s", what, during)
	if limit := max(2*before.p99, grayFloor); during.p99 > limit {
		v.errorf("%s: p99 is %s, more than %s; before it was %s\n%s", what, during.p99, limit, before.p99, m.rows())
	}
}

// TestPausedReplica stops one of three nodes, which then neither answers nor goes
// away: after two seconds the p99 at QUORUM is at most twice what it was, fewer
// than one of 1000 operations fail, and five seconds after it goes on nothing is
// felt of it.
func TestPausedReplica(t *testing.T) { measure(t, pausedReplica) }

func pausedReplica(t *testing.T, v *verdict) {
	c := startCluster(t, 3)
	l := c.startLoad(grayFlags(grayBefore + grayFor + grayAfter)...)
	l.until(grayBefore * time.Second)
	c.agents[1].signal(syscall.SIGSTOP)
	l.until((grayBefore + grayFor) * time.Second)
	c.agents[1].signal(syscall.SIGCONT)
	m := l.end()

	before := m.window(1, grayBefore)
	t.Logf("before: %s", before)
	compare(t, v, m, "stopped", before, m.window(grayBefore+graySettle, grayBefore+grayFor))
	compare(t, v, m, "back", before, m.window(grayBefore+grayFor+grayReturn, len(m.Series)))
	if all := m.window(grayBefore, len(m.Series)); all.bad*1000 >= all.due {
		v.errorf("%d of %d operations failed: %v\n%s", all.bad, all.due, m.Errors, m.rows())
	}
	c.wantEvents(v, "a node does not answer: it is left out until it does", "a node answers again")
	t.Logf("errors: %v\n%s", m.Errors, m.rows())
}

// wantEvents looks for texts among what happened to the cluster by its first node.
func (c *cluster) wantEvents(v *verdict, texts ...string) {
	c.t.Helper()
	happened := mustRun(c.t, "events", "-o", "json", "--limit", "1000", "--endpoint", c.agents[0].addr.GRPC).stdout
	for _, text := range texts {
		if !strings.Contains(happened, text) {
			v.errorf("no event says %q:\n%s", text, happened)
		}
	}
}

// TestSlowDisk delays every sync of one node's log by a fifth of a second, as a
// disk does that is about to fail: the others' p99 stays what it was.
func TestSlowDisk(t *testing.T) { measure(t, slowDisk) }

func slowDisk(t *testing.T, v *verdict) {
	c := startCluster(t, 3)
	a := c.agents[1]
	l := c.startLoad(grayFlags(grayBefore)...)
	m := l.end()
	before := m.window(1, len(m.Series))
	t.Logf("before: %s", before)

	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Fatal(err)
	}
	a.wrap = []string{
		"strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", os.DevNull, "-e", "trace=fdatasync",
		"-e", "inject=fdatasync:delay_enter=200000",
	}
	a.start()
	a.waitHealthy(60 * time.Second)
	c.meet() // the load ends with the first key that it cannot store
	l = c.startLoad(grayFlags(grayFor)...)
	m = l.end()
	compare(t, v, m, "slow", before, m.window(graySettle, len(m.Series)))
	if all := m.window(0, len(m.Series)); all.bad*1000 >= all.due {
		v.errorf("%d of %d operations failed: %v\n%s", all.bad, all.due, m.Errors, m.rows())
	}
	t.Logf("errors: %v\n%s", m.Errors, m.rows())

	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil && !strings.Contains(err.Error(), "signal") {
		t.Fatal(err)
	}
}
