package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
)

// BenchmarkRefusal is a Put of 1 KiB over one connection on loopback, from 64
// callers: answered by a coordinator that does nothing, refused by it as any
// error is, refused before it is decoded, and refused in gRPC's transport, which
// a deadline beyond a minute prevents. cpu-µs/op is that of both sides.
func BenchmarkRefusal(b *testing.B) {
	refusal := &coord.Error{Code: errcode.RateLimited, Outcome: errcode.NotApplied, Message: "this node has as many requests under way and waiting as it takes", RetryAfter: 100 * time.Millisecond}
	for _, c := range []struct {
		name string
		set  func(*Options)
		left time.Duration
	}{
		{"answered", func(*Options) {}, 50 * time.Second},
		{"in-the-handler", func(o *Options) { o.Coordinator = &fakeCoordinator{err: refusal} }, 50 * time.Second},
		{"before-decoding", func(o *Options) { o.Refuse = func(bool) *coord.Error { return refusal } }, 5 * time.Minute},
		{"in-the-transport", func(o *Options) { o.Refuse = func(bool) *coord.Error { return refusal } }, 50 * time.Second},
	} {
		b.Run(c.name, func(b *testing.B) {
			opts := serverOptions(b, nodeB, clusterOf(nodeB, nodeA), echo)
			opts.Coordinator = new(fakeCoordinator)
			c.set(&opts)
			s, err := NewServer(opts)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			l := listen(b)
			if err := s.ServeClients(l); err != nil {
				b.Fatal(err)
			}
			conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			kv := pairdbv1.NewKVClient(conn)
			req := &pairdbv1.PutRequest{TenantId: "default", Key: []byte("a key of 16 byte"), Value: make([]byte, 1024)}
			ctx, cancel := context.WithTimeout(context.Background(), c.left)
			defer cancel()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			cpu := cpuTime(b)
			b.ReportAllocs()
			b.ResetTimer()
			for range 64 {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := kv.Put(ctx, req); (err == nil) != (c.name == "answered") {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}
