package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

type pipelineStream = grpc.BidiStreamingClient[pairdbv1.PipelineRequest, pairdbv1.PipelineResponse]

// run keeps a stream as long as there are requests, until the Pipeline is closed
// and empty.
func (p *Pipeline) run() {
	defer close(p.ended)
	for at := int(p.c.current.Load()); ; at = (at + 1) % len(p.c.conns) {
		if !p.waitForWork() {
			return
		}
		at = p.c.audible(at)
		if p.c.closed.Load() {
			p.failAll()
			continue
		}
		if p.serve(at) {
			return
		}
	}
}

// waitForWork returns once something is queued; false once nothing will be.
func (p *Pipeline) waitForWork() bool {
	for {
		p.mu.Lock()
		queued, over := len(p.mu.queue) > 0, p.doneLocked()
		p.mu.Unlock()
		if over {
			return false
		}
		if queued {
			return true
		}
		<-p.wake
	}
}

// failAll fails what is queued at a client that was closed.
func (p *Pipeline) failAll() {
	p.mu.Lock()
	queue := p.mu.queue
	p.mu.queue = nil
	var taken []*pipelined
	for _, q := range queue {
		if p.takeLocked(q) {
			taken = append(taken, q)
		}
	}
	p.mu.Unlock()
	for _, q := range taken {
		e := localError(q.op, q.kind, errcode.Unavailable, "the client is closed")
		e.Err = ErrClosed
		p.answer(q, nil, e)
	}
}

// serve sends requests on a stream to one endpoint until the stream ends. It is
// true if that is because all is done.
func (p *Pipeline) serve(at int) bool {
	cn := p.c.conns[at]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p.mu.Lock()
	p.mu.stream++
	p.mu.heard, p.mu.hangUp = time.Time{}, cancel
	p.mu.usual = time.Duration(max(cn.lanes[getClass].high.Load(), cn.lanes[writeClass].high.Load()))
	p.mu.vigil = vigil{answers: p.mu.answers}
	number := p.mu.stream
	p.mu.Unlock()
	if !p.c.opts.NoNodeHealth && len(p.c.conns) > 1 {
		p.c.watcher.enlist(p)
		defer p.c.watcher.delist(p)
	}
	stream, err := cn.kv.Pipeline(ctx)
	if err != nil {
		p.lost(number, cn.endpoint, false, err)
		return false
	}
	over := make(chan error, 1)
	go func() { over <- p.receive(stream, number, cn.endpoint) }()
	done, err := p.sendLoop(stream, number, over)
	silent := ctx.Err() != nil
	cancel()
	if err == nil {
		err = <-over // says more than a failed Send
	}
	if silent {
		err = status.Error(codes.Unavailable, "nothing came from the node for as long as a request may take")
	}
	if !done {
		p.lost(number, cn.endpoint, true, err)
	}
	return done
}

// look has a stream given up of whose node nothing comes, once for each request:
// the next node may be as slow as this one with what it is asked for.
func (p *Pipeline) look(passed time.Duration) (busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var outstanding int64
	bound := false
	for _, q := range p.mu.calls {
		if q.stream == p.mu.stream {
			outstanding++
			bound = bound || q.kind == writes || q.tries > 0
		}
	}
	p.mu.vigil.look(signs{outstanding: outstanding, answers: p.mu.answers, high: p.mu.usual}, passed)
	if p.mu.vigil.standing == silent && !bound && p.mu.hangUp != nil {
		p.mu.hangUp()
		p.mu.vigil = vigil{answers: p.mu.answers}
	}
	return outstanding > 0
}

// audible is the endpoint at, or the next one behind it that is not silent, if
// there is one.
func (c *Client) audible(at int) int {
	for i := range c.conns {
		n := (at + i) % len(c.conns)
		if cn := c.conns[n]; !cn.lanes[getClass].is(silent) && !cn.lanes[writeClass].is(silent) {
			return n
		}
	}
	return at
}

// sendLoop sends what is queued. It returns when the Pipeline is done, or with
// what the stream ended with if that is known.
func (p *Pipeline) sendLoop(stream pipelineStream, number int, over <-chan error) (done bool, err error) {
	for {
		items, idle := p.next(number)
		switch {
		case items != nil:
			if err := stream.Send(&pairdbv1.PipelineRequest{Items: items}); err != nil {
				return false, nil
			}
		case idle:
			return true, nil
		default:
			select {
			case <-p.wake:
			case err := <-over:
				return false, err
			}
		}
	}
}

