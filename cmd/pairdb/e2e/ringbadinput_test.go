package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
)

// TestRingRefusesBadInput asks for changes that must not be: each is refused with its
// code and what to do, and the ring stays as it is.
func TestRingRefusesBadInput(t *testing.T) {
	t.Parallel()
	key := func() string {
		file := filepath.Join(t.TempDir(), "gossip.key")
		mustRun(t, "keygen", "--gossip", "--out", file)
		return file
	}
	ours := key()
	c := startCluster(t, 3, "--gossip-key-file", ours, "--set", "ring.settle="+ringSettle)
	at := c.agents[0]
	before, err := at.ring()
	if err != nil {
		t.Fatal(err)
	}
	id := c.agents[1].addr.NodeID
	for _, x := range []struct {
		name  string
		args  string
		code  int
		words []string
	}{
		{"fewer nodes than copies", "node decommission node-2 --yes", errcode.ExitConflict, []string{"NODE_IN_USE", "next:"}},
		{"by its id", "node decommission " + id + " --yes", errcode.ExitConflict, []string{"NODE_IN_USE"}},
		{"a node nobody knows", "node decommission node-9 --yes", errcode.ExitUsage, []string{`no node "node-9"`, "node-1", "node-3"}},
		{"a name that several have", "node decommission node --yes", errcode.ExitUsage, []string{"ambiguous", "node-1", "node-2", "node-3"}},
		{"no yes", "node decommission node-2", errcode.ExitUsage, []string{"--yes"}},
		{"a live node given up", "node remove node-2 --accept-loss --yes", errcode.ExitConflict, []string{"NODE_IN_USE", "alive"}},
		{"loss not accepted", "node remove node-2 --yes", errcode.ExitUsage, []string{"--accept-loss"}},
		{"nobody to replace it", "node replace --dead node-2 --yes", errcode.ExitConflict, []string{"--join"}},
		{"nobody to be replaced", "node replace --yes", errcode.ExitUsage, []string{"--dead"}},
		{"no capacity", "node weigh node-2 0", errcode.ExitUsage, []string{"1 to 10000"}},
		{"less than no capacity", "node weigh node-2 -- -1", errcode.ExitUsage, []string{"1 to 10000"}},
		{"the capacity that it has", "node weigh node-2 100", errcode.ExitConflict, []string{"PRECONDITION_FAILED"}},
		{"nothing to abort", "cluster abort", errcode.ExitConflict, []string{"no change is under way"}},
		{"nothing to take back", "cluster abort " + strings.Repeat("ab", 16), errcode.ExitConflict, []string{"pairdb cluster plan"}},
		{"nothing to begin", "cluster commit", errcode.ExitConflict, []string{"PRECONDITION_FAILED"}},
	} {
		args := strings.Fields(x.args)
		if i := strings.Index(x.args, " -- "); i >= 0 {
			args = append(append(strings.Fields(x.args[:i]), "--endpoint", at.addr.GRPC), strings.Fields(x.args[i:])...)
		} else {
			args = append(args, "--endpoint", at.addr.GRPC)
		}
		r := run(t, nil, args...)
		if r.code != x.code || r.stdout != "" {
			t.Errorf("%s: exit %d, want %d\n%s%s", x.name, r.code, x.code, r.stdout, r.stderr)
		}
		for _, w := range x.words {
			if !strings.Contains(r.stderr, w) {
				t.Errorf("%s: the error lacks %q:\n%s", x.name, w, r.stderr)
			}
		}
	}
	for path, status := range map[string]int{
		"DELETE /v1/admin/storage-nodes/node-2": http.StatusConflict, "DELETE /v1/admin/storage-nodes/node-2?force=true": http.StatusConflict,
		"DELETE /v1/admin/storage-nodes/node-9":                http.StatusBadRequest,
		"GET /v1/admin/migrations/" + strings.Repeat("ab", 16): http.StatusNotFound,
	} {
		method, target, _ := strings.Cut(path, " ")
		if resp, body := at.raw(method, target, nil); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d: %s", path, resp.StatusCode, status, body)
		}
	}

	dir := func() string { return filepath.Join(t.TempDir(), "data") }
	short := []string{"--set", "cluster.join_timeout=3s", "--join", at.addr.Gossip}
	fails := func(words []string, args ...string) {
		t.Helper()
		agentFails(t, errcode.ExitFailed, words, append(append([]string{"--data-dir", dir(), "--name", "stranger"}, short...), args...)...)
	}
	fails([]string{at.addr.Gossip}, "--gossip-key-file", key())
	fails([]string{at.addr.Gossip})
	fails([]string{at.addr.Gossip}, "--gossip-key-file", ours, "--cluster-name", "another")
	agentFails(t, errcode.ExitUsage, []string{"node.capacity"}, "--data-dir", dir(), "--bootstrap", "--capacity", "0")
	agentFails(t, errcode.ExitUsage, []string{"node.capacity"}, "--data-dir", dir(), "--bootstrap", "--capacity=-5")

	// Who belongs to a cluster founds none, whatever its command line says.
	agentFails(t, errcode.ExitUsage, []string{"--bootstrap", "--join"}, append([]string{"--data-dir", dir(), "--bootstrap"}, short...)...)
	again := c.agents[2]
	again.kill()
	again.args = []string{"--bootstrap", "--gossip-key-file", ours}
	again.start()
	again.waitHealthy(time.Minute)
	if s, err := again.ring(); err != nil || len(s.Nodes) != 3 {
		t.Errorf("a second --bootstrap: %s, %v", s.String(), err)
	}
	after, err := at.ring()
	if err != nil || after.Ring.Version != before.Ring.Version || after.Ring.Changing || len(after.Nodes) != 3 {
		t.Errorf("the ring was %s and is %s, %v", before.String(), after.String(), err)
	}
}

