package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// How an overload is divided, in seconds. The load before and after it is half of
// what the cluster can do, during it twice that.
const (
	calmFor     = 5
	overloadFor = 12
	recoverFor  = 20
)

// TestOverload finds out what a cluster can do, asks it for twice that, and sees
// that it still does four fifths of it, refuses the rest with typed errors,
// keeps its memory, and is itself again soon after.
func TestOverload(t *testing.T) {
	t.Run("all nodes", func(t *testing.T) { overload(t, false) })
	t.Run("one killed at the peak", func(t *testing.T) { overload(t, true) })
}

func overload(t *testing.T, kill bool) {
	c := startCluster(t, 3)
	base := []string{"--op", "mix", "--keys", "5000", "--timeout", "2s"}
	closed := c.startLoad(append(base, "--clients", "256", "--duration", "6s", "--warmup", "3s")...)
	most := closed.end()
	peak := most.OpsPerSec
	rate := func(share float64) string { return fmt.Sprintf("%.0f", peak*share) }
	l := c.startLoad(append(base, "--no-load", "--warmup", "1s", "--outstanding", "20000", "--clients", "64",
		"--rate", fmt.Sprintf("%s:%ds,%s:%ds,%s:%ds", rate(0.5), calmFor, rate(2), overloadFor, rate(0.5), recoverFor))...)
	if kill {
		l.until((calmFor + overloadFor/3) * time.Second)
		c.agents[2].kill()
	}
	m := l.end()

	calm := m.window(1, calmFor)
	over := m.window(calmFor+2, calmFor+overloadFor)
	goodput := float64(over.ok) / (overloadFor - 2)
	t.Logf("peak %.0f/s; before: %s", peak, calm)
	t.Logf("at twice the peak: %.0f/s go well, %.2f of the peak: %s", goodput, goodput/peak, over)
	if goodput < 0.8*peak {
		t.Errorf("goodput is %.2f of the peak, less than 0.8\n%s", goodput/peak, m.rows())
	}
	// The first second from which on all are as good as before.
	limit := max(2*calm.p99, grayFloor)
	normal := len(m.Series)
	for normal > calmFor+overloadFor && time.Duration(m.Series[normal-1].P99)*time.Microsecond <= limit {
		normal--
	}
	after := m.window(normal, len(m.Series))
	t.Logf("p99 is at most %s again %d s after the end: %s", limit, normal-calmFor-overloadFor, after)
	if after.due == 0 || after.bad > 0 {
		t.Errorf("after the overload: %s\n%s", after, m.rows())
	}
	for code := range m.Errors {
		if !strings.Contains("RATE_LIMITED TIMEOUT UNAVAILABLE QUORUM_NOT_REACHED", code) {
			t.Errorf("%d operations failed with %s", m.Errors[code], code)
		}
	}
	for i, a := range c.agents {
		if kill && i == 2 {
			continue
		}
		rss := counter(t, fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid), "VmHWM:") << 10
		t.Logf("%s: at most %d MiB resident", a.name, rss>>20)
		if rss > 1<<30 {
			t.Errorf("%s took %d MiB", a.name, rss>>20)
		}
	}
	t.Logf("errors: %v\n%s", m.Errors, m.rows())
}
