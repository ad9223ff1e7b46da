package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/node/admission"
)

// TestMoreClientsThanTheLimit: sixteen times as many clients as a node works for
// at once. They get answers or typed refusals with a time to wait, and the node
// goes on doing a good part of what it does for as many as it takes; it never has more under way, and
// in the end nobody is refused any more. What is no operation on keys is never
// refused.
func TestMoreClientsThanTheLimit(t *testing.T) {
	const limit = 16
	cfg := soloConfig(t)
	cfg.Limits.ConcurrencyMin, cfg.Limits.ConcurrencyMax, cfg.Limits.Queue = limit, limit, limit
	// A disk that stands still for a while is no reason to refuse anybody here.
	cfg.Limits.QueueWait = 10 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan Addresses, 1)
	n, err := Open(cfg, Options{Logger: slog.New(slog.DiscardHandler), Ready: func(a Addresses) { ready <- a }})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx) }()
	at := <-ready
	conn, err := grpc.NewClient("passthrough:///"+at.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	kv, cluster := pairdbv1.NewKVClient(conn), pairdbv1.NewClusterClient(conn)
	var refused atomic.Int64
	run := func(clients int, d time.Duration) (done int64) {
		var good atomic.Int64
		var wg sync.WaitGroup
		until := time.Now().Add(d)
		for c := range clients {
			wg.Go(func() {
				for i := 0; time.Now().Before(until); i++ {
					call, end := context.WithTimeout(ctx, time.Minute)
					_, err := kv.Put(call, &pairdbv1.PutRequest{Key: fmt.Appendf(nil, "%d/%d", c, i%10), Value: make([]byte, 100)})
					end()
					if err == nil {
						good.Add(1)
						continue
					}
					refused.Add(1)
					time.Sleep(refusalOf(t, err))
				}
			})
		}
		for time.Now().Before(until) {
			if s := n.gate.Stats(admission.Writes); s.UnderWay > 2*limit || s.Waiting > limit {
				t.Errorf("%d are under way and %d wait; the limit is %d", s.UnderWay, s.Waiting, limit)
			}
			if _, err := cluster.Status(ctx, new(pairdbv1.StatusRequest)); err != nil {
				t.Errorf("a call that is no operation: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		wg.Wait()
		return good.Load()
	}
	run(limit, 200*time.Millisecond)
	before := refused.Load()
	if before != 0 {
		t.Errorf("%d were refused with as many clients as the limit", before)
	}
	// In turns, for others use this machine, too. The many have longer, for the node
	// first finds out how long they have to stay away.
	var few, many int64
	for range 2 {
		few += 4 * run(limit, 500*time.Millisecond)
		many += run(16*limit, 2*time.Second)
	}
	// What a machine leaves a test varies by a factor of two within seconds, and under the
	// race detector so many clients take most of it, so only a tenth is asked for; the
	// simulation of node/admission asks for 90 %.
	t.Logf("%d puts by %d clients, %d by %d, of which %d attempts were refused", few, limit, many, 16*limit, refused.Load())
	if refused.Load() == 0 || !n.gate.Shedding() {
		t.Error("nothing was refused")
	}
	if many < few/10 {
		t.Errorf("%d puts were done for %d clients and %d for %d", many, 16*limit, few, limit)
	}
	before = refused.Load()
	run(limit, 200*time.Millisecond)
	if now := refused.Load(); now != before {
		t.Errorf("%d were refused after the load", now-before)
	}
	cancel()
	if err := errors.Join(conn.Close(), <-served, n.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// refusalOf checks the refusal of a write, and returns how long it says to wait.
func refusalOf(t *testing.T, err error) time.Duration {
	t.Helper()
	st := status.Convert(err)
	var reason, outcome string
	var wait time.Duration
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason, outcome = d.GetReason(), d.GetMetadata()[errcode.MetaOutcome]
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration()
		}
	}
	if st.Code() != codes.ResourceExhausted || reason != string(errcode.RateLimited) || outcome != string(errcode.NotApplied) || wait <= 0 || wait > 5*time.Second {
		t.Errorf("refused with %v, %s, %s, wait %v", err, reason, outcome, wait)
	}
	return wait
}
