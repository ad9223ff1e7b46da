package rpc

import (
	"context"
	"sync"

	"github.com/pairdb/pairdb/coord"
)

// fakeCoordinator records what it is asked and answers as it is told.
type fakeCoordinator struct {
	mu    sync.Mutex
	put   coord.PutRequest
	get   coord.GetRequest
	del   coord.DeleteRequest
	write coord.WriteResponse
	read  coord.GetResponse
	// pages are what scans get one after the other, scans what they asked.
	pages []coord.ScanResponse
	scans []coord.ScanRequest
	err   error
	panic any
	// items are what came through Batch and StartAll; fail, if set, says which
	// of them fail.
	items []coord.Item
	fail  func(*coord.Item) error
	// hold, if set, is waited for by each call, or for the call's end.
	hold chan struct{}
}

func (f *fakeCoordinator) answer(ctx context.Context) error {
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panic != nil {
		panic(f.panic)
	}
	return f.err
}

func (f *fakeCoordinator) Put(ctx context.Context, r coord.PutRequest) (coord.WriteResponse, error) {
	f.mu.Lock()
	f.put = r
	f.mu.Unlock()
	return f.write, f.answer(ctx)
}

// Batch answers each item as the call of its own would be.
func (f *fakeCoordinator) Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error) {
	if err := f.answer(ctx); err != nil {
		return nil, err
	}
	results := make([]coord.ItemResult, len(items))
	f.StartAll(items, func(i int, r coord.ItemResult) { results[i] = r })
	return results, nil
}

// StartAll keeps the items and answers all at once, or once hold is closed.
func (f *fakeCoordinator) StartAll(items []coord.Item, done func(int, coord.ItemResult)) {
	f.mu.Lock()
	f.items = append(f.items, items...)
	f.mu.Unlock()
	all := func() {
		for i := range items {
			f.mu.Lock()
			r, fail := coord.ItemResult{Write: f.write, Get: f.read}, f.fail
			f.mu.Unlock()
			if fail != nil {
				r.Err = fail(&items[i])
			}
			done(i, r)
		}
	}
	if f.hold == nil {
		all()
		return
	}
	go func() {
		<-f.hold
		all()
	}()
}

func (f *fakeCoordinator) Get(ctx context.Context, r coord.GetRequest) (coord.GetResponse, error) {
	f.mu.Lock()
	f.get = r
	f.mu.Unlock()
	return f.read, f.answer(ctx)
}

func (f *fakeCoordinator) Delete(ctx context.Context, r coord.DeleteRequest) (coord.WriteResponse, error) {
	f.mu.Lock()
	f.del = r
	f.mu.Unlock()
	return f.write, f.answer(ctx)
}

func (f *fakeCoordinator) Scan(ctx context.Context, r coord.ScanRequest) (coord.ScanResponse, error) {
	f.mu.Lock()
	f.scans = append(f.scans, r)
	var p coord.ScanResponse
	if n := len(f.scans); n <= len(f.pages) {
		p = f.pages[n-1]
	}
	f.mu.Unlock()
	return p, f.answer(ctx)
}
