package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client/clienttest"
)

// modelled has a program ask for rate calls a second for d, of which a cluster takes
// capacity, and returns how many were sent and taken.
func modelled(th *throttle, random *rand.Rand, now *time.Time, d time.Duration, rate, capacity float64) (sent, taken float64) {
	tick := 10 * time.Millisecond
	owed, room := 0.0, 0.0
	for end := now.Add(d); now.Before(end); *now = now.Add(tick) {
		room = min(room, 1) + capacity*tick.Seconds()
		for owed += rate * tick.Seconds(); owed >= 1; owed-- {
			if th.on.Load() {
				if ok, _ := th.admit(*now, random.Float64()); !ok {
					continue
				}
			}
			sent++
			if room >= 1 {
				room--
				taken++
				if th.on.Load() {
					th.note(*now, "")
				}
			} else {
				th.note(*now, errcode.RateLimited)
			}
		}
	}
	return sent, taken
}

// TestThrottle: under an overload the cluster gets little more than twice what it
// takes, or one call in ten; it goes on to take as much as it can; and soon after
// the end all is sent again.
func TestThrottle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		rate := float64(rapid.IntRange(500, 20_000).Draw(t, "rate"))
		capacity := rate * float64(rapid.IntRange(0, 40).Draw(t, "percent")) / 100
		th := new(throttle)
		now := time.Unix(1, 0)
		modelled(th, random, &now, 10*time.Second, rate, capacity) // it settles
		sent, taken := modelled(th, random, &now, 10*time.Second, rate, capacity)
		sent, taken = sent/10, taken/10
		if most := max(2.4*capacity, 0.12*rate) + 30; sent > most {
			t.Fatalf("of %.0f/s, %.0f are sent to a cluster that takes %.0f", rate, sent, capacity)
		}
		if capacity > 100 && taken < 0.75*capacity {
			t.Fatalf("it takes %.0f/s of the %.0f that it could, of %.0f", taken, capacity, rate)
		}
		modelled(th, random, &now, 6*time.Second, rate, 2*rate)
		if sent, _ := modelled(th, random, &now, time.Second, rate, 2*rate); sent < 0.98*rate {
			t.Fatalf("6 s after an overload %.0f of %.0f are sent", sent, rate)
		}
	})
}

func TestThrottleOfACalmCluster(t *testing.T) {
	th := new(throttle)
	now := time.Unix(1, 0)
	random := rand.New(rand.NewPCG(1, 1))
	// One in ten is refused, for other reasons than overload.
	for range 10_000 {
		now = now.Add(time.Millisecond)
		if th.on.Load() {
			if ok, _ := th.admit(now, random.Float64()); !ok {
				t.Fatal("a call was not sent")
			}
		}
		if random.IntN(10) == 0 {
			th.note(now, errcode.RateLimited)
		} else if th.on.Load() {
			th.note(now, "")
		}
	}
	th.fadeLocked(now.Add(time.Minute))
	if th.on.Load() {
		t.Error("it counts a minute after the last call")
	}
}

func TestRefusedCallsAreNotSent(t *testing.T) {
	for _, tc := range []struct {
		name string
		call func(context.Context, *Client, *Pipeline) error
	}{
		{"get", func(ctx context.Context, c *Client, _ *Pipeline) error { return call(ctx, c, "get") }},
		{"put", func(ctx context.Context, c *Client, _ *Pipeline) error { return call(ctx, c, "put") }},
		{"batch", func(ctx context.Context, c *Client, _ *Pipeline) error {
			_, err := c.Batch(ctx, []Write{PutOp("k", nil)})
			return err
		}},
		{"batcher", func(ctx context.Context, c *Client, _ *Pipeline) error {
			_, err := c.Batcher().Put(ctx, "k", nil)
			return err
		}},
		{"pipeline", func(ctx context.Context, _ *Client, p *Pipeline) error {
			_, err := p.Put(ctx, "k", nil).Wait(ctx)
			return err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, store, servers := start(t, 1, Options{Retries: -1, NoRouting: true, NoNodeHealth: true})
			store.SetValue("default", "k", []byte("v"))
			p := c.Pipeline()
			defer p.Close()
			var asked atomic.Int64
			refuse := clienttest.FailWrite(errcode.RateLimited, errcode.NotApplied, 0, 0, "too much")
			servers[0].SetHook(func(_ context.Context, _ string, req any) error {
				if req == nil {
					return nil // the stream, not what is on it
				}
				asked.Add(1)
				return refuse
			})
			const calls = 1000
			var throttled int64
			for range calls {
				err := tc.call(t.Context(), c, p)
				if e := asError(t, errOr(err)); e.Code != errcode.RateLimited {
					t.Fatal(e)
				}
				if errors.Is(err, ErrThrottled) {
					if throttled++; asError(t, err).Outcome == errcode.Indeterminate {
						t.Fatal(err)
					}
				}
			}
			if asked.Load() > calls/2 || asked.Load()+throttled < calls || c.Stats().Throttled != uint64(throttled) {
				t.Errorf("of %d calls %d were sent and %d not; stats %+v", calls, asked.Load(), throttled, c.Stats())
			}
			// Another tenant is no part of it.
			before := asked.Load()
			for range throttleSlack {
				if err := func() error { _, err := c.Get(t.Context(), "k", WithTenant("other")); return err }(); errors.Is(err, ErrThrottled) {
					t.Fatal("a call of another tenant was not sent")
				}
			}
			if asked.Load() != before+throttleSlack {
				t.Errorf("%d of 10 calls of another tenant were sent", asked.Load()-before)
			}
			servers[0].SetHook(nil)
			began := time.Now()
			eventually(t, "calls are sent again", func() bool {
				for range 20 {
					if tc.call(t.Context(), c, p) != nil {
						return false
					}
				}
				return true
			})
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// errOr is err, or that there should have been one.
func errOr(err error) error {
	if err == nil {
		return fmt.Errorf("it succeeded")
	}
	return err
}

func TestNoThrottling(t *testing.T) {
	c, _, servers := start(t, 1, Options{Retries: -1, NoRouting: true, NoThrottling: true, NoNodeHealth: true})
	var asked atomic.Int64
	servers[0].SetHook(func(context.Context, string, any) error {
		asked.Add(1)
		return clienttest.Fail(errcode.ResourceExhausted, "too much", nil)
	})
	for range 200 {
		if err := call(t.Context(), c, "get"); err == nil {
			t.Fatal("it succeeded")
		}
	}
	if asked.Load() != 200 {
		t.Errorf("%d of 200 calls were sent", asked.Load())
	}
}

func TestThrottlesAreBounded(t *testing.T) {
	var ts throttles
	for i := range 10 * maxThrottled {
		ts.of(fmt.Sprint("t", i), "own")
	}
	n := 0
	ts.others.Range(func(any, any) bool { n++; return true })
	if n > maxThrottled || ts.of("own", "own") != &ts.first || ts.of("t1", "own") == ts.of("t2", "own") || ts.of("new", "own") != &ts.rest {
		t.Errorf("%d throttles", n)
	}
}