// TestAbortOfTheRing aborts a join that waits for its data: the members stay who they
// are, and have lost nothing. Once it is done there is nothing to abort.
func TestAbortOfTheRing(t *testing.T) {
	t.Parallel()
	manual := []string{"--set", "ring.auto_apply=false", "--set", "ring.settle=" + ringSettle}
	c := startCluster(t, 3, manual...)
	at := c.agents[0]
	want := c.fill(at, "abort", 6000, 1500)
	joiner := c.join(append(manual, "--stream-rate", slowStream)...)
	var plan result
	if err := poll(changeLimit, func() (bool, error) {
		plan = mustRun(t, "cluster", "plan", "--endpoint", at.addr.GRPC)
		return strings.Contains(plan.stdout, joiner.name+" joins"), nil
	}); err != nil {
		t.Fatalf("the node that joins is in no plan: %v\n%s", err, plan.stdout)
	}
	if !strings.Contains(plan.stdout, "pairdb cluster commit begins this") || strings.Contains(plan.stdout, "about 0 B") {
		t.Errorf("plan:\n%s", plan.stdout)
	}
	mustRun(t, "cluster", "commit", "--endpoint", at.addr.GRPC)
	c.waitMoving(at)
	// A node that does not answer in time is left out.
	var moves result
	if err := poll(10*time.Second, func() (bool, error) {
		moves = mustRun(t, "transfers", "--endpoint", at.addr.GRPC)
		return strings.Contains(moves.stdout, "gain") && strings.Contains(moves.stdout, joiner.name), nil
	}); err != nil {
		t.Errorf("transfers: %v\n%s", err, moves.stdout)
	}
	mustRun(t, "cluster", "abort", "--reason", "it was a test", "--endpoint", at.addr.GRPC)
	if s, err := at.ring(); err != nil || s.Ring.Changing {
		t.Errorf("after the abort: %s, %v", s.String(), err)
	}
	if r := run(t, nil, "cluster", "abort", "--endpoint", at.addr.GRPC); r.code != errcode.ExitConflict {
		t.Errorf("a second abort: exit %d\n%s", r.code, r.stderr)
	}
	c.wantAll(c.agents[2], want)
}
