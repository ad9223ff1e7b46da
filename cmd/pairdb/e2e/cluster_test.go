package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// series sums the samples of one metric whose labels contain all of want.
func (a *agent) series(name string, want ...string) (float64, error) {
	resp, err := http.Get("http://" + a.addr.HTTP + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var sum float64
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
next:
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		for _, w := range want {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, lines.Err()
}

func (c *cluster) client(i int) *client.Client {
	c.t.Helper()
	cl, err := client.New(client.Options{Endpoints: []string{c.agents[i].addr.GRPC}, NoRouting: true})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return cl
}

// importRoot is the real input: the sources of the Go installation.
func importRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src")
}

// TestImportSurvivesKill is the walking cluster's main promise on real input:
// an import goes on without an error while another node is killed, every byte
// is read back through the third, the killed node answers as soon as it has met
// the others again, and nothing acknowledged is lost when all are killed at once.
func TestImportSurvivesKill(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	root := importRoot(t)
	first, killed, third := c.agents[0], c.agents[1], c.agents[2]

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	imp := bounded(ctx, binary, "import", "--dir", root, "--endpoint", first.addr.GRPC, "-c", "quorum")
	var out strings.Builder
	imp.Stdout, imp.Stderr = &out, &out
	if err := imp.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- imp.Wait() }()
	err := poll(2*time.Minute, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("the import ended before the kill: %v\n%s", err, out.String())
		default:
		}
		n, err := first.series("pairdb_operations_total", `op="put"`, `code="OK"`)
		return n >= 500, err
	})
	if err != nil {
		t.Fatal(err)
	}
	killed.kill()
	t.Log("killed one node after 500 files")
	if err := <-ended; err != nil {
		t.Fatalf("import: %v\n%s", err, out.String())
	}
	t.Logf("import: %s", strings.TrimSpace(out.String()))

	compareAll(t, root, third)

	// An overwrite and a delete that the killed node misses.
	over, gone := "fmt/print.go", "fmt/scan.go"
	mustRun(t, "put", over, "overwritten", "--endpoint", first.addr.GRPC)
	mustRun(t, "delete", gone, "--endpoint", third.addr.GRPC)
	killed.start()
	killed.waitHealthy(60 * time.Second)
	c.meet()
	if r := mustRun(t, "get", over, "--endpoint", killed.addr.GRPC, "-c", "quorum"); r.stdout != "overwritten" {
		t.Errorf("the node that was away returns %d bytes of the old value", len(r.stdout))
	}
	if r := run(t, nil, "get", gone, "--endpoint", killed.addr.GRPC, "-c", "quorum"); r.code != errcode.ExitNotFound {
		t.Errorf("a file deleted while the node was away: exit %d, %q", r.code, r.stderr)
	}

	killAllUnderLoad(t, c)
	compareAll(t, root, first, over, gone)
}

// killAllUnderLoad kills every node at once while writers run, starts them
// again and checks every acknowledged write.
func killAllUnderLoad(t *testing.T, c *cluster) {
	t.Helper()
	l := startLoad(t, c.endpoints(), 24)
	l.waitAcks(3000)
	for _, a := range c.agents {
		a.signal(syscall.SIGKILL)
	}
	for _, a := range c.agents {
		a.wait()
	}
	l.end()
	for _, a := range c.agents {
		a.start()
	}
	for _, a := range c.agents {
		a.waitHealthy(60 * time.Second)
	}
	c.meet()
	l.verify(c.client(1))
}

