package coord_test

import (
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

// frames lets a peer at version v send n frames of one read each, and counts
// the replies by status.
func (r *rig) frames(from ring.NodeID, n int, v ring.Version, got map[coord.Status]int) {
	m := r.message(coord.OpDigest, r.key(true), v)
	for range n {
		r.coord.HandlePeer(from, []coord.Message{m}, func(_ int, reply coord.Reply) { got[reply.Status]++ })
	}
}

// TestFramesShareOneCatchUp: many frames of a peer that is ahead cost one
// exchange, and all of them are served after it.
func TestFramesShareOneCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		got := map[coord.Status]int{}
		r.frames(ring.NodeID{2}, 100, 3, got)
		r.frames(ring.NodeID{3}, 100, 3, got)
		flights := r.catchUps()
		if len(flights) != 2 || flights[0].from == flights[1].from {
			t.Fatalf("%d exchanges with two peers", len(flights))
		}
		closed := r.close()
		wantOpen(t, closed, "with frames that wait")
		r.learn(3)
		for i, f := range flights {
			f.done(nil)
			if got[coord.StatusOK] != (i+1)*100 {
				t.Errorf("after exchange %d: replies %v", i+1, got)
			}
		}
		wantClosed(t, closed)
		if n := len(r.catchUps()); n != 0 {
			t.Errorf("%d more exchanges", n)
		}
	})
}

// TestCatchUpOfSeveralVersions: a peer is asked for one version at a time, the
// others wait, and are asked for together if they are still missing.
func TestCatchUpOfSeveralVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		got := map[coord.Status]int{}
		for v := range ring.Version(10) {
			r.frames(ring.NodeID{2}, 10, 3+v, got)
		}
		flights := r.catchUps()
		if len(flights) != 1 || flights[0].atLeast != 3 {
			t.Fatalf("exchanges: %+v", flights)
		}
		// It brings more than was asked for: only what it did not bring is
		// asked for again, all at once.
		r.learn(7)
		flights[0].done(nil)
		if got[coord.StatusOK] != 10 || got[coord.StatusStale] != 40 {
			t.Errorf("replies %v", got)
		}
		flights = r.catchUps()
		if len(flights) != 1 || flights[0].atLeast != 12 {
			t.Fatalf("exchanges: %+v", flights)
		}
		flights[0].done(errors.New("it has nothing beyond 7"))
		if got[coord.StatusError] != 50 {
			t.Errorf("replies %v", got)
		}
		// A failure is not remembered.
		r.frames(ring.NodeID{2}, 1, 12, got)
		if flights = r.catchUps(); len(flights) != 1 {
			t.Fatalf("%d exchanges after a failure", len(flights))
		}
		r.learn(12)
		flights[0].done(nil)
		if got[coord.StatusOK] != 11 {
			t.Errorf("replies %v", got)
		}
		wantClosed(t, r.close())
	})
}

// TestCatchUpWaitersAreBounded: what is too much is refused at once, and the
// others are served.
func TestCatchUpWaitersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 4096
		r := newRig(t, 3, coord.Metrics{})
		got := map[coord.Status]int{}
		r.frames(ring.NodeID{2}, most+5, 3, got)
		if got[coord.StatusError] != 5 {
			t.Errorf("refused %d", got[coord.StatusError])
		}
		r.learn(3)
		r.catchUps()[0].done(nil)
		if got[coord.StatusOK] != most {
			t.Errorf("served %d", got[coord.StatusOK])
		}
		// There is room again.
		r.frames(ring.NodeID{2}, 1, 4, got)
		if n := len(r.catchUps()); n != 1 || got[coord.StatusError] != 5 {
			t.Errorf("%d exchanges, replies %v", n, got)
		}
	})
}

