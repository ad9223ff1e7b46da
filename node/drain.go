package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/node/admission"
	"github.com/pairdb/pairdb/node/events"
)

// drainPoll is how often a drain looks whether requests are still under way.
const drainPoll = 20 * time.Millisecond

// Steps of a drain, as people read them.
const (
	drainServing  = "serving on for a while, so that balancers notice (timeouts.drain_delay)"
	drainRequests = "finishing the requests that are under way"
	drainMemory   = "writing memory to tables"
)

// errDrained is what clients are refused with. It never changes.
var errDrained = &coord.Error{
	Code: errcode.Unavailable, Outcome: errcode.NotApplied,
	Message: "this node is drained, to be started anew: ask another node",
}

// draining is how far this node is with sending its clients away.
type draining struct {
	door drainDoor
	// begun says that it was asked for.
	begun atomic.Bool
	// job is held by the one that drains: one that was undone ends first.
	job sync.Mutex

	mu struct {
		sync.Mutex
		cancel      context.CancelFunc // of the one that was begun last, nil if it was undone
		step        string             // what it does; when it is done, what went wrong
		asked, done time.Time
	}
}

// drainAdmin is rpc.DrainAdmin.
type drainAdmin struct{ n *Node }

// Drain implements rpc.DrainAdmin.
func (a drainAdmin) Drain(undo bool) error {
	n := a.n
	if n.stopping.Load() || n.left.Load() {
		return &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "the node is stopping"}
	}
	n.drain.mu.Lock()
	defer n.drain.mu.Unlock()
	if undo == (n.drain.mu.cancel == nil) {
		return nil // it is as it is to be
	}
	if undo {
		n.drain.mu.cancel()
		n.drain.mu.cancel, n.drain.mu.step, n.drain.mu.asked, n.drain.mu.done = nil, "", time.Time{}, time.Time{}
		n.sendAway(false)
		n.happened.AddLogged(events.Lifecycle, events.Info, "this node serves clients again: its drain was undone")
		return nil
	}
	ctx, cancel := context.WithCancel(n.ending)
	n.drain.mu.cancel, n.drain.mu.step, n.drain.mu.asked = cancel, drainServing, n.clock.Now()
	n.sendAway(true)
	n.happened.AddLogged(events.Lifecycle, events.Info, "this node is drained: it sends its clients away and serves other nodes on")
	n.jobs.Go("drain", func() {
		defer cancel()
		n.runDrain(ctx)
	})
	return nil
}

// sendAway tells clients, and other nodes, whether to go elsewhere. Whoever comes all
// the same is served until the door is shut.
func (n *Node) sendAway(away bool) {
	n.drain.begun.Store(away)
	if !away {
		n.drain.door.shut.Store(false)
	}
	n.server.SetReady(n.serves)
	// Connections that rest are closed, the others with their next answer.
	n.http.SetKeepAlivesEnabled(!away)
	n.jobs.Go("drain", n.tellDrained) // the metadata may wait for the disk
}

// tellDrained tells the members what holds by the time that it is this job's turn.
func (n *Node) tellDrained() {
	n.withdrawing.Lock()
	defer n.withdrawing.Unlock()
	n.gossip.SetDrained(n.drain.begun.Load())
}

// runDrain does it, until ctx ends. Each step is bounded, the last by the disk.
func (n *Node) runDrain(ctx context.Context) {
	n.drain.job.Lock()
	defer n.drain.job.Unlock()
	if !pause(ctx, n.cfg.Timeouts.DrainDelay) {
		return
	}
	n.drain.mu.Lock()
	if ctx.Err() == nil { // it is undone with mu held
		n.drain.door.shut.Store(true)
	}
	n.drain.mu.Unlock()
	if !n.drainStep(ctx, drainRequests, false) {
		return
	}
	var failed string
	over := n.clock.Now().Add(n.cfg.Timeouts.Shutdown)
	for n.drain.door.inside.Load() > 0 {
		if n.clock.Now().After(over) {
			failed = fmt.Sprintf("%d requests of clients were under way for longer than timeouts.shutdown and go on; ", n.drain.door.inside.Load())
			break
		}
		if !pause(ctx, drainPoll) {
			return
		}
	}
	if !n.drainStep(ctx, drainMemory, false) {
		return
	}
	if err := n.flush(); err != nil {
		n.log.Warn("memory was not written to tables: the next start reads the log instead", "err", err)
		failed += "memory was not written to tables, so that the next start reads the log instead: " + upkeepError(err).Error()
	}
	if n.drainStep(ctx, failed, true) {
		n.happened.AddLogged(events.Lifecycle, events.Info, "this node is drained and can be started anew")
	}
}

