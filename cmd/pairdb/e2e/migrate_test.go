package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// killDuring kills a node once another has written more batches, while work goes
// on, starts it again, and returns when both are done. It fails if the work was over
// before.
func (c *cluster) killDuring(victim int, batches float64, work func()) {
	c.t.Helper()
	watched := c.agents[(victim+1)%len(c.agents)]
	before, err := watched.series("pairdb_engine_batches_total")
	if err != nil {
		c.t.Fatal(err)
	}
	ended, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- poll(time.Minute, func() (bool, error) {
			select {
			case <-ended:
				return false, fmt.Errorf("the work was over before %g batches", batches)
			default:
			}
			n, err := watched.series("pairdb_engine_batches_total")
			if err != nil || n < before+batches {
				return false, err
			}
			c.agents[victim].kill()
			return true, c.agents[victim].launch()
		})
	}()
	work()
	close(ended)
	if err := <-done; err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) all() string { return strings.Join(c.endpoints(), ",") }

// lines returns the lines of a file in order.
func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	slices.Sort(all)
	return all
}

// TestExportIntoAnotherCluster: records imported into one cluster, exported from
// it and imported into another are the same there, though a node of each is killed
// and started again meanwhile.
func TestExportIntoAnotherCluster(t *testing.T) {
	t.Parallel()
	from, to := startCluster(t, 3), startCluster(t, 3)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const n = 20_000
	var file bytes.Buffer
	for i := range n {
		fmt.Fprintf(&file, "{\"key\":\"k/%d\",\"value\":\"%x\"}\n", i, rng.Uint64())
	}
	dir := t.TempDir()
	source, first, second := filepath.Join(dir, "source.jsonl"), filepath.Join(dir, "first.jsonl"), filepath.Join(dir, "second.jsonl")
	if err := os.WriteFile(source, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(c *cluster, path string, victim int) {
		t.Helper()
		c.killDuring(victim, 20, func() {
			r := mustRun(t, "import", path, "--endpoint", c.all())
			t.Log(strings.TrimSpace(r.stderr))
		})
		c.agents[victim].waitHealthy(60 * time.Second)
	}
	load(from, source, 1)
	mustRun(t, "export", first, "--endpoint", from.agents[1].addr.GRPC)
	if !slices.Equal(lines(t, first), lines(t, source)) {
		t.Fatal("the export of the first cluster is not what was imported")
	}
	load(to, first, 2)
	mustRun(t, "export", second, "--endpoint", to.agents[2].addr.GRPC)
	if !slices.Equal(lines(t, second), lines(t, source)) {
		t.Error("the second cluster is not what the first is")
	}
}
