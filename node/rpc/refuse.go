package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
)

// refuser refuses calls of KV before anything is done for them: in gRPC's
// transport, before there is a goroutine or a message, and where that is not
// possible before the message is decoded. node/admission/DESIGN.md has what either
// costs. It is safe for concurrent use.
type refuser struct {
	refuse  func(write bool) *coord.Error
	observe func(method, code string, d time.Duration)
	// statuses has the status of each *coord.Error, made once: encoding the details
	// takes longer than all the rest of a refusal.
	statuses sync.Map
	timers   timersLeft
	// later counts the calls that are refused and have not been told yet.
	later atomic.Int64
}

// refusedKey is for the status, in the context of such a call.
type refusedKey struct{}

// refusable are the calls that may be refused as a whole, and whether they write.
// A Pipeline is not among them, whose requests are refused one by one, nor is a
// Scan, which is refused with its first page.
var refusable = map[string]bool{
	pairdbv1.KV_Get_FullMethodName:      false,
	pairdbv1.KV_MultiGet_FullMethodName: false,
	pairdbv1.KV_Put_FullMethodName:      true,
	pairdbv1.KV_Delete_FullMethodName:   true,
	pairdbv1.KV_Batch_FullMethodName:    true,
}

// status is that of an error.
func (r *refuser) status(e *coord.Error) error {
	if err, ok := r.statuses.Load(e); ok {
		return err.(error)
	}
	err, _ := r.statuses.LoadOrStore(e, statusOf(e).Err())
	return err.(error)
}

// tap is gRPC's hook for the beginning of a stream. It is called with the lock of
// a connection held and must not wait.
func (r *refuser) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	write, ok := refusable[info.FullMethodName]
	if !ok {
		return ctx, nil
	}
	e := r.refuse(write)
	if e == nil {
		return ctx, nil
	}
	r.observe(shortMethod(info.FullMethodName), string(e.Code), 0)
	if !r.timers.room(ctx) {
		r.later.Add(1)
		return context.WithValue(ctx, refusedKey{}, r.status(e)), nil
	}
	return ctx, r.status(e)
}

// service returns the service with unary calls that end before their message is
// decoded if they were refused.
func (r *refuser) service(desc *grpc.ServiceDesc) *grpc.ServiceDesc {
	d := *desc
	d.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		serve := m.Handler
		m.Handler = func(srv any, ctx context.Context, dec func(any) error, next grpc.UnaryServerInterceptor) (any, error) {
			if r.later.Load() > 0 {
				if err, ok := ctx.Value(refusedKey{}).(error); ok {
					r.later.Add(-1)
					return nil, err
				}
			}
			return serve(srv, ctx, dec, next)
		}
		d.Methods[i] = m
	}
	return &d
}

const (
	// maxTimersLeft bounds the timers that calls refused in the transport have left
	// behind, some 300 bytes each, and timerSeconds for how long one may be there.
	maxTimersLeft, timerSeconds = 1 << 16, 60
)

// timersLeft counts timers that nobody stops: gRPC makes one for a call with a
// deadline, and forgets it when the call is refused by a tap (v1.85,
// http2_server.go: operateHeaders does not call cancel there). It is gone when the
// deadline has passed. Beyond the bound calls are refused later, where that costs
// more and leaves nothing.
type timersLeft struct {
	mu sync.Mutex
	// until has how many end in a second, by its number modulo the length; now is
	// the number of the second that was last begun.
	until [timerSeconds + 1]int
	now   int64
	sum   int
}

// room says whether the timer of a call with this context may be left, and counts
// it if so.
func (t *timersLeft) room(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	if !ok {
		return true // it has no timer
	}
	left := time.Until(deadline)
	if left > (timerSeconds-1)*time.Second {
		return false
	}
	return t.add(time.Now().Unix(), int64(max(left, 0)/time.Second)+1)
}

// add counts a timer that ends within so many seconds, at most timerSeconds.
func (t *timersLeft) add(now, seconds int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := int64(len(t.until))
	if now-t.now >= n {
		t.until, t.sum = [timerSeconds + 1]int{}, 0
		t.now = now
	}
	for ; t.now < now; t.now++ {
		t.sum -= t.until[t.now%n]
		t.until[t.now%n] = 0
	}
	if t.sum >= maxTimersLeft {
		return false
	}
	t.sum++
	// A clock that was set back counts in the second that it had reached.
	t.until[(t.now+seconds)%n]++
	return true
}

// refusesNothing is the default of Options.Refuse.
func refusesNothing(bool) *coord.Error { return nil }
