package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestNewsDuringAPull: while a node waits for the answer to its question, which is from
// before, its peers have news and tell of it once. It asks again when the answer is there.
func TestNewsDuringAPull(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) { o.CallTimeout, o.PushPullInterval = time.Minute, time.Hour })
	for _, n := range nodes {
		n.await(t, "all alive and told", func(s *schema.Snapshot) bool { return allAlive(s) && acked(s, 1) })
	}
	late, peers := nodes[2], nodes[:2]
	var hold atomic.Bool
	release, held := make(chan struct{}), make(chan string, 64)
	hold.Store(true)
	f.mu.Lock()
	f.delay = func(ctx context.Context, from, to string) {
		if from != "n3" || !hold.Load() {
			return
		}
		held <- to
		select {
		case <-ctx.Done():
		case <-release:
		}
	}
	f.mu.Unlock()
	for _, p := range peers {
		late.box.doubt(p.self)
	}
	poke(late.wake)
	for waits := map[string]bool{}; len(waits) < 2; {
		waits[<-held] = true
	}
	f.meddleWith(func(_ context.Context, _, to, _ string) error {
		if to == "n3" {
			return errors.New("held back")
		}
		return nil
	})
	made, err := nodes[0].CreateTenant(context.Background(), "shop", 3, schema.PolicyLWW)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		p.await(t, "it knows the tenant", func(s *schema.Snapshot) bool { return s.Version >= made.Version })
		late.heard(p.self, p.face.Load().digest)
	}
	for looked := false; !looked; <-time.After(time.Millisecond) {
		looked = true
		for _, p := range peers {
			late.box.mu.Lock()
			looked = looked && late.box.digests[p.self] != p.face.Load().digest
			late.box.mu.Unlock()
		}
	}
	if _, ok := late.Snapshot().Tenant("shop"); ok {
		t.Fatal("n3 learned it by other means: the test shows nothing")
	}
	hold.Store(false)
	close(release)
	late.await(t, "it knows the tenant", func(s *schema.Snapshot) bool { _, ok := s.Tenant("shop"); return ok })
}

// TestExchangeIsWhole: a node that needs more than one answer holds for the log of a peer has
// exchanged nothing with it before it has all of that.
func TestExchangeIsWhole(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) { o.trim = meta.Trim{Entries: 2, Piece: 500} })
	for _, n := range nodes {
		n.await(t, "all alive and told", func(s *schema.Snapshot) bool { return allAlive(s) && acked(s, 1) })
	}
	late, peer := nodes[2], nodes[0]
	var answers atomic.Int64 // that n3 may have yet
	f.meddleWith(func(_ context.Context, from, to, _ string) error {
		if to == "n3" || from == "n3" && answers.Add(-1) < 0 {
			return errors.New("held back")
		}
		return nil
	})
	var newest ring.Version
	for i := range 12 {
		// Not by CreateTenant, which would wait for n3 to know each.
		r, err := peer.submit(t.Context(), ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: fmt.Sprint("shop", i), RF: 3, Policy: uint8(schema.PolicyLWW)}})
		if err != nil {
			t.Fatal(err)
		}
		newest = r.Version
	}
	if v := late.Snapshot().Version; v >= newest {
		t.Fatalf("n3 learned entry %d by other means: the test shows nothing", v)
	}
	answers.Store(1)
	if err := late.exchange(context.Background(), peer.self); err == nil {
		t.Errorf("one answer was all, and n3 has entry %d of %d", late.Snapshot().Version, newest)
	}
	answers.Store(1 << 20)
	if err := late.exchange(context.Background(), peer.self); err != nil || late.Snapshot().Version < newest {
		t.Errorf("n3 has entry %d of %d: %v", late.Snapshot().Version, newest, err)
	}
}
