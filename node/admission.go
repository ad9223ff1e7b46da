package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/node/admission"
)

const (
	// admittedValue is the size from which a value is counted, in bytes. Smaller
	// ones are bounded by the number of calls, and do not wait for large ones.
	admittedValue = 64 << 10
	// Bounds of the bytes of values under way. More than the upper one at once
	// makes large values no faster, and all of them would be in the log before the
	// next small write.
	minAdmitted, maxAdmitted = 16 << 20, 64 << 20
	// admittedShare is the part of the usable memory that values under way may
	// have. Each of them is held several times on its way through the log, the
	// memtable and the streams to other owners.
	admittedShare = 32
	// waitFactor bounds the bytes of values that wait, in budgets: those behind
	// are refused at once and may be tried again.
	waitFactor = 4
	// Bounds of the bytes that one other node may have under way here, and of
	// replies it has not read, and their part of the usable memory.
	minHeld, maxHeld, maxReplies, heldShare = 16 << 20, 256 << 20, 64 << 20, 32
)

// shareOf is a part of the usable memory within bounds. Memory that nobody
// limits is 0.
func shareOf(memory, parts, least, most int64) int64 {
	if memory <= 0 {
		return most
	}
	return min(max(memory/parts, least), most)
}

// valueBudget is the coordinator behind a budget: clients' large values, and
// batches that are large altogether, go through it while those under way fit into
// the memory, and else wait. It stands before the gate that counts operations, so
// that those that wait here keep no small ones out. It is safe for concurrent use.
type valueBudget struct {
	admission.KV
	budget  int64
	free    *semaphore.Weighted
	timeout time.Duration // how long a write waits at the most
	// inside are the bytes of values that are under way or wait, at most
	// waitFactor budgets and one value.
	inside atomic.Int64
	// refused is told of each refusal.
	refused func()
}

func newValueBudget(kv admission.KV, budget int64, timeout time.Duration) *valueBudget {
	return &valueBudget{KV: kv, budget: budget, free: semaphore.NewWeighted(budget), timeout: timeout, refused: func() {}}
}

// Put is the coordinator's, once there is room for the value.
func (a *valueBudget) Put(ctx context.Context, r coord.PutRequest) (coord.WriteResponse, error) {
	release, err := a.admit(ctx, len(r.Value))
	if err != nil {
		return coord.WriteResponse{}, err
	}
	defer release()
	return a.KV.Put(ctx, r)
}

// Batch is the coordinator's, once there is room for all its values together.
// One that the coordinator refuses does not wait first.
func (a *valueBudget) Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error) {
	size := 0
	for i := range items {
		if p := items[i].Put; p != nil {
			size += len(p.Value)
		}
	}
	if size >= admittedValue {
		if err := a.CheckBatch(items); err != nil {
			return nil, err
		}
	}
	release, err := a.admit(ctx, size)
	if err != nil {
		return nil, err
	}
	defer release()
	return a.KV.Batch(ctx, items)
}

// StartAll is the coordinator's, once there is room for the large values among
// the items. If there will be none in time, the puts of these are refused.
func (a *valueBudget) StartAll(items []coord.Item, done func(i int, r coord.ItemResult)) {
	size, large := 0, 0
	isLarge := func(it *coord.Item) bool { return it.Put != nil && len(it.Put.Value) >= admittedValue }
	for i := range items {
		if isLarge(&items[i]) {
			size += len(items[i].Put.Value)
			large++
		}
	}
	if large == 0 {
		a.KV.StartAll(items, done)
		return
	}
	release, err := a.admit(context.Background(), size)
	if err == nil {
		var left atomic.Int64
		left.Store(int64(large))
		a.KV.StartAll(items, func(i int, r coord.ItemResult) {
			if isLarge(&items[i]) && left.Add(-1) == 0 {
				release()
			}
			done(i, r)
		})
		return
	}
	rest, at := make([]coord.Item, 0, len(items)-large), make([]int, 0, len(items)-large)
	for i := range items {
		if isLarge(&items[i]) {
			done(i, coord.ItemResult{Err: err})
			continue
		}
		rest, at = append(rest, items[i]), append(at, i)
	}
	a.KV.StartAll(rest, func(i int, r coord.ItemResult) { done(at[i], r) })
}

// admit waits until bytes of values may come in, and returns what says that they
// are gone again. It waits for as long as a write may at the most.
func (a *valueBudget) admit(ctx context.Context, bytes int) (release func(), err error) {
	size := int64(bytes)
	if size < admittedValue {
		return func() {}, nil
	}
	// A value beyond the budget goes alone; the coordinator knows the limits.
	size = min(size, a.budget)
	if a.inside.Add(size) > waitFactor*a.budget+size {
		a.inside.Add(-size)
		return nil, a.refusal(errors.New("too many wait already"))
	}
	wait, cancel := context.WithTimeout(ctx, a.timeout)
	err = a.free.Acquire(wait, size)
	cancel()
	if err != nil {
		a.inside.Add(-size)
		return nil, a.refusal(err)
	}
	return func() {
		a.free.Release(size)
		a.inside.Add(-size)
	}, nil
}

func (a *valueBudget) refusal(why error) *coord.Error {
	a.refused()
	return &coord.Error{
		Code: errcode.ResourceExhausted, Outcome: errcode.NotApplied, Err: why,
		Message: fmt.Sprintf("this node has room for %d bytes of large values under way, and it is taken: %v", a.budget, why),
	}
}
