package client

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client/clienttest"
)

func TestPlan(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name  string
		s     waiting
		do    action
		again time.Duration
	}{
		{"nothing to do", waiting{}, keepWaiting, waitEach},
		{"a hedge is near", waiting{took: ms, hedgeAfter: 4 * ms}, keepWaiting, 3 * ms},
		{"a hedge is due", waiting{took: 4 * ms, hedgeAfter: 4 * ms}, sendHedge, waitEach},
		{"the share is near", waiting{took: 10 * ms, share: 30 * ms}, keepWaiting, 20 * ms},
		{"the share is over", waiting{took: 30 * ms, share: 30 * ms, hedgeAfter: ms}, goOn, 0},
		{"silent", waiting{took: ms, share: time.Second, silent: true}, goOn, waitEach},
		{"silent, and a hedge is due", waiting{took: 9 * ms, hedgeAfter: ms, silent: true}, goOn, waitEach},
	} {
		if do, again := plan(tc.s); do != tc.do || again != tc.again {
			t.Errorf("%s: %d, again in %v", tc.name, do, again)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := func(name string) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, name))
		}
		s := waiting{took: d("took"), share: d("share"), hedgeAfter: d("hedgeAfter"), silent: rapid.Bool().Draw(t, "silent")}
		do, again := plan(s)
		if do != goOn && (again <= 0 || again > waitEach || s.share > 0 && s.took+again > s.share) {
			t.Fatalf("%+v: %d, again in %v", s, do, again)
		}
	})
}

// hangs makes calls of a method hang at a server until they are cancelled, and
// counts those that came and those that were.
func hangs(s *clienttest.Server, method string) (came, cancelled *atomic.Int64) {
	came, cancelled = new(atomic.Int64), new(atomic.Int64)
	s.SetHook(func(ctx context.Context, m string, req any) error {
		if !strings.HasSuffix(m, method) {
			return nil
		}
		came.Add(1)
		<-ctx.Done()
		cancelled.Add(1)
		return ctx.Err()
	})
	return came, cancelled
}

// connected makes all endpoints of a client usable at once, however short its timeout is.
func connected(t *testing.T, c *Client) {
	t.Helper()
	eventually(t, "all endpoints are connected to", func() bool {
		return !slices.ContainsFunc(c.Health(t.Context()), func(h Health) bool { return !h.Serving })
	})
}

