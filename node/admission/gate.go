package admission

import (
	"context"
	"sync"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

// KV runs client operations. *coord.Coordinator is one.
type KV interface {
	Put(ctx context.Context, r coord.PutRequest) (coord.WriteResponse, error)
	Get(ctx context.Context, r coord.GetRequest) (coord.GetResponse, error)
	Delete(ctx context.Context, r coord.DeleteRequest) (coord.WriteResponse, error)
	Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error)
	CheckBatch(items []coord.Item) error
	StartAll(items []coord.Item, done func(i int, r coord.ItemResult))
	Scan(ctx context.Context, r coord.ScanRequest) (coord.ScanResponse, error)
}

// Class is what kinds of operations share a limit. What waits for the log's disk
// must not keep out what is answered from memory.
type Class uint8

// The classes.
const (
	Reads Class = iota
	Writes

	classes = iota
)

// String returns the class as a metric's label has it.
func (c Class) String() string { return [...]string{"read", "write"}[c] }

// Classes lists all classes.
func Classes() []Class { return []Class{Reads, Writes} }

const (
	// batchItems of a batch count as one operation: that is about what they cost,
	// as they share frames, syncs and the call.
	batchItems = 8
	// batchBytes of values in a batch count as one operation, too.
	batchBytes = 256 << 10
	// pageKeys of a page of a scan count as one operation.
	pageKeys = 128
	// calm is how long nothing must have been refused for shedding to be over.
	calm = 5 * time.Second
)

// Options configure a Gate. All but Shedding are required.
type Options struct {
	// Bounds are those of each class.
	Bounds Bounds
	// Now is the clock of deadlines.
	Now func() time.Time
	// Shedding is called when operations begin to be refused, and when that is
	// over: once none was for 5 s. It is called at most once a second, from the
	// goroutine of an operation or of Tick, and must not block.
	Shedding func(began bool, why Reason)
}

// Gate is a KV behind a Limiter for each Class. What is refused is refused with
// RATE_LIMITED before any work is done, and a write says so: not_applied. It is
// safe for concurrent use; make one with New, and call its Tick about once a
// second.
type Gate struct {
	kv       KV
	opts     Options
	limits   [classes]*Limiter
	pressure [classes]pressure

	mu struct {
		sync.Mutex
		shedding bool
		last     time.Time // the latest refusal
		told     time.Time // the latest call of Shedding
	}
}

// New returns a gate in front of kv.
func New(kv KV, opts Options) *Gate {
	g := &Gate{kv: kv, opts: opts}
	for c := range g.limits {
		g.limits[c] = NewLimiter(opts.Bounds)
	}
	return g
}

// Stats are the figures of a class.
func (g *Gate) Stats(c Class) Stats { return g.limits[c].Stats() }

// Refuse returns the error that an operation of the class would get now, or nil.
// It is for an edge, before it looks at a request: what passes here may still be
// refused later.
func (g *Gate) Refuse(c Class) *coord.Error {
	reason, yes := g.limits[c].Refuses(0)
	if !yes {
		return nil
	}
	return g.refusal(c, reason)
}

// enter lets an operation in that has until deadline, zero for no deadline.
func (g *Gate) enter(ctx context.Context, c Class, weight int, deadline time.Time) (Token, error) {
	l := g.limits[c]
	if !l.Busy() {
		if t, ok := l.TryAcquire(weight); ok {
			return t, nil
		}
	}
	var left time.Duration
	if !deadline.IsZero() {
		// 0 would be no deadline.
		left = max(deadline.Sub(g.opts.Now()), 1)
	}
	t, reason, ok := l.Acquire(ctx, weight, left)
	if !ok {
		return t, g.refusal(c, reason)
	}
	return t, nil
}

