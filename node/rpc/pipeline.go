package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/node/door"
)

const (
	// maxPipelines bounds the streams of Pipeline that a node serves at once.
	maxPipelines = 256
	// Bounds of what one stream has in flight: requests that have no reply yet,
	// or whose reply has not left, and their bytes. Beyond, no more is read.
	maxInFlight, maxInFlightBytes = 1024, 16 << 20
	// maxReadyBytes bounds the replies that wait for a client that does not read
	// them: beyond, no more is read from it; a value that would make them four
	// times as many is left out of its reply.
	maxReadyBytes = 16 << 20
	// Bounds of one message of replies: a client takes 4 MiB unless it says
	// otherwise. A single larger reply goes alone.
	maxReplyItems, maxReplyBytes = 512, 1 << 20
)

// pipelines counts the streams of a node, and waits for their readers.
type pipelines struct {
	open    atomic.Int64
	readers sync.WaitGroup
}

// pipeline is one stream. A reader takes requests in and starts them; the
// handler's goroutine sends the replies that gather meanwhile.
type pipeline struct {
	k      *kvService
	stream grpc.BidiStreamingServer[pairdbv1.PipelineRequest, pairdbv1.PipelineResponse]
	// conn counts the replies that the client has not read.
	conn *door.Conn
	// tenant is that of requests that name none.
	tenant string
	// until is the end of the stream by its deadline; zero without one.
	until time.Time
	// wake is for the sender, room for the reader: one value each, if there may
	// be something to do.
	wake, room chan struct{}
	// over is closed when the handler returns.
	over chan struct{}

	mu struct {
		sync.Mutex
		ids map[uint64]struct{} // in flight
		// inFlight requests and their bytes, until their replies are sent.
		inFlight, bytes int
		// ready replies wait to be sent, readyBytes of them.
		ready      []reply
		readyBytes int
		// ended says that nothing more is begun: the reader is done, or the node
		// is stopping. end is what the stream then ends with, once all is
		// answered, or at once if it is broken.
		ended, broken bool
		end           error
		// gone says that nobody sends replies any more.
		gone bool
	}
}

// reply is a result on its way out. size is its own, request that of what it
// answers, in bytes.
type reply struct {
	result        *pairdbv1.PipelineResult
	size, request int
	// hold counts it on its connection while it is ready, if it is large.
	hold *door.Hold
}

// Pipeline implements pairdbv1.KVServer.
func (k *kvService) Pipeline(stream grpc.BidiStreamingServer[pairdbv1.PipelineRequest, pairdbv1.PipelineResponse]) error {
	defer k.pipelines.open.Add(-1)
	if k.pipelines.open.Add(1) > maxPipelines {
		return &coord.Error{
			Code: errcode.ResourceExhausted, Outcome: errcode.NotApplied,
			Message: fmt.Sprintf("this node serves %d pipelines, which is all it does; use another node, or one stream for more requests", maxPipelines),
		}
	}
	ctx := stream.Context()
	p := &pipeline{
		k: k, stream: stream, conn: connOf(ctx), tenant: tenantOf(ctx, ""),
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1), over: make(chan struct{}),
	}
	p.mu.ids = make(map[uint64]struct{})
	if d, ok := ctx.Deadline(); ok {
		p.until = k.now().Add(time.Until(d))
	}
	defer p.drop()
	defer close(p.over)
	// The reader cannot be interrupted but by the end of this function, which
	// ends the stream.
	k.pipelines.readers.Go(func() { p.finish(p.read()) })
	return p.send(ctx)
}

// finish says that nothing more will be begun, and what the stream ends with.
// The first word counts.
func (p *pipeline) finish(end error) {
	p.mu.Lock()
	if !p.mu.ended {
		p.mu.ended, p.mu.end = true, end
	}
	p.mu.Unlock()
	signal(p.wake)
}

