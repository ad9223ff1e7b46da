package gossip

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestRoundsAreApart: who asks again is answered by another round, and not at once.
func TestRoundsAreApart(t *testing.T) {
	n := cluster(t, newFabric(), 1)[0]
	var last time.Time
	for i := range 3 {
		if !n.Refresh(t.Context()) {
			t.Fatal("a node alone has asked too few")
		}
		n.mu.Lock()
		began := n.mu.round.began
		n.mu.Unlock()
		if d := began.Sub(last); d < refreshEach {
			t.Errorf("round %d began %s after the last", i, d)
		}
		last = began
	}
}

// TestRefreshFindsWhatWasBeforeIt: a caller is not answered by a round that had begun
// before it came: what was created since may be missing.
func TestRefreshFindsWhatWasBeforeIt(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) { o.CallTimeout = time.Minute })
	for _, n := range nodes {
		n.await(t, "all alive and told", func(s *schema.Snapshot) bool { return allAlive(s) && acked(s, 1) })
	}
	late, release := nodes[2], make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	var open atomic.Bool
	f.meddleWith(func(ctx context.Context, from, to, _ string) error {
		if to != "n3" && from != "n3" || open.Load() {
			return nil
		}
		if from == "n3" {
			select {
			case <-ctx.Done():
			case <-release:
			}
		}
		return errors.New("held back")
	})
	first := make(chan bool, 1)
	go func() { first <- late.Refresh(context.Background()) }()
	begun := func() bool {
		late.mu.Lock()
		defer late.mu.Unlock()
		return late.mu.round != nil && late.mu.round.begun
	}
	until(t, "a round begins", begun)
	if _, err := nodes[0].CreateTenant(context.Background(), "shop", 3, schema.PolicyLWW); err != nil {
		t.Fatal(err)
	}
	if _, ok := late.Snapshot().Tenant("shop"); ok {
		t.Fatal("n3 learned it by itself: the test shows nothing")
	}
	type answer struct{ informed, known bool }
	second := make(chan answer, 1)
	asks := make(chan struct{})
	go func() {
		close(asks)
		informed := late.Refresh(context.Background())
		_, known := late.Snapshot().Tenant("shop")
		second <- answer{informed, known}
	}()
	<-asks
	waits := func() bool {
		late.mu.Lock()
		defer late.mu.Unlock()
		return !late.mu.round.begun
	}
	until(t, "another round waits", waits)
	open.Store(true)
	free()
	if <-first {
		t.Error("a round that nobody answered has asked enough")
	}
	if a := <-second; !a.informed || !a.known {
		t.Errorf("who asked after the tenant was created: %+v", a)
	}
}

// until yields until something is so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); runtime.Gosched() {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// TestRefreshFindsWhatIsOnlyVotedFor: a tenant was made with the vote of one other node, and
// who made it is out of reach since: that other node does not know that it was chosen. Who
// is a whole entry behind, too, is told of the vote all the same.
func TestRefreshFindsWhatIsOnlyVotedFor(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, patient)
	for _, n := range nodes {
		n.await(t, "all alive and told", func(s *schema.Snapshot) bool { return allAlive(s) && acked(s, 1) })
	}
	var cut, open atomic.Bool // n3 makes it, n1 votes, n2 asks
	f.meddleWith(func(_ context.Context, from, to, method string) error {
		ballot := method == meta.MethodPrepare || method == meta.MethodAccept
		switch {
		case (from == "n2" || to == "n2") && !open.Load(), cut.Load() && (from == "n3" || to == "n3") && (to != "n1" || !ballot):
			return errors.New("held back")
		}
		return nil
	})
	create := func(name string) {
		t.Helper()
		// Not by CreateTenant, which would wait for all to know.
		if _, err := nodes[2].submit(t.Context(), ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: name, RF: 3, Policy: uint8(schema.PolicyLWW)}}); err != nil {
			t.Fatal(err)
		}
	}
	create("first")
	nodes[0].await(t, "it knows the first", func(s *schema.Snapshot) bool { _, ok := s.Tenant("first"); return ok })
	cut.Store(true)
	create("shop")
	open.Store(true)
	n := nodes[1]
	if _, ok := n.Snapshot().Tenant("shop"); ok {
		t.Fatal("it is known by other means: the test shows nothing")
	}
	informed := n.Refresh(t.Context())
	_, known := n.Snapshot().Tenant("shop")
	switch {
	case informed && !known:
		t.Error("it denies a tenant that was made")
	case !informed:
		t.Error("a majority could be asked, and it does not know")
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

// TestRefreshInSpiteOfOne: one node stands still, and so many others answer that all is known:
// that is said before the one has answered.
func TestRefreshInSpiteOfOne(t *testing.T) {
	f := newFabric()
	nodes := clusterOf(t, f, 3, func(o *Options) { o.CallTimeout = time.Minute })
	for _, n := range nodes {
		n.await(t, "all alive and told", func(s *schema.Snapshot) bool { return allAlive(s) && acked(s, 1) })
	}
	release := make(chan struct{})
	defer close(release)
	f.meddleWith(func(ctx context.Context, from, to, _ string) error {
		if from == "n1" && to == "n3" {
			select {
			case <-ctx.Done():
			case <-release:
			}
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 2 { // the second is not held up by the first either
		if !nodes[0].Refresh(ctx) {
			t.Fatal("it waits for the one that stands still")
		}
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
