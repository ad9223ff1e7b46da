package coord

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Coordinator runs client operations and serves what peers ask of this node's
// replica. It is safe for concurrent use. Make it with New, end it with Close.
type Coordinator struct {
	opts Options

	// held counts operations and callbacks under way, with the bit closed once
	// Close was called; drained is closed when nothing else is left of it. No
	// operation may begin or go on then: whatever an operation does when it may
	// have answered is done under a hold that was taken before, by run, for a
	// callback, or by a timer under the operation's lock.
	held     atomic.Int64
	drained  chan struct{}
	ended    sync.Once // closes drained
	refresh  refresher
	health   health
	catching catchUps
	// reserved are the clocks of writes that were given a dot before they are
	// in an object.
	reserved clocks
	// gaining counts what waits until this node may serve what it gains.
	gaining gainGate
	// pages lets a bounded number of pages of scans be made at once.
	pages pageGate
	sent  sync.Pool // *[]Outgoing, of bundles that were sent
}

// New returns a coordinator, or what is wrong with the options.
func New(opts Options) (*Coordinator, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	c := &Coordinator{opts: opts}
	c.drained = make(chan struct{})
	c.refresh.c = c
	c.health.init(c)
	return c, nil
}

// Close refuses new operations and returns when those under way, the late
// answers of replicas included, have ended, or with ctx's error when ctx ends
// first; they then still end by their own timeouts. It may be called again.
func (c *Coordinator) Close(ctx context.Context) error {
	for held := c.held.Load(); held&closed == 0; held = c.held.Load() {
		if c.held.CompareAndSwap(held, held|closed) {
			c.drain(held | closed)
		}
	}
	select {
	case <-c.drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closed is the bit of Coordinator.held.
const closed = 1 << 62

// enter notes the start of an operation; it fails once Close was called.
func (c *Coordinator) enter() bool {
	if c.held.Add(1)&closed == 0 {
		return true
	}
	c.leave()
	return false
}

// hold notes n callbacks or steps of an operation under way, which Close then
// waits for. The caller is itself held, or knows that the operation has not
// answered.
func (c *Coordinator) hold(n int) { c.held.Add(int64(n)) }

// leave undoes one enter or hold.
func (c *Coordinator) leave() { c.drain(c.held.Add(-1)) }

// drain ends the wait of Close when held, what it has just become, says that
// nothing is under way.
func (c *Coordinator) drain(held int64) {
	if held == closed {
		c.ended.Do(func() { close(c.drained) })
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
	c.start(r.request(), func(b result, err error) { done(b.get, err) })
}

func (c *Coordinator) startWrite(r request, done func(WriteResponse, error)) {
	c.start(r, func(b result, err error) { done(b.write, err) })
}

// result is the answer to any kind of request.
type result struct {
	write WriteResponse
	get   GetResponse
	scan  ScanResponse
}

// start runs a client's operation alone.
func (c *Coordinator) start(r request, done func(result, error)) {
	c.begin(&job{request: r, client: done}, c.opts.Clock.Now())
}

// begin runs a client's operation: limits, tenant, then here or at an owner.
func (c *Coordinator) begin(j *job, now time.Time) {
	j.c, j.began = c, now
	if !c.enter() {
		j.tell(result{}, &Error{Code: errcode.Unavailable, Outcome: outcome(&j.request, errcode.NotApplied), Message: "the node is shutting down"})
		return
	}
	j.deadline = c.operationDeadline(now, &j.request)
	if err := c.validate(&j.request); err != nil {
		j.done(result{}, err)
		return
	}
	if _, ok := c.opts.View().Tenant(j.tenant); !ok && c.refresh.ask(j) {
		return
	}
	j.runAt(now)
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
	// number is the tenant's, 0 before it was found: the name may be another one's later.
	number ring.TenantNumber
	// tried says that owners that do not answer were asked whether they do, counted
	// that Metrics.Key was told of it.
	tried, counted bool
	// informed says that enough other nodes were asked for the tenant, since it came, to
	// know that there is none if it is still not known.
	informed bool
	began    time.Time
	// One of these hears the answer, exactly once: a client's, the index-th of
	// several of a client's that were started together, or answer of what is none.
	client func(result, error)
	each   func(i int, r ItemResult)
	index  int
	answer func(result, *Error)
	// found, if set, gets what a read found instead of done.
	found func(*causal.Object)
	// looked is what the read before the write has found, nil before it.
	looked *causal.Object
}

// done gives the answer, exactly once.
func (j *job) done(res result, err *Error) {
	if j.answer != nil {
		j.answer(res, err)
		return
	}
	c, code := j.c, errcode.OK
	if err != nil {
		code = err.Code
		if code == errcode.QuorumNotReached || code == errcode.Timeout {
			c.opts.Metrics.QuorumFailure()
		}
		res = result{}
	}
	c.opts.Metrics.Request(j.kind, j.level, code, c.opts.Clock.Now().Sub(j.began))
	j.tell(res, err)
	c.leave()
}

// tell calls the client back.
func (j *job) tell(res result, e *Error) {
	var err error
	if e != nil { // a nil *Error is no nil error
		err = e
	}
	if j.each != nil {
		j.each(j.index, ItemResult{Write: res.write, Get: res.get, Err: err})
	} else {
		j.client(res, err)
	}
}

// run is runAt at the time of now.
func (j *job) run() { j.runAt(j.c.opts.Clock.Now()) }

// runAt takes the snapshot and decides where the operation is coordinated.
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
	wait := false
	if err == nil {
		wait, err = c.answering(j, u)
	}
	if err == nil && !wait {
		c.probe(u, nil)
		if u.mints() && j.found == nil && j.looked == nil && !j.counted {
			// Once for each operation, whatever it reads before and however often it
			// begins anew, at the node that does it.
			j.counted = true
			c.opts.Metrics.Key(u.Tenant, j.key, j.kind != KindGet)
		}
	}
	switch {
	case wait:
	case err != nil:
		j.done(result{}, err)
	case u.mints() && j.kind == KindGet:
		startRead(j, u)
	case u.mints() && c.diskHangs(j, u) != nil:
		startForward(j, u, c.diskHangs(j, u))
	case u.mints() && len(j.idempotencyKey) > 0:
		startOnce(j, u)
	case u.mints() && j.mustLook(u):
		startLook(j, u)
	case u.mints():
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
