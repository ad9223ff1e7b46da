package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/engine/kerneltest"
)

// junk is a value that does not compress.
func junk(seed, n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	if _, err := rng.Read(b); err != nil {
		panic(err) // it never fails
	}
	return b
}

// diskState waits until the agent says that its disk is in a state.
func (a *agent) diskState(state string) {
	a.t.Helper()
	err := poll(time.Minute, func() (bool, error) {
		n, err := a.series("pairdb_disk_state", `state="`+state+`"`)
		return n == 1, err
	})
	if err != nil {
		a.t.Fatalf("disk of %s is not %s: %v", a.name, state, err)
	}
}

// httpPut writes through the JSON door and returns status and error code.
func (a *agent) httpPut(key string, value []byte) (int, string) {
	a.t.Helper()
	body, err := json.Marshal(map[string]string{"tenant_id": "default", "key": key, "value": fmt.Sprintf("%x", value)})
	if err != nil {
		a.t.Fatal(err)
	}
	resp, err := http.Post("http://"+a.addr.HTTP+"/v1/key-value", "application/json", bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Code string `json:"error_code"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, answer.Code
}

// TestDiskFillsUp puts a whole node on a file system of 64 MiB and fills it, by
// a neighbour and by load: each code arrives at every door with the outcome
// "not applied", reads and deletes go on, the node stays ready, and it takes
// writes again by itself.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	l := kerneltest.Mount(t, 64<<20)
	c := startClusterOn(t, []string{l.Dir}, "--set", "limits.max_value_size=8MiB")
	a, cl := c.agents[0], c.client(0)
	ctx := context.Background()
	ep := "--endpoint=" + a.addr.GRPC
	const size = 64 << 20 * 0.87 // what ext4 leaves of it, about
	part := func(percent float64) int64 { return int64(size * (100 - percent) / 100) }
	refused := func(what string, code errcode.Code, value []byte) {
		t.Helper()
		_, err := cl.Put(ctx, "refused", value)
		var e *client.Error
		if !errors.As(err, &e) || e.Code != code || e.Outcome != errcode.NotApplied {
			t.Errorf("%s, gRPC: %v, want %s, not applied", what, err, code)
		}
		if len(value) < 4<<20 { // hex doubles it
			if status, got := a.httpPut("refused", value); status != http.StatusServiceUnavailable || got != string(code) {
				t.Errorf("%s, HTTP: %d %s, want 503 %s", what, status, got, code)
			}
		}
		expect(t, errcode.ExitThrottled, []string{string(code)}, value, "put", "refused", "-", ep)
		if _, err := cl.Get(ctx, "refused"); client.CodeOf(err) != errcode.KeyNotFound {
			t.Errorf("%s: the refused write is there: %v", what, err)
		}
	}
	for i := range 20 {
		if _, err := cl.Put(ctx, "kept-"+strconv.Itoa(i), junk(i, 200_000)); err != nil {
			t.Fatal(err)
		}
	}

	neighbour := func(percent float64, state string) {
		t.Helper()
		if err := l.Fill("neighbour", part(percent)); err != nil {
			t.Fatal(err)
		}
		a.diskState(state)
	}
	neighbour(83, "warn")
	refused("a value of 8 MB at 83 %", errcode.InsufficientSpace, junk(1, 8_000_000))
	neighbour(92.5, "throttle")
	refused("600 kB at 92.5 %", errcode.DiskThrottled, junk(1, 600_000))
	if _, err := cl.Put(ctx, "small", []byte("taken")); err != nil {
		t.Errorf("a small write at 92.5 %%: %v", err)
	}
	neighbour(96.5, "full")
	refused("at 96.5 %", errcode.DiskFull, []byte("x"))
	if res, err := cl.Get(ctx, "kept-7"); err != nil || !bytes.Equal(res.Siblings[0].Value, junk(7, 200_000)) {
		t.Errorf("read on a full disk: %v", err)
	}
	if _, err := cl.Delete(ctx, "small"); err != nil {
		t.Errorf("delete on a full disk: %v", err)
	}
	if _, err := cl.Get(ctx, "small"); client.CodeOf(err) != errcode.KeyNotFound {
		t.Errorf("after the delete: %v", err)
	}
	if n, err := a.series("pairdb_disk_refused_writes_total", `code="DISK_FULL"`); err != nil || n < 3 {
		t.Errorf("%v refused writes counted, %v", n, err)
	}
	if status, body := get(t, a, "/readyz"); status != http.StatusOK || !strings.Contains(body, "writes are refused") {
		t.Errorf("ready on a full disk: %d %s", status, body)
	}
	// To the last byte: what needs metadata fails, and the process lives.
	if err := l.Fill("rest", 0); err != nil {
		t.Fatal(err)
	}
	if r := run(t, nil, "tenant", "create", "late", "--rf", "1", ep); r.code == 0 {
		t.Log("a tenant was created on a disk without a free byte")
	}
	if res, err := cl.Get(ctx, "kept-8"); err != nil || !bytes.Equal(res.Siblings[0].Value, junk(8, 200_000)) {
		t.Errorf("read without a free byte: %v", err)
	}
	for _, name := range []string{"rest", "neighbour"} {
		if err := l.Free(name); err != nil {
			t.Fatal(err)
		}
	}
	a.diskState("ok")
	if _, err := cl.Put(ctx, "refused", []byte("taken")); err != nil {
		t.Errorf("after the neighbour left: %v", err)
	}

	// By load: writes until none is taken, then deletes until some are again.
	n := 20
	for ; n < 5000; n++ {
		if _, err := cl.Put(ctx, "kept-"+strconv.Itoa(n), junk(n, 200_000)); err != nil {
			if code := client.CodeOf(err); code != errcode.DiskFull && code != errcode.DiskThrottled {
				t.Fatalf("put %d: %v", n, err)
			}
			break
		}
	}
	t.Logf("%d values of 200 kB were taken", n)
	if n < 100 || n == 5000 {
		t.Errorf("%d values of 200 kB fit on 64 MiB", n)
	}
	for i := range n {
		if res, err := cl.Get(ctx, "kept-"+strconv.Itoa(i)); err != nil || !bytes.Equal(res.Siblings[0].Value, junk(i, 200_000)) {
			t.Fatalf("key %d on the full disk: %v", i, err)
		}
	}
	for i := range n / 2 {
		err := poll(time.Minute, func() (bool, error) {
			_, err := cl.Delete(ctx, "kept-"+strconv.Itoa(i))
			if code := client.CodeOf(err); err != nil && code == errcode.DiskFull {
				return false, nil // until a compaction has made room for more
			}
			return err == nil, err
		})
		if err != nil {
			t.Fatalf("delete %d: %v", i, err)
		}
	}
	err := poll(time.Minute, func() (bool, error) {
		_, err := cl.Put(ctx, "again", junk(0, 200_000))
		return err == nil, nil
	})
	if err != nil {
		t.Errorf("deletes freed no space: %v", err)
	}
	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
	a.start()
	a.waitHealthy(30 * time.Second)
	for i := range n {
		res, err := cl.Get(ctx, "kept-"+strconv.Itoa(i))
		if gone := i < n/2; gone && client.CodeOf(err) != errcode.KeyNotFound || !gone && (err != nil || !bytes.Equal(res.Siblings[0].Value, junk(i, 200_000))) {
			t.Fatalf("key %d after a restart: %v", i, err)
		}
	}
}

// TestQuorumGoesOnWithAFullDisk has one of three nodes on a full disk: writes
// at QUORUM are taken through every node, that one included, and writes at ALL
// say who could not.
func TestQuorumGoesOnWithAFullDisk(t *testing.T) {
	t.Parallel()
	l := kerneltest.Mount(t, 64<<20)
	c := startClusterOn(t, []string{l.Dir, "", ""})
	if err := l.Fill("neighbour", 1<<20); err != nil {
		t.Fatal(err)
	}
	c.agents[0].diskState("full")
	ctx := context.Background()
	for i := range 60 {
		cl := c.client(i % 3)
		key := fmt.Sprintf("key-%d", i)
		if _, err := cl.Put(ctx, key, []byte(key)); err != nil {
			t.Errorf("put %d through node %d: %v", i, i%3+1, err)
		}
		if res, err := c.client((i+1)%3).Get(ctx, key); err != nil || string(res.Siblings[0].Value) != key {
			t.Errorf("get %d: %v", i, err)
		}
	}
	_, err := c.client(1).Put(ctx, "for-all", []byte("v"), client.WithLevel(client.LevelAll))
	var e *client.Error
	if !errors.As(err, &e) || e.Code != errcode.QuorumNotReached || !strings.Contains(e.Meta[errcode.MetaCauses], "DISK_FULL") {
		t.Errorf("put at ALL: %v", err)
	}
	if err := l.Free("neighbour"); err != nil {
		t.Fatal(err)
	}
	c.agents[0].diskState("ok")
	if _, err := c.client(1).Put(ctx, "for-all", []byte("w"), client.WithLevel(client.LevelAll)); err != nil {
		t.Errorf("put at ALL after the neighbour left: %v", err)
	}
}

// TestStalledDiskWithdraws lets strace delay every sync of a running node: it
// says that it is not ready, and why, and is ready again when syncs return.
func TestStalledDiskWithdraws(t *testing.T) {
	c := startCluster(t, 1, "--set", "storage.disk_slow=1s")
	a, cl := c.agents[0], c.client(0)
	ctx := context.Background()
	if _, err := cl.Put(ctx, "k", []byte("before")); err != nil {
		t.Fatal(err)
	}
	out, stop := a.delaySyncs(6 * time.Second)
	defer stop()
	put := make(chan error, 1)
	// Writes keep coming, so that there is a sync that hangs once strace is attached.
	withdrawn := poll(50*time.Second, func() (bool, error) {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		_, err := cl.Put(short, "k", []byte("probe"))
		status, body := get(t, a, "/readyz")
		return err != nil && status == http.StatusServiceUnavailable && strings.Contains(body, "hangs"), nil
	})
	if withdrawn != nil {
		t.Fatalf("not withdrawn, or strace delays nothing: %v\n%s", withdrawn, out.String())
	}
	go func() {
		_, err := cl.Put(ctx, "k", []byte("during"))
		put <- err
	}()
	if r := run(t, nil, "health", "--endpoint", a.addr.GRPC); r.code != errcode.ExitUnhealthy {
		t.Errorf("health: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if n, err := a.series("pairdb_disk_stalls_total"); err != nil || n < 1 {
		t.Errorf("%v stalls counted, %v", n, err)
	}
	stop()
	if err := poll(30*time.Second, func() (bool, error) {
		status, _ := get(t, a, "/readyz")
		return status == http.StatusOK, nil
	}); err != nil {
		t.Errorf("not back: %v", err)
	}
	<-put
	if _, err := cl.Put(ctx, "k", []byte("after")); err != nil {
		t.Errorf("after the stall: %v", err)
	}
	// A node is ready again before it says so.
	if err := poll(30*time.Second, func() (bool, error) {
		log := tail(a.dir+"/log", 1<<20)
		hung := strings.Count(log, "disk does not answer")
		return hung > 0 && hung == strings.Count(log, "disk answers again"), nil
	}); err != nil {
		t.Errorf("the log does not say when the disk hung and when no longer: %v", err)
	}
}

// delaySyncs lets strace delay each sync of data in the agent's process, until stop is called,
// which may be done again. What strace says goes to out.
func (a *agent) delaySyncs(d time.Duration) (out *bytes.Buffer, stop func()) {
	a.t.Helper()
	a.mu.Lock()
	pid := a.cmd.Process.Pid
	a.mu.Unlock()
	out = new(bytes.Buffer)
	tracer := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-p", strconv.Itoa(pid),
		"-e", "trace=fdatasync", "-e", fmt.Sprintf("inject=fdatasync:delay_exit=%d", d.Microseconds()))
	tracer.Stdout, tracer.Stderr = out, out
	tracer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := tracer.Start(); err != nil {
		a.t.Fatalf("strace is needed (apt-get install strace): %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- tracer.Wait() }()
	return out, func() {
		_ = tracer.Process.Signal(syscall.SIGTERM) // it may have ended
		// One that does not let go is killed, which lets go, too.
		defer time.AfterFunc(killWait, func() { _ = tracer.Process.Kill() }).Stop()
		<-ended
		ended <- nil
	}
}

// TestStalledDiskLeavesThePath has each sync of one of three nodes take 6 s: the
// node withdraws by itself, all nodes say so, and once it has, QUORUM writes and
// reads through any node, that one included, go on without errors and without
// waiting for that disk. When syncs return the node is back within 10 s: a disk that
// hung again on trial is left alone for two.
func TestStalledDiskLeavesThePath(t *testing.T) {
	c := startCluster(t, 3)
	ctx := context.Background()
	sick := c.agents[2]
	clients := func() (all []*client.Client) { // one for each node
		for i := range c.agents {
			all = append(all, c.client(i))
		}
		return all
	}
	asked := clients()
	state := func(i int) (verdict, of string) {
		st, err := asked[i].Status(ctx)
		if err != nil {
			return err.Error(), ""
		}
		for _, n := range st.GetNodes() {
			if n.GetName() == sick.name {
				of = n.GetState()
			}
		}
		return st.GetVerdict(), of
	}
	// load writes and reads 300 keys through each node and returns the times. Its clients
	// are new ones, since those that come while the disk hangs are to be served, too.
	load := func(round string) []time.Duration {
		var took []time.Duration
		nodes := clients()
		for i := range 900 {
			cl, key := nodes[i%3], fmt.Sprintf("key-%d", i/3)
			var opts []client.CallOption
			if i%5 == 0 {
				opts = append(opts, client.WithIdempotencyKey(fmt.Sprint(round, i)))
			}
			began := time.Now()
			if _, err := cl.Put(ctx, key, []byte(round), opts...); err != nil {
				t.Errorf("%s: put %d through node %d: %v", round, i, i%3+1, err)
			}
			if res, err := nodes[(i+1)%3].Get(ctx, key); err != nil || string(res.Siblings[0].Value) != round {
				t.Errorf("%s: get %d: %v", round, i, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		t.Logf("%s: a put and a get took %s at the median, %s at the 99th percentile, %s at most", round, took[450], took[890], took[899])
		return took
	}
	load("before")
	_, stop := sick.delaySyncs(6 * time.Second)
	defer stop()
	began := time.Now()
	// Writes keep coming, so that there is a sync that hangs.
	err := poll(30*time.Second, func() (bool, error) {
		if _, err := asked[0].Put(ctx, "probe", []byte("v"), client.WithLevel(client.LevelQuorum)); err != nil {
			t.Errorf("a put at QUORUM through a sound node: %v", err)
		}
		for i := range c.agents {
			if verdict, of := state(i); verdict != "degraded" || of != "withdrawn" {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		v, of := state(0)
		t.Fatalf("not withdrawn: %v; %s, %s", err, v, of)
	}
	t.Logf("withdrawn everywhere %s after strace began", time.Since(began))
	if status, body := get(t, sick, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "hangs") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	took := load("during")
	if p99 := took[890]; p99 > time.Second {
		t.Errorf("the 99th percentile while a disk hangs is %s", p99)
	}
	stop()
	began = time.Now()
	err = poll(30*time.Second, func() (bool, error) {
		for i := range c.agents {
			if verdict, of := state(i); verdict != "healthy" || of != "up" {
				return false, nil
			}
		}
		return true, nil
	})
	back := time.Since(began)
	t.Logf("back everywhere %s after strace ended", back)
	if err != nil || back > 10*time.Second {
		t.Errorf("back after %s: %v", back, err)
	}
	load("after")

	// Each of it is an event, at the node itself and at the others, from any node.
	log := mustRun(t, "events", "-o", "jsonl", "--endpoint", c.agents[1].addr.GRPC)
	for _, want := range []string{
		`"kind":"disk","severity":"error","text":"the disk does not answer: this node withdraws"`, `"text":"the disk answers again"`,
		`"text":"node-3 has withdrawn: its disk does not answer or can only be read, or all of its data is being fetched again"`, `"text":"node-3 takes part again"`,
	} {
		if !strings.Contains(log.stdout, want) {
			t.Errorf("no event has %s in\n%s", want, log.stdout)
		}
	}
	if n, err := sick.series("pairdb_events_total", `kind="disk"`); err != nil || n < 2 {
		t.Errorf("%g events of the disk, %v", n, err)
	}
}

// get asks a node over HTTP.
func get(t *testing.T, a *agent, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + a.addr.HTTP + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
