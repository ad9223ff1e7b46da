package coord

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
)

// Limits of a batch that no option changes.
const (
	// MaxBatchItems bounds the items of a batch.
	MaxBatchItems = 1000
	// MaxBatchBytes bounds the keys, values, tokens and idempotency keys of a
	// batch, in bytes.
	MaxBatchBytes = 16 << 20
	// MaxBatchAnswer bounds the values that a batch reads, in bytes. The first
	// that is read is there whatever its size.
	MaxBatchAnswer = 16 << 20

	// batchWindow bounds the items of one batch that are under way, so that
	// some batches do not fill the queues to a peer.
	batchWindow = 512
	// jobsTogether jobs are allocated as one, so that the last of them to end
	// keeps the memory of the others, unless one has more than jobBytes of values.
	jobsTogether, jobBytes = 16, 4 << 10
	// guessedRead is what a value is taken to have, in bytes, as long as none
	// of the batch has been seen.
	guessedRead = 1 << 20
)

// Item is one of several operations that are started together. One field is
// set.
type Item struct {
	Put    *PutRequest
	Delete *DeleteRequest
	Get    *GetRequest
}

// ItemResult is what came of an Item: Write of a Put or Delete, Get of a Get, or
// Err, an *Error.
type ItemResult struct {
	Write WriteResponse
	Get   GetResponse
	Err   error
}

// request returns the item as the request it is; the zero request for none.
func (it *Item) request() request {
	switch {
	case it.Put != nil:
		return it.Put.request()
	case it.Delete != nil:
		return it.Delete.request()
	case it.Get != nil:
		return it.Get.request()
	}
	return request{}
}

// size is what the item counts toward MaxBatchBytes.
func (r *request) size() int { return len(r.key) + len(r.value) + len(r.token) + len(r.idempotencyKey) }

// StartAll starts several operations together; each is one of its own. What
// they send to one peer at first goes in as few frames as hold it. done is
// called exactly once for each, maybe before StartAll returns, in any order.
func (c *Coordinator) StartAll(items []Item, done func(i int, r ItemResult)) {
	var b *bundle // one operation has nothing to wait for
	if len(items) > 1 {
		b = c.newBundle()
		defer b.close()
	}
	var now time.Time
	var jobs []job
	for i := range items {
		if i%bundleItems == 0 {
			if i > 0 {
				b.flush()
			}
			now = c.opts.Clock.Now()
		}
		r := items[i].request()
		if r.kind == 0 {
			done(i, ItemResult{Err: &Error{Code: errcode.InvalidArgument, Outcome: errcode.NotApplied, Message: "the item asks for nothing"}})
			continue
		}
		var j *job
		if r.size() > jobBytes {
			j = new(job)
		} else {
			if len(jobs) == 0 {
				jobs = make([]job, min(len(items)-i, jobsTogether))
			}
			j, jobs = &jobs[0], jobs[1:]
		}
		j.request, j.bundle, j.each, j.index = r, b, done, i
		c.begin(j, now)
	}
}

// Batch runs the items and returns what came of each, in their order. They are
// run at once, without order or atomicity. An error means that the batch was
// refused before anything was begun (see CheckBatch), or that ctx ended first:
// writes may then go on.
func (c *Coordinator) Batch(ctx context.Context, items []Item) ([]ItemResult, error) {
	if err := c.CheckBatch(items); err != nil {
		return nil, err
	}
	now := c.opts.Clock.Now()
	for i := range items {
		if r := items[i].request(); !r.deadline.IsZero() && !now.Before(r.deadline) {
			return nil, &Error{Code: errcode.Timeout, Outcome: outcome(&r, errcode.NotApplied), Message: fmt.Sprintf("the deadline of item %d was over before the batch began", i)}
		}
	}
	b := &batch{c: c, items: items, results: make([]ItemResult, len(items)), largest: guessedRead}
	b.mu.wake = make(chan struct{}, 1)
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	return b.results, nil
}

