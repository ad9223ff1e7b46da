package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

// hintsFor is how many hints the nodes that answer keep for one, and how many nodes
// did not answer.
func hintsFor(t *testing.T, c *client.Client, name string) (count uint64, silent int) {
	t.Helper()
	r, err := c.Hints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range r.GetTargets() {
		if h.GetName() == name {
			count = h.GetCount()
		}
	}
	return count, len(r.GetUnreachable())
}

// hintsAway is how long a node is away in TestHints; PAIRDB_HINTS_AWAY says longer.
const hintsAway = 10 * time.Second

// TestHints kills one of three nodes for a while under a load of writes. Within a minute
// of its return all hints for it are delivered, nothing is left for rounds to find, and
// its own replica has every write that was acknowledged, with nobody else there to ask.
func TestHints(t *testing.T) {
	t.Parallel()
	absence := durationFrom(t, "PAIRDB_HINTS_AWAY", hintsAway)
	// About ten seconds write each key once.
	keys := max(2000, int(absence/time.Second)*40)
	c := startCluster(t, 3)
	away, here := c.agents[1], c.client(0)
	var (
		stop   atomic.Bool
		wg     sync.WaitGroup
		mu     sync.Mutex
		acked  = map[string]string{}
		during atomic.Int64 // acknowledged while the node was away
		gone   atomic.Bool
	)
	for g := range 4 {
		cl := c.client(g % 2 * 2)
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				key, value := fmt.Sprintf("hint/%d/%d", g, i%keys), fmt.Sprintf("value %d", i)
				opts := []client.CallOption{client.WithLevel(client.LevelQuorum)}
				if i%7 == 0 {
					opts = append(opts, client.WithIdempotencyKey(fmt.Sprintf("%s/%d", key, i)))
				}
				_, err := cl.Put(context.Background(), key, []byte(value), opts...)
				mu.Lock()
				if err != nil {
					delete(acked, key) // either value may be there
				} else {
					acked[key] = value
				}
				mu.Unlock()
				if err == nil && gone.Load() {
					during.Add(1)
				}
			}
		})
	}
	t.Cleanup(func() {
		stop.Store(true)
		wg.Wait()
	})
	pause := func(d time.Duration) { <-time.After(d) }
	pause(2 * time.Second)
	away.kill()
	gone.Store(true)
	pause(absence)
	gone.Store(false)
	var n uint64
	// A node that is there may be too busy to say in time what it keeps.
	if err := poll(30*time.Second, func() (bool, error) {
		var silent int
		n, silent = hintsFor(t, here, away.name)
		return n > 0 && silent == 1, nil
	}); err != nil {
		t.Errorf("after %s there are %d hints, and not just one node does not answer: %v", absence, n, err)
	}
	t.Logf("%d writes in %s while it was away, %.0f a second; %d hints of %.0f bytes", during.Load(), absence, float64(during.Load())/absence.Seconds(),
		n, metricOf(t, c.agents[0], "pairdb_hints_backlog_bytes", away.name)+metricOf(t, c.agents[2], "pairdb_hints_backlog_bytes", away.name))
	if r := mustRun(t, "hints", "--endpoint", c.agents[2].addr.GRPC); !strings.Contains(string(r.stdout), away.name) {
		t.Errorf("hints says:\n%s", r.stdout)
	}
	if metricOf(t, c.agents[0], "pairdb_hints_backlog", away.name) == 0 && metricOf(t, c.agents[2], "pairdb_hints_backlog", away.name) == 0 {
		t.Error("no metric tells of a backlog")
	}
	back := time.Now()
	away.start()
	away.waitHealthy(60 * time.Second)
	drained := func() (bool, error) {
		n, silent := hintsFor(t, here, away.name)
		return n == 0 && silent == 0, nil
	}
	if err := poll(time.Minute, drained); err != nil {
		n, _ := hintsFor(t, here, away.name)
		t.Fatalf("a minute after its return there are %d hints for %s: %v", n, away.name, err)
	}
	t.Logf("no hints %v after it was started, under load", time.Since(back).Round(time.Millisecond))
	stop.Store(true)
	wg.Wait()
	if err := poll(30*time.Second, drained); err != nil {
		t.Fatal("hints are left when nobody writes any more")
	}
	var delivered, dropped float64
	for _, a := range []*agent{c.agents[0], c.agents[2]} {
		delivered += metricOf(t, a, "pairdb_hints_delivered_total")
		dropped += metricOf(t, a, "pairdb_hints_dropped_total")
	}
	if delivered == 0 || dropped != 0 {
		t.Errorf("%v hints delivered, %v dropped", delivered, dropped)
	}
	t.Logf("%.0f hints delivered", delivered)
	found, sent := c.total("pairdb_repair_differing_keys_total"), c.total("pairdb_repair_rows_total")
	r := c.repair()
	t.Logf("rounds by themselves had found %.0f keys and brought over %.0f rows; repair: %s", found, sent, r)
	if r.KeysDiffered != 0 || r.RowsSent != 0 {
		t.Errorf("after the hints repair finds something: %s", r)
	}
	c.agents[0].kill()
	c.agents[2].kill()
	alone, missing := c.client(1), 0
	for key, want := range acked {
		got, err := alone.Get(t.Context(), key, client.WithLevel(client.LevelOne))
		if err != nil || string(got.Value) != want {
			if missing++; missing <= 5 {
				t.Errorf("%s: %q, %v; want %q", key, got.Value, err, want)
			}
		}
	}
	if missing > 0 || len(acked) < 300 {
		t.Errorf("%d of %d keys are not as they were acknowledged", missing, len(acked))
	}
}

