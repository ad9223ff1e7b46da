package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// BenchmarkSmallBesideLarge has clients of small values beside one that writes and
// reads values of 10 MiB, eight at a time, as fast as it gets answers, which is
// more than a disk takes. It tells what the small ones see with and without it, in
// turns, in milliseconds.
func BenchmarkSmallBesideLarge(t *testing.B) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan Addresses, 1)
	n, err := Open(soloConfig(t), Options{Logger: slog.New(slog.DiscardHandler), Ready: func(a Addresses) { ready <- a }})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx) }()
	at := <-ready
	connect := func() pairdbv1.KVClient {
		conn, err := grpc.NewClient("passthrough:///"+at.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		return pairdbv1.NewKVClient(conn)
	}
	small, large := connect(), connect()
	value := make([]byte, 10<<20)
	var moved, refused atomic.Int64
	// beside runs the large ones until the function that it returns is called.
	beside := func() func() {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for c := range 8 {
			wg.Go(func() {
				key := fmt.Appendf(nil, "large/%d", c%4)
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					var err error
					if i%2 == 0 {
						_, err = large.Put(ctx, &pairdbv1.PutRequest{Key: key, Value: value})
					} else {
						_, err = large.Get(ctx, &pairdbv1.GetRequest{Key: key})
					}
					if err != nil {
						refused.Add(1)
						continue
					}
					moved.Add(1)
				}
			})
		}
		return func() { close(stop); wg.Wait() }
	}
	// see runs the small ones for a time and adds what they took.
	see := func(puts, gets *[]time.Duration, d time.Duration) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		until := time.Now().Add(d)
		for c := range 8 {
			wg.Go(func() {
				key := fmt.Appendf(nil, "small/%d", c)
				for i := 0; time.Now().Before(until); i++ {
					began := time.Now()
					into := puts
					var err error
					if i%2 == 0 {
						_, err = small.Put(ctx, &pairdbv1.PutRequest{Key: key, Value: value[:100]})
					} else {
						into = gets
						_, err = small.Get(ctx, &pairdbv1.GetRequest{Key: key})
					}
					if err != nil {
						t.Errorf("a small one: %v", err)
						return
					}
					mu.Lock()
					*into = append(*into, time.Since(began))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	var alone, with [2][]time.Duration
	for t.Loop() {
		see(&alone[0], &alone[1], 300*time.Millisecond)
		end := beside()
		see(&with[0], &with[1], 400*time.Millisecond)
		end()
	}
	for i, what := range []string{"put", "get"} {
		for _, q := range []int{50, 99} {
			t.ReportMetric(percentile(alone[i], q), fmt.Sprintf("%s-alone-p%d-ms", what, q))
			t.ReportMetric(percentile(with[i], q), fmt.Sprintf("%s-beside-p%d-ms", what, q))
		}
	}
	t.ReportMetric(float64(moved.Load())/float64(t.N), "large/op")
	t.ReportMetric(float64(refused.Load())/float64(t.N), "refused/op")
	cancel()
	if err := errors.Join(<-served, n.Close(context.WithoutCancel(ctx))); err != nil {
		t.Error(err)
	}
}

// percentile is in milliseconds.
func percentile(took []time.Duration, percent int) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(len(took)*percent/100, len(took)-1)].Seconds() * 1e3
}
