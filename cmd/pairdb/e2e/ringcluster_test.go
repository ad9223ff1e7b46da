package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

// Limits of what these tests wait for.
const (
	// changeLimit is for one change of the ring with little data.
	changeLimit = 3 * time.Minute
	// ringSettle is the time after which a change begins.
	ringSettle = "1s"
)

// join starts a node that joins the cluster, and does not wait for more than its
// addresses.
func (c *cluster) join(extra ...string) *agent {
	c.t.Helper()
	name := fmt.Sprintf("node-%d", len(c.agents)+1)
	return c.joinAs(name, filepath.Join(c.t.TempDir(), name), extra...)
}

// joinAs is join with a name and a folder of the caller's.
func (c *cluster) joinAs(name, dir string, extra ...string) *agent {
	c.t.Helper()
	a := c.joiner(c.endpointsOf(func(a *agent) string { return a.addr.Gossip }), name, dir, extra...)
	a.start()
	return a
}

// joinTogether starts n nodes that join the cluster at the same time: none waits until
// another runs.
func (c *cluster) joinTogether(n int) {
	c.t.Helper()
	seeds := c.endpointsOf(func(a *agent) string { return a.addr.Gossip })
	before := len(c.agents)
	for range n {
		name := fmt.Sprintf("node-%d", len(c.agents)+1)
		if err := c.joiner(seeds, name, filepath.Join(c.t.TempDir(), name)).spawn(); err != nil {
			c.t.Fatalf("start %s: %v", name, err)
		}
	}
	for _, a := range c.agents[before:] {
		if err := a.readAddresses(); err != nil {
			c.t.Fatalf("start %s: %v", a.name, err)
		}
	}
}

// joiner adds a node that joins when it is started.
func (c *cluster) joiner(seeds []string, name, dir string, extra ...string) *agent {
	a := &agent{t: c.t, name: name, dir: dir, args: append([]string{"--join", strings.Join(seeds, ",")}, extra...)}
	c.agents = append(c.agents, a)
	return a
}

// ringState is what a node says of the ring.
type ringState struct {
	Ring struct {
		Version     string   `json:"version"`
		Changing    bool     `json:"changing"`
		OpenIntents int      `json:"open_intents"`
		Stage       string   `json:"stage"`
		WaitingFor  []string `json:"waiting_for"`
	} `json:"ring"`
	Verdict string     `json:"verdict"`
	Nodes   []ringNode `json:"nodes"`
}

// ringNode is what it says of one node.
type ringNode struct {
	NodeID     string `json:"node_id"`
	Name       string `json:"name"`
	State      string `json:"state"`
	Partitions int    `json:"partitions"`
}

// ring is the ring as one node sees it.
func (a *agent) ring() (ringState, error) {
	var s ringState
	r := run(a.t, nil, "status", "--endpoint", a.addr.GRPC, "-o", "json")
	if r.code != 0 {
		return s, fmt.Errorf("status: exit %d: %s", r.code, r.stderr)
	}
	return s, json.Unmarshal([]byte(r.stdout), &s)
}

func (s *ringState) String() string {
	var parts []string
	for _, n := range s.Nodes {
		parts = append(parts, fmt.Sprintf("%s %s %d", n.Name, n.State, n.Partitions))
	}
	return fmt.Sprintf("version %s %s, waits for %v, %d open; %s", s.Ring.Version, s.Ring.Stage, s.Ring.WaitingFor, s.Ring.OpenIntents, strings.Join(parts, ", "))
}

// waitRing waits until a node sees a stable ring of exactly those nodes, all up.
func (c *cluster) waitRing(at *agent, names ...string) {
	c.t.Helper()
	var last ringState
	err := poll(changeLimit, func() (bool, error) {
		s, err := at.ring()
		if err != nil {
			return false, nil // it may be starting
		}
		last = s
		var up []string
		for _, n := range s.Nodes {
			if n.State == "up" && n.Partitions > 0 {
				up = append(up, n.Name)
			}
		}
		slices.Sort(up)
		return !s.Ring.Changing && s.Ring.OpenIntents == 0 && len(s.Nodes) == len(names) && slices.Equal(up, names), nil
	})
	if err != nil {
		c.t.Fatalf("the ring is not %v: %v; %s", names, err, last.String())
	}
}

