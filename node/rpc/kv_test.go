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
