package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/api/errcode"
)

const (
	// batchedValue is the largest value that a Batcher sends with others, in
	// bytes.
	batchedValue = 64 << 10
	// batchesInFlight is how many batches of a Batcher are on their way at once:
	// one is made durable while the next gathers and travels.
	batchesInFlight = 2
	// Bounds of one batch of a Batcher; with the keys and options of its puts it
	// stays below those of Batch.
	batcherPuts, batcherBytes = 256, 4 << 20
)

// Batcher sends small values that are put at the same time together, as a Batch:
// what comes while two batches are on their way goes with the next one. A Put waits
// for nothing but those, so that one by itself is sent at once. It is for programs
// with many goroutines that put at the same time. It is safe for concurrent use, and
// has nothing under way while no Put has, so that it needs no Close. Make one with
// Client.Batcher.
type Batcher struct {
	c *Client

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
	opts  []CallOption
	like  batchKind
	// done is closed once res and err, or refused, are set.
	done chan struct{}
	res  *PutResult
	err  error
	// refused says that its batch was refused before anything of it was begun.
	refused bool
}

// batchKind is what the puts of one batch have in common.
type batchKind struct {
	tenant string
	level  Level
	kind   kind
}

// Batcher returns a Batcher.
func (c *Client) Batcher() *Batcher { return &Batcher{c: c} }

// Put stores value under key, as Client.Put does, with the result that it would
// have there. A value of more than 64 KiB is sent by itself, and so is one whose
// batch a node refuses as a whole. Puts of one key that overlap have no order. A Put
// whose ctx ends while its batch is on its way returns when the batch is answered,
// or the contexts of all its puts have ended.
func (b *Batcher) Put(ctx context.Context, key string, value []byte, opts ...CallOption) (*PutResult, error) {
	if len(value) > batchedValue {
		return b.c.Put(ctx, key, value, opts...)
	}
	o := b.c.callOptions(opts)
	if _, err := o.putRequest("put", key, value); err != nil {
		return nil, err // what is wrong with one must not have the others refused
	}
	p := &batchedPut{
		ctx: ctx, key: key, value: value, opts: opts, like: batchKind{o.tenant, o.level, o.writeKind()}, done: make(chan struct{}),
	}
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
	select {
	case <-p.done:
	case <-ctx.Done():
		if b.forget(p) {
			return nil, p.late(errcode.NotApplied)
		}
		<-p.done
	}
	if p.refused {
		return b.c.Put(ctx, key, value, opts...)
	}
	var e *Error
	if ctx.Err() != nil && errors.Is(p.err, context.Canceled) && errors.As(p.err, &e) {
		return nil, p.late(e.Outcome)
	}
	return p.res, p.err
}

// late is the error of a Put whose context ended first.
func (p *batchedPut) late(outcome errcode.Outcome) *Error {
	e := localError("put", writes, errcode.Timeout, "the call's context ended before an answer came")
	e.Outcome, e.Err = outcome, p.ctx.Err()
	return e
}

// forget takes out a put that is not on its way yet, and reports whether it was.
func (b *Batcher) forget(p *batchedPut) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, q := range b.mu.waiting {
		if q == p {
			b.mu.waiting = append(b.mu.waiting[:i:i], b.mu.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// send sends what waits until nothing does.
func (b *Batcher) send() {
	for {
		b.mu.Lock()
		puts := b.takeLocked()
		if len(puts) == 0 {
			b.mu.sending--
		}
		b.mu.Unlock()
		switch len(puts) {
		case 0:
			return
		case 1:
			p := puts[0]
			p.res, p.err = b.c.Put(p.ctx, p.key, p.value, p.opts...)
			close(p.done)
		default:
			b.sendBatch(puts)
		}
	}
}

// takeLocked takes the puts of the next batch out of those that wait: the first,
// and what goes with it. A key comes only once in a batch.
func (b *Batcher) takeLocked() []*batchedPut {
	var puts, left []*batchedPut
	keys, size := map[string]bool{}, 0
	for i, p := range b.mu.waiting {
		if len(puts) == batcherPuts {
			left = append(left, b.mu.waiting[i:]...)
			break
		}
		if i > 0 && (size+len(p.value) > batcherBytes || keys[p.key] || p.like != puts[0].like) {
			left = append(left, p)
			continue
		}
		puts = append(puts, p)
		keys[p.key] = true
		size += len(p.value)
	}
	b.mu.waiting = left
	return puts
}

func (b *Batcher) sendBatch(puts []*batchedPut) {
	ctx, stop := whileAny(puts)
	defer stop()
	ops := make([]Write, len(puts))
	for i, p := range puts {
		ops[i] = PutOp(p.key, p.value, p.opts...)
	}
	results, err := b.c.Batch(ctx, ops, WithTenant(puts[0].like.tenant), WithLevel(puts[0].like.level))
	var e *Error
	// One of them may be wrong and have the whole batch refused.
	refused := errors.As(err, &e) && e.Outcome == errcode.NotApplied && !errcode.Lookup(e.Code).Retryable && !sameForAll(e)
	for i, p := range puts {
		switch {
		case refused:
			p.refused = true
		case err != nil:
			p.err = err
		default:
			p.res, p.err = results[i].Put, results[i].Err
		}
		close(p.done)
	}
}

// whileAny returns a context that ends when those of all puts have ended.
func whileAny(puts []*batchedPut) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(puts[0].ctx))
	var live atomic.Int64
	live.Store(int64(len(puts)))
	stops := make([]func() bool, len(puts))
	for i, p := range puts {
		stops[i] = context.AfterFunc(p.ctx, func() {
			if live.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// sameForAll says that no other call for the same tenant will fare better.
func sameForAll(e *Error) bool {
	switch e.Code {
	case errcode.TenantNotFound, errcode.InvalidTenantID, errcode.Unauthorized, errcode.Forbidden:
		return true
	}
	return e.NotConnected || errors.Is(e, ErrClosed)
}
