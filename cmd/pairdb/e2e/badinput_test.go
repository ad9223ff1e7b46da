package e2e

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// expect runs the CLI and checks the exit code and words of the error.
func expect(t *testing.T, code int, words []string, stdin []byte, args ...string) {
	t.Helper()
	r := run(t, stdin, args...)
	shown := strings.Join(args, " ")
	if len(shown) > 120 {
		shown = shown[:120] + "…"
	}
	if r.code != code {
		t.Errorf("pairdb %s: exit %d, want %d\n%s%s", shown, r.code, code, r.stdout, r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("pairdb %s: the error lacks %q:\n%s", shown, w, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "panic") || strings.Contains(r.stderr, "goroutine ") {
		t.Errorf("pairdb %s: a stack trace for a person:\n%s", shown, r.stderr)
	}
}

// TestBadInput walks what a person or program can get wrong against a running
// cluster: each is a clear error, and nothing is lost or changed by it.
func TestBadInput(t *testing.T) {
	c := startCluster(t, 3)
	ep := "--endpoint=" + c.agents[0].addr.GRPC
	mustRun(t, "put", "kept", "value", ep, "-c", "all")

	over := make([]byte, 10<<20+1)
	expect(t, errcode.ExitUsage, []string{"INVALID_KEY"}, nil, "put", "", "v", ep)
	expect(t, errcode.ExitUsage, []string{"KEY_TOO_LARGE", "1024"}, nil, "put", strings.Repeat("k", 1025), "v", ep)
	expect(t, errcode.ExitUsage, []string{"VALUE_TOO_LARGE"}, over, "put", "kept", "-", ep)
	expect(t, errcode.ExitUsage, []string{"INVALID_TENANT_ID", "shop"}, nil, "tenant", "create", "Shop", ep)
	expect(t, errcode.ExitUsage, []string{"INVALID_TENANT_ID"}, nil, "tenant", "create", "../etc", ep)
	expect(t, errcode.ExitUsage, []string{"INVALID_REPLICATION_FACTOR", "1"}, nil, "tenant", "create", "shop", "--rf", "0", ep)
	expect(t, errcode.ExitUsage, []string{"INVALID_REPLICATION_FACTOR", "7"}, nil, "tenant", "create", "shop", "--rf", "8", ep)
	expect(t, errcode.ExitNotFound, []string{"TENANT_NOT_FOUND", "nobody"}, nil, "put", "k", "v", "--tenant", "nobody", ep)
	expect(t, errcode.ExitNotFound, []string{"KEY_NOT_FOUND"}, nil, "get", "absent", ep)
	expect(t, errcode.ExitUsage, []string{"consistency", "quorum"}, nil, "put", "k", "v", "-c", "most", ep)
	expect(t, errcode.ExitUsage, []string{"endpoint"}, nil, "put", "k", "v", "--endpont", "x")
	expect(t, errcode.ExitConnect, []string{"127.0.0.1:1"}, nil, "get", "kept", "--endpoint", "127.0.0.1:1")

	mustRun(t, "tenant", "create", "shop", "--rf", "2", ep)
	expect(t, errcode.ExitConflict, []string{"TENANT_EXISTS", "shop"}, nil, "tenant", "create", "shop", "--rf", "3", ep)
	if r := mustRun(t, "tenant", "show", "shop", "-o", "json", "--endpoint", c.agents[1].addr.GRPC); !strings.Contains(strings.ReplaceAll(r.stdout, " ", ""), `"replication_factor":2`) {
		t.Errorf("the refused create changed the tenant: %s", r.stdout)
	}
	forgedToken(t, c)
	if r := mustRun(t, "get", "kept", ep, "-c", "all"); r.stdout != "value" {
		t.Errorf("the key holds %q after all the bad input", r.stdout)
	}

	// Keys are bytes, not paths.
	for _, key := range []string{"a//b/../c", "../../etc/passwd", "/", "..", "a b\n%2F"} {
		mustRun(t, "put", key, "as is "+key, ep)
		if r := mustRun(t, "get", key, "--endpoint", c.agents[2].addr.GRPC); r.stdout != "as is "+key {
			t.Errorf("key %q: read %q", key, r.stdout)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"..a/..b", "x/..", "plain"} {
		p := dir + "/" + name
		if strings.HasSuffix(name, "/..") {
			p += "."
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "import", "--dir", dir+"//x/../", ep) // the folder itself, spelled oddly
	for key, want := range map[string]string{"..a/..b": "..a/..b", "x/...": "x/..", "plain": "plain"} {
		if r := mustRun(t, "get", key, ep); r.stdout != want {
			t.Errorf("imported key %q: %q", key, r.stdout)
		}
	}
}

// forgedToken sends contexts that the cluster never gave for this key.
func forgedToken(t *testing.T, c *cluster) {
	t.Helper()
	cl := c.client(0)
	ctx := context.Background()
	a, err := cl.Put(ctx, "token-a", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	good := a.Context.Bytes()
	flipped := append([]byte{}, good...)
	flipped[len(flipped)/2] ^= 1
	for name, token := range map[string][]byte{
		"of another key": good, "garbage": []byte("not a token"), "one bit flipped": flipped,
		"oversized": make([]byte, 4097), "cut": good[:len(good)-1],
	} {
		key := "token-a"
		if name == "of another key" {
			key = "token-b"
		}
		seen, err := client.ContextFromBytes(token)
		if err == nil {
			_, err = cl.Put(ctx, key, []byte("forged"), client.WithContext(seen))
		}
		if client.CodeOf(err) != errcode.InvalidArgument {
			t.Errorf("token %s: %v, want INVALID_ARGUMENT", name, err)
		}
	}
	if res, err := cl.Get(ctx, "token-a"); err != nil || string(res.Siblings[0].Value) != "1" {
		t.Errorf("token-a after forged tokens: %v %v", res, err)
	}
	if _, err := cl.Get(ctx, "token-b"); client.CodeOf(err) != errcode.KeyNotFound {
		t.Errorf("token-b was written with a token of token-a: %v", err)
	}
}

// TestTenantCreatedAtTwoNodesAtOnce: one wins, one gets TENANT_EXISTS.
func TestTenantCreatedAtTwoNodesAtOnce(t *testing.T) {
	c := startCluster(t, 3)
	for round := range 8 {
		id := "race-" + strconv.Itoa(round)
		var wg sync.WaitGroup
		errs := make([]error, 3)
		start := make(chan struct{})
		for i := range c.agents {
			cl := c.client(i)
			rf := uint32(i + 1)
			wg.Go(func() {
				<-start
				_, errs[i] = cl.CreateTenant(context.Background(), client.NewTenant{ID: id, ReplicationFactor: &rf})
			})
		}
		close(start)
		wg.Wait()
		winner, won := 0, 0
		for i, err := range errs {
			switch {
			case err == nil:
				winner, won = i, won+1
			case client.CodeOf(err) != errcode.TenantExists:
				t.Errorf("%s at node %d: %v", id, i+1, err)
			}
		}
		if won != 1 {
			t.Fatalf("%s: %d creates succeeded: %v", id, won, errs)
		}
		for i := range c.agents {
			got, err := c.client(i).GetTenant(context.Background(), id)
			if err != nil || int(got.ReplicationFactor) != winner+1 {
				t.Errorf("%s at node %d: %v %v, want RF %d", id, i+1, got, err, winner+1)
			}
		}
	}
}

// agentFails starts an agent that must end by itself with an error.
func agentFails(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	r := runFor(t, 60*time.Second, nil, append([]string{"agent", "--grpc-port", "0", "--peer-port", "0", "--http-port", "0", "--gossip-port", "0"}, args...)...)
	if r.code != code {
		t.Errorf("agent %v: exit %d, want %d", args, r.code, code)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("agent %v: the error lacks %q:\n%s", args, w, r.stderr)
		}
	}
}

// TestAgentRefusesToStart walks the ways an agent must not come up.
func TestAgentRefusesToStart(t *testing.T) {
	dir := func() string { return filepath.Join(t.TempDir(), "data") }
	agentFails(t, errcode.ExitUsage, []string{"--bootstrap", "--join"}, "--data-dir", dir())
	agentFails(t, errcode.ExitUsage, []string{"--data-dir"}, "--data-dirr", dir())
	agentFails(t, errcode.ExitUsage, []string{"gossip.probe_interval", "did you mean"}, "--data-dir", dir(), "--bootstrap", "--set", "gossip.probe_intervall=1s")
	agentFails(t, errcode.ExitUsage, []string{"--insecure"}, "--data-dir", dir(), "--bootstrap", "--bind", "0.0.0.0")
	agentFails(t, errcode.ExitFailed, []string{"127.0.0.1:1"}, "--data-dir", dir(), "--join", "127.0.0.1:1", "--set", "cluster.join_timeout=2s")

	conf := filepath.Join(t.TempDir(), "pairdb.yaml")
	if err := os.WriteFile(conf, []byte("node:\n  data_dir: /x\nlisten:\n  grpc_prot: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	agentFails(t, errcode.ExitUsage, []string{"pairdb.yaml:4", "grpc_prot", "grpc_port"}, "--config", conf, "--bootstrap")

	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	agentFails(t, errcode.ExitFailed, []string{"in use", "--grpc-port"}, "--data-dir", dir(), "--bootstrap", "--grpc-port", portOf(lis.Addr().String()))
}

// TestForeignDataDirectories: a directory of another cluster, of a newer
// format, or already in use is refused and left as it was.
func TestForeignDataDirectories(t *testing.T) {
	a := &agent{t: t, name: "solo", dir: t.TempDir(), args: []string{"--bootstrap"}}
	a.start()
	a.waitHealthy(30 * time.Second)
	mustRun(t, "put", "k", "v", "--endpoint", a.addr.GRPC)
	data := a.data

	agentFails(t, errcode.ExitFailed, []string{"in use"}, "--data-dir", data, "--bootstrap")
	agentFails(t, errcode.ExitFailed, []string{"has a member of this name", "pairdb node replace"}, "--data-dir", filepath.Join(t.TempDir(), "joiner"), "--join", a.addr.Gossip, "--name", "solo")

	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
	agentFails(t, errcode.ExitFailed, []string{"another cluster"}, "--data-dir", data, "--bootstrap", "--cluster-name", "other")

	format := filepath.Join(data, "FORMAT")
	b, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(format, []byte(`{"format":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	agentFails(t, errcode.ExitFailed, []string{"newer", "99"}, "--data-dir", data, "--bootstrap")
	if err := os.WriteFile(format, b, 0o600); err != nil {
		t.Fatal(err)
	}
	a.start()
	a.waitHealthy(30 * time.Second)
	if r := mustRun(t, "get", "k", "--endpoint", a.addr.GRPC); r.stdout != "v" {
		t.Errorf("after all refusals the key holds %q", r.stdout)
	}
}

// TestStatusShapes: the JSON that scripts rely on.
func TestStatusShapes(t *testing.T) {
	c := startCluster(t, 3)
	ep := "--endpoint=" + c.agents[1].addr.GRPC
	for verb, fields := range map[string][]string{
		"status":  {"cluster_id", "verdict", "reason", "ring", "nodes"},
		"members": {"members"},
	} {
		var m map[string]any
		r := mustRun(t, verb, "-o", "json", ep)
		if err := json.Unmarshal([]byte(r.stdout), &m); err != nil {
			t.Fatalf("%s: %v\n%s", verb, err, r.stdout)
		}
		for _, f := range fields {
			if _, ok := m[f]; !ok {
				t.Errorf("%s lacks %s: %s", verb, f, r.stdout)
			}
		}
	}
	var ring struct {
		Key       string `json:"key"`
		Partition int    `json:"partition"`
		Owners    []struct {
			NodeID string `json:"node_id"`
			Name   string `json:"name"`
		} `json:"owners"`
	}
	r := mustRun(t, "ring", "--key", "{tag}x", "-o", "json", ep)
	if err := json.Unmarshal([]byte(r.stdout), &ring); err != nil || len(ring.Owners) != 3 {
		t.Errorf("ring --key: %v %s", err, r.stdout)
	}
	for _, a := range c.agents {
		a.kill()
	}
	expect(t, errcode.ExitConnect, nil, nil, "health", ep)
}
