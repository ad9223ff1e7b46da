package client

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

func TestFailedCallsAreRepeated(t *testing.T) {
	for _, tc := range []struct {
		name  string
		op    string
		err   error
		asked int32 // times, if all fail
	}{
		{"read", "get", clienttest.FailWrite(errcode.QuorumNotReached, "", 1, 2, "1 of 2"), 3},
		{"refused write", "put", clienttest.FailWrite(errcode.QuorumNotReached, errcode.NotApplied, 0, 2, "1 alive"), 3},
		{"throttled write", "put", clienttest.FailWrite(errcode.DiskThrottled, errcode.NotApplied, 0, 2, "full"), 3},
		{"write in doubt", "put", clienttest.FailWrite(errcode.QuorumNotReached, errcode.Indeterminate, 1, 2, "1 of 2"), 1},
		{"write in doubt with a key", "keyed", clienttest.FailWrite(errcode.QuorumNotReached, errcode.Indeterminate, 1, 2, "1 of 2"), 3},
		{"nothing there", "get", clienttest.Fail(errcode.KeyNotFound, "none", nil), 1},
		{"late", "get", clienttest.Fail(errcode.Timeout, "late", nil), 1},
		{"wrong", "put", clienttest.FailWrite(errcode.InvalidArgument, errcode.NotApplied, 0, 0, "no"), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := func(c *Client) error {
				if tc.op == "keyed" {
					_, err := c.Put(t.Context(), "k", nil, WithIdempotencyKey("id"))
					return err
				}
				return call(t.Context(), c, tc.op)
			}
			c, store, servers := start(t, 1, Options{NoNodeHealth: true}) // whose probes would count
			store.SetValue("default", "k", []byte("v"))
			var asked atomic.Int32
			servers[0].SetHook(func(context.Context, string, any) error { asked.Add(1); return tc.err })
			if err := run(c); err == nil || asked.Load() != tc.asked {
				t.Fatalf("asked %d times, want %d: %v", asked.Load(), tc.asked, err)
			}
			if tc.asked == 1 {
				return
			}
			asked.Store(0)
			servers[0].SetHook(func(context.Context, string, any) error {
				if asked.Add(1) == 1 {
					return tc.err
				}
				return nil
			})
			if err := run(c); err != nil || asked.Load() != 2 {
				t.Errorf("asked %d times: %v", asked.Load(), err)
			}
		})
	}
}

// A cluster that fails is asked little more often than its clients call.
func TestRepetitionsHaveABudget(t *testing.T) {
	c, _, servers := start(t, 1, Options{NoRouting: true, NoNodeHealth: true})
	var asked atomic.Int32
	servers[0].SetHook(func(context.Context, string, any) error {
		asked.Add(1)
		return clienttest.FailWrite(errcode.QuorumNotReached, "", 0, 2, "none")
	})
	const calls = 20
	for range calls {
		if err := call(t.Context(), c, "get"); err == nil {
			t.Fatal("it succeeded")
		}
	}
	if n := asked.Load(); n != calls+budgetMost {
		t.Errorf("%d calls were sent %d times", calls, n)
	}
	servers[0].SetHook(nil)
	for range budgetEarn {
		if _, err := c.Put(t.Context(), "k", nil); err != nil {
			t.Fatal(err)
		}
	}
	if !c.budget.spend() || c.budget.spend() {
		t.Error("ten calls that succeed earn one more")
	}
}

func TestDelays(t *testing.T) {
	most := func(n int64) int64 { return n - 1 }
	none := func(int64) int64 { return 0 }
	for n, want := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		if lo, hi := delay(n+1, maxDelay, &Error{}, none), delay(n+1, maxDelay, &Error{}, most); lo != want/2 || hi != want {
			t.Errorf("pause %d: %v to %v, want %v to %v", n+1, lo, hi, want/2, want)
		}
	}
	for _, n := range []int{20, 39, 64, 1000} {
		if d := delay(n, maxDelay, &Error{}, most); d != maxDelay {
			t.Errorf("pause %d is %v", n, d)
		}
	}
	st, err := status.New(codes.Unavailable, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if d := delay(1, maxDelay, &Error{Err: st.Err()}, most); d != time.Second {
		t.Errorf("the node asks for 1s and gets %v", d)
	}
	item := itemError("put", writes, "", &pairdbv1.ItemError{Code: string(errcode.RateLimited), RetryDelay: durationpb.New(time.Minute)})
	if d := delay(1, maxDelay, item, most); d != time.Minute {
		t.Errorf("the node asks for a minute, for an item, and gets %v", d)
	}
	if d := newImporter(ImportOptions{}, nil).pause(1, item); d != maxImportPause {
		t.Errorf("an import pauses for %v", d)
	}
}

// A pause that does not fit before the deadline is not begun.
func TestNoTimeForARepetition(t *testing.T) {
	c, _, servers := start(t, 1, Options{Timeout: 30 * time.Second, NoNodeHealth: true})
	none := status.Convert(clienttest.FailWrite(errcode.QuorumNotReached, "", 0, 2, "none"))
	none, err := none.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	servers[0].SetHook(func(context.Context, string, any) error {
		asked.Add(1)
		return none.Err()
	})
	began := time.Now()
	if e := asError(t, call(t.Context(), c, "get")); e.Code != errcode.QuorumNotReached || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), e)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}
