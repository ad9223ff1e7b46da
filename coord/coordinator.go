package coord

import (
	"context"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
)

// Coordinator runs client operations and serves what peers ask of this node's
// replica. It is safe for concurrent use. Make it with New, end it with Close.
type Coordinator struct {
	opts Options

	mu struct {
		sync.Mutex
		closed bool
		// held counts operations and callbacks under way; drained is closed
		// when it is 0 and closed is set. It must not rise from 0 again then:
		// whatever an operation does when it may have answered is done under
		// a hold that was taken before, by run, for a callback, or by a
		// timer under the operation's lock.
		held    int
		drained chan struct{}
		ended   bool // drained is closed
	}
	refresh  refresher
	catching catchUps
	// reserved are the clocks of writes that were given a dot before they are
	// in an object.
	reserved clocks
	// pages lets a bounded number of pages of scans be made at once.
	pages pageGate
}

// New returns a coordinator, or what is wrong with the options.
func New(opts Options) (*Coordinator, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	c := &Coordinator{opts: opts}
	c.mu.drained = make(chan struct{})
	c.refresh.c = c
	return c, nil
}

// Close refuses new operations and returns when those under way, the late
// answers of replicas included, have ended, or with ctx's error when ctx ends
// first; they then still end by their own timeouts. It may be called again.
func (c *Coordinator) Close(ctx context.Context) error {
	c.mu.Lock()
	if !c.mu.closed {
		c.mu.closed = true
		c.drain()
	}
	c.mu.Unlock()
	select {
	case <-c.mu.drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter notes the start of an operation; it fails once Close was called.
func (c *Coordinator) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return false
	}
	c.mu.held++
	return true
}

// hold notes n callbacks or steps of an operation under way, which Close then
// waits for. The caller is itself held, or knows that the operation has not
// answered.
func (c *Coordinator) hold(n int) {
	c.mu.Lock()
	c.mu.held += n
	c.mu.Unlock()
}

// leave undoes one enter or hold.
func (c *Coordinator) leave() {
	c.mu.Lock()
	c.mu.held--
	c.drain()
	c.mu.Unlock()
}

// drain ends the wait of Close when nothing is under way. The lock is held.
func (c *Coordinator) drain() {
	if c.mu.closed && c.mu.held == 0 && !c.mu.ended {
		c.mu.ended = true
		close(c.mu.drained)
	}
}

// Put writes a value and returns when the level is reached. It returns early
// when ctx ends; a deadline belongs into the request, by the coordinator's
// clock. The same goes for Delete and Get.
func (c *Coordinator) Put(ctx context.Context, r PutRequest) (WriteResponse, error) {
	return await(ctx, errcode.Indeterminate, func(done func(WriteResponse, error)) { c.StartPut(r, done) })
}

// Delete deletes a key and returns when the level is reached.
func (c *Coordinator) Delete(ctx context.Context, r DeleteRequest) (WriteResponse, error) {
	return await(ctx, errcode.Indeterminate, func(done func(WriteResponse, error)) { c.StartDelete(r, done) })
}

// Get reads a key. A key without a live value is the error KEY_NOT_FOUND.
func (c *Coordinator) Get(ctx context.Context, r GetRequest) (GetResponse, error) {
	return await(ctx, "", func(done func(GetResponse, error)) { c.StartGet(r, done) })
}

// await starts an operation and waits for its answer, or for the caller to
// give up; the operation then goes on without it.
func await[R any](ctx context.Context, gaveUp errcode.Outcome, start func(done func(R, error))) (R, error) {
	type answer struct {
		r   R
		err error
	}
	ch := make(chan answer, 1)
	start(func(r R, err error) { ch <- answer{r, err} })
	select {
	case a := <-ch: // a read of what is here at ONE; asking one channel is far cheaper than waiting for two
		return a.r, a.err
	default:
	}
	select {
	case a := <-ch:
		return a.r, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-ch: // both are ready: the answer counts
		return a.r, a.err
	default:
		var none R
		return none, &Error{Code: errcode.Timeout, Outcome: gaveUp, Message: "the caller gave up before the answer", Err: ctx.Err()}
	}
}

// StartPut starts a Put; done is called exactly once, maybe before StartPut
// returns, with the answer or an *Error.
func (c *Coordinator) StartPut(r PutRequest, done func(WriteResponse, error)) {
	c.startWrite(r.request(), done)
}

// StartDelete starts a Delete; see StartPut.
func (c *Coordinator) StartDelete(r DeleteRequest, done func(WriteResponse, error)) {
	c.startWrite(r.request(), done)
}

// StartGet starts a Get; see StartPut.
func (c *Coordinator) StartGet(r GetRequest, done func(GetResponse, error)) {
	c.start(r.request(), nil, func(b result, err error) { done(b.get, err) })
}