// TestHintOverflow: with room for 1 MiB of hints the rest is dropped, counted, said,
// and its partitions are dirty; no write notices. Rounds mend what was dropped.
func TestHintOverflow(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--set", "hints.max_bytes=1MiB")
	away, here := c.agents[2], c.client(0)
	away.kill()
	value := []byte("v")
	for i := range overflowBatches {
		ops := make([]client.Write, overflowBatch)
		for k := range ops {
			ops[k] = client.PutOp(fmt.Sprintf(overflowKey, i, k), value)
		}
		results, err := here.Batch(t.Context(), ops, client.WithLevel(client.LevelQuorum))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Err != nil {
				t.Fatalf("a write fails while hints overflow: %v", r.Err)
			}
		}
	}
	var dropped, dirty float64
	most := 0.0
	if err := poll(20*time.Second, func() (bool, error) {
		dropped, dirty = 0, 0
		for _, a := range c.agents[:2] {
			dropped += metricOf(t, a, "pairdb_hints_dropped_total", `reason="cap"`)
			dirty += metricOf(t, a, "pairdb_hints_dirty_partitions_total")
			most = max(most, metricOf(t, a, "pairdb_hints_backlog_bytes", away.name))
		}
		return dropped > 0 && dirty > 0, nil
	}); err != nil {
		t.Fatalf("%v dropped at the cap, %v partitions dirty", dropped, dirty)
	}
	if most == 0 || most > 1<<20 {
		t.Errorf("up to %v bytes are kept", most)
	}
	// It is told after it was counted.
	said := ""
	if err := poll(20*time.Second, func() (bool, error) {
		said = mustRun(t, "events", "--endpoint", here.Nodes()[0].Endpoint(), "-o", "plain").stdout
		return strings.Contains(said, "hints for "+away.name+" are dropped: there are as many as hints.max_bytes allows"), nil
	}); err != nil {
		t.Errorf("events says:\n%s", said)
	}
	away.start()
	away.waitHealthy(60 * time.Second)
	c.repair()
	mended := c.total("pairdb_repair_differing_keys_total")
	t.Logf("%.0f hints dropped and %.0f delivered; rounds found %.0f keys that differed", dropped, c.total("pairdb_hints_delivered_total"), mended)
	if mended == 0 {
		t.Error("rounds found nothing of what was dropped")
	}
	if r := c.repair(); r.KeysDiffered != 0 || r.RowsSent != 0 {
		t.Errorf("a second repair finds something: %s", r)
	}
	c.agents[0].kill()
	c.agents[1].kill()
	alone, missing := c.client(2), 0
	for i := range overflowBatches {
		for k := range overflowBatch {
			key := fmt.Sprintf(overflowKey, i, k)
			if got, err := alone.Get(t.Context(), key, client.WithLevel(client.LevelOne)); err != nil || string(got.Value) != "v" {
				missing++
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d keys are missing at the node that was away", missing, overflowBatches*overflowBatch)
	}
}

// overflowBatches batches of so many writes have about twice the hints that there is
// room for.
const overflowBatches, overflowBatch = 32, 500

// overflowKey is a key's form that is long enough for the hints to be many bytes.
const overflowKey = "a key that is long enough for the hints to be many bytes/%d/%d"

// metricOf is the sum of a metric's samples with all of these labels.
func metricOf(t *testing.T, a *agent, name string, want ...string) float64 {
	t.Helper()
	v, err := a.series(name, want...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
