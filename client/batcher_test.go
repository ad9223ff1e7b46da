package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

// Puts made at the same time go together, large ones alone, and each has its own
// result, also when one of them is wrong.
func TestBatcher(t *testing.T) {
	c, store, servers := start(t, 1, Options{})
	var mu sync.Mutex
	batches, single := 0, 0
	servers[0].SetHook(func(_ context.Context, method string, req any) error {
		mu.Lock()
		defer mu.Unlock()
		switch r := req.(type) {
		case *pairdbv1.BatchRequest:
			batches++
			keys := map[string]bool{}
			for _, it := range r.GetItems() {
				keys[string(it.GetPut().GetKey())] = true
			}
			if len(keys) != len(r.GetItems()) {
				t.Errorf("%d items have %d keys", len(r.GetItems()), len(keys))
			}
		case *pairdbv1.PutRequest:
			if method == pairdbv1.KV_Put_FullMethodName {
				single++
			}
			if string(r.GetKey()) == "bad" {
				return clienttest.Fail(errcode.QuorumNotReached, "too few", map[string]string{errcode.MetaOutcome: string(errcode.NotApplied)})
			}
		}
		return nil
	})
	b := c.Batcher()
	errs := make([]error, 600)
	var wg sync.WaitGroup
	put := func(i int, key string, value []byte, level Level) {
		wg.Go(func() {
			r, err := b.Put(t.Context(), key, value, WithLevel(level))
			if errs[i] = err; err == nil && (r.Level != level || r.Dot.Counter == 0) {
				t.Errorf("%s: %+v", key, r)
			}
		})
	}
	for i := range errs {
		key, value, level := fmt.Sprint("k", i), fmt.Append(nil, i), LevelAll
		switch {
		case i == 100:
			key = "bad"
		case i == 200:
			key = string(bytes.Repeat([]byte("k"), MaxKeySize+1))
		case i == 300:
			value = make([]byte, batchedValue+1)
		case i >= 500:
			level = LevelOne
		case i >= 490:
			key = "k0"
		}
		put(i, key, value, level)
	}
	wg.Wait()
	for i, err := range errs {
		switch i {
		case 100:
			if !errors.Is(err, ErrQuorumNotReached) {
				t.Errorf("bad: %v", err)
			}
		case 200:
			if !errors.Is(err, ErrKeyTooLarge) {
				t.Errorf("too long: %v", err)
			}
		default:
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
	if store.Len() != 588 || batches == 0 || batches+single > 300 {
		t.Errorf("%d keys, %d batches, %d single puts", store.Len(), batches, single)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.waiting) != 0 {
		t.Errorf("%d puts wait", len(b.mu.waiting))
	}
}

// block makes a node hold every request that is a call of its own until the
// returned function is called. asked has a value for each.
func block(s *clienttest.Server, answer func(req any) error) (asked chan any, release func()) {
	asked, gate := make(chan any, 1000), make(chan struct{})
	s.SetHook(func(ctx context.Context, method string, req any) error {
		switch req.(type) {
		case *pairdbv1.BatchRequest, *pairdbv1.PutRequest:
		default:
			return nil
		}
		if _, ok := req.(*pairdbv1.PutRequest); ok && method != pairdbv1.KV_Put_FullMethodName {
			return nil // of a batch that was let through
		}
		asked <- req
		select {
		case <-gate:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
		return answer(req)
	})
	return asked, sync.OnceFunc(func() { close(gate) })
}

// A batch that is refused as a whole is taken apart, and one that nobody can make
// is not.
func TestBatcherTakesARefusedBatchApart(t *testing.T) {
	for _, tc := range []struct {
		code   errcode.Code
		single int // puts sent by themselves, with those that go first
	}{{errcode.InvalidArgument, 12}, {errcode.TenantNotFound, 2}} {
		c, _, servers := start(t, 1, Options{NoRouting: true})
		asked, release := block(servers[0], func(req any) error {
			if _, ok := req.(*pairdbv1.BatchRequest); ok {
				return clienttest.FailWrite(tc.code, errcode.NotApplied, 0, 0, "no")
			}
			return nil
		})
		b := c.Batcher()
		var wg sync.WaitGroup
		put := func(i int) {
			wg.Go(func() {
				_, err := b.Put(t.Context(), fmt.Sprint(i), nil)
				if refused := i >= 2 && tc.single == 2; (err != nil) != refused {
					t.Errorf("%s, %d: %v", tc.code, i, err)
				}
			})
		}
		for i := range batchesInFlight {
			put(i)
			<-asked
		}
		for i := range 10 {
			put(2 + i)
		}
		eventually(t, "10 puts wait", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.mu.waiting) == 10
		})
		release()
		wg.Wait()
		close(asked)
		batches, single := 0, batchesInFlight
		for req := range asked {
			if _, ok := req.(*pairdbv1.BatchRequest); ok {
				batches++
			} else {
				single++
			}
		}
		if batches == 0 || single != tc.single {
			t.Errorf("%s: %d batches, %d single puts, want %d", tc.code, batches, single, tc.single)
		}
	}
}

// A put ends with its context: at once if it was not sent, and when nobody waits
// for its batch any longer if it was.
func TestBatcherPutIsCancelled(t *testing.T) {
	c, _, servers := start(t, 1, Options{NoRouting: true})
	asked, release := block(servers[0], func(any) error { return nil })
	defer release()
	b := c.Batcher()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error, batchesInFlight)
	for i := range batchesInFlight {
		go func() {
			_, err := b.Put(ctx, fmt.Sprint(i), nil)
			errs <- err
		}()
		<-asked
	}
	gone, end := context.WithCancel(t.Context())
	end()
	_, err := b.Put(gone, "k", nil)
	if e := asError(t, err); e.Outcome != errcode.NotApplied || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v", e)
	}
	cancel()
	for range batchesInFlight {
		err := <-errs
		if e := asError(t, err); e.Outcome != errcode.Indeterminate || !errors.Is(err, context.Canceled) {
			t.Errorf("%+v", e)
		}
	}
}

// A context that ends does not end a batch that others wait for.
func TestBatchEndsWithItsLastContext(t *testing.T) {
	first, cancelFirst := context.WithCancel(t.Context())
	second, cancelSecond := context.WithCancel(t.Context())
	defer cancelSecond()
	ctx, stop := whileAny([]*batchedPut{{ctx: first}, {ctx: second}})
	defer stop()
	alone, stopAlone := whileAny([]*batchedPut{{ctx: first}, {ctx: first}})
	defer stopAlone()
	cancelFirst()
	<-alone.Done()
	if ctx.Err() != nil {
		t.Error("a batch ended with one of its puts")
	}
	cancelSecond()
	<-ctx.Done()
}

// Every put is told when no node is there.
func TestBatcherLosesItsNode(t *testing.T) {
	c, _, _ := start(t, 0, Options{Endpoints: []string{deadEndpoint(t)}})
	b := c.Batcher()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := b.Put(t.Context(), fmt.Sprint(i), nil); !errors.Is(err, ErrNotConnected) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
}