// Put implements KV. Once it is let in it returns when the operation has ended,
// which the request's deadline sees to, and not when ctx has: the operation would go
// on, and callers that give up early could have any number of them under way. The
// same goes for Get, Delete, Scan and Batch.
func (g *Gate) Put(ctx context.Context, r coord.PutRequest) (coord.WriteResponse, error) {
	t, err := g.enter(ctx, Writes, 1, r.Deadline)
	if err != nil {
		return coord.WriteResponse{}, err
	}
	defer t.Release()
	return g.kv.Put(context.WithoutCancel(ctx), r)
}

// Get implements KV.
func (g *Gate) Get(ctx context.Context, r coord.GetRequest) (coord.GetResponse, error) {
	t, err := g.enter(ctx, Reads, 1, r.Deadline)
	if err != nil {
		return coord.GetResponse{}, err
	}
	defer t.Release()
	return g.kv.Get(context.WithoutCancel(ctx), r)
}

// Delete implements KV.
func (g *Gate) Delete(ctx context.Context, r coord.DeleteRequest) (coord.WriteResponse, error) {
	t, err := g.enter(ctx, Writes, 1, r.Deadline)
	if err != nil {
		return coord.WriteResponse{}, err
	}
	defer t.Release()
	return g.kv.Delete(context.WithoutCancel(ctx), r)
}

// Scan implements KV. A page counts with the keys that are asked for.
func (g *Gate) Scan(ctx context.Context, r coord.ScanRequest) (coord.ScanResponse, error) {
	keys := r.MaxKeys
	if keys == 0 {
		keys = coord.DefaultPageKeys
	}
	t, err := g.enter(ctx, Reads, 1+keys/pageKeys, r.Deadline)
	if err != nil {
		return coord.ScanResponse{}, err
	}
	defer t.Release()
	return g.kv.Scan(context.WithoutCancel(ctx), r)
}

// CheckBatch implements KV.
func (g *Gate) CheckBatch(items []coord.Item) error { return g.kv.CheckBatch(items) }

// Batch implements KV. It is let in or refused as a whole, and counts with its
// items and bytes.
func (g *Gate) Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error) {
	var n [classes]int
	bytes := 0
	var deadline time.Time
	for i := range items {
		c, until := of(&items[i])
		n[c]++
		if p := items[i].Put; p != nil {
			bytes += len(p.Value)
		}
		if !until.IsZero() && (deadline.IsZero() || until.Before(deadline)) {
			deadline = until
		}
	}
	for c := range n {
		if n[c] == 0 {
			continue
		}
		weight := 1 + n[c]/batchItems
		if Class(c) == Writes {
			weight += bytes / batchBytes
		}
		t, err := g.enter(ctx, Class(c), weight, deadline)
		if err != nil {
			return nil, err
		}
		defer t.Release()
	}
	return g.kv.Batch(context.WithoutCancel(ctx), items)
}

// of is the class of an item, and its deadline.
func of(it *coord.Item) (Class, time.Time) {
	switch {
	case it.Get != nil:
		return Reads, it.Get.Deadline
	case it.Put != nil:
		return Writes, it.Put.Deadline
	case it.Delete != nil:
		return Writes, it.Delete.Deadline
	}
	return Reads, time.Time{} // it asks for nothing; the coordinator says so
}

// StartAll implements KV. Each item is let in or refused alone: those for which
// there is room are started together, and the caller waits for the room of the
// next, which holds back a client that sends many. Once one of a class was
// refused, the others of it in this call do not wait any more.
func (g *Gate) StartAll(items []coord.Item, done func(i int, r coord.ItemResult)) {
	if g.startAtOnce(items, done) {
		return
	}
	var refused [classes]error
	tokens := make([]Token, len(items))
	from := 0 // the first that was let in and is not started
	start := func(to int) {
		if first := from; first < to {
			g.kv.StartAll(items[first:to], func(i int, r coord.ItemResult) {
				tokens[first+i].Release()
				done(first+i, r)
			})
		}
		from = to
	}
	for i := range items {
		c, deadline := of(&items[i])
		t, ok := g.limits[c].TryAcquire(1)
		if !ok {
			// What is in is not to wait for what is not.
			start(i)
			if refused[c] == nil {
				t, refused[c] = g.enter(context.Background(), c, 1, deadline)
			} else {
				g.limits[c].countRefused(QueueFull)
			}
			if refused[c] != nil {
				from = i + 1
				done(i, coord.ItemResult{Err: refused[c]})
				continue
			}
		}
		tokens[i] = t
	}
	start(len(items))
}

