package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// safety is what health --safe says of a node.
type safety struct {
	Safe    bool   `json:"safe"`
	Name    string `json:"name"`
	Reasons []struct {
		Kind  string   `json:"kind"`
		Text  string   `json:"text"`
		Nodes []string `json:"nodes"`
	} `json:"reasons"`
}

// safe asks the node at whether another can be stopped.
func (a *agent) safe(node string) (s safety, code int) {
	a.t.Helper()
	r := run(a.t, nil, "health", "--safe", "--node", node, "--endpoint", a.addr.GRPC, "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		a.t.Fatalf("health --safe: exit %d, %v: %s%s", r.code, err, r.stdout, r.stderr)
	}
	return s, r.code
}

func (s *safety) has(kind string) bool {
	return slices.ContainsFunc(s.Reasons, func(r struct {
		Kind  string   `json:"kind"`
		Text  string   `json:"text"`
		Nodes []string `json:"nodes"`
	},
	) bool {
		return r.Kind == kind
	})
}

// waitSafe waits until the node at says that another can be stopped.
func (a *agent) waitSafe(node string) {
	a.t.Helper()
	if r := runFor(a.t, changeLimit, nil, "health", "--safe", "--node", node, "--endpoint", a.addr.GRPC, "--wait", "2m"); r.code != 0 {
		a.t.Fatalf("%s cannot be stopped: exit %d\n%s%s", node, r.code, r.stdout, r.stderr)
	}
}

// waitUnsafe waits until the node at says that another cannot be stopped for reasons of
// these kinds, of which it may hear late. Until then it never says that it can.
func (a *agent) waitUnsafe(node string, kinds ...string) {
	a.t.Helper()
	var s safety
	if err := poll(30*time.Second, func() (bool, error) {
		var code int
		if s, code = a.safe(node); code != 10 || s.Safe {
			return false, fmt.Errorf("exit %d", code)
		}
		return !slices.ContainsFunc(kinds, func(kind string) bool { return !s.has(kind) }), nil
	}); err != nil {
		a.t.Errorf("%s is not to be stopped because of %v: %v, %+v", node, kinds, err, s)
	}
}

// TestRollingRestart restarts three nodes under a load, one after the other, each when
// that is safe and once it is drained: no request fails, and what was acknowledged is
// there. Between a restart and the comparison after it, it is safe to stop no node.
func TestRollingRestart(t *testing.T) {
	c := startCluster(t, 3)
	want := c.fill(c.agents[0], "restart", 1000, 300)
	l := startLoad(t, c.endpoints(), 6)
	l.waitAcks(300)
	began := time.Now()
	for i, a := range c.agents {
		other := c.agents[(i+1)%len(c.agents)]
		other.waitSafe(a.name)
		ready := time.Now()
		r := runFor(t, time.Minute, nil, "node", "drain", "--wait", "--endpoint", a.addr.GRPC, "-o", "json")
		if r.code != 0 || !strings.Contains(r.stdout, `"state": "drained"`) {
			t.Fatalf("drain of %s: exit %d\n%s%s", a.name, r.code, r.stdout, r.stderr)
		}
		drained := time.Now()
		// It serves nobody, and others know; it is up for them, and they are not
		// to be stopped beside it.
		if r := run(t, nil, "health", "--endpoint", a.addr.GRPC); r.code != 10 {
			t.Errorf("health of %s, which is drained: exit %d", a.name, r.code)
		}
		if r := run(t, nil, "put", "no", "body", "--endpoint", a.addr.GRPC); r.code != 6 || !strings.Contains(r.stderr, "drained") {
			t.Errorf("a put through %s, which is drained: exit %d, %s", a.name, r.code, r.stderr)
		}
		if err := poll(10*time.Second, func() (bool, error) {
			s, err := other.ring()
			return err == nil && s.Verdict == "healthy" && slices.ContainsFunc(s.Nodes, func(n ringNode) bool {
				return n.Name == a.name && n.State == "drained"
			}), err
		}); err != nil {
			t.Errorf("%s does not show that %s is drained: %v", other.name, a.name, err)
		}
		other.waitUnsafe(other.name, "draining")
		// At once, but for hints of writes that were late at the third.
		other.waitSafe(a.name)
		a.signal(syscall.SIGTERM)
		if err := a.wait(); err != nil {
			t.Fatalf("%s ends with %v", a.name, err)
		}
		other.waitUnsafe(other.name, "down", "quorum")
		l.waitAcks(l.acks.Load() + 200) // which a misses
		a.start()
		a.waitHealthy(time.Minute)
		other.waitUnsafe(other.name, "unverified") // since a was away
		t.Logf("%s: drained in %s, stopped and back in %s", a.name, drained.Sub(ready).Round(time.Millisecond), time.Since(drained).Round(time.Millisecond))
	}
	c.agents[0].waitSafe("node-2")
	t.Logf("three nodes were restarted in %s, with %d writes", time.Since(began).Round(time.Millisecond), l.acks.Load())
	l.end()
	if len(l.fails) > 0 {
		t.Errorf("requests failed: %v", l.fails)
	}
	l.verify(c.client(1))
	c.wantAll(c.agents[2], want)
	c.equalOwners()
}