// next takes the requests of one message from the queue. idle says that there
// are none and will be none.
func (p *Pipeline) next(number int) (items []*pairdbv1.PipelineItem, idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	n, size := 0, 0
	for ; n < len(p.mu.queue) && len(items) < pipelineItems; n++ {
		q := p.mu.queue[n]
		if len(items) > 0 && size+q.size > pipelineBytes {
			break
		}
		left := q.deadline.Sub(now)
		if p.mu.calls[q.item.GetId()] != q || !q.deadline.IsZero() && left < time.Millisecond {
			continue // over, or all but
		}
		if !q.deadline.IsZero() {
			q.item.TimeoutMs = uint32(min(left/time.Millisecond, 1<<31))
		}
		q.stream, q.sentAt = number, now
		items = append(items, q.item)
		size += q.size
	}
	if n == len(p.mu.queue) {
		p.mu.queue = nil
	} else {
		p.mu.queue = p.mu.queue[n:]
	}
	return items, p.doneLocked()
}

// doneLocked says that all requests have been answered and none will come.
func (p *Pipeline) doneLocked() bool { return p.closed.Load() && len(p.slots) == 0 }

// receive answers requests until the stream ends.
func (p *Pipeline) receive(stream pipelineStream, number int, endpoint string) error {
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Unavailable, "the node ended the stream")
		}
		if err != nil {
			return err
		}
		p.deliver(resp.GetResults(), number, endpoint)
	}
}

func (p *Pipeline) deliver(results []*pairdbv1.PipelineResult, number int, endpoint string) {
	taken := make([]*pipelined, len(results))
	p.mu.Lock()
	p.mu.heard = time.Now()
	p.mu.answers++
	for i, r := range results {
		// What is late has none.
		if q := p.mu.calls[r.GetId()]; q != nil && q.stream == number && p.takeLocked(q) {
			taken[i] = q
		}
	}
	p.mu.Unlock()
	for i, q := range taken {
		switch r := results[i]; {
		case q == nil:
		case r.GetError() != nil:
			e := itemError(q.op, q.kind, endpoint, r.GetError())
			p.c.noteRefusal(q.tenant, refusal(e))
			p.answer(q, nil, e)
		default:
			p.c.noteRefusal(q.tenant, "")
			p.answer(q, r, nil)
		}
	}
	p.c.moves.earn()
}

// lost deals with what has no answer when a stream has ended, or could not be
// opened: it is sent again or fails.
func (p *Pipeline) lost(number int, endpoint string, opened bool, err error) {
	// Whatever kind it is said for, this says whether the node did nothing.
	none := decodeError("pipeline", writes, endpoint, true, err)
	untouched := none.answered && none.Outcome == errcode.NotApplied
	type failure struct {
		q *pipelined
		e *Error
	}
	// All that was on the stream is one of what the client may send elsewhere.
	mayMove := !opened || p.c.moves.spend()
	if !mayMove {
		p.c.counters.budgetsEmpty.Add(1)
	}
	var failures []failure
	p.mu.Lock()
	p.mu.hangUp = nil
	var again []*pipelined
	for _, q := range p.inOrderLocked() {
		sent := q.stream == number
		if !sent && q.stream > 0 {
			q.stream = 0 // queued again and not sent since
		}
		if sent || !opened {
			q.tries++
		}
		e := decodeError(q.op, q.kind, endpoint, sent, err)
		if sent && !untouched {
			q.doubt = q.doubt || q.kind != reads && e.Outcome != errcode.NotApplied
		}
		safe := !sent || mayMove && (untouched || q.kind != writes || e.Outcome == errcode.NotApplied)
		if safe && q.tries < len(p.c.conns) {
			again = append(again, q)
			continue
		}
		if p.takeLocked(q) {
			failures = append(failures, failure{q, e})
		}
	}
	p.mu.queue = again
	p.mu.Unlock()
	for _, f := range failures {
		p.answer(f.q, nil, f.e)
	}
}

// inOrderLocked returns all requests without an answer in the order they came.
func (p *Pipeline) inOrderLocked() []*pipelined {
	all := make([]*pipelined, 0, len(p.mu.calls))
	for _, q := range p.mu.calls {
		all = append(all, q)
	}
	slices.SortFunc(all, func(a, b *pipelined) int { return cmp.Compare(a.item.GetId(), b.item.GetId()) })
	return all
}
