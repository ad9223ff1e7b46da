package admission

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
)

// patientKV is a KV whose operations go on when their callers have given up, as the
// coordinator's do.
type patientKV struct {
	slowKV
}

func (k *patientKV) await(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.work(1)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

func (k *patientKV) Put(ctx context.Context, _ coord.PutRequest) (coord.WriteResponse, error) {
	k.await(ctx)
	return coord.WriteResponse{}, ctx.Err()
}

func (k *patientKV) Get(ctx context.Context, _ coord.GetRequest) (coord.GetResponse, error) {
	k.await(ctx)
	return coord.GetResponse{}, ctx.Err()
}

func (k *patientKV) Delete(ctx context.Context, _ coord.DeleteRequest) (coord.WriteResponse, error) {
	k.await(ctx)
	return coord.WriteResponse{}, ctx.Err()
}

func (k *patientKV) Scan(ctx context.Context, _ coord.ScanRequest) (coord.ScanResponse, error) {
	k.await(ctx)
	return coord.ScanResponse{}, ctx.Err()
}

func (k *patientKV) Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error) {
	k.await(ctx)
	return make([]coord.ItemResult, len(items)), ctx.Err()
}

// TestCallersWhoGiveUpFreeNothing: what a caller leaves under way counts until it
// has ended.
func TestCallersWhoGiveUpFreeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &patientKV{slowKV{hold: make(chan struct{})}}
		g := New(k, Options{Bounds: bounds(), Now: time.Now})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 {
			for _, call := range []func() error{
				func() error { _, err := g.Put(ctx, coord.PutRequest{}); return err },
				func() error { _, err := g.Delete(ctx, coord.DeleteRequest{}); return err },
				func() error { _, err := g.Get(ctx, coord.GetRequest{}); return err },
				func() error { _, err := g.Scan(ctx, coord.ScanRequest{MaxKeys: 1}); return err },
				func() error { _, err := g.Batch(ctx, []coord.Item{{Put: &coord.PutRequest{}}}); return err },
				func() error { _, err := g.Batch(ctx, []coord.Item{{Get: &coord.GetRequest{}}}); return err },
			} {
				wg.Go(func() { _ = call() }) // whether it worked is nothing to a caller that is gone
			}
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		for _, c := range Classes() {
			if n, under := g.Stats(c).UnderWay, k.underWay.Load(); n != 6 || under != 12 {
				t.Errorf("%v: %d are counted, %d of both classes are under way; want 6 and 12", c, n, under)
			}
		}
		close(k.hold)
		wg.Wait()
		for _, c := range Classes() {
			if n := g.Stats(c).UnderWay; n != 0 {
				t.Errorf("%v: %d are counted in the end", c, n)
			}
		}
	})
}

// TestStartedTogetherBelowTheFloor: items that come together are no heavy operation:
// below the floor no more of them are let in than the limit says, though nobody else
// is there.
func TestStartedTogetherBelowTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &slowKV{hold: make(chan struct{})}
		g := New(k, Options{Bounds: bounds(), Now: time.Now})
		g.limits[Reads].limit.Store(2)
		items := make([]coord.Item, 6)
		for i := range items {
			items[i].Get = &coord.GetRequest{}
		}
		var ended atomic.Int64
		go g.StartAll(items, func(int, coord.ItemResult) { ended.Add(1) })
		synctest.Wait()
		if n := k.underWay.Load(); n != 2 {
			t.Errorf("%d are under way, the limit is 2", n)
		}
		close(k.hold)
		synctest.Wait()
		if ended.Load() != 6 || g.Stats(Reads).UnderWay != 0 {
			t.Errorf("%d of 6 ended, %d are counted in the end", ended.Load(), g.Stats(Reads).UnderWay)
		}
	})
}
