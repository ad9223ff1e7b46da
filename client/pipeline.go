package client

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const (
	// pipelineWindow bounds the requests of a Pipeline without an answer: what a
	// node lets one stream have.
	pipelineWindow = 1024
	// Bounds of one message of a Pipeline.
	pipelineItems, pipelineBytes = 256, 1 << 20
)

// Pipeline has many requests in flight on one stream to one node: that costs both
// sides a fraction of as many calls. Requests have no order among themselves, not
// even those of one key: wait for the one before where it matters. It is safe for
// concurrent use. Make one with Client.Pipeline, end it with Close.
//
// When the stream breaks it goes on at the next endpoint, and so it does when
// requests wait and nothing comes from the node, as long as none of them is a write
// that could not be sent again: such a one has until its deadline. What had no answer is
// sent again under the same rule as a call's failover: reads, writes with an
// idempotency key above LevelOne, and writes that the node is known not to have
// begun. The others fail with Indeterminate as their outcome. An error that a node
// answers a request with is that request's result.
type Pipeline struct {
	c     *Client
	slots chan struct{} // one for each request without an answer
	wake  chan struct{} // one value if the sender may have something to do
	ended chan struct{} // closed when run has returned
	// closed says that no more requests are taken. It is set with the mutex held.
	closed atomic.Bool

	mu struct {
		sync.Mutex
		// queue has the requests to be sent, calls all without an answer.
		queue  []*pipelined
		calls  map[uint64]*pipelined
		lastID uint64
		// stream numbers the streams, from 1; heard is when the present one
		// last brought something, for the answers-th time, and hangUp ends it. usual
		// is what 99 % of the calls to its node do not exceed.
		stream  int
		heard   time.Time
		answers uint64
		hangUp  context.CancelFunc
		usual   time.Duration
		vigil   vigil
	}
}

// pipelined is one request. Its fields belong to the Pipeline's mutex once it is
// queued.
type pipelined struct {
	op       string
	tenant   string
	kind     kind
	item     *pairdbv1.PipelineItem
	size     int
	deadline time.Time
	timer    *time.Timer
	// stream is where it was sent last, 0 for nowhere, at sentAt. tries counts
	// the endpoints that it could not be done at, and doubt says that one of
	// them may have.
	stream int
	sentAt time.Time
	tries  int
	doubt  bool
	// settle gives the answer: one of the two.
	settle func(*pairdbv1.PipelineResult, *Error)
}

// Pipeline returns a Pipeline. It connects when the first request comes.
func (c *Client) Pipeline() *Pipeline {
	p := &Pipeline{c: c, slots: make(chan struct{}, pipelineWindow), wake: make(chan struct{}, 1), ended: make(chan struct{})}
	p.mu.calls = make(map[uint64]*pipelined)
	go p.run()
	return p
}

// Close takes no more requests and returns when those that were taken are
// answered, which their deadlines see to. It may be called again.
func (p *Pipeline) Close() error {
	p.mu.Lock()
	p.closed.Store(true)
	p.mu.Unlock()
	p.nudge()
	<-p.ended
	return nil
}

// Put stores value under key. It returns once there is room for the request: 1024
// are in flight at the most. ctx bounds that wait, and its deadline, or the
// client's timeout if that is earlier, is the request's. Its later end changes
// nothing. The slice is not kept.
func (p *Pipeline) Put(ctx context.Context, key string, value []byte, opts ...CallOption) *Future[*PutResult] {
	o := p.c.callOptions(opts)
	// What expires may be on its way just then, so the caller's slice is not used.
	req, err := o.putRequest("put", key, bytes.Clone(value))
	if err != nil {
		return failed[*PutResult](err)
	}
	f := newFuture[*PutResult]()
	p.submit(ctx, &pipelined{
		op: "put", tenant: o.tenant, kind: o.writeKind(), item: &pairdbv1.PipelineItem{Request: &pairdbv1.PipelineItem_Put{Put: req}}, size: len(key) + len(value),
		settle: func(r *pairdbv1.PipelineResult, e *Error) {
			if resp := r.GetPut(); e == nil && resp != nil {
				f.settle(putResult(resp), nil)
			} else {
				f.settle(nil, orOther(e, "put", writes))
			}
		},
	})
	return f
}

// Get reads key; see Put and Client.Get.
func (p *Pipeline) Get(ctx context.Context, key string, opts ...CallOption) *Future[*GetResult] {
	if err := checkKey("get", reads, key); err != nil {
		return failed[*GetResult](err)
	}
	o := p.c.callOptions(opts)
	req := &pairdbv1.GetRequest{TenantId: o.tenant, Key: []byte(key), Consistency: o.level.wire()}
	f := newFuture[*GetResult]()
	p.submit(ctx, &pipelined{
		op: "get", tenant: o.tenant, kind: reads, item: &pairdbv1.PipelineItem{Request: &pairdbv1.PipelineItem_Get{Get: req}}, size: len(key),
		settle: func(r *pairdbv1.PipelineResult, e *Error) {
			if resp := r.GetGet(); e == nil && resp != nil {
				f.settle(getResult("get", resp))
			} else {
				f.settle(nil, orOther(e, "get", reads))
			}
		},
	})
	return f
}

