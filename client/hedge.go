package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
)

const (
	// A read is hedged once it has taken longer than 99 % of them do at the node
	// that is asked next, but no sooner than minHedge, and coldHedge until that is
	// known. See J. Dean and L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013.
	minHedge, coldHedge = time.Millisecond, 100 * time.Millisecond
	// waitEach is how often a call that waits looks at how its node does.
	waitEach = 100 * time.Millisecond
)

// action is what a call that waits does.
type action int

const (
	keepWaiting action = iota
	sendHedge          // ask the next node as well
	goOn               // stop waiting, and ask the next node instead
)

// waiting is the situation of a call that waits for a node.
type waiting struct {
	took       time.Duration
	share      time.Duration // of the time until the deadline; 0: all of it
	hedgeAfter time.Duration // 0: it is not hedged, or was
	silent     bool          // the node was found to be silent, and the next one was not
}

// plan says what to do, and when to ask again. It is pure.
func plan(s waiting) (do action, again time.Duration) {
	again = waitEach
	if s.share > 0 {
		if s.took >= s.share {
			return goOn, 0
		}
		again = min(again, s.share-s.took)
	}
	switch {
	case s.silent:
		return goOn, again
	case s.hedgeAfter > 0 && s.took >= s.hedgeAfter:
		return sendHedge, again
	case s.hedgeAfter > 0:
		again = min(again, s.hedgeAfter-s.took)
	}
	return keepWaiting, again
}

// send sends one request to one endpoint and waits for its answer.
func send[Resp any](ctx context.Context, cn *conn, op string, k kind, cl class, fn func(context.Context, *conn, ...grpc.CallOption) (Resp, error)) (Resp, *Error) {
	// gRPC fills in the peer once the request was handed to a connection. If it
	// is empty after a failure, nothing was sent.
	var to peer.Peer
	if err := cn.calls.Acquire(ctx, 1); err != nil {
		var none Resp
		return none, decodeError(op, k, cn.endpoint, false, status.FromContextError(err).Err())
	}
	defer cn.calls.Release(1)
	var l *lane
	var began time.Time
	if cl != noClass {
		l = &cn.lanes[cl]
		began = l.begin()
	}
	resp, err := fn(ctx, cn, grpc.Peer(&to))
	var e *Error
	if err != nil {
		e = decodeError(op, k, cn.endpoint, to.Addr != nil, err)
	}
	if l != nil {
		l.end(began, endingOf(e))
	}
	return resp, e
}

// flight is a request that may be sent again, on its way to the first of some
// endpoints and, if it takes long, to the second as well.
type flight[Resp any] struct {
	c     *Client
	ctx   context.Context
	to    []*conn
	op    string
	k     kind
	cl    class
	fn    func(context.Context, *conn, ...grpc.CallOption) (Resp, error)
	began time.Time
	share time.Duration
	stop  context.CancelFunc // of the first request

	mu         sync.Mutex
	ended      bool // the first request
	gaveUp     bool // on the first request, for what plan said
	paid       bool // for going on
	hedgeAfter time.Duration
	hedge      chan landed[Resp] // nil: none was sent
	stopHedge  context.CancelFunc
}

// landed is the answer to a request.
type landed[Resp any] struct {
	resp Resp
	e    *Error
}

// flown is what came of a flight: the number of endpoints that were asked, and
// whether going on to the next one is paid for.
type flown struct {
	asked int
	paid  bool
}

// fly sends a request to the first of the endpoints. What may be sent again does
// not wait for all of the time that there is if there are others: it has its share,
// is not waited for at a node that is found to be silent, and, if it is a read with
// one answer, is hedged.
func fly[Resp any](ctx context.Context, c *Client, op string, k kind, cl class, to []*conn, fn func(context.Context, *conn, ...grpc.CallOption) (Resp, error)) (Resp, flown, *Error) {
	if k == writes || len(to) == 1 {
		// Leaving a write early makes it indeterminate.
		resp, e := send(ctx, to[0], op, k, cl, fn)
		return resp, flown{asked: 1}, e
	}
	f := &flight[Resp]{c: c, ctx: ctx, to: to, op: op, k: k, cl: cl, fn: fn, began: time.Now()}
	if deadline, ok := ctx.Deadline(); ok {
		f.share = max(deadline.Sub(f.began)/time.Duration(len(to)), time.Nanosecond)
	}
	if k == reads && (cl == getClass || cl == multiGetClass) && !c.opts.NoHedging {
		f.hedgeAfter = c.hedgeAfter(to, cl)
	}
	ctx, f.stop = context.WithCancel(ctx)
	defer f.stop()
	_, first := plan(f.now(0))
	a := setAlarm(first, f)
	resp, e := send(ctx, to[0], op, k, cl, fn)
	return f.land(a, resp, e)
}

