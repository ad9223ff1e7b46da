package admission

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
)

// timedKV answers a Put after a time.
type timedKV struct {
	slowKV
	took time.Duration
	done atomic.Int64
}

func (k *timedKV) Put(context.Context, coord.PutRequest) (coord.WriteResponse, error) {
	time.Sleep(k.took)
	k.done.Add(1)
	return coord.WriteResponse{}, nil
}

// TestRefusedStayAway: of clients that come back when they are told to, many more
// than there is room for, so few are refused in a second that it costs little, the
// node is busy all the time, and the delay is short again when they are gone.
func TestRefusedStayAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := &timedKV{took: 20 * time.Millisecond} // 16 at once: 800 a second
		g := New(kv, Options{Bounds: Bounds{Floor: 16, Ceiling: 16, Queue: 16, Wait: time.Second}, Now: time.Now})
		ctx, cancel := context.WithCancel(t.Context())
		var refused atomic.Int64
		var wg sync.WaitGroup
		for range 2000 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, err := g.Put(ctx, coord.PutRequest{})
					if e, ok := err.(*coord.Error); ok {
						refused.Add(1)
						time.Sleep(e.RetryAfter)
					}
				}
			})
		}
		time.Sleep(10 * time.Second) // it finds the delay
		r, d := refused.Load(), kv.done.Load()
		time.Sleep(20 * time.Second)
		r, d = refused.Load()-r, kv.done.Load()-d
		t.Logf("in 20 s %d were done and %d refused", d, r)
		if d < 800*20*95/100 || r > 3*d {
			t.Errorf("in 20 s %d were done of the 16000 that can be, and %d refused", d, r)
		}
		cancel()
		wg.Wait()
		time.Sleep(time.Minute)
		if n := g.pressure[Writes].next(time.Now(), 0, 0); n != 0 {
			t.Errorf("the delay is that of step %d after a minute of calm", n)
		}
	})
}
