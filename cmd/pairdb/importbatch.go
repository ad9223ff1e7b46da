package main

import (
	"context"
	"errors"
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

const (
	// batchedValue is the largest value that goes in a batch with others, in
	// bytes.
	batchedValue = 64 << 10
	// batchesInFlight is how many batches are on their way at once: one is made
	// durable while the next gathers and travels.
	batchesInFlight = 2
	// Bounds of one batch.
	batchPuts, batchBytes = 256, 4 << 20
)

// batchPutter is what a batcher needs of a client.
type batchPutter interface {
	putter
	Batch(ctx context.Context, ops []client.Write, opts ...client.CallOption) ([]client.BatchResult, error)
}

// batcher is a putter that sends small values that are put at the same time
// together: what comes while batches are on their way goes with the next one.
// Each Put has its own result. It is safe for concurrent use, and has nothing
// under way when no Put has.
type batcher struct {
	to    batchPutter
	level client.Level

	mu struct {
		sync.Mutex
		waiting []*batchedPut
		sending int
	}
}

// batchedPut is a Put that waits for its result.
type batchedPut struct {
	ctx   context.Context // of the call that waits for it
	key   string
	value []byte
	opts  []client.CallOption
	done  chan struct{}
	res   *client.PutResult
	err   error
}

func (b *batcher) Put(ctx context.Context, key string, value []byte, opts ...client.CallOption) (*client.PutResult, error) {
	if len(value) > batchedValue {
		return b.to.Put(ctx, key, value, opts...)
	}
	p := &batchedPut{ctx: ctx, key: key, value: value, opts: opts, done: make(chan struct{})}
	b.mu.Lock()
	b.mu.waiting = append(b.mu.waiting, p)
	start := b.mu.sending < batchesInFlight
	if start {
		b.mu.sending++
	}
	b.mu.Unlock()
	if start {
		go b.send()
	}
	// A Put of a folder's file ends with its call's context, as the batch does.
	<-p.done
	return p.res, p.err
}

// send sends what waits until nothing does.
func (b *batcher) send() {
	for {
		b.mu.Lock()
		n, size := 0, 0
		for n < len(b.mu.waiting) && n < batchPuts && (n == 0 || size+len(b.mu.waiting[n].value) <= batchBytes) {
			size += len(b.mu.waiting[n].value)
			n++
		}
		puts := b.mu.waiting[:n:n]
		b.mu.waiting = b.mu.waiting[n:]
		if n == 0 {
			b.mu.sending--
		}
		b.mu.Unlock()
		if n == 0 {
			return
		}
		b.sendBatch(puts)
	}
}

func (b *batcher) sendBatch(puts []*batchedPut) {
	if len(puts) == 1 {
		puts[0].alone(b.to)
		return
	}
	ops := make([]client.Write, len(puts))
	for i, p := range puts {
		ops[i] = client.PutOp(p.key, p.value, p.opts...)
	}
	results, err := b.to.Batch(puts[0].ctx, ops, client.WithLevel(b.level))
	var e *client.Error
	if errors.As(err, &e) && e.Outcome == errcode.NotApplied && !errcode.Lookup(e.Code).Retryable {
		// One of them is wrong and has the whole batch refused.
		for _, p := range puts {
			p.alone(b.to)
		}
		return
	}
	for i, p := range puts {
		if err != nil {
			p.err = err
		} else {
			p.res, p.err = results[i].Put, results[i].Err
		}
		close(p.done)
	}
}

func (p *batchedPut) alone(to putter) {
	p.res, p.err = to.Put(p.ctx, p.key, p.value, p.opts...)
	close(p.done)
}