// compareAll reads every file below root back through a and compares, apart
// from the keys named in except.
func compareAll(t *testing.T, root string, a *agent, except ...string) {
	t.Helper()
	cl, err := client.New(client.Options{Endpoints: []string{a.addr.GRPC}, NoRouting: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	}()
	skip := map[string]bool{}
	for _, k := range except {
		skip[k] = true
	}
	files, size, bad := 0, int64(0), 0
	start := time.Now()
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		key, err := filepath.Rel(root, path)
		if err != nil || skip[key] {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files, size = files+1, size+int64(len(want))
		res, err := cl.Get(context.Background(), key, client.WithLevel(client.LevelQuorum))
		switch {
		case err != nil:
			bad++
			t.Errorf("get %s: %v", key, err)
		case string(res.Siblings[0].Value) != string(want):
			bad++
			t.Errorf("%s differs", key)
		}
		if bad > 20 {
			return fmt.Errorf("giving up after %d wrong files", bad)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("compared %d files, %d bytes through %s in %s: %d wrong", files, size, a.name, time.Since(start).Round(time.Millisecond), bad)
}

// TestTwoOfThreeDown: ONE goes on, QUORUM fails in time and says why.
func TestTwoOfThreeDown(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	ep := c.agents[0].addr.GRPC
	mustRun(t, "put", "k", "v1", "--endpoint", ep, "-c", "all")
	c.agents[1].kill()
	c.agents[2].kill()

	// At once, before membership knows, and again once it does.
	for _, phase := range []string{"just killed", "known dead"} {
		start := time.Now()
		r := run(t, nil, "put", "k", "v2", "--endpoint", ep, "-c", "quorum")
		if r.code != errcode.ExitConsistency || !strings.Contains(r.stderr, "QUORUM_NOT_REACHED") {
			t.Errorf("%s: put at QUORUM: exit %d\n%s", phase, r.code, r.stderr)
		}
		for _, want := range []string{"node-2", "node-3"} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%s: the error does not name %s: %s", phase, want, r.stderr)
			}
		}
		if d := time.Since(start); d > 8*time.Second {
			t.Errorf("%s: put at QUORUM took %s", phase, d)
		}
		if phase == "known dead" && !strings.Contains(r.stderr, "not_applied") && !strings.Contains(r.stderr, "not applied") {
			t.Errorf("%s: the outcome is not told: %s", phase, r.stderr)
		}
		if r := run(t, nil, "get", "k", "--endpoint", ep, "-c", "quorum"); r.code != errcode.ExitConsistency {
			t.Errorf("%s: get at QUORUM: exit %d\n%s", phase, r.code, r.stderr)
		}
		if r := run(t, nil, "put", "one", phase, "--endpoint", ep, "-c", "one"); r.code != 0 {
			t.Errorf("%s: put at ONE: exit %d\n%s", phase, r.code, r.stderr)
		}
		if r := run(t, nil, "get", "one", "--endpoint", ep, "-c", "one"); r.stdout != phase {
			t.Errorf("%s: get at ONE: exit %d %q\n%s", phase, r.code, r.stdout, r.stderr)
		}
		if r := run(t, nil, "put", "k", "v3", "--endpoint", ep, "-c", "all"); r.code != errcode.ExitConsistency {
			t.Errorf("%s: put at ALL: exit %d\n%s", phase, r.code, r.stderr)
		}
		if phase == "just killed" {
			err := poll(60*time.Second, func() (bool, error) {
				dead, err := c.agents[0].series("pairdb_members", `state="dead"`)
				return dead == 2, err
			})
			if err != nil {
				t.Fatalf("two killed nodes are not seen as dead: %v", err)
			}
		}
	}
}

// TestStopAndRestart: SIGTERM ends a node cleanly, and a restart has it all.
func TestStopAndRestart(t *testing.T) {
	c := startCluster(t, 3)
	mustRun(t, "put", "k", "v", "--endpoint", c.agents[0].addr.GRPC, "-c", "all")
	for _, a := range c.agents {
		a.signal(syscall.SIGTERM)
	}
	for _, a := range c.agents {
		if err := a.wait(); err != nil {
			t.Errorf("%s after SIGTERM: %v", a.name, err)
		}
	}
	for _, a := range c.agents {
		a.start()
	}
	for _, a := range c.agents {
		a.waitHealthy(60 * time.Second)
	}
	c.meet()
	if r := mustRun(t, "get", "k", "--endpoint", c.agents[2].addr.GRPC, "-c", "all"); r.stdout != "v" {
		t.Errorf("read %q after the restart", r.stdout)
	}
}

// TestLargeValue: 10 MiB pass both edges, one byte more is refused.
func TestLargeValue(t *testing.T) {
	c := startCluster(t, 3)
	big := make([]byte, 10<<20)
	for i := range big {
		big[i] = byte(i * 7919 >> 3)
	}
	ep := c.agents[0].addr.GRPC
	if r := run(t, big, "put", "big", "-", "--endpoint", ep, "-c", "all"); r.code != 0 {
		t.Fatalf("put 10 MiB: exit %d\n%s", r.code, r.stderr)
	}
	if r := mustRun(t, "get", "big", "--endpoint", c.agents[1].addr.GRPC, "-c", "all"); r.stdout != string(big) {
		t.Errorf("10 MiB came back as %d bytes or changed", len(r.stdout))
	}
	if r := run(t, append(big, 0), "put", "big", "-", "--endpoint", ep); r.code == 0 || !strings.Contains(r.stderr, "VALUE_TOO_LARGE") {
		t.Errorf("put 10 MiB + 1: exit %d\n%s", r.code, r.stderr)
	}
	body := `{"tenant_id":"default","key":"bigjson","value":"` + strings.Repeat("x", 10<<20-2) + `"}`
	resp, err := http.Post("http://"+c.agents[2].addr.HTTP+"/v1/key-value", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("HTTP put of 10 MiB: %d %s %v", resp.StatusCode, answer, err)
	}
	if r := mustRun(t, "get", "bigjson", "--endpoint", ep); len(r.stdout) != 10<<20 {
		t.Errorf("JSON value of 10 MiB has %d bytes", len(r.stdout))
	}
}
