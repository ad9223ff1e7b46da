package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// importKeys puts n small files through the first node.
func importKeys(t *testing.T, c *cluster, n int) {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("key-%04d", i)), bytes.Repeat([]byte{byte('a' + i%26)}, 512), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "import", "--dir", dir, "--endpoint", c.endpoints()[0])
}

// TestUpkeep drives the upkeep verbs against running nodes, and then looks into
// the files they left.
func TestUpkeep(t *testing.T) {
	c := startCluster(t, 3)
	importKeys(t, c, 300)
	all := strings.Join(c.endpoints(), ",")

	type nodeStats struct {
		Node       struct{ Name string }
		FlushedSeq string `json:"flushed_seq"`
		VisibleSeq string `json:"visible_seq"`
		Levels     []struct{ Tables string }
		Log        struct{ Syncs string }
	}
	var stats struct{ Nodes []nodeStats }
	if err := poll(time.Minute, func() (bool, error) {
		r := mustRun(t, "flush", "--endpoint", all)
		for _, a := range c.agents {
			if !strings.Contains(r.stdout, a.name) {
				return false, fmt.Errorf("flush says nothing of %s: %s", a.name, r.stdout)
			}
		}
		stats.Nodes = nil
		if err := json.Unmarshal([]byte(mustRun(t, "stats", "--endpoint", all, "-o", "json").stdout), &stats); err != nil {
			return false, err
		}
		// The import waited for two of three: a key may come to the third after its flush.
		late := func(n nodeStats) bool { return n.FlushedSeq != n.VisibleSeq }
		return len(stats.Nodes) == 3 && !slices.ContainsFunc(stats.Nodes, late), nil
	}); err != nil {
		t.Fatalf("%v: %+v", err, stats)
	}
	for _, n := range stats.Nodes {
		if n.FlushedSeq == "0" || n.Log.Syncs == "0" || len(n.Levels) == 0 {
			t.Errorf("%+v", n)
		}
	}
	first := c.endpoints()[0]
	mustRun(t, "compact", "--range", "0-511", "--endpoint", first)
	mustRun(t, "compact", "--endpoint", all)
	if r := run(t, nil, "compact", "--range", "1024", "--endpoint", first); r.code != 2 || !strings.Contains(r.stderr, "0 to 1023") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if r := mustRun(t, "verify", "--endpoint", all); strings.Count(r.stdout, "sound") != 3 {
		t.Error(r.stdout)
	}
	if r := mustRun(t, "stats", "--endpoint", first); !strings.Contains(r.stdout, "reads and writes") {
		t.Error(r.stdout)
	}

	a := c.agents[0]
	data := filepath.Join(a.dir, "data")
	if r := run(t, nil, "debug", "verify", data); r.code != 4 || !strings.Contains(r.stderr, "a running process has") {
		t.Errorf("a running node's directory: exit %d: %s", r.code, r.stderr)
	}
	tables, err := filepath.Glob(filepath.Join(data, "data", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	// A running node's tables may be looked at.
	r := mustRun(t, "debug", "sst", tables[0], "--keys", "--limit", "5")
	if !strings.Contains(r.stdout, "tenant 1 key key-") {
		t.Error(r.stdout)
	}
	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Fatal(err)
	}
	if r := mustRun(t, "debug", "verify", data); !strings.Contains(r.stdout, "verdict   sound") {
		t.Error(r.stdout)
	}
	findsDamage(t, a, data)
}

// findsDamage damages a table of a stopped node, and then of the node while it runs:
// both ways to verify name the place.
func findsDamage(t *testing.T, a *agent, data string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(data, "data", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	table := tables[len(tables)-1]
	flip := func() {
		t.Helper()
		if err := flipAt(table, func(int) int { return 10 }); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	want := filepath.Base(table)
	if r := run(t, nil, "debug", "verify", data); r.code != 1 || !strings.Contains(r.stderr, want+" at 0: block checksum mismatch") {
		t.Errorf("debug verify: exit %d: %s", r.code, r.stderr)
	}
	flip() // and back, since the start would meet it
	a.start()
	a.waitHealthy(60 * time.Second)
	flip()
	if r := run(t, nil, "verify", "--endpoint", a.addr.GRPC); r.code != 1 || !strings.Contains(r.stderr, want+" at 0: block checksum mismatch") {
		t.Errorf("verify: exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
}

// An interrupt ends a verb that waits, with exit code 130.
func TestUpkeepInterrupted(t *testing.T) {
	c := startCluster(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// The node does not answer while it is stopped, so that the command is
	// certain to wait.
	c.agents[0].signal(syscall.SIGSTOP)
	defer c.agents[0].signal(syscall.SIGCONT)
	cmd := bounded(ctx, binary, "compact", "--endpoint", c.endpoints()[0])
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Once it is connected it has its signal handler.
	if err := poll(30*time.Second, func() (bool, error) { return connected(cmd.Process.Pid) }); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its code is looked at
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}

// connected reports whether a process has a socket open.
func connected(pid int) (bool, error) {
	fds := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(fds)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			return true, nil
		}
	}
	return false, nil
}
