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
)

const (
	// admittedValue is the size from which a value is counted, in bytes. Smaller
	// ones are bounded by the number of calls, and do not wait for large ones.
	admittedValue = 64 << 10
	// Bounds of the bytes of values under way.
	minAdmitted, maxAdmitted = 16 << 20, 1 << 30
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

// admission is the coordinator behind a gate: clients' large values go through
// it while those under way fit into the memory, and else wait. It is safe for
// concurrent use.
type admission struct {
	*coord.Coordinator
	budget  int64
	free    *semaphore.Weighted
	timeout time.Duration // how long a write waits at the most
	// inside are the bytes of values that are under way or wait, at most
	// waitFactor budgets and one value.
	inside atomic.Int64
}

func newAdmission(c *coord.Coordinator, budget int64, timeout time.Duration) *admission {
	return &admission{Coordinator: c, budget: budget, free: semaphore.NewWeighted(budget), timeout: timeout}
}

// Put is the coordinator's, once there is room for the value.
func (a *admission) Put(ctx context.Context, r coord.PutRequest) (coord.WriteResponse, error) {
	size := int64(len(r.Value))
	if size < admittedValue {
		return a.Coordinator.Put(ctx, r)
	}
	// A value beyond the budget goes alone; the coordinator knows the limits.
	size = min(size, a.budget)
	defer a.inside.Add(-size)
	if a.inside.Add(size) > waitFactor*a.budget+size {
		return coord.WriteResponse{}, a.refusal(errors.New("too many wait already"))
	}
	wait, cancel := context.WithTimeout(ctx, a.timeout)
	err := a.free.Acquire(wait, size)
	cancel()
	if err != nil {
		return coord.WriteResponse{}, a.refusal(err)
	}
	defer a.free.Release(size)
	return a.Coordinator.Put(ctx, r)
}

func (a *admission) refusal(why error) *coord.Error {
	return &coord.Error{
		Code: errcode.ResourceExhausted, Outcome: errcode.NotApplied, Err: why,
		Message: fmt.Sprintf("this node has room for %d bytes of large values under way, and it is taken: %v", a.budget, why),
	}
}
