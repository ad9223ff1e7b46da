package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// TestPipelineSurvivesKill: the node that a pipeline goes to is killed with many
// requests in flight. Those with an idempotency key go on at another node; of the
// others each says what became of it, and what was acknowledged is there.
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
			go func() {
				c.agents[0].kill()
				killed <- c.agents[0].launch()
			}()
		}
	}
	acked, doubt, refused := 0, 0, 0
	there := make([]bool, n)
	for i, f := range all {
		_, err := f.Wait(t.Context())
		var e *client.Error
		switch {
		case err == nil:
			acked++
			there[i] = true
		case keyed(i) || !errors.As(err, &e):
			t.Errorf("put %d: %v", i, err)
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
	for i := range all {
		r, err := cl.Get(t.Context(), fmt.Sprint("piped/", i))
		if there[i] && (err != nil || string(r.Value) != fmt.Sprint(i)) {
			t.Fatalf("put %d was acknowledged and is gone: %v", i, err)
		}
	}
	t.Logf("%d acknowledged, %d in doubt, %d not applied", acked, doubt, refused)
	if acked == n {
		t.Error("the kill met nothing")
	}
}
