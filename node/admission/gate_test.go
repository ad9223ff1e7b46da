package admission

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

// slowKV is a KV whose operations last until hold is closed.
type slowKV struct {
	hold           chan struct{}
	begun          atomic.Int64 // operations and items that were begun
	underWay, most atomic.Int64
}

func (k *slowKV) work(n int64) {
	k.begun.Add(n)
	now := k.underWay.Add(n)
	for m := k.most.Load(); now > m && !k.most.CompareAndSwap(m, now); m = k.most.Load() {
	}
	<-k.hold
	k.underWay.Add(-n)
}

func (k *slowKV) Put(context.Context, coord.PutRequest) (coord.WriteResponse, error) {
	k.work(1)
	return coord.WriteResponse{}, nil
}

func (k *slowKV) Get(context.Context, coord.GetRequest) (coord.GetResponse, error) {
	k.work(1)
	return coord.GetResponse{}, nil
}

func (k *slowKV) Delete(context.Context, coord.DeleteRequest) (coord.WriteResponse, error) {
	k.work(1)
	return coord.WriteResponse{}, nil
}

func (k *slowKV) Scan(context.Context, coord.ScanRequest) (coord.ScanResponse, error) {
	k.work(1)
	return coord.ScanResponse{}, nil
}

func (k *slowKV) CheckBatch([]coord.Item) error { return nil }

func (k *slowKV) Batch(_ context.Context, items []coord.Item) ([]coord.ItemResult, error) {
	k.work(int64(len(items)))
	return make([]coord.ItemResult, len(items)), nil
}

func (k *slowKV) StartAll(items []coord.Item, done func(int, coord.ItemResult)) {
	for i := range items {
		go func() {
			k.work(1)
			done(i, coord.ItemResult{})
		}()
	}
}

// operations are all ways into a Gate, by name, each with its class.
func operations(g *Gate, deadline time.Time) map[string]func(ctx context.Context) (Class, error) {
	one := func(items ...coord.Item) error {
		res := make(chan error, 1)
		g.StartAll(items, func(_ int, r coord.ItemResult) { res <- r.Err })
		return <-res
	}
	put, get, del := coord.PutRequest{Deadline: deadline}, coord.GetRequest{Deadline: deadline}, coord.DeleteRequest{Deadline: deadline}
	return map[string]func(ctx context.Context) (Class, error){
		"Put":    func(ctx context.Context) (Class, error) { _, err := g.Put(ctx, put); return Writes, err },
		"Get":    func(ctx context.Context) (Class, error) { _, err := g.Get(ctx, get); return Reads, err },
		"Delete": func(ctx context.Context) (Class, error) { _, err := g.Delete(ctx, del); return Writes, err },
		"Scan": func(ctx context.Context) (Class, error) {
			_, err := g.Scan(ctx, coord.ScanRequest{Deadline: deadline})
			return Reads, err
		},
		"Batch of writes": func(ctx context.Context) (Class, error) {
			_, err := g.Batch(ctx, []coord.Item{{Put: &put}, {Delete: &del}})
			return Writes, err
		},
		"Batch of reads": func(ctx context.Context) (Class, error) {
			_, err := g.Batch(ctx, []coord.Item{{Get: &get}})
			return Reads, err
		},
		"StartAll of a write": func(context.Context) (Class, error) { return Writes, one(coord.Item{Put: &put}) },
		"StartAll of a read":  func(context.Context) (Class, error) { return Reads, one(coord.Item{Get: &get}) },
	}
}