// startAtOnce starts all items if there is room for all, which is the usual case
// and costs one look for each class.
func (g *Gate) startAtOnce(items []coord.Item, done func(i int, r coord.ItemResult)) bool {
	var n [classes]int
	for i := range items {
		c, _ := of(&items[i])
		n[c]++
	}
	for c, k := range n {
		// One at least stays free for the calls of others.
		if k >= g.opts.Bounds.Floor {
			return false
		}
		// Nor are they one that is too heavy, which might go alone.
		if l := g.limits[c]; k > 0 && (l.Busy() || int64(k) > l.limit.Load()) {
			return false
		}
	}
	var all [classes]Token
	for c, k := range n {
		if k == 0 {
			continue
		}
		t, ok := g.limits[c].TryAcquire(k)
		if !ok {
			all[Reads].Release()
			return false
		}
		all[c] = t
	}
	g.kv.StartAll(items, func(i int, r coord.ItemResult) {
		c, _ := of(&items[i])
		all[c].part(1).Release()
		done(i, r)
	})
	return true
}

// Shedding says whether operations have been refused within the last 5 s.
func (g *Gate) Shedding() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.shedding
}

// Tick notices that shedding is over. It is to be called about once a second.
func (g *Gate) Tick() {
	g.mu.Lock()
	now := g.opts.Now()
	over := g.mu.shedding && now.Sub(g.mu.last) >= calm
	if over {
		g.mu.shedding, g.mu.told = false, now
	}
	g.mu.Unlock()
	if over && g.opts.Shedding != nil {
		g.opts.Shedding(false, 0)
	}
}

// refusal is the error of an operation that was refused.
func (g *Gate) refusal(c Class, why Reason) *coord.Error {
	now := g.opts.Now()
	g.note(why, now)
	l := g.limits[c]
	var all int64
	for i := range l.refused {
		all += l.refused[i].Load()
	}
	step := g.pressure[c].next(now, all, l.admitted())
	// Neighbours get different delays, so that they do not come back together.
	return refusals[c][why][step+int(all%2)]
}

// note notices that shedding begins.
func (g *Gate) note(why Reason, now time.Time) {
	if why == Gone {
		return // nobody was turned away
	}
	g.mu.Lock()
	g.mu.last = now
	began := !g.mu.shedding && now.Sub(g.mu.told) >= time.Second
	if began {
		g.mu.shedding, g.mu.told = true, now
	}
	g.mu.Unlock()
	if began && g.opts.Shedding != nil {
		g.opts.Shedding(true, why)
	}
}

// refusals has all errors of refusals, which are never changed.
var refusals = makeRefusals()

func makeRefusals() (all [classes][reasons][len(retrySteps)]*coord.Error) {
	messages := [reasons]string{
		QueueFull: "this node has as many requests under way and waiting as it takes",
		Deadline:  "this node is busy and could not have answered before the request's deadline",
		Waited:    "this node is busy, and the request waited for its turn for as long as one may",
		Gone:      "the caller gave up while the request waited for its turn",
	}
	for c := range all {
		for why := range all[c] {
			for i := range all[c][why] {
				e := &coord.Error{
					Code:       errcode.RateLimited,
					Message:    messages[why] + "; nothing was done: send it again after the time named here, with fewer requests at once, or to another node",
					RetryAfter: retrySteps[i],
				}
				if Class(c) == Writes {
					e.Outcome = errcode.NotApplied
				}
				all[c][why][i] = e
			}
		}
	}
	return all
}
