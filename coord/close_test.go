package coord_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestCloseWaitsForLateReplicas: the put has answered, one owner has not.
func TestCloseWaitsForLateReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1, 3, 3, newFakeDisk)
		w.net.slow[2] = 500 * time.Millisecond
		c := w.node("a").coord
		answered := false
		c.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte("k"), Value: []byte("v")}, func(_ coord.WriteResponse, err error) {
			if err != nil {
				t.Error(err)
			}
			answered = true
		})
		w.advance(10 * time.Millisecond)
		if !answered {
			t.Fatal("the put has not answered")
		}
		closed := make(chan error, 2)
		go func() { closed <- c.Close(t.Context()) }()
		synctest.Wait()
		if len(closed) != 0 {
			t.Fatal("Close did not wait for the late owner")
		}
		short, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Close(short); !errors.Is(err, context.Canceled) {
			t.Fatalf("a bounded Close: %v", err)
		}

		_, err := c.Put(t.Context(), coord.PutRequest{Tenant: simTenant, Key: []byte("k")})
		wantCode(t, err, errcode.Unavailable, errcode.NotApplied)
		refused := 0
		c.HandlePeer(ring.NodeID{2}, make([]coord.Message, 2), func(_ int, r coord.Reply) {
			if r.Status == coord.StatusOverloaded {
				refused++
			}
		})
		if refused != 2 {
			t.Errorf("%d of 2 peer messages refused", refused)
		}

		w.advance(time.Second)
		synctest.Wait()
		if len(closed) != 1 || <-closed != nil {
			t.Fatal("Close did not end")
		}
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if got := w.objectString(w.node("c").disk.object(w.address("k"))); got != `a1.1="v" seen{a1.1}` {
			t.Errorf("the late owner has %s", got)
		}
	})
}

func wantCode(t *testing.T, err error, code errcode.Code, o errcode.Outcome) {
	t.Helper()
	var e *coord.Error
	if !errors.As(err, &e) || e.Code != code || e.Outcome != o {
		t.Errorf("got %v, want %s %s", err, code, o)
	}
}

// TestBlockingCalls run the world in one goroutine and the client in another.
func TestBlockingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1, 3, 3, newFakeDisk)
		c := w.node("a").coord
		call := func(f func()) {
			done := make(chan struct{})
			go func() { defer close(done); f() }()
			for {
				synctest.Wait()
				select {
				case <-done:
					return
				default:
					w.step(w.now + time.Hour)
				}
			}
		}
		call(func() {
			r, err := c.Put(t.Context(), coord.PutRequest{Tenant: simTenant, Key: []byte("k"), Value: []byte("v"), JSON: true, Level: quorum.All})
			if err != nil || r.Acks != 3 || r.Level != quorum.All {
				t.Errorf("put: %+v, %v", r, err)
			}
		})
		call(func() {
			r, err := c.Get(t.Context(), coord.GetRequest{Tenant: simTenant, Key: []byte("k")})
			if err != nil || string(r.Siblings[0].Value) != "v" || len(r.Token) == 0 {
				t.Errorf("get: %+v, %v", r, err)
			}
		})
		call(func() {
			if _, err := c.Delete(t.Context(), coord.DeleteRequest{Tenant: simTenant, Key: []byte("k")}); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
		call(func() {
			_, err := c.Get(t.Context(), coord.GetRequest{Tenant: simTenant, Key: []byte("k")})
			wantCode(t, err, errcode.KeyNotFound, "")
		})

		// A caller that gives up leaves the operation to itself.
		w.net.cut[[2]int{0, 1}], w.net.cut[[2]int{0, 2}] = true, true
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := c.Put(ctx, coord.PutRequest{Tenant: simTenant, Key: []byte("k")})
			gone <- err
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		wantCode(t, <-gone, errcode.Timeout, errcode.Indeterminate)
	})
}

