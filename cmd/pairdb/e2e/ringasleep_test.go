package e2e

import (
	"flag"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

var sleepFor = flag.Duration("sleep.for", 0, "how long the coordinator sleeps at least, through a change of the ring and longer")

// TestCoordinatorSleepsThroughChange stops a node, has another join, and all keys
// overwritten meanwhile. The first requests through the node after it wakes are right:
// it reads what was written last, and what it writes is read by the others.
func TestCoordinatorSleepsThroughChange(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--set", "ring.settle="+ringSettle)
	c.fill(c.agents[0], "asleep", 500, 100)
	at := c.agents[0]
	// What the node refuses while it finds its links lost, and makes new ones, is asked for
	// again, as far as that doubles nothing.
	sleeper, err := client.New(client.Options{Endpoints: []string{c.agents[1].addr.GRPC}, NoRouting: true, Retries: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sleeper.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := sleeper.Get(t.Context(), "asleep/0"); err != nil {
		t.Fatal(err) // its connection stands before it sleeps
	}
	c.agents[1].signal(syscall.SIGSTOP)
	asleep := time.Now()
	defer c.agents[1].signal(syscall.SIGCONT)
	joiner := c.join()
	if err := poll(changeLimit, func() (bool, error) {
		s, err := at.ring()
		if err != nil {
			return false, err
		}
		owns := false
		for _, n := range s.Nodes {
			owns = owns || n.Name == joiner.name && n.State == "up" && n.Partitions > 0
		}
		return owns && !s.Ring.Changing, nil
	}); err != nil {
		s, _ := at.ring()
		t.Fatalf("the change does not end without the node that sleeps: %v; %s", err, s.String())
	}
	// Until the others know that it sleeps it is sent writes, and what becomes of those is
	// not known before it wakes.
	for _, a := range []*agent{at, c.agents[2], joiner} {
		if err := poll(time.Minute, func() (bool, error) {
			s, err := a.ring()
			return err == nil && slices.ContainsFunc(s.Nodes, func(n ringNode) bool { return n.Name == c.agents[1].name && n.State != "up" }), err
		}); err != nil {
			t.Fatalf("%s does not find out that %s sleeps: %v", a.name, c.agents[1].name, err)
		}
	}
	awake := c.client(0)
	for i := range 500 {
		if _, err := awake.Put(t.Context(), "asleep/"+strconv.Itoa(i), []byte("new"), client.WithLevel(client.LevelQuorum)); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(time.Until(asleep.Add(*sleepFor)))
	c.agents[1].signal(syscall.SIGCONT)
	t.Logf("%s was asleep for %s", c.agents[1].name, time.Since(asleep).Round(100*time.Millisecond))
	for i := range 500 {
		key := "asleep/" + strconv.Itoa(i)
		got, err := sleeper.Get(t.Context(), key, client.WithLevel(client.LevelQuorum))
		if err != nil || string(got.Value) != "new" {
			t.Fatalf("%s through the node that slept, request %d: %q, %v", key, i+1, got.Value, err)
		}
		if i%5 > 0 {
			continue
		}
		if _, err := sleeper.Put(t.Context(), key, []byte("newest"), client.WithLevel(client.LevelQuorum)); err != nil {
			t.Fatalf("a write through the node that slept: %v", err)
		}
		if got, err := awake.Get(t.Context(), key, client.WithLevel(client.LevelQuorum)); err != nil || string(got.Value) != "newest" {
			t.Fatalf("%s, written through the node that slept: %q, %v", key, got.Value, err)
		}
	}
	c.waitRing(at, wantNodes(4)...)
	c.equalOwners()
}