func TestReadsAreHedged(t *testing.T) {
	for _, op := range []string{"/Get", "/MultiGet"} {
		t.Run(op, func(t *testing.T) {
			c, store, servers := start(t, 2, Options{NoRouting: true, NoNodeHealth: true})
			connected(t, c)
			store.SetValue("default", "k", []byte("v"))
			came, cancelled := hangs(servers[0], op)
			read := func() error {
				if op == "/Get" {
					_, err := c.Get(t.Context(), "k")
					return err
				}
				got, err := c.MultiGet(t.Context(), []string{"k"})
				if err == nil && string(got[0].Get.Value) != "v" {
					t.Errorf("%+v", got)
				}
				return err
			}
			began := time.Now()
			if err := read(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took < coldHedge || took > 4*time.Second {
				t.Errorf("it took %v", took)
			}
			eventually(t, "the first request is cancelled", func() bool { return cancelled.Load() > 0 && cancelled.Load() == came.Load() })
			if s := c.Stats(); s.Hedges != 1 || s.HedgesWon != 1 || s.Redirects != 0 {
				t.Errorf("%+v", s)
			}
			if c.Endpoint() != servers[0].Addr() {
				t.Error("one slow answer changes where calls begin")
			}
		})
	}
}

// TestSlowHedges: the first answer wins, and the hedge ends with it.
func TestSlowHedges(t *testing.T) {
	c, store, servers := start(t, 2, Options{NoRouting: true, NoNodeHealth: true})
	connected(t, c)
	store.SetValue("default", "k", []byte("v"))
	came, cancelled := hangs(servers[1], "/Get")
	servers[0].SetHook(func(ctx context.Context, m string, _ any) error {
		for came.Load() == 0 && ctx.Err() == nil { // until the hedge is there
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
		}
		return nil
	})
	if _, err := c.Get(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hedge is cancelled", func() bool { return cancelled.Load() == 1 })
	if s := c.Stats(); s.Hedges != 1 || s.HedgesWon != 0 {
		t.Errorf("%+v", s)
	}
}

// TestHedgesAnswers: what a hedge finds is worth what the first node finds, unless
// it is about the node.
func TestHedgesAnswers(t *testing.T) {
	t.Parallel()
	c, _, servers := start(t, 2, Options{NoRouting: true, NoNodeHealth: true, Retries: -1})
	connected(t, c)
	hangs(servers[0], "/Get")
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	if _, err := c.Get(long, "absent"); CodeOf(err) != errcode.KeyNotFound || time.Since(began) > 15*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	servers[1].SetHook(func(context.Context, string, any) error {
		return clienttest.Fail(errcode.Unavailable, "stopping", nil)
	})
	// The first node has its half of the time, then the other one is asked.
	short, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	began = time.Now()
	if _, err := c.Get(short, "absent"); CodeOf(err) != errcode.Unavailable || time.Since(began) < 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestWritesAreNotHedged(t *testing.T) {
	t.Parallel()
	c, _, servers := start(t, 2, Options{NoRouting: true, NoNodeHealth: true, Retries: -1, Timeout: 600 * time.Millisecond})
	connected(t, c)
	hangs(servers[0], "/Put")
	var asked atomic.Int64
	servers[1].SetHook(func(context.Context, string, any) error { asked.Add(1); return nil })
	_, err := c.Put(t.Context(), "k", nil)
	if e := asError(t, err); e.Code != errcode.Timeout || e.Outcome != errcode.Indeterminate || asked.Load() != 0 {
		t.Errorf("%v, asked %d times", e, asked.Load())
	}
	c.current.Store(0) // where it hangs
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, "k", nil, WithIdempotencyKey("id")); err != nil || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	if s := c.Stats(); s.Hedges != 0 {
		t.Errorf("%+v", s)
	}
}

func TestHedgesHaveABudget(t *testing.T) {
	t.Parallel()
	c, store, servers := start(t, 2, Options{NoRouting: true, NoNodeHealth: true})
	connected(t, c)
	store.SetValue("default", "k", []byte("v"))
	hangs(servers[0], "/Get")
	c.hedges.spent.Store(hedgesMost * hedgesEarn)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	began := time.Now()
	if _, err := c.Get(ctx, "k"); err != nil || time.Since(began) < 1500*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if s := c.Stats(); s.Hedges != 0 || s.HedgesRefused == 0 {
		t.Errorf("%+v", s)
	}
}

func TestNoHedging(t *testing.T) {
	t.Parallel()
	c, store, servers := start(t, 2, Options{NoRouting: true, NoHedging: true, NoNodeHealth: true})
	connected(t, c)
	store.SetValue("default", "k", []byte("v"))
	hangs(servers[0], "/Get")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if _, err := c.Get(ctx, "k"); err != nil {
		t.Error(err)
	}
	if s := c.Stats(); s.Hedges+s.HedgesRefused != 0 {
		t.Errorf("%+v", s)
	}
}

// TestManyHedges has hedges and answers race.
func TestManyHedges(t *testing.T) {
	c, store, servers := start(t, 3, Options{NoRouting: true})
	connected(t, c)
	store.SetValue("default", "k", []byte("v"))
	for _, s := range servers {
		var n atomic.Int64
		s.SetHook(func(ctx context.Context, m string, _ any) error {
			if !strings.HasSuffix(m, "/Get") || n.Add(1)%4 != 0 {
				return nil
			}
			select {
			case <-time.After(coldHedge):
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}
	done := make(chan error)
	const callers, calls = 8, 50
	for range callers {
		go func() {
			for range calls {
				got, err := c.Get(t.Context(), "k")
				if err == nil && string(got.Value) != "v" {
					t.Errorf("%+v", got)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range callers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if s := c.Stats(); s.Hedges == 0 {
		t.Errorf("%+v", s)
	}
}