// pause waits for d; false says that ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	return ctx.Err() == nil
}

// drainStep notes what is done now, unless it was undone.
func (n *Node) drainStep(ctx context.Context, step string, done bool) bool {
	n.drain.mu.Lock()
	defer n.drain.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	n.drain.mu.step = step
	if done {
		n.drain.mu.done = n.clock.Now()
	}
	return true
}

// DrainStatus implements rpc.DrainAdmin.
func (a drainAdmin) DrainStatus() *pairdbv1.NodeDrain {
	d := a.n.drain.state()
	// Looked at after the state: what has left before it was "drained" is no part of it.
	m := a.n.db.Metrics()
	d.Requests, d.MemoryBytes = uint64(a.n.drain.door.inside.Load()), uint64(m.MemTableBytes+m.ImmutableBytes)
	return d
}

// state is how far it is, without what is counted elsewhere.
func (dr *draining) state() *pairdbv1.NodeDrain {
	d := &pairdbv1.NodeDrain{State: "serving"}
	mu := &dr.mu
	mu.Lock()
	defer mu.Unlock()
	if mu.cancel == nil {
		return d
	}
	d.State, d.Detail, d.AskedAt = "draining", mu.step, timestamppb.New(mu.asked)
	if !mu.done.IsZero() {
		d.State, d.DrainedAt = "drained", timestamppb.New(mu.done)
	}
	return d
}

// drainDoor is what clients' operations go through: it counts those that are inside,
// and lets none in while it is shut. It is safe for concurrent use.
type drainDoor struct {
	admission.KV
	shut   atomic.Bool
	inside atomic.Int64
}

// refusal is what an operation is refused with now, nil if it may come in.
func (d *drainDoor) refusal() *coord.Error {
	if d.shut.Load() {
		return errDrained
	}
	return nil
}

// enter lets n operations in, which are to leave. They are counted before they look: none
// comes in unseen while somebody waits for the last to leave.
func (d *drainDoor) enter(n int) error {
	d.inside.Add(int64(n))
	if e := d.refusal(); e != nil {
		d.leave(n)
		return e
	}
	return nil
}

func (d *drainDoor) leave(n int) { d.inside.Add(int64(-n)) }

// through has an operation done.
func through[Req, Resp any](ctx context.Context, d *drainDoor, r Req, do func(context.Context, Req) (Resp, error)) (Resp, error) {
	if err := d.enter(1); err != nil {
		var none Resp
		return none, err
	}
	defer d.leave(1)
	return do(ctx, r)
}

// Put is the coordinator's.
func (d *drainDoor) Put(ctx context.Context, r coord.PutRequest) (coord.WriteResponse, error) {
	return through(ctx, d, r, d.KV.Put)
}

// Get is the coordinator's.
func (d *drainDoor) Get(ctx context.Context, r coord.GetRequest) (coord.GetResponse, error) {
	return through(ctx, d, r, d.KV.Get)
}

// Delete is the coordinator's.
func (d *drainDoor) Delete(ctx context.Context, r coord.DeleteRequest) (coord.WriteResponse, error) {
	return through(ctx, d, r, d.KV.Delete)
}

// Batch is the coordinator's.
func (d *drainDoor) Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error) {
	return through(ctx, d, items, d.KV.Batch)
}

// Scan is the coordinator's.
func (d *drainDoor) Scan(ctx context.Context, r coord.ScanRequest) (coord.ScanResponse, error) {
	return through(ctx, d, r, d.KV.Scan)
}

// StartAll is the coordinator's.
func (d *drainDoor) StartAll(items []coord.Item, done func(i int, r coord.ItemResult)) {
	if err := d.enter(len(items)); err != nil {
		for i := range items {
			done(i, coord.ItemResult{Err: err})
		}
		return
	}
	d.KV.StartAll(items, func(i int, r coord.ItemResult) {
		defer d.leave(1)
		done(i, r)
	})
}