// TestOperationsShareOneCatchUp: writes, reads and forwards that one owner
// bounces.
func TestOperationsShareOneCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 5, coord.Metrics{})
		r.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
		ahead := ring.NodeID{}
		own, foreign := r.key(true), r.key(false)
		owners := r.view().Layout.Owners(nil, r.message(coord.OpRead, own, 1).Partition, 3)
		for _, id := range owners {
			if id != r.self {
				ahead = id
			}
		}
		answers := make(chan error, 31) // timers answer from goroutines of their own
		wrote := func(_ coord.WriteResponse, err error) { answers <- err }
		read := func(_ coord.GetResponse, err error) { answers <- err }
		for range 10 {
			r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: own, Level: quorum.All}, wrote)
			r.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: own, Level: quorum.All}, read)
			r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: foreign}, wrote)
		}
		bounced := map[coord.Op]int{}
		peers := map[ring.NodeID]bool{}
		for _, s := range r.sends() {
			if s.to == ahead || s.m.Op == coord.OpForward {
				bounced[s.m.Op]++
				peers[s.to] = true
				s.reply(coord.Reply{Status: coord.StatusStale, Version: 3}, nil)
			}
		}
		if bounced[coord.OpMerge] != 10 || bounced[coord.OpDigest] != 10 || bounced[coord.OpForward] != 10 {
			t.Fatalf("bounced %v", bounced)
		}
		flights := r.catchUps()
		if len(flights) != len(peers) {
			t.Errorf("%d exchanges with %d peers", len(flights), len(peers))
		}
		r.learn(3)
		for _, f := range flights {
			f.done(nil)
		}
		again := map[coord.Op]int{}
		for _, s := range r.sends() {
			if s.m.TenantVersion != 3 {
				t.Errorf("op %d was sent again at version %d", s.m.Op, s.m.TenantVersion)
			}
			again[s.m.Op]++
		}
		if again[coord.OpMerge] != 20 || again[coord.OpForward] != 10 || again[coord.OpDigest] == 0 {
			t.Errorf("sent again %v", again)
		}
		for range 30 {
			wantTimeout(t, <-answers)
		}
		<-time.After(time.Minute)
		if len(answers) != 0 {
			t.Error("something answered twice")
		}
	})
}

func wantTimeout(t *testing.T, err error) {
	t.Helper()
	var e *coord.Error
	if !errors.As(err, &e) || e.Code != errcode.Timeout {
		t.Errorf("got %v", err)
	}
}

// TestUnknownTenantIsNotAcknowledged: what a peer sends for a tenant that this node
// does not know is asked about first, and refused while it stays unknown: nothing is
// acknowledged that was not applied. Once it is known it is applied.
func TestUnknownTenantIsNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		r.forget()
		key := r.key(true)
		got := map[coord.Status]int{}
		send := func(op coord.Op) {
			m := r.message(op, key, 3)
			r.coord.HandlePeer(ring.NodeID{2}, []coord.Message{m}, func(_ int, reply coord.Reply) {
				got[reply.Status]++
				if reply.Status != coord.StatusError {
					return
				}
				e, err := coord.DecodeError(reply.Body)
				if err != nil || e.Code != errcode.Unavailable || e.Outcome != errcode.NotApplied {
					t.Errorf("op %d: %v, %v", op, e, err)
				}
			})
		}
		ops := []coord.Op{coord.OpMerge, coord.OpDigest, coord.OpRead, coord.OpApply, coord.OpClaim, coord.OpLookup, coord.OpScan, coord.OpFound}
		for _, op := range ops {
			send(op)
		}
		flights := r.catchUps()
		if len(flights) == 0 || len(got) > 0 {
			t.Fatalf("%d exchanges, replies %v", len(flights), got)
		}
		for _, f := range flights {
			f.done(errors.New("it does not answer"))
		}
		for _, f := range r.catchUps() {
			f.done(errors.New("it does not answer"))
		}
		if got[coord.StatusError] != len(ops) || len(got) != 1 {
			t.Errorf("replies %v", got)
		}
		send(coord.OpDigest)
		r.learn(3)
		for _, f := range r.catchUps() {
			f.done(nil)
		}
		if got[coord.StatusOK] != 1 {
			t.Errorf("replies %v once the tenant is known", got)
		}
		wantClosed(t, r.close())
	})
}

// forget makes the tenant unknown.
func (r *rig) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.view = schema.Build(schema.Snapshot{Version: 1, Layout: r.mu.view.Layout, Ready: true, TokenKeys: []schema.TokenKey{{ID: 1}}}, nil)
}

// TestTenantNobodyWasAskedAbout: a node that could ask too few others does not say
// that there is no such tenant.
func TestTenantNobodyWasAskedAbout(t *testing.T) {
	for _, informed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRigWith(t, 3, coord.Metrics{}, func(o *coord.Options) {
				o.Refresh = func(_ string, done func(informed bool)) { done(informed) }
			})
			want := errcode.Unavailable
			if informed {
				want = errcode.TenantNotFound
			}
			asked := false
			r.coord.StartGet(coord.GetRequest{Tenant: "nobodys", Key: []byte("k")}, func(_ coord.GetResponse, err error) {
				asked = true
				var e *coord.Error
				if !errors.As(err, &e) || e.Code != want {
					t.Errorf("informed %v: %v, want %s", informed, err, want)
				}
			})
			if !asked {
				t.Error("no answer")
			}
			wantClosed(t, r.close())
		})
	}
}