// now is the situation after took. The mutex is held, or nothing has begun.
func (f *flight[Resp]) now(took time.Duration) waiting {
	w := waiting{took: took, share: f.share, hedgeAfter: f.hedgeAfter}
	if f.hedge != nil {
		w.hedgeAfter = 0
	} else if f.cl != noClass {
		w.silent = f.to[0].lanes[f.cl].is(silent) && f.to[1].lanes[f.cl].is(fine)
	}
	return w
}

// fire is called when the flight wanted to be asked again.
func (f *flight[Resp]) fire(a *alarm) {
	f.mu.Lock()
	if f.ended || f.gaveUp {
		f.mu.Unlock()
		return
	}
	s := f.now(time.Since(f.began))
	do, again := plan(s)
	switch {
	case do == goOn && s.silent && (s.share == 0 || s.took < s.share):
		if f.paid = f.c.moves.spend(); !f.paid {
			break // it waits here
		}
		f.c.counters.redirects.Add(1)
		fallthrough
	case do == goOn:
		f.gaveUp = true
		f.stop()
		f.mu.Unlock()
		return
	case do == sendHedge && f.c.mayHedge(f.to[1], f.cl):
		f.hedge = make(chan landed[Resp], 1)
		ctx := f.ctx
		if f.share > 0 { // its own, behind that of the first
			ctx, f.stopHedge = context.WithDeadline(ctx, f.began.Add(2*f.share))
		} else {
			ctx, f.stopHedge = context.WithCancel(ctx)
		}
		a.t.Reset(again)
		f.mu.Unlock()
		f.ask(ctx)
		return
	}
	a.t.Reset(again)
	f.mu.Unlock()
}

// ask sends the hedge. An answer that no other node would change ends the first
// request.
func (f *flight[Resp]) ask(ctx context.Context) {
	resp, e := send(ctx, f.to[1], f.op, f.k, f.cl, f.fn)
	if settles(e) {
		f.stop()
	}
	f.hedge <- landed[Resp]{resp, e}
}

// settles says that an answer, or e, is worth as much as any other node's.
func settles(e *Error) bool { return e == nil || e.answered && !mayMoveOn(reads, e) }

// land takes the answer to the first request and, if there is a hedge, returns
// the better one once both have ended.
func (f *flight[Resp]) land(a *alarm, resp Resp, e *Error) (Resp, flown, *Error) {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	a.stop()
	if f.gaveUp && e != nil && !e.answered && f.ctx.Err() == nil {
		e.Code, e.Message = errcode.Timeout, "no answer from "+e.Endpoint+" for as long as it was waited for"
		e.Err = errors.Join(context.DeadlineExceeded, e.Err)
	}
	if f.hedge == nil {
		return resp, flown{1, f.paid}, e
	}
	if settles(e) {
		f.stopHedge()
		<-f.hedge // no request outlives its call
		return resp, flown{asked: 1}, e
	}
	second := <-f.hedge
	f.stopHedge()
	if settles(second.e) {
		f.c.counters.hedgesWon.Add(1)
		return second.resp, flown{asked: 1}, second.e
	}
	return second.resp, flown{asked: 2}, after(e, second.e)
}

// hedgeAfter is how long a read waits for the first of two nodes.
func (c *Client) hedgeAfter(to []*conn, cl class) time.Duration {
	high := to[1].lanes[cl].high.Load()
	if high == 0 {
		high = to[0].lanes[cl].high.Load()
	}
	if high == 0 {
		return coldHedge
	}
	return max(time.Duration(high), minHedge)
}

// mayHedge says that a hedge may be sent to a node: it is fine, a connection
// stands, and the client has not hedged too much.
func (c *Client) mayHedge(cn *conn, cl class) bool {
	if !cn.lanes[cl].is(fine) {
		return false
	}
	switch cn.cc.GetState() {
	case connectivity.Ready:
	case connectivity.Idle:
		cn.cc.Connect() // for a later call
		return false
	default:
		return false
	}
	if !c.hedges.spend() {
		c.counters.hedgesRefused.Add(1)
		return false
	}
	c.counters.hedges.Add(1)
	return true
}

// alarm is a timer that is used again, since nearly all are stopped in time.
type alarm struct {
	t *time.Timer
	f interface{ fire(*alarm) }
}

var alarms = sync.Pool{New: func() any {
	a := new(alarm)
	a.t = time.AfterFunc(time.Hour, func() { a.f.fire(a) })
	a.t.Stop()
	return a
}}

func setAlarm(d time.Duration, f interface{ fire(*alarm) }) *alarm {
	a := alarms.Get().(*alarm)
	a.f = f
	a.t.Reset(d)
	return a
}

// stop ends the alarm. One that has just gone off is not used again: it may still
// be on its way to the flight.
func (a *alarm) stop() {
	if a.t.Stop() {
		a.f = nil
		alarms.Put(a)
	}
}
