package node

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/node/admission"
)

// awaitDrain asks until a node's drain has a state.
func awaitDrain(t *testing.T, c *client.Client, node, state string) *pairdbv1.NodeDrain {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(30 * time.Second)
	for {
		d, err := c.DrainStatus(t.Context(), node)
		if err == nil && d.GetState() == state {
			return d
		}
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("%s does not come to %s: %v, %v", node, state, d, err)
		}
	}
}

// drain asks once more, as whoever drains a node does, if the node was not reached within
// the two seconds that one node has to answer another.
func drain(t *testing.T, c *client.Client, r *pairdbv1.DrainRequest) (*pairdbv1.NodeDrain, error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
		d, err := c.Drain(t.Context(), r)
		if code := client.CodeOf(err); code != errcode.Unavailable && code != errcode.Timeout || time.Now().After(end) {
			return d, err
		}
	}
}

// TestDrain has one of three nodes drained through another: it refuses clients, is a
// replica on, tells the others, and serves again once that is undone.
func TestDrain(t *testing.T) {
	nodes := startNodes(t, 0, 0, 0)
	via, drained := nodes[0].client(), nodes[2].client()
	put(t, via, "before", "1")
	before, err := http.Get("http://" + nodes[2].addrs.HTTP + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	before.Body.Close()
	if before.StatusCode != 200 || before.Close {
		t.Errorf("before: %d, closes its connection: %v", before.StatusCode, before.Close)
	}

	d, err := drain(t, via, &pairdbv1.DrainRequest{Node: "node-3"})
	if err != nil || d.GetName() != "node-3" || d.GetState() == "serving" || d.GetAskedAt() == nil {
		t.Fatalf("%v, %v", d, err)
	}
	if again, err := drained.Drain(t.Context(), &pairdbv1.DrainRequest{}); err != nil || again.GetAskedAt().AsTime() != d.GetAskedAt().AsTime() {
		t.Errorf("asked for again: %v, %v", again, err)
	}
	done := awaitDrain(t, via, "node-3", "drained")
	if done.GetRequests() != 0 || done.GetMemoryBytes() > 4096 || done.GetDetail() != "" || done.GetDrainedAt() == nil {
		t.Errorf("drained: %v", done)
	}
	var ce *client.Error
	for range 2 {
		if _, err := drained.Put(t.Context(), "no", []byte("body")); !errors.As(err, &ce) || ce.Code != errcode.Unavailable || ce.Outcome != errcode.NotApplied || !strings.Contains(ce.Message, "drained") {
			t.Errorf("a put through it: %v", err)
		}
		if _, err := drained.Get(t.Context(), "before"); !errors.As(err, &ce) || ce.Code != errcode.Unavailable {
			t.Errorf("a get through it: %v", err)
		}
	}
	after, err := http.Get("http://" + nodes[2].addrs.HTTP + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	after.Body.Close()
	if after.StatusCode != 503 || !after.Close {
		t.Errorf("drained: %d, closes its connection: %v", after.StatusCode, after.Close)
	}
	// It is an owner on: ALL needs it.
	if _, err := via.Put(t.Context(), "all", []byte("of them"), client.WithLevel(client.LevelAll)); err != nil {
		t.Errorf("a put at ALL: %v", err)
	}
	// Its own word comes first, and what gossip carries a moment later.
	waitFor(t, "the others know that it is drained, and the cluster is healthy", func() bool {
		st, err := via.Status(t.Context())
		return err == nil && st.GetVerdict() == "healthy" && st.GetNodes()[2].GetState() == "drained"
	})

	if d, err = drain(t, via, &pairdbv1.DrainRequest{Node: "node-3", Undo: true}); err != nil || d.GetState() != "serving" {
		t.Errorf("undone: %v, %v", d, err)
	}
	wantValue(t, drained, "all", "of them")
	put(t, drained, "again", "2")
	if d, err = drain(t, via, &pairdbv1.DrainRequest{Node: "node-3", Undo: true}); err != nil || d.GetState() != "serving" {
		t.Errorf("undone again: %v, %v", d, err)
	}
	// And a second time, which a restart ends.
	if _, err = drained.Drain(t.Context(), &pairdbv1.DrainRequest{}); err != nil {
		t.Fatal(err)
	}
	awaitDrain(t, drained, "", "drained")
	nodes[2].stop()
	nodes[2].restart()
	restarted := nodes[2].client()
	put(t, restarted, "after", "3")
	if d, err = restarted.DrainStatus(t.Context(), ""); err != nil || d.GetState() != "serving" {
		t.Errorf("after a restart: %v, %v", d, err)
	}
}

// TestDrainWaits: for timeouts.drain_delay the node serves on though it says that it does
// not, and an undo in it leaves no trace. A stop after a drain that is done does not wait
// for it again.
func TestDrainWaits(t *testing.T) {
	cfg := soloConfig(t)
	cfg.Timeouts.DrainDelay = time.Minute // it is not over before the test is
	n := run(t, cfg, func(*Node) {})
	c := (&testNode{t: t, addrs: n.addrs}).client()
	d, err := c.Drain(t.Context(), &pairdbv1.DrainRequest{})
	if err != nil || d.GetState() != "draining" || !strings.Contains(d.GetDetail(), "timeouts.drain_delay") {
		t.Fatalf("%v, %v", d, err)
	}
	if h := c.Health(t.Context()); h[0].Serving {
		t.Error("it says that it serves")
	}
	put(t, c, "k", "v")
	if _, err := c.Drain(t.Context(), &pairdbv1.DrainRequest{Undo: true}); err != nil {
		t.Fatal(err)
	}
	if h := c.Health(t.Context()); !h[0].Serving {
		t.Error("undone, it does not serve")
	}
	wantValue(t, c, "k", "v")
	// As a drain leaves it: balancers have been told by then.
	n.drain.door.shut.Store(true)
	began := time.Now()
	n.stop()
	if took := time.Since(began); took >= cfg.Timeouts.DrainDelay {
		t.Errorf("the stop took %s", took)
	}

	cfg = soloConfig(t)
	cfg.Timeouts.DrainDelay = 100 * time.Millisecond
	n = run(t, cfg, func(*Node) {})
	c = (&testNode{t: t, addrs: n.addrs}).client()
	if _, err := c.Drain(t.Context(), &pairdbv1.DrainRequest{}); err != nil {
		t.Fatal(err)
	}
	done := awaitDrain(t, c, "", "drained")
	if took := done.GetDrainedAt().AsTime().Sub(done.GetAskedAt().AsTime()); took < cfg.Timeouts.DrainDelay {
		t.Errorf("drained after %s", took)
	}
	if !n.drain.door.shut.Load() {
		t.Error("it is drained, and its door is open")
	}
}

// TestDrainStatusIsOfOneMoment: whoever is told that a node is drained is not told of a
// request that left before.
func TestDrainStatusIsOfOneMoment(t *testing.T) {
	n := run(t, soloConfig(t), func(*Node) {})
	n.drain.door.inside.Store(1)
	n.drain.mu.Lock()
	told := make(chan *pairdbv1.NodeDrain, 1)
	go func() { told <- drainAdmin{n.Node}.DrainStatus() }()
	for range 1000 {
		runtime.Gosched() // so that it mostly has begun
	}
	n.drain.door.inside.Store(0)
	n.drain.mu.cancel, n.drain.mu.done = func() {}, time.Now()
	n.drain.mu.Unlock()
	if d := <-told; d.GetState() != "drained" || d.GetRequests() != 0 {
		t.Errorf("told %v", d)
	}
}

// heldKV holds operations until it is let go.
type heldKV struct {
	admission.KV
	entered chan struct{}
	release chan struct{}
	calls   atomic.Int64
}

func (h *heldKV) wait() {
	h.calls.Add(1)
	h.entered <- struct{}{}
	<-h.release
}

func (h *heldKV) Put(context.Context, coord.PutRequest) (coord.WriteResponse, error) {
	h.wait()
	return coord.WriteResponse{}, nil
}

func (h *heldKV) Get(context.Context, coord.GetRequest) (coord.GetResponse, error) {
	h.wait()
	return coord.GetResponse{}, nil
}

func (h *heldKV) Delete(context.Context, coord.DeleteRequest) (coord.WriteResponse, error) {
	h.wait()
	return coord.WriteResponse{}, nil
}

func (h *heldKV) Batch(context.Context, []coord.Item) ([]coord.ItemResult, error) {
	h.wait()
	return nil, nil
}

func (h *heldKV) Scan(context.Context, coord.ScanRequest) (coord.ScanResponse, error) {
	h.wait()
	return coord.ScanResponse{}, nil
}

func (h *heldKV) StartAll(items []coord.Item, done func(int, coord.ItemResult)) {
	h.wait()
	for i := range items {
		done(i, coord.ItemResult{})
	}
}

// TestDrainDoor: what is inside is counted until it has left, by each way in, and none
// is let in when it is shut.
func TestDrainDoor(t *testing.T) {
	h := &heldKV{entered: make(chan struct{}), release: make(chan struct{})}
	d := &drainDoor{KV: h}
	ctx := context.Background()
	all := func() (errs []error) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		note := func(err error) { mu.Lock(); defer mu.Unlock(); errs = append(errs, err) }
		wg.Go(func() { _, err := d.Put(ctx, coord.PutRequest{}); note(err) })
		wg.Go(func() { _, err := d.Get(ctx, coord.GetRequest{}); note(err) })
		wg.Go(func() { _, err := d.Delete(ctx, coord.DeleteRequest{}); note(err) })
		wg.Go(func() { _, err := d.Batch(ctx, nil); note(err) })
		wg.Go(func() { _, err := d.Scan(ctx, coord.ScanRequest{}); note(err) })
		wg.Go(func() { d.StartAll(make([]coord.Item, 3), func(_ int, r coord.ItemResult) { note(r.Err) }) })
		if !d.shut.Load() {
			for range 6 {
				<-h.entered
			}
			if n := d.inside.Load(); n != 8 {
				t.Errorf("%d are inside, want 8", n)
			}
			close(h.release)
		}
		wg.Wait()
		return errs
	}
	if errs := all(); len(errs) != 8 || errors.Join(errs...) != nil {
		t.Errorf("let in: %v", errs)
	}
	d.shut.Store(true)
	errs := all()
	for _, err := range errs {
		if !errors.Is(err, errDrained) {
			t.Errorf("shut: %v", err)
		}
	}
	if len(errs) != 8 || h.calls.Load() != 6 || d.inside.Load() != 0 {
		t.Errorf("%d refused, %d calls, %d inside", len(errs), h.calls.Load(), d.inside.Load())
	}
}
