package e2e

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// TestPipelineSurvivesKill: the node that a pipeline goes to is killed with many
// requests in flight. Those with an idempotency key go on at another node, and what that
// cannot do at the moment is done when it is sent again; of the others each says what
// became of it, and what was acknowledged is there.
func TestPipelineSurvivesKill(t *testing.T) {
	c := startCluster(t, 3)
	cl, err := client.New(client.Options{Endpoints: c.endpoints(), NoRouting: true, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	p := cl.Pipeline()
	const n = 6000
	keyed := func(i int) bool { return i%2 == 0 }
	all := make([]*client.Future[*client.PutResult], n)
	killed := make(chan error, 1)
	for i := range all {
		var opts []client.CallOption
		if keyed(i) {
			opts = append(opts, client.WithIdempotencyKey(fmt.Sprint("id-", i)))
		}
		all[i] = p.Put(t.Context(), fmt.Sprint("piped/", i), fmt.Append(nil, i), opts...)
		if i == n/3 {
			// At once, while requests are in flight, however late the rest.
			c.agents[0].signal(syscall.SIGKILL)
			go func() {
				c.agents[0].kill()
				killed <- c.agents[0].launch()
			}()
		}
	}
	acked, doubt, refused := 0, 0, 0
	there := make([]bool, n)
	var again []int
	for i, f := range all {
		_, err := f.Wait(t.Context())
		var e *client.Error
		switch {
		case err == nil:
			acked++
			there[i] = true
		case !errors.As(err, &e):
			t.Errorf("put %d: %v", i, err)
		case keyed(i) && e.Code != errcode.Unavailable && errcode.Lookup(e.Code).Retryable:
			// It did go on: of the two nodes that are left one may have stood still.
			again = append(again, i)
		case keyed(i):
			t.Errorf("put %d did not go on at another node: %v", i, err)
		case e.Outcome == errcode.NotApplied:
			refused++
		default:
			doubt++
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	c.agents[0].waitHealthy(60 * time.Second)
	c.meet()
	for _, i := range again {
		if _, err := cl.Put(t.Context(), fmt.Sprint("piped/", i), fmt.Append(nil, i), client.WithIdempotencyKey(fmt.Sprint("id-", i))); err != nil {
			t.Fatalf("put %d, sent again: %v", i, err)
		}
		there[i] = true
	}
	for i := range all {
		r, err := cl.Get(t.Context(), fmt.Sprint("piped/", i))
		if there[i] && (err != nil || string(r.Value) != fmt.Sprint(i)) {
			t.Fatalf("put %d was acknowledged and is gone: %v", i, err)
		}
	}
	t.Logf("%d acknowledged, %d in doubt, %d not applied, %d sent again", acked, doubt, refused, len(again))
	if doubt+refused+len(again) == 0 {
		t.Error("the kill met nothing")
	}
}