// moved is how many bytes the cluster says that it has moved of what is under way.
func (c *cluster) moved(at *agent) (bytes int64) {
	c.t.Helper()
	r := run(c.t, nil, "transfers", "--endpoint", at.addr.GRPC, "-o", "json")
	var x struct {
		Bytes int64 `json:"bytes_done,string"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &x); err != nil {
		c.t.Fatalf("transfers: exit %d, %v: %s", r.code, err, r.stderr)
	}
	return x.Bytes
}

// waitMoving waits until something of a change has been moved and more is to be.
func (c *cluster) waitMoving(at *agent) {
	c.t.Helper()
	c.waitStage(at, "proposed")
	if err := poll(time.Minute, func() (bool, error) { return c.moved(at) > 0, nil }); err != nil {
		c.t.Fatalf("nothing is moved: %v", err)
	}
	if s, err := at.ring(); err != nil || s.Ring.Stage != "proposed" {
		c.t.Fatalf("the change is over before anything could happen to it: %v, %v", s.String(), err)
	}
}

// waitReached waits until a node reaches all owners, old and new.
func (c *cluster) waitReached(at *agent) {
	c.t.Helper()
	cl := c.clientOf(at)
	var last error
	if err := poll(time.Minute, func() (bool, error) {
		last = reachesAll(c.t.Context(), cl)
		return last == nil, nil
	}); err != nil {
		c.t.Fatalf("%s does not reach all owners: %v: %v", at.name, err, last)
	}
}

// reachesAll says why a node does not reach some owner, nil if it reaches all.
func reachesAll(ctx context.Context, cl *client.Client) error {
	keys := make([]string, 32) // so many have all owners among them
	for i := range keys {
		keys[i] = fmt.Sprint("met/", i)
	}
	got, err := cl.MultiGet(ctx, keys, client.WithLevel(client.LevelAll))
	if err != nil {
		return err
	}
	for _, r := range got {
		if r.Err != nil && !errors.Is(r.Err, client.ErrKeyNotFound) {
			return r.Err
		}
	}
	return nil
}

// waitStage waits until a node sees the ring at a stage.
func (c *cluster) waitStage(at *agent, stage string) {
	c.t.Helper()
	var last ringState
	if err := poll(time.Minute, func() (bool, error) {
		s, err := at.ring()
		last = s
		return s.Ring.Stage == stage, err
	}); err != nil {
		c.t.Fatalf("the ring does not come to %s: %v; %s", stage, err, last.String())
	}
}

// wantNodes are the names node-1 to node-n.
func wantNodes(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("node-%d", i+1))
	}
	return names
}

// fill writes n keys with values that tell them apart, and returns them.
func (c *cluster) fill(at *agent, prefix string, n, size int) map[string]string {
	c.t.Helper()
	cl := c.clientOf(at)
	all := map[string]string{}
	const each = 200
	for first := 0; first < n; first += each {
		var ops []client.Write
		for i := first; i < min(first+each, n); i++ {
			key := fmt.Sprintf("%s/%d", prefix, i)
			all[key] = fmt.Sprintf("%s:%s", key, strings.Repeat("x", size))
			ops = append(ops, client.PutOp(key, []byte(all[key])))
		}
		results, err := cl.Batch(c.t.Context(), ops, client.WithLevel(client.LevelQuorum))
		if err != nil {
			c.t.Fatal(err)
		}
		for _, r := range results {
			if r.Err != nil {
				c.t.Fatal(r.Err)
			}
		}
	}
	return all
}

func (c *cluster) clientOf(a *agent) *client.Client {
	c.t.Helper()
	return c.client(slices.Index(c.agents, a))
}

// wantAll reads keys through one node and compares them.
func (c *cluster) wantAll(at *agent, want map[string]string) {
	c.t.Helper()
	cl, bad := c.clientOf(at), 0
	for _, key := range slices.Sorted(maps.Keys(want)) {
		got, err := cl.Get(context.Background(), key, client.WithLevel(client.LevelQuorum))
		if err != nil || len(got.Siblings) != 1 || string(got.Siblings[0].Value) != want[key] {
			if bad++; bad <= 5 {
				c.t.Errorf("%s through %s: %v, %v", key, at.name, got, err)
			}
		}
	}
	if bad > 0 {
		c.t.Fatalf("%d of %d keys are not as they were written", bad, len(want))
	}
}

// decommission has a node leave and waits until it has.
func (c *cluster) decommission(at, leaver *agent) {
	c.t.Helper()
	r := runFor(c.t, changeLimit, nil, "node", "decommission", leaver.name, "--yes", "--wait", "--endpoint", at.addr.GRPC, "-o", "json")
	if r.code != 0 || !strings.Contains(r.stdout, `"state": "done"`) {
		c.t.Fatalf("decommission of %s: exit %d\n%s%s", leaver.name, r.code, r.stdout, r.stderr)
	}
}

// equalOwners has all nodes compare everything: nothing may differ any more.
func (c *cluster) equalOwners() {
	c.t.Helper()
	first := c.repair()
	if again := c.repair(); again.KeysDiffered != 0 || again.RowsSent != 0 {
		c.t.Errorf("owners are not equal: %s, and then %s", first, again)
	}
	if r := runFor(c.t, changeLimit, nil, "verify", "--cluster", "--endpoint", c.agents[0].addr.GRPC); r.code != 0 {
		c.t.Errorf("verify: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// keysOnDisk counts the keys that the data directory of a stopped node has.
func keysOnDisk(t *testing.T, a *agent) int {
	t.Helper()
	r := run(t, nil, "debug", "dump", a.data)
	if r.code != 0 {
		t.Fatalf("dump of %s: exit %d\n%s", a.name, r.code, r.stderr)
	}
	return strings.Count(r.stdout, `"key_hex"`)
}

// forget takes agents out of the cluster's list.
func (c *cluster) forget(gone ...*agent) {
	c.agents = slices.DeleteFunc(c.agents, func(a *agent) bool { return slices.Contains(gone, a) })
}

// wipe takes a node's data away.
func (a *agent) wipe() {
	a.t.Helper()
	if err := os.RemoveAll(a.data); err != nil {
		a.t.Fatal(err)
	}
}

// tableBytes is how many bytes the engine's tables in a data directory have.
func tableBytes(t *testing.T, data string) (sum int64) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(data, "data", "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}
