package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

func pipelineOf(t *testing.T, c *Client) *Pipeline {
	t.Helper()
	p := c.Pipeline()
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestPipeline(t *testing.T) {
	c, store, servers := start(t, 1, Options{})
	ctx := t.Context()
	p := pipelineOf(t, c)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var puts []*Future[*PutResult]
			for i := range 300 {
				puts = append(puts, p.Put(ctx, fmt.Sprintf("k%d/%d", g, i), fmt.Append(nil, i), WithLevel(LevelAll)))
			}
			for i, f := range puts {
				r, err := f.Wait(ctx)
				if err != nil || r.Acks != 2 || r.Level != LevelAll {
					t.Errorf("put %d: %+v, %v", i, r, err)
				}
			}
			var gets []*Future[*GetResult]
			for i := range 300 {
				gets = append(gets, p.Get(ctx, fmt.Sprintf("k%d/%d", g, i)))
			}
			for i, f := range gets {
				<-f.Done()
				if r, err := f.Wait(ctx); err != nil || string(r.Value) != fmt.Sprint(i) {
					t.Errorf("get %d: %+v, %v", i, r, err)
				}
			}
		})
	}
	wg.Wait()
	if store.Len() != 2400 {
		t.Errorf("%d keys", store.Len())
	}
	if r, err := p.Delete(ctx, "k0/0").Wait(ctx); err != nil || r.Dot.Counter == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := p.Get(ctx, "k0/0").Wait(ctx); !errors.Is(err, ErrKeyNotFound) || asError(t, err).Endpoint != servers[0].Addr() {
		t.Errorf("%v", err)
	}
	for _, err := range []error{
		second(p.Put(ctx, "", nil).Wait(ctx)), second(p.Put(ctx, "k", make([]byte, MaxValueSize+1)).Wait(ctx)),
		second(p.Delete(ctx, "k", WithIdempotencyKey(""), WithLevel(LevelAll)).Wait(ctx)), second(p.Get(ctx, strings.Repeat("k", 1025)).Wait(ctx)),
	} {
		if asError(t, err).Endpoint != "" {
			t.Errorf("sent: %v", err)
		}
	}
	// A request that does not end holds up no other, and its caller may go.
	servers[0].SetHook(func(ctx context.Context, _ string, req any) error {
		if g, ok := req.(*pairdbv1.GetRequest); ok && string(g.GetKey()) == "slow" {
			<-ctx.Done()
		}
		return nil
	})
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	slow := p.Get(short, "slow")
	if _, err := p.Get(ctx, "k1/1").Wait(ctx); err != nil {
		t.Error(err)
	}
	gone, leave := context.WithCancel(ctx)
	leave()
	if _, err := slow.Wait(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := slow.Wait(ctx); !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Put(ctx, "late", nil).Wait(ctx); !errors.Is(err, ErrClosed) || asError(t, err).Outcome != errcode.NotApplied {
		t.Errorf("%v", err)
	}
}

func second[R any](_ R, err error) error { return err }