// TestRefusedBeforeAnyWork: whatever is refused has not begun, and its error says
// so, with the time to wait.
func TestRefusedBeforeAnyWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := &slowKV{hold: make(chan struct{})}
		b := Bounds{Floor: 4, Ceiling: 4, Queue: 1, Wait: time.Second}
		g := New(kv, Options{Bounds: b, Now: time.Now})
		var wg sync.WaitGroup
		for range b.Floor {
			wg.Go(func() { check(t, second(g.Put(t.Context(), coord.PutRequest{}))) })
			wg.Go(func() { check(t, second(g.Get(t.Context(), coord.GetRequest{}))) })
		}
		synctest.Wait()
		begun := kv.begun.Load()
		if begun != int64(2*b.Floor) {
			t.Fatalf("%d are under way, want %d", begun, 2*b.Floor)
		}
		for name, op := range operations(g, time.Time{}) {
			began := time.Now()
			c, err := op(t.Context())
			var e *coord.Error
			if !errors.As(err, &e) || e.Code != errcode.RateLimited || e.RetryAfter <= 0 || e.Message == "" {
				t.Errorf("%s: %v, want RATE_LIMITED and a time to wait", name, err)
				continue
			}
			if want := [...]errcode.Outcome{Reads: "", Writes: errcode.NotApplied}[c]; e.Outcome != want {
				t.Errorf("%s: the outcome is %q, want %q", name, e.Outcome, want)
			}
			if took := time.Since(began); took > b.Wait {
				t.Errorf("%s: refused after %v", name, took)
			}
		}
		if n := kv.begun.Load(); n != begun {
			t.Errorf("%d of what was refused had begun", n-begun)
		}
		if !g.Shedding() {
			t.Error("the gate does not know that it refuses")
		}
		close(kv.hold)
		wg.Wait()
		for name, op := range operations(g, time.Time{}) {
			if _, err := op(t.Context()); err != nil {
				t.Errorf("%s, with room again: %v", name, err)
			}
		}
		for _, c := range Classes() {
			if s := g.Stats(c); s.UnderWay != 0 || s.Waiting != 0 {
				t.Errorf("%ss afterwards: %+v", c, s)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestPipelinesAreHeldBack: a caller with more items than there is room for waits
// for room and loses none; beside a standstill the rest is refused, each alone,
// and one wait is all that this takes.
func TestPipelinesAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := &slowKV{hold: make(chan struct{})}
		g := New(kv, Options{Bounds: Bounds{Floor: 8, Ceiling: 8, Queue: 8, Wait: time.Second}, Now: time.Now})
		items := make([]coord.Item, 100)
		for i := range items {
			if i%2 == 0 {
				items[i].Put = new(coord.PutRequest)
			} else {
				items[i].Get = new(coord.GetRequest)
			}
		}
		var release sync.Once
		run := func() (ok, refused int) {
			var mu sync.Mutex
			var wg sync.WaitGroup
			wg.Add(len(items))
			seen := make([]int, len(items))
			g.StartAll(items, func(i int, r coord.ItemResult) {
				defer wg.Done()
				mu.Lock()
				defer mu.Unlock()
				seen[i]++
				if r.Err == nil {
					ok++
				} else {
					refused++
				}
			})
			release.Do(func() { close(kv.hold) })
			wg.Wait()
			for i, n := range seen {
				if n != 1 {
					t.Errorf("item %d has %d results", i, n)
				}
			}
			return ok, refused
		}
		began := time.Now()
		if ok, refused := run(); ok != 16 || refused != 84 {
			t.Errorf("beside a standstill: %d done, %d refused; want 16 and 84", ok, refused)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		// Now each takes no time.
		if ok, refused := run(); refused != 0 {
			t.Errorf("with room: %d done, %d refused", ok, refused)
		}
		if n := kv.most.Load(); n > 16 {
			t.Errorf("%d were under way at once", n)
		}
		for _, c := range Classes() {
			if s := g.Stats(c); s.UnderWay != 0 || s.Waiting != 0 {
				t.Errorf("%ss afterwards: %+v", c, s)
			}
		}
	})
}

// TestSheddingIsTold once when it begins and once when it is over, and no more
// than once a second.
func TestSheddingIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := &slowKV{hold: make(chan struct{})}
		var told []bool
		g := New(kv, Options{
			Bounds: Bounds{Floor: 1, Ceiling: 1, Queue: 1, Wait: time.Millisecond}, Now: time.Now,
			Shedding: func(began bool, why Reason) {
				if began && why != Waited {
					t.Errorf("told that %v", why)
				}
				told = append(told, began)
			},
		})
		go func() { check(t, second(g.Get(t.Context(), coord.GetRequest{}))) }()
		synctest.Wait()
		for range 1000 {
			if second(g.Get(t.Context(), coord.GetRequest{})) == nil {
				t.Error("let in")
			}
			g.Tick()
		}
		if len(told) != 1 || !told[0] {
			t.Errorf("told %v", told)
		}
		for range 10 {
			time.Sleep(time.Second)
			g.Tick()
		}
		if len(told) != 2 || told[1] || g.Shedding() {
			t.Errorf("told %v", told)
		}
		close(kv.hold)
	})
}

// TestWeights: a batch and a page count with what they ask for.
func TestWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := &slowKV{hold: make(chan struct{})}
		g := New(kv, Options{Bounds: Bounds{Floor: 1000, Ceiling: 1000, Queue: 1, Wait: time.Second}, Now: time.Now})
		var puts, gets []coord.Item
		for range 100 {
			puts = append(puts, coord.Item{Put: &coord.PutRequest{Value: make([]byte, 10<<10)}})
			gets = append(gets, coord.Item{Get: new(coord.GetRequest)})
		}
		for _, tc := range []struct {
			name          string
			op            func() error
			reads, writes int64
		}{
			{"a batch", func() error { return second(g.Batch(t.Context(), puts)) }, 0, 1 + 100/8 + 1000<<10/(256<<10)},
			{"reads", func() error { return second(g.Batch(t.Context(), gets)) }, 1 + 100/8, 0},
			{"both", func() error { return second(g.Batch(t.Context(), append(gets[:50:50], puts[:8]...))) }, 1 + 50/8, 2},
			{"a page", func() error { return second(g.Scan(t.Context(), coord.ScanRequest{MaxKeys: 1280})) }, 11, 0},
			{"a pipeline", func() error {
				g.StartAll(append(gets[:50:50], puts[:8]...), func(int, coord.ItemResult) {})
				return nil
			}, 50, 8},
		} {
			kv.hold = make(chan struct{})
			go func() { check(t, tc.op()) }()
			synctest.Wait()
			if r, w := g.Stats(Reads).UnderWay, g.Stats(Writes).UnderWay; r != tc.reads || w != tc.writes {
				t.Errorf("%s counts %d reads and %d writes, want %d and %d", tc.name, r, w, tc.reads, tc.writes)
			}
			close(kv.hold)
			synctest.Wait()
			if r, w := g.Stats(Reads).UnderWay, g.Stats(Writes).UnderWay; r != 0 || w != 0 {
				t.Errorf("after %s %d reads and %d writes are under way", tc.name, r, w)
			}
		}
	})
}
