package rpc

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/node/door"
)

// BenchmarkSmallBesideLarge is what the client edge alone does to small reads
// beside reads and writes of 10 MiB, four at a time with a pause between: the
// coordinator answers at once. Latencies are in µs.
func BenchmarkSmallBesideLarge(b *testing.B) {
	for _, same := range []bool{false, true} {
		b.Run(fmt.Sprintf("same-connection=%v", same), func(b *testing.B) {
			opts := serverOptions(b, nodeB, clusterOf(nodeB, nodeA), echo)
			opts.Coordinator = &largeReader{value: bytes.Repeat([]byte{1}, 10<<20)}
			s, err := NewServer(opts)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			d := door.New(door.Options{Max: 10, Stall: time.Minute, Rate: 1 << 20, Budget: 1 << 30})
			l := d.Listener(listen(b), nil)
			if err := s.ServeClients(l); err != nil {
				b.Fatal(err)
			}
			connect := func() (*grpc.ClientConn, pairdbv1.KVClient) {
				conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
				if err != nil {
					b.Fatal(err)
				}
				return conn, pairdbv1.NewKVClient(conn)
			}
			c1, small := connect()
			defer c1.Close()
			large := small
			if !same {
				c2, kv := connect()
				defer c2.Close()
				large = kv
			}
			see := func(d time.Duration) (took []time.Duration) {
				for until := time.Now().Add(d); time.Now().Before(until); {
					began := time.Now()
					if _, err := small.Get(b.Context(), &pairdbv1.GetRequest{Key: []byte("k")}); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				return took
			}
			var alone, beside []time.Duration
			for b.Loop() {
				alone = append(alone, see(200*time.Millisecond)...)
				ctx, cancel := context.WithCancel(b.Context())
				var wg sync.WaitGroup
				for i := range 4 {
					wg.Go(func() {
						for ctx.Err() == nil {
							// Cut off at the end, which is no error of interest.
							if i%2 == 0 {
								_, _ = large.Get(ctx, &pairdbv1.GetRequest{Key: []byte("large")})
							} else {
								_, _ = large.Put(ctx, &pairdbv1.PutRequest{Key: []byte("large"), Value: make([]byte, 10<<20)})
							}
							time.Sleep(50 * time.Millisecond)
						}
					})
				}
				beside = append(beside, see(600*time.Millisecond)...)
				cancel()
				wg.Wait()
			}
			for name, took := range map[string][]time.Duration{"alone": alone, "beside": beside} {
				slices.Sort(took)
				for _, q := range []int{50, 99} {
					b.ReportMetric(float64(took[len(took)*q/100].Microseconds()), fmt.Sprintf("%s-p%d-µs", name, q))
				}
			}
		})
	}
}