// TestPipelineHasAWindow: the 1025th request waits, as long as its context lets it.
func TestPipelineHasAWindow(t *testing.T) {
	c, _, servers := start(t, 1, Options{})
	release := make(chan struct{})
	servers[0].SetHook(func(_ context.Context, _ string, req any) error {
		if req != nil {
			<-release
		}
		return nil
	})
	p := pipelineOf(t, c)
	var all []*Future[*PutResult]
	for i := range pipelineWindow {
		all = append(all, p.Put(t.Context(), fmt.Sprint(i), nil))
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := p.Put(short, "more", nil).Wait(t.Context())
	if e := asError(t, err); e.Code != errcode.Timeout || e.Outcome != errcode.NotApplied {
		t.Errorf("%+v", e)
	}
	close(release)
	for _, f := range append(all, p.Put(t.Context(), "more", nil)) {
		if _, err := f.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestPipelineMovesOn: when the stream breaks, what can be sent again is, and the
// rest is in doubt.
func TestPipelineMovesOn(t *testing.T) {
	for name, tc := range map[string]struct {
		// end is what becomes of the first node's stream.
		end func(s *clienttest.Server)
		// plain says whether a write without an idempotency key is done.
		plain bool
	}{
		"killed": {func(s *clienttest.Server) { s.Close() }, false},
		"drained": {func(s *clienttest.Server) {
			s.EndStreams(clienttest.FailWrite(errcode.Unavailable, errcode.NotApplied, 0, 0, "shutting down"))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, store, servers := start(t, 2, Options{})
			var arrived atomic.Int64
			servers[0].SetHook(func(ctx context.Context, _ string, req any) error {
				if req == nil {
					return nil
				}
				arrived.Add(1)
				<-ctx.Done() // of the stream
				return status.FromContextError(ctx.Err()).Err()
			})
			p := pipelineOf(t, c)
			ctx := t.Context()
			store.SetValue("default", "r", []byte("v"))
			get := p.Get(ctx, "r")
			keyed := p.Put(ctx, "keyed", nil, WithIdempotencyKey("id"))
			one := p.Put(ctx, "one", nil, WithIdempotencyKey("id"), WithLevel(LevelOne))
			plain := p.Put(ctx, "plain", nil)
			waitUntil(t, func() bool { return arrived.Load() == 4 })
			tc.end(servers[0])
			if r, err := get.Wait(ctx); err != nil || string(r.Value) != "v" {
				t.Errorf("%v", err)
			}
			if _, err := keyed.Wait(ctx); err != nil {
				t.Errorf("%v", err)
			}
			for name, f := range map[string]*Future[*PutResult]{"plain": plain, "one": one} {
				_, err := f.Wait(ctx)
				if _, stored := store.Value("default", name); stored != tc.plain || (err == nil) != tc.plain {
					t.Errorf("%s: %v, stored %v", name, err, stored)
				}
				if err != nil {
					if e := asError(t, err); e.Outcome != errcode.Indeterminate || e.Code != errcode.Unavailable {
						t.Errorf("%s: %+v", name, e)
					}
				}
			}
			// It goes on where it is now.
			if _, err := p.Put(ctx, "next", nil).Wait(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPipelineLeavesASilentNode: one that takes requests and says nothing.
func TestPipelineLeavesASilentNode(t *testing.T) {
	c, _, servers := start(t, 2, Options{Timeout: 300 * time.Millisecond})
	connected(t, c)
	servers[0].SetHook(func(ctx context.Context, _ string, req any) error {
		if req != nil {
			<-ctx.Done()
		}
		return nil
	})
	p := pipelineOf(t, c)
	_, err := p.Put(t.Context(), "k", nil).Wait(t.Context())
	if e := asError(t, err); e.Code != errcode.Timeout || e.Outcome != errcode.Indeterminate {
		t.Errorf("%+v", e)
	}
	waitUntil(t, func() bool {
		_, err := p.Put(t.Context(), "k", nil).Wait(t.Context())
		return err == nil
	})
}

// TestPipelineWithoutNodes: requests fail without having been sent, and go well
// once a node is there.
func TestPipelineWithoutNodes(t *testing.T) {
	c, err := New(Options{Endpoints: []string{deadEndpoint(t), deadEndpoint(t)}})
	if err != nil {
		t.Fatal(err)
	}
	p := c.Pipeline()
	_, err = p.Put(t.Context(), "k", nil).Wait(t.Context())
	if e := asError(t, err); !errors.Is(err, ErrNotConnected) || e.Outcome != errcode.NotApplied {
		t.Errorf("%+v", e)
	}
	if err := errors.Join(c.Close(), second(p.Get(t.Context(), "k").Wait(t.Context()))); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestPipelineAnswersAreBelievedOnlyIfTheyFit: a node that answers a put with a
// get has not said what became of it.
func TestPipelineAnswersAreBelievedOnlyIfTheyFit(t *testing.T) {
	f := newFuture[*PutResult]()
	f.settle(nil, orOther(nil, "put", writes))
	if e := asError(t, f.err); e.Code != errcode.Internal || e.Outcome != errcode.Indeterminate {
		t.Errorf("%+v", e)
	}
	if e := orOther(nil, "get", reads); e.Outcome != "" {
		t.Errorf("%+v", e)
	}
	if e := itemError("put", writes, "", &pairdbv1.ItemError{}); e.Code != errcode.Internal || e.Outcome != errcode.Indeterminate {
		t.Errorf("%+v", e)
	}
	if status.Code(clienttest.Fail(errcode.Unavailable, "", nil)) != codes.Unavailable {
		t.Error("the fake fails in another way than a node")
	}
}

// waitUntil polls for 20 s.
func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for over := time.After(20 * time.Second); ; {
		if ok() {
			return
		}
		select {
		case <-tick.C:
		case <-over:
			t.Fatal("still waiting after 20 s")
		}
	}
}
