package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

// forwards is how many operations the nodes that are up handed to owners.
func (c *cluster) forwards() (sum float64) {
	c.t.Helper()
	for _, a := range c.agents {
		n, err := a.series("pairdb_forwards_total")
		if err != nil {
			c.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestClientsFindOwners: a client that knows one of five nodes sends each call to
// an owner of its key after a while, so that nothing is forwarded; the death of a
// node costs no call that may be repeated, nor does its return.
func TestClientsFindOwners(t *testing.T) {
	c := startCluster(t, 5)
	cl, err := client.New(client.Options{Endpoints: c.endpoints()[:1]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	round := 0
	work := func(n int) {
		t.Helper()
		round++
		for i := range n {
			key := fmt.Sprintf("routed/%d/%d", round, i)
			if _, err := cl.Put(t.Context(), key, []byte(key), client.WithIdempotencyKey("once")); err != nil {
				t.Fatal(err)
			}
			if r, err := cl.Get(t.Context(), key); err != nil || string(r.Value) != key {
				t.Fatalf("%s: %v", key, err)
			}
		}
	}
	quiet := func() {
		t.Helper()
		err := poll(90*time.Second, func() (bool, error) {
			before := c.forwards()
			work(100)
			return c.forwards() == before, nil
		})
		if err != nil {
			t.Fatalf("calls are still forwarded: %v", err)
		}
	}
	quiet()
	victim := c.agents[4]
	victim.kill()
	work(300)
	victim.start()
	victim.waitHealthy(60 * time.Second)
	quiet()
}