func (c *Coordinator) startWrite(r request, done func(WriteResponse, error)) {
	c.start(r, nil, func(b result, err error) { done(b.write, err) })
}

// result is the answer to any kind of request.
type result struct {
	write WriteResponse
	get   GetResponse
	scan  ScanResponse
}

// start runs a client's operation: limits, tenant, then here or at an owner. It
// sends with the others of b, if there is one.
func (c *Coordinator) start(r request, b *bundle, done func(result, error)) {
	began := c.opts.Clock.Now()
	if !c.enter() {
		done(result{}, &Error{Code: errcode.Unavailable, Outcome: outcome(&r, errcode.NotApplied), Message: "the node is shutting down"})
		return
	}
	// From here on r is in op alone: what is captured would be copied.
	op := &job{c: c, request: r, bundle: b, began: began}
	op.deadline = c.operationDeadline(began, &op.request)
	op.done = func(res result, err *Error) {
		code := errcode.OK
		if err != nil {
			code = err.Code
			if code == errcode.QuorumNotReached || code == errcode.Timeout {
				c.opts.Metrics.QuorumFailure()
			}
		}
		c.opts.Metrics.Request(op.kind, op.level, code, c.opts.Clock.Now().Sub(op.began))
		if err != nil {
			done(result{}, err)
		} else {
			done(res, nil)
		}
		c.leave()
	}
	if err := c.validate(&op.request); err != nil {
		op.done(result{}, err)
		return
	}
	if _, ok := c.opts.View().Tenant(r.tenant); !ok && c.refresh.ask(r.tenant, op.run) {
		return
	}
	op.runAt(op.began)
}

// operationDeadline leaves a tenth of the client's time for the way back.
func (c *Coordinator) operationDeadline(now time.Time, r *request) time.Time {
	d := c.opts.WriteTimeout
	if r.kind.reads() {
		d = c.opts.ReadTimeout
	}
	if !r.deadline.IsZero() {
		d = min(d, r.deadline.Sub(now)*9/10)
	}
	return now.Add(d)
}

// remaining is the time until t.
func (c *Coordinator) remaining(t time.Time) time.Duration { return t.Sub(c.opts.Clock.Now()) }

// job is one operation at the node that received it, or at the owner it was
// forwarded to.
type job struct {
	request
	c *Coordinator
	// bundle, if set, sends what the operations that start together send.
	bundle *bundle
	// forwarded says that a peer sent it: it is not sent on.
	forwarded bool
	began     time.Time
	done      func(result, *Error) // exactly once
	// found, if set, gets what a read found instead of done.
	found func(*causal.Object)
	// looked is what the read before the write has found, nil before it.
	looked *causal.Object
}

// run takes the snapshot and decides where the operation is coordinated.
func (j *job) run() { j.runAt(j.c.opts.Clock.Now()) }

// runAt is run by whoever has just looked at the clock.
func (j *job) runAt(now time.Time) {
	c := j.c
	// The answer may be given before everything is sent.
	c.hold(1)
	defer c.leave()
	if !now.Before(j.deadline) {
		j.fail(errcode.Timeout, errcode.NotApplied, "the deadline was over before the operation began")
		return
	}
	if j.scan != nil {
		startPage(j)
		return
	}
	u, err := c.locate(j)
	if err == nil {
		err = u.reachable(j)
	}
	switch {
	case err != nil:
		j.done(result{}, err)
	case u.self >= 0 && j.kind == KindGet:
		startRead(j, u)
	case u.self >= 0 && len(j.idempotencyKey) > 0:
		startOnce(j, u)
	case u.self >= 0 && j.mustLook(u):
		startLook(j, u)
	case u.self >= 0:
		startUpdate(j, u)
	case j.forwarded:
		j.fail(errcode.StaleRing, errcode.NotApplied, "this node does not own the key")
	default:
		startForward(j, u, nil)
	}
}

// flags are those of the sibling that a write makes.
func (r *request) flags() causal.Flags {
	var f causal.Flags
	if r.kind == KindDelete {
		f |= causal.FlagTombstone
	}
	if r.json {
		f |= causal.FlagJSON
	}
	if r.expiry.Kind != causal.ExpiryNever {
		f |= causal.FlagExpiry
	}
	return f
}

func (j *job) fail(code errcode.Code, o errcode.Outcome, msg string) {
	j.done(result{}, &Error{Code: code, Outcome: outcome(&j.request, o), Message: msg})
}

// outcome is o for a write; a read has none.
func outcome(r *request, o errcode.Outcome) errcode.Outcome {
	if r.kind.reads() {
		return ""
	}
	return o
}