// Delete deletes key; see Put and Client.Delete.
func (p *Pipeline) Delete(ctx context.Context, key string, opts ...CallOption) *Future[*DeleteResult] {
	o := p.c.callOptions(opts)
	req, err := o.deleteRequest("delete", key)
	if err != nil {
		return failed[*DeleteResult](err)
	}
	f := newFuture[*DeleteResult]()
	p.submit(ctx, &pipelined{
		op: "delete", tenant: o.tenant, kind: o.writeKind(), item: &pairdbv1.PipelineItem{Request: &pairdbv1.PipelineItem_Delete{Delete: req}}, size: len(key),
		settle: func(r *pairdbv1.PipelineResult, e *Error) {
			if resp := r.GetDelete(); e == nil && resp != nil {
				f.settle(deleteResult(resp), nil)
			} else {
				f.settle(nil, orOther(e, "delete", writes))
			}
		},
	})
	return f
}

// orOther is e, or what is said of an answer to another kind of request.
func orOther(e *Error, op string, k kind) *Error {
	if e != nil {
		return e
	}
	e = localError(op, k, errcode.Internal, "the node answered with something else")
	if k != reads {
		e.Outcome = errcode.Indeterminate
	}
	return e
}

// submit queues a request once there is room for it.
func (p *Pipeline) submit(ctx context.Context, q *pipelined) {
	if p.c.opts.Timeout > 0 {
		q.deadline = time.Now().Add(p.c.opts.Timeout)
	}
	if d, ok := ctx.Deadline(); ok && (q.deadline.IsZero() || d.Before(q.deadline)) {
		q.deadline = d
	}
	if e := p.c.admit(q.op, q.kind, q.tenant); e != nil {
		q.settle(nil, e)
		return
	}
	select {
	case p.slots <- struct{}{}:
	default:
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			e := localError(q.op, q.kind, errcode.Timeout, "there was no room in the pipeline before the call's context ended")
			e.Err = ctx.Err()
			q.settle(nil, e)
			return
		}
	}
	p.mu.Lock()
	if p.closed.Load() {
		p.mu.Unlock()
		<-p.slots
		p.nudge()
		e := localError(q.op, q.kind, errcode.Unavailable, "the pipeline is closed")
		e.Err = ErrClosed
		q.settle(nil, e)
		return
	}
	p.mu.lastID++
	q.item.Id = p.mu.lastID
	p.mu.calls[q.item.GetId()] = q
	p.mu.queue = append(p.mu.queue, q)
	if !q.deadline.IsZero() {
		q.timer = time.AfterFunc(time.Until(q.deadline), func() { p.expire(q) })
	}
	first := len(p.mu.queue) == 1
	p.mu.Unlock()
	if p.c.watcher.resting.Load() {
		p.c.watcher.rouse()
	}
	if first {
		p.nudge()
	}
}

func (p *Pipeline) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// takeLocked takes a request out of the calls; false if it is answered.
func (p *Pipeline) takeLocked(q *pipelined) bool {
	if p.mu.calls[q.item.GetId()] != q {
		return false
	}
	delete(p.mu.calls, q.item.GetId())
	if q.timer != nil {
		q.timer.Stop()
	}
	return true
}

// answer gives a request that was taken its answer, and its room back.
func (p *Pipeline) answer(q *pipelined, r *pairdbv1.PipelineResult, e *Error) {
	if e != nil && q.doubt && q.kind != reads {
		e.Outcome = errcode.Indeterminate // whatever the last endpoint did not do
	}
	q.settle(r, e)
	<-p.slots
	if p.closed.Load() {
		p.nudge() // the sender ends with the last one
	}
}

// expire fails a request at its deadline. A node answers before that; one from
// which nothing at all has come since is not waited for any longer.
func (p *Pipeline) expire(q *pipelined) {
	p.mu.Lock()
	if !p.takeLocked(q) {
		p.mu.Unlock()
		return
	}
	e := localError(q.op, q.kind, errcode.Timeout, "no answer before the deadline")
	e.Err = context.DeadlineExceeded
	if q.stream > 0 {
		if q.kind != reads {
			e.Outcome = errcode.Indeterminate
		}
		if q.stream == p.mu.stream && p.mu.heard.Before(q.sentAt) && p.mu.hangUp != nil {
			p.mu.hangUp()
		}
	}
	p.mu.Unlock()
	p.answer(q, nil, e)
}
