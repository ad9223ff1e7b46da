package client

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client/clienttest"
)

// stall makes a server hang as a stopped process does: what was asked and what is
// asked waits until the server is let go. The other functions say how many calls
// about keys it was asked.
type stall struct {
	on    atomic.Bool
	asked atomic.Int64
	free  chan struct{}
}

func newStall(s *clienttest.Server, only string) *stall {
	st := &stall{free: make(chan struct{})}
	s.SetHook(func(ctx context.Context, method string, _ any) error {
		if strings.Contains(method, ".KV/") {
			st.asked.Add(1)
		}
		if !st.on.Load() || !strings.Contains(method, only) {
			return nil
		}
		select {
		case <-st.free:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return st
}

func (st *stall) begin() { st.on.Store(true) }
func (st *stall) end() {
	st.on.Store(false)
	close(st.free)
}

// keyOf returns a key of a server's.
func keyOf(server int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("key", i); owner(key) == server {
			return key
		}
	}
}

// TestAStoppedNode: reads go on at once, other calls within a second or so; what
// hangs there is only what cannot be sent again; and soon after the node is back it
// is used again.
func TestAStoppedNode(t *testing.T) {
	c, servers := three(t, Options{})
	stalls := make([]*stall, 3)
	for i, s := range servers {
		stalls[i] = newStall(s, "")
	}
	key := keyOf(1)
	eventually(t, "calls go to owners", func() bool {
		if _, err := c.Put(t.Context(), key, []byte("v")); err != nil {
			t.Fatal(err)
		}
		return stalls[1].asked.Load() > 0
	})
	stalls[1].begin()
	stuck := make(chan error, 1)
	for there := false; !there; {
		arrived := stalls[1].asked.Load()
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // not the default, which may be over here
			defer cancel()
			_, err := c.Put(ctx, key, []byte("w"))
			stuck <- err
		}()
		eventually(t, "a write hangs there, or went elsewhere", func() bool {
			there = stalls[1].asked.Load() > arrived
			return there || len(stuck) > 0
		})
		if !there { // a machine that stood still made the node look slow: once more
			if err := <-stuck; err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	for range 5 {
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(t.Context(), key, []byte("w"), WithIdempotencyKey("id")); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("calls took %v", took)
	}
	eventually(t, "the node is found silent", func() bool {
		// A read keeps what is seen of reads up to date.
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.Stats().Nodes {
			if n.Endpoint == servers[1].Addr() {
				return n.Gets == "silent" && n.Writes == "silent"
			}
		}
		return false
	})
	asked := stalls[1].asked.Load()
	for range 20 {
		if _, err := c.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if n := stalls[1].asked.Load() - asked; n != 0 {
		t.Errorf("it was asked %d times more", n)
	}
	select {
	case err := <-stuck:
		t.Fatalf("a write that cannot be sent again was given up: %v", err)
	default:
	}
	stalls[1].end()
	if err := <-stuck; err != nil {
		t.Error(err)
	}
	back := time.Now()
	eventually(t, "it is used again", func() bool {
		asked := stalls[1].asked.Load()
		if _, err := c.Put(t.Context(), key, []byte("y")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		return stalls[1].asked.Load() == asked+2
	})
	if took := time.Since(back); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	if s := c.Stats(); s.Avoided == 0 || s.Probes == 0 || s.Redirects+s.Hedges == 0 {
		t.Errorf("%+v", s)
	}
}

// TestWritesHangAlone: a node that reads and does not write is avoided for writes,
// though it answers probes.
func TestWritesHangAlone(t *testing.T) {
	c, servers := three(t, Options{})
	stalls := make([]*stall, 3)
	for i, s := range servers {
		stalls[i] = newStall(s, "/Put")
	}
	key := keyOf(1)
	eventually(t, "calls go to owners", func() bool {
		if _, err := c.Put(t.Context(), key, []byte("v")); err != nil {
			t.Fatal(err)
		}
		return stalls[1].asked.Load() > 0
	})
	stalls[1].begin()
	defer stalls[1].end()
	n := 0
	eventually(t, "puts go elsewhere, and gets do not", func() bool {
		n++
		began, asked := time.Now(), stalls[1].asked.Load()
		if _, err := c.Put(t.Context(), key, nil, WithIdempotencyKey(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("a put took %v", took)
		}
		puts := stalls[1].asked.Load() - asked
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		return puts == 0 && stalls[1].asked.Load() == asked+1
	})
}

// TestANodeThatCannotServe is not asked first by each call.
func TestANodeThatCannotServe(t *testing.T) {
	c, servers := three(t, Options{})
	counts := counted(servers)
	warm(t, c, counts)
	var bad atomic.Bool
	var asked atomic.Int64
	bad.Store(true)
	servers[1].SetHook(func(_ context.Context, method string, _ any) error {
		if !strings.Contains(method, ".KV/") {
			return nil
		}
		asked.Add(1)
		if bad.Load() {
			return clienttest.FailWrite(errcode.Unavailable, errcode.NotApplied, 0, 0, "stopping")
		}
		return nil
	})
	key := keyOf(1)
	put := func() {
		if _, err := c.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it is avoided", func() bool {
		before := asked.Load()
		put()
		return asked.Load() == before
	})
	before, began := asked.Load(), time.Now()
	const calls = 200
	for range calls {
		put()
	}
	// Beside the trials it is asked when the others look slow for a moment.
	if n := asked.Load() - before; n > int64(time.Since(began)/trialEach)+calls/4 {
		t.Errorf("%d of %d calls were sent to it", n, calls)
	}
	bad.Store(false)
	eventually(t, "it is used again", func() bool {
		before := asked.Load()
		for range 5 {
			put()
		}
		return asked.Load() == before+5
	})
}

func TestNoNodeHealth(t *testing.T) {
	c, servers := three(t, Options{NoNodeHealth: true, NoHedging: true})
	counts := counted(servers)
	warm(t, c, counts)
	var asked atomic.Int64
	servers[1].SetHook(func(_ context.Context, method string, _ any) error {
		if strings.HasSuffix(method, "/Get") {
			asked.Add(1)
			return clienttest.Fail(errcode.Unavailable, "stopping", nil)
		}
		return nil
	})
	key := keyOf(1)
	if _, err := c.Put(t.Context(), key, nil); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if asked.Load() != 50 {
		t.Errorf("%d of 50 calls were sent to the owner", asked.Load())
	}
}

// TestPipelineOfAStoppedNode: what may be sent again does not wait for its
// deadline.
func TestPipelineOfAStoppedNode(t *testing.T) {
	c, store, servers := start(t, 2, Options{})
	store.SetValue("default", "k", []byte("v"))
	st := newStall(servers[0], "/Pipeline")
	st.begin()
	defer st.end()
	p := c.Pipeline()
	defer p.Close()
	began := time.Now()
	get, put := p.Get(t.Context(), "k"), p.Put(t.Context(), "k2", nil, WithIdempotencyKey("id"))
	if _, err := get.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := put.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestMovesHaveABudget: when all nodes fail, not all calls are sent to all of them.
func TestMovesHaveABudget(t *testing.T) {
	c, _, servers := start(t, 3, Options{Retries: -1, NoRouting: true, NoThrottling: true, NoNodeHealth: true, NoHedging: true})
	counts := counted(servers)
	for i, s := range servers {
		s.SetHook(func(context.Context, string, any) error {
			counts[i].Add(1)
			return clienttest.Fail(errcode.Unavailable, "down", nil)
		})
	}
	const calls = 200
	for range calls {
		if err := call(t.Context(), c, "get"); err == nil {
			t.Fatal("it succeeded")
		}
	}
	var asked int64
	for _, n := range counts {
		asked += n.Load()
	}
	if asked != calls+movesMost || c.Stats().BudgetsEmpty == 0 {
		t.Errorf("%d calls were sent %d times", calls, asked)
	}
}

func TestBudgets(t *testing.T) {
	b := newBudget(3, 5)
	for range 3 {
		if !b.spend() {
			t.Fatal("less than at first")
		}
	}
	for range 2 {
		for range 4 {
			b.earn()
		}
		if b.spend() {
			t.Fatal("earned too soon")
		}
		b.earn()
		if !b.spend() {
			t.Fatal("not earned")
		}
	}
	for range 100 {
		b.earn()
	}
	for range 3 {
		b.spend()
	}
	if b.spend() {
		t.Error("more is saved than at first")
	}
}

// TestOwnPause: a process that was stopped does not blame the nodes.
func TestOwnPause(t *testing.T) {
	c, err := New(Options{Endpoints: []string{"127.0.0.1:1", "127.0.0.1:2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.conns[0].lanes[getClass].begin()
	for range 5 {
		c.watcher.look(elapsed(time.Unix(1, 0), time.Unix(11, 0)))
	}
	if got := c.Stats().Nodes[0]; got.Gets != "fine" || got.Outstanding != 1 {
		t.Errorf("%+v", got)
	}
	for range 20 {
		c.watcher.look(elapsed(time.Unix(0, 0), time.Unix(0, int64(lookEach))))
	}
	if got := c.Stats().Nodes[0]; got.Gets != "silent" {
		t.Errorf("%+v", got)
	}
}

func TestEndings(t *testing.T) {
	c, _, _ := start(t, 1, Options{Retries: -1})
	for _, tc := range []struct {
		err  error
		want ending
	}{
		{clienttest.Fail(errcode.KeyNotFound, "none", nil), served},
		{clienttest.Fail(errcode.Unavailable, "stopping", nil), unserved},
		{clienttest.Fail(errcode.Timeout, "late", nil), served},
		{context.DeadlineExceeded, unheard},
	} {
		_, e := send(t.Context(), c.conns[0], "get", reads, getClass, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (any, error) {
			return nil, tc.err
		})
		if e == nil || endingOf(e) != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, endingOf(e), tc.want)
		}
	}
	if endingOf(nil) != served {
		t.Error("an answer is one")
	}
}
