package client

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
)

const (
	// firstDelay and maxDelay bound the pause before a call is sent again: it
	// doubles, and a random half of it is left out.
	firstDelay = 50 * time.Millisecond
	maxDelay   = 2 * time.Second
	// A client sends again at most budgetMost times beyond one in budgetEarn of
	// its calls that succeed, so that a cluster that fails is not made to carry
	// every call several times. The same holds for hedges, and for going on to
	// another endpoint with a call that has reached one: as many as calls succeed,
	// since a node of which a third of the calls has to go elsewhere is no reason to
	// let them fail.
	budgetMost, budgetEarn = 10, 10
	hedgesMost, hedgesEarn = 50, 20
	movesMost, movesEarn   = 100, 1
)

// budget counts what may be sent again. It is safe for concurrent use.
type budget struct {
	most, each int64
	// spent is in units of 1/each of a call.
	spent atomic.Int64
}

// newBudget is a budget of most, and one more for each calls that succeed.
func newBudget(most, each int64) budget { return budget{most: most, each: each} }

// earn notes a call that succeeded.
func (b *budget) earn() {
	// Another goroutine may have earned the last one meanwhile.
	for spent := b.spent.Load(); spent > 0 && !b.spent.CompareAndSwap(spent, spent-1); spent = b.spent.Load() {
	}
}

// spend reports whether one more call may be sent again, and notes it.
func (b *budget) spend() bool {
	for {
		spent := b.spent.Load()
		if spent > (b.most-1)*b.each {
			return false
		}
		if b.spent.CompareAndSwap(spent, spent+b.each) {
			return true
		}
	}
}

// mayRepeat says whether a call that failed at all endpoints may be sent to them
// again: it may succeed unchanged, and it had no effect, or a second time has
// none.
func mayRepeat(k kind, e *Error) bool {
	if !errcode.Lookup(e.Code).Retryable || e.NotConnected || e.Code == errcode.Timeout {
		return false
	}
	return k != writes || e.Outcome == errcode.NotApplied
}

// delay is the pause before the n-th time, from 1, that a call is sent again:
// it doubles up to most, or is what the node asks for, if that is more.
func delay(n int, most time.Duration, e *Error, random func(int64) int64) time.Duration {
	d := min(firstDelay<<min(n-1, 10), most) // no overflow, however often
	d = d/2 + time.Duration(random(int64(d/2)+1))
	d = max(d, e.retryDelay)
	if st, ok := status.FromError(e.Err); ok {
		for _, detail := range st.Details() {
			if info, ok := detail.(*errdetails.RetryInfo); ok {
				d = max(d, info.GetRetryDelay().AsDuration())
			}
		}
	}
	return d
}

// pause waits before the n-th repetition after e. It returns false if the call
// has to end with e: there is no repetition left, none in the budget, or not
// enough time.
func (c *Client) pause(ctx context.Context, n int, k kind, e *Error) bool {
	if n > c.opts.Retries || !mayRepeat(k, e) || ctx.Value(repeatedByCaller{}) != nil {
		return false
	}
	d := delay(n, maxDelay, e, rand.Int64N)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	if !c.budget.spend() {
		c.counters.budgetsEmpty.Add(1)
		return false
	}
	c.counters.retries.Add(1)
	return sleep(ctx, d)
}

// repeatedByCaller marks the context of calls that their caller repeats itself.
type repeatedByCaller struct{}

// withoutRepeats makes a call go to each endpoint once and then fail, so that it
// is not repeated on two levels.
func withoutRepeats(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatedByCaller{}, true)
}

// sleep waits for d; false says that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
