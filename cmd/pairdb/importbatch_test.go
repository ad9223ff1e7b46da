package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/client/clienttest"
)

// TestBatcher: puts made at the same time go together, large ones alone, and each
// has its own result, also when one of them has the whole batch refused.
func TestBatcher(t *testing.T) {
	store := clienttest.NewStore()
	s, err := clienttest.Start(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := client.New(client.Options{Endpoints: []string{s.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var mu sync.Mutex
	batches, single := 0, 0
	s.SetHook(func(_ context.Context, method string, req any) error {
		mu.Lock()
		defer mu.Unlock()
		switch r := req.(type) {
		case *pairdbv1.BatchRequest:
			batches++
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
	b := &batcher{to: c, level: client.LevelAll}
	errs := make([]error, 600)
	var wg sync.WaitGroup
	put := func(i int, key string, value []byte) {
		wg.Go(func() {
			r, err := b.Put(t.Context(), key, value, client.WithLevel(client.LevelAll))
			if errs[i] = err; err == nil && (r.Level != client.LevelAll || r.Dot.Counter == 0) {
				t.Errorf("%s: %+v", key, r)
			}
		})
	}
	for i := range errs {
		key, value := fmt.Sprint("k", i), fmt.Append(nil, i)
		switch i {
		case 100:
			key = "bad"
		case 200:
			key = string(bytes.Repeat([]byte("k"), client.MaxKeySize+1))
		case 300:
			value = make([]byte, batchedValue+1)
		}
		put(i, key, value)
	}
	wg.Wait()
	for i, err := range errs {
		switch i {
		case 100:
			if !errors.Is(err, client.ErrQuorumNotReached) {
				t.Errorf("bad: %v", err)
			}
		case 200:
			if !errors.Is(err, client.ErrKeyTooLarge) {
				t.Errorf("too long: %v", err)
			}
		default:
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
	if store.Len() != 598 || batches == 0 || batches+single > 598/2+batchPuts {
		t.Errorf("%d keys, %d batches, %d single puts", store.Len(), batches, single)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.waiting) != 0 {
		t.Errorf("%d puts wait", len(b.mu.waiting))
	}
}

// TestBatcherLosesItsNode: every put is told.
func TestBatcherLosesItsNode(t *testing.T) {
	c, err := client.New(client.Options{Endpoints: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := &batcher{to: c}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := b.Put(t.Context(), fmt.Sprint(i), nil); !errors.Is(err, client.ErrNotConnected) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
}