// batch is a batch under way. One goroutine runs it; callbacks write results,
// each its own, and count.
type batch struct {
	c       *Coordinator
	items   []Item
	results []ItemResult
	// settled results have been looked at; answer is the size of the values
	// read among them, and largest what the next ones are taken to have: that of
	// the largest of those read last, in bytes.
	settled, answer, largest int

	mu struct {
		sync.Mutex
		underWay int
		// until is the number under way at which wake is sent; -1 for none.
		until int
		wake  chan struct{}
	}
}

// run starts the items in groups. Writes follow one another within the window;
// reads are started only when the sizes of those before are known.
func (b *batch) run(ctx context.Context) error {
	for at := 0; at < len(b.items); {
		n, reads := b.group(at)
		room := batchWindow - n
		if reads {
			room = 0
		}
		if err := b.wait(ctx, room); err != nil {
			return err
		}
		if reads {
			b.settle(at)
			n, _ = b.group(at)
		}
		if n == 0 {
			b.results[at].Err = noRoom()
			at++
			continue
		}
		b.start(at, n)
		at += n
	}
	if err := b.wait(ctx, 0); err != nil {
		return err
	}
	b.settle(len(b.items))
	return nil
}

// group is how many items from the one at at may be started together, and
// whether there are reads among them. It is 0 if the answer is full.
func (b *batch) group(at int) (n int, reads bool) {
	quota := bundleItems
	for n = 0; n < bundleItems && at+n < len(b.items); n++ {
		if b.items[at+n].Get == nil {
			continue
		}
		if !reads {
			reads = true
			quota = (MaxBatchAnswer - b.answer + b.largest - 1) / b.largest
		}
		if quota == 0 {
			break
		}
		quota--
	}
	return n, reads
}

func (b *batch) start(at, n int) {
	b.mu.Lock()
	b.mu.underWay += n
	b.mu.Unlock()
	b.c.StartAll(b.items[at:at+n], func(i int, r ItemResult) {
		b.results[at+i] = r
		b.mu.Lock()
		defer b.mu.Unlock()
		b.mu.underWay--
		if b.mu.underWay == b.mu.until {
			b.mu.until = -1
			b.mu.wake <- struct{}{} // has room: one wait at a time
		}
	})
}

// wait returns when at most n items are under way, or when ctx ends.
func (b *batch) wait(ctx context.Context, n int) error {
	b.mu.Lock()
	if b.mu.underWay <= n {
		b.mu.until = -1
		b.mu.Unlock()
		return nil
	}
	b.mu.until = n
	b.mu.Unlock()
	select {
	case <-b.mu.wake:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	over := b.mu.underWay <= n
	b.mu.Unlock()
	if over { // both are ready: the answer counts
		return nil
	}
	return &Error{
		Code: errcode.Timeout, Outcome: batchOutcome(b.items, errcode.Indeterminate),
		Message: "the caller gave up before the answer", Err: ctx.Err(),
	}
}

// settle looks at the results before the one at end, all of which are there,
// and lets go of values that the answer has no room for.
func (b *batch) settle(end int) {
	reads, read := 0, 0
	for ; b.settled < end; b.settled++ {
		if b.items[b.settled].Get == nil {
			continue
		}
		r := &b.results[b.settled]
		size := 0
		reads++
		for i := range r.Get.Siblings {
			size += len(r.Get.Siblings[i].Value)
		}
		read = max(read, size)
		if size > 0 && b.answer > 0 && b.answer+size > MaxBatchAnswer {
			*r = ItemResult{Err: noRoom()}
			continue
		}
		b.answer = min(b.answer+size, MaxBatchAnswer)
	}
	if reads > 0 {
		// As many as a group may have, if they are small.
		b.largest = max(read, MaxBatchAnswer/bundleItems)
	}
}

func noRoom() *Error {
	return &Error{Code: errcode.ResourceExhausted, Message: fmt.Sprintf("the answer has its %d bytes of values; ask for this key again", MaxBatchAnswer)}
}
