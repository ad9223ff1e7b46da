package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// syncs is how many syncs of logs the nodes have made together.
func (c *cluster) syncs() float64 {
	c.t.Helper()
	sum := 0.0
	for _, a := range c.agents {
		n, err := a.series("pairdb_engine_wal_syncs_total")
		if err != nil {
			c.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestHotKeySharesSyncs has 64 writers at a time, spread over three nodes, write
// one key, and 64 keys. A key whose lock is held while its write is synced would
// cost a sync for each write at each owner: three and more for all nodes together.
// Those of one key share them as those of many do.
func TestHotKeySharesSyncs(t *testing.T) {
	const writers, each = 64, 30
	c := startCluster(t, 3)
	var clients []*client.Client
	for i := range c.agents {
		clients = append(clients, c.client(i))
	}
	ctx := context.Background()
	// round has all writers do their calls, and returns syncs for each and calls a second.
	round := func(do func(cl *client.Client, key string, n int) error, keyOf func(w int) string) (perWrite, rate float64) {
		before, began := c.syncs(), time.Now()
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					if err := do(clients[w%len(clients)], keyOf(w), w*each+i); err != nil {
						t.Errorf("writer %d: %v", w, err)
						return
					}
				}
			})
		}
		wg.Wait()
		return (c.syncs() - before) / (writers * each), writers * each / time.Since(began).Seconds()
	}
	var ids atomic.Int64
	for _, kind := range []struct {
		name string
		do   func(cl *client.Client, key string, n int) error
		// most is how many syncs of all nodes together a call may take; it has
		// steps, at three owners, of which each is on disk before the next.
		most float64
	}{
		{"put", func(cl *client.Client, key string, n int) error {
			_, err := cl.Put(ctx, key, fmt.Append(nil, n))
			return err
		}, 1.5},
		{"put with an idempotency key", func(cl *client.Client, key string, n int) error {
			_, err := cl.Put(ctx, key, fmt.Append(nil, n), client.WithIdempotencyKey(fmt.Sprint("id-", ids.Add(1))))
			return err
		}, 3},
		{"put if what was read is there", func(cl *client.Client, key string, n int) error {
			r, err := cl.Get(ctx, key)
			if err != nil {
				return err
			}
			// Another writer may have been first, which is an answer like any other.
			_, err = cl.Put(ctx, key, fmt.Append(nil, n), client.IfMatch(r.Context))
			if client.CodeOf(err) == errcode.PreconditionFailed {
				return nil
			}
			return err
		}, 3},
	} {
		oneSyncs, oneRate := round(kind.do, func(int) string { return "hot" })
		manySyncs, manyRate := round(kind.do, func(w int) string { return fmt.Sprint("key-", w) })
		t.Logf("%s: %.2f syncs a call for one key, %.2f for %d keys; %.0f and %.0f calls/s: %.2f times", kind.name, oneSyncs, manySyncs, writers, oneRate, manyRate, oneRate/manyRate)
		if oneSyncs > kind.most {
			t.Errorf("%s: %.2f syncs a call for one key, at most %.1f", kind.name, oneSyncs, kind.most)
		}
	}
	// The key is the hottest of the cluster, for writes about half of them.
	var hot struct {
		HotKeys []struct {
			Key, Kind      string
			Share          float64
			PerSecond      float64 `json:"per_second"`
			PerSecondError float64 `json:"per_second_error"`
		} `json:"hot_keys"`
	}
	r := mustRun(t, "stats", "--hot", "-o", "json", "--endpoint", c.agents[1].addr.GRPC)
	if err := json.Unmarshal([]byte(r.stdout), &hot); err != nil || len(hot.HotKeys) < 40 {
		t.Fatalf("%v\n%s", err, r.stdout)
	}
	first := hot.HotKeys[0]
	if key, err := base64.StdEncoding.DecodeString(first.Key); err != nil || string(key) != "hot" || first.Kind != "write" || first.Share < 0.3 || first.Share > 0.7 || first.PerSecondError > first.PerSecond/2 {
		t.Errorf("the hottest key: %+v", first)
	}
	if table := mustRun(t, "stats", "--traffic", "--endpoint", c.agents[1].addr.GRPC).stdout; !strings.Contains(table, " put ") || !strings.Contains(table, "under way") {
		t.Errorf("traffic:\n%s", table)
	}
}
