package gossip

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/schema"
)

func TestRoundIsShared(t *testing.T) {
	t0 := time.Unix(1000, 0)
	open, over := make(chan struct{}), make(chan struct{})
	close(over)
	for name, c := range map[string]struct {
		r    round
		at   time.Time
		want bool
	}{
		"never":     {round{}, t0, false},
		"under way": {round{t0, open}, t0.Add(time.Hour), true},
		"just over": {round{t0, over}, t0.Add(refreshEach - 1), true},
		"long over": {round{t0, over}, t0.Add(refreshEach), false},
	} {
		if got := c.r.serves(c.at); got != c.want {
			t.Errorf("%s: serves = %v", name, got)
		}
	}
}

// All that would tell n3 by itself is held back: requests to it are refused, and
// its own ones hang, which keeps it from starting others.
func TestRefreshLearnsWhatWasHeldBack(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) { o.CallTimeout = time.Minute })
	for _, n := range nodes {
		n.await(t, "all alive and told", func(s *schema.Snapshot) bool { return allAlive(s) && acked(s, 1) })
	}
	late := nodes[2]
	held, release := make(chan struct{}, 1), make(chan struct{})
	var open atomic.Bool
	var asked atomic.Int32
	f.meddleWith(func(ctx context.Context, from, to, _ string) error {
		switch {
		case to == "n3":
			return errors.New("held back")
		case from != "n3":
			return nil
		case !open.Load():
			poke(held)
			select {
			case <-ctx.Done():
			case <-release:
			}
			return errors.New("held back")
		}
		asked.Add(1)
		return nil
	})
	defer close(release)
	made, err := nodes[0].CreateTenant(context.Background(), "shop", 3, schema.PolicyLWW)
	if err != nil {
		t.Fatal(err)
	}
	<-held
	if _, ok := late.Snapshot().Tenant("shop"); ok {
		t.Fatal("n3 learned it by itself: the test shows nothing")
	}
	open.Store(true)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	late.Refresh(ended)
	if n := asked.Load(); n != 0 {
		t.Errorf("a caller whose time was over had %d requests made", n)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { late.Refresh(context.Background()) })
	}
	wg.Wait()
	if got, ok := late.Snapshot().Tenant("shop"); !ok || got.Number != made.Number {
		t.Errorf("after Refresh n3 knows %+v of the tenant", got)
	}
}

func TestRefreshEndsWithCloseAndContext(t *testing.T) {
	f := newFabric()
	nodes := cluster(t, f, 3)
	nodes[0].await(t, "all alive", allAlive)
	var once sync.Once
	asked := make(chan struct{})
	f.meddleWith(func(ctx context.Context, from, _, _ string) error {
		if from == "n1" {
			once.Do(func() { close(asked) })
			<-ctx.Done()
		}
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	back := make(chan struct{}, 2)
	go func() { nodes[0].Refresh(ctx); back <- struct{}{} }()
	<-asked
	cancel()
	<-back
	go func() { nodes[0].Refresh(context.Background()); back <- struct{}{} }()
	if err := nodes[0].Close(); err != nil {
		t.Error(err)
	}
	<-back
	nodes[0].Refresh(context.Background()) // after Close it returns at once
}