func TestTenantCreatedElsewhereIsFound(t *testing.T) {
	w := newWorld(1, 3, 3, newFakeDisk)
	fresh := *w.tenants[0]
	fresh.Number, fresh.Name, fresh.Version = 9, "fresh", 3
	w.version = 3
	w.tenants = append(w.tenants, &fresh)
	var errs []error
	put := func(tenant string) {
		w.node("a").coord.StartPut(coord.PutRequest{Tenant: tenant, Key: []byte("k")}, func(_ coord.WriteResponse, err error) {
			errs = append(errs, err)
		})
	}
	put("fresh")
	w.advance(100 * time.Millisecond)
	if len(errs) != 1 || errs[0] != nil {
		t.Fatalf("%v", errs)
	}
	// However many ask for what does not exist, others are asked rarely.
	before := w.counts["refreshes"]
	for range 100 {
		put("nobody")
	}
	w.advance(time.Second)
	if len(errs) != 101 {
		t.Fatalf("%d answers", len(errs))
	}
	for _, err := range errs[1:] {
		wantCode(t, err, errcode.TenantNotFound, errcode.NotApplied)
	}
	if n := w.counts["refreshes"] - before; n != 1 {
		t.Errorf("%d refreshes", n)
	}
}

func TestOptions(t *testing.T) {
	if _, err := coord.New(coord.Options{}); err == nil {
		t.Error("no option is required")
	}
	if _, err := coord.New(coord.Options{Self: ring.NodeID{1}, View: func() *schema.Snapshot { return nil }, MaxValueSize: coord.MaxValueSize + 1}); err == nil {
		t.Error("MaxValueSize is not bounded")
	}
}

// TestPeersAreFenced hands a replica messages that it must not serve.
func TestPeersAreFenced(t *testing.T) {
	w := newWorld(1, 5, 3, newFakeDisk)
	at := w.address("k")
	owners := w.layout.Owners(nil, at.Partition, 3)
	owner := w.nodes[owners[0][0]-1]
	var stranger *simNode
	for _, n := range w.nodes {
		if !w.layout.IsOwner(n.id, at.Partition, 3) {
			stranger = n
		}
	}
	good := coord.Message{
		Op: coord.OpRead, Partition: at.Partition, PV: w.layout.PV(at.Partition), Tenant: 7, TenantVersion: 2,
		Token: at.Token, Key: at.Key, Deadline: owner.Now().Add(time.Hour),
	}
	ask := func(n *simNode, m coord.Message) (got []coord.Reply) {
		n.coord.HandlePeer(ring.NodeID{5}, []coord.Message{m}, func(_ int, r coord.Reply) { got = append(got, r) })
		w.advance(100 * time.Millisecond)
		return got
	}
	for name, c := range map[string]struct {
		n      *simNode
		change func(*coord.Message)
		want   coord.Status
	}{
		"served":            {owner, func(*coord.Message) {}, coord.StatusOK},
		"digest":            {owner, func(m *coord.Message) { m.Op = coord.OpDigest }, coord.StatusOK},
		"expired":           {owner, func(m *coord.Message) { m.Deadline = owner.Now().Add(-time.Second) }, coord.StatusExpired},
		"not an owner":      {stranger, func(*coord.Message) {}, coord.StatusNotOwner},
		"old tenant":        {owner, func(m *coord.Message) { m.TenantVersion = 1 }, coord.StatusStale},
		"unknown tenant":    {owner, func(m *coord.Message) { m.Tenant = 99 }, coord.StatusError},
		"future ring":       {owner, func(m *coord.Message) { m.PV = 99 }, coord.StatusError},
		"foreign token":     {owner, func(m *coord.Message) { m.Token++ }, coord.StatusNotOwner},
		"foreign partition": {owner, func(m *coord.Message) { m.Partition = simPartitions }, coord.StatusNotOwner},
		"no key":            {owner, func(m *coord.Message) { m.Key = nil }, coord.StatusNotOwner},
		"unknown operation": {owner, func(m *coord.Message) { m.Op = 77 }, coord.StatusError},
		"bad object":        {owner, func(m *coord.Message) { m.Op = coord.OpMerge; m.Body = []byte{9} }, coord.StatusError},
		"bad forward":       {owner, func(m *coord.Message) { m.Op = coord.OpForward; m.Body = []byte{9} }, coord.StatusError},
		"second hop": {stranger, func(m *coord.Message) {
			m.Op = coord.OpForward
			m.Body = []byte{1, 3, 2, 0, 1, 'k', 0, 0}
		}, coord.StatusNotOwner},
	} {
		m := good
		c.change(&m)
		got := ask(c.n, m)
		if len(got) != 1 || got[0].Status != c.want {
			t.Errorf("%s: got %+v, want status %d", name, got, c.want)
		}
	}
}