// signal leaves a value in c unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// send sends replies until the stream is over, and returns what it ends with.
func (p *pipeline) send(ctx context.Context) error {
	stopping := p.k.stopping
	for {
		batch, done, end := p.take()
		switch {
		case done:
			return end
		case batch != nil:
			resp := &pairdbv1.PipelineResponse{Results: make([]*pairdbv1.PipelineResult, len(batch))}
			for i := range batch {
				resp.Results[i] = batch[i].result
			}
			if err := sendCounted(p.stream, resp); err != nil {
				release(batch)
				return err
			}
			p.sent(batch)
			continue
		}
		select {
		case <-p.wake:
			// Others that are about to answer come first.
			runtime.Gosched()
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-stopping:
			stopping = nil
			p.finish(&coord.Error{
				Code: errcode.Unavailable, Outcome: errcode.NotApplied,
				Message: "the node is shutting down; requests without a reply were not begun",
			})
		}
	}
}

// take returns the replies of one message, or that all is done.
func (p *pipeline) take() (batch []reply, done bool, end error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, size := 0, 0
	for n < len(p.mu.ready) && n < maxReplyItems && (n == 0 || size+p.mu.ready[n].size <= maxReplyBytes) {
		size += p.mu.ready[n].size
		n++
	}
	if n == 0 {
		return nil, p.mu.broken || p.mu.ended && p.mu.inFlight == 0, p.mu.end
	}
	batch = p.mu.ready[:n:n]
	if n == len(p.mu.ready) {
		p.mu.ready = nil
	} else {
		p.mu.ready = p.mu.ready[n:]
	}
	return batch, false, nil
}

// drop forgets the replies that nobody will send any more.
func (p *pipeline) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	release(p.mu.ready)
	p.mu.ready, p.mu.gone = nil, true
}

// release says that replies wait for their reader no more, or as encoded messages.
func release(batch []reply) {
	for i := range batch {
		batch[i].hold.Release()
	}
}

// sent gives back the room of replies that have left.
func (p *pipeline) sent(batch []reply) {
	release(batch)
	p.mu.Lock()
	for i := range batch {
		p.mu.inFlight--
		p.mu.bytes -= batch[i].request
		p.mu.readyBytes -= batch[i].size
	}
	p.mu.Unlock()
	signal(p.room)
}

// read takes in requests until the client ends the stream, which is nil, or
// something else does.
func (p *pipeline) read() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = p.k.panicked(pairdbv1.KV_Pipeline_FullMethodName, r)
			// Some of what it began will have no reply.
			p.mu.Lock()
			p.mu.broken = true
			p.mu.Unlock()
		}
	}()
	for {
		if _, ok := p.admit(nil); !ok {
			return nil
		}
		req, err := p.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(req.GetItems()) > coord.MaxBatchItems:
			return invalid(fmt.Sprintf("a message has more than %d requests, which is all that is allowed; requests without a reply were not begun", coord.MaxBatchItems))
		}
		now := p.k.now()
		for items := req.GetItems(); len(items) > 0; {
			n, ok := p.admit(items)
			if !ok {
				return nil
			}
			p.begin(items[:n], now)
			items = items[n:]
		}
	}
}

// admit waits until there is room for one of items at least, takes it for as
// many as fit, and returns how many that are. It is false once nothing more is
// to be begun. Without items it only waits until there is room.
func (p *pipeline) admit(items []*pairdbv1.PipelineItem) (n int, ok bool) {
	for {
		p.mu.Lock()
		if p.mu.ended {
			p.mu.Unlock()
			return 0, false
		}
		free := p.mu.inFlight < maxInFlight && p.mu.bytes < maxInFlightBytes && p.mu.readyBytes < maxReadyBytes
		for free && n < len(items) && p.mu.inFlight < maxInFlight {
			size := itemSize(items[n])
			if p.mu.inFlight > 0 && p.mu.bytes+size > maxInFlightBytes {
				break
			}
			p.mu.inFlight++
			p.mu.bytes += size
			n++
		}
		p.mu.Unlock()
		if free && (n > 0 || len(items) == 0) {
			return n, true
		}
		select {
		case <-p.room:
		case <-p.over:
			return 0, false
		}
	}
}
