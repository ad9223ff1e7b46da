package rpc

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// cpuTime is the CPU time of this process so far, both sides of the loopback.
func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMux sends 1 KiB there, with a reply of a few bytes, from 1, 64 and
// 256 callers, over one link on loopback. cpu-µs/op is that of both sides.
func BenchmarkMux(b *testing.B) {
	for _, c := range []struct {
		name    string
		callers int
		body    int
	}{{"callers=1/1KiB", 1, 1024}, {"callers=64/1KiB", 64, 1024}, {"callers=256/1KiB", 256, 1024}, {"callers=64/100B", 64, 100}} {
		b.Run(c.name, func(b *testing.B) {
			handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
				for i := range msgs {
					reply(i, coord.Reply{Status: coord.StatusOK})
				}
			})
			_, addr := startPeerServer(b, serverOptions(b, nodeB, clusterOf(nodeB, nodeA), handler))
			ps := startPeers(b, peersOptions(b, constant(addr)))
			if res := call(b, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
				b.Fatal(res.err)
			}
			m := coord.Message{Op: coord.OpMerge, Key: []byte("a key of 16 byte"), Body: bytes.Repeat([]byte{1}, c.body)}
			before, cpu := ps.Stats(), cpuTime(b)
			b.ResetTimer()
			b.ReportAllocs()
			run(b, ps, m, c.callers)
			b.StopTimer()
			cpu = cpuTime(b) - cpu
			after := ps.Stats()
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(after.ItemsSent-before.ItemsSent)/float64(after.FramesSent-before.FramesSent), "items/frame")
		})
	}
}

// run sends b.N messages from the callers, each with one under way.
func run(b *testing.B, ps *Peers, m coord.Message, callers int) {
	next := make(chan struct{}, b.N)
	for range b.N {
		next <- struct{}{}
	}
	close(next)
	done := make(chan struct{})
	for range callers {
		go func() {
			defer func() { done <- struct{}{} }()
			m := m
			c := make(chan error, 1)
			reply := func(_ coord.Reply, err error) { c <- err }
			for range next {
				m.Deadline = time.Now().Add(3 * time.Second)
				ps.Send(nodeB, &m, reply)
				if err := <-c; err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	for range callers {
		<-done
	}
}

// BenchmarkUnary calls KV.Get for 1 KiB over one connection on loopback, with a
// coordinator that answers at once: what the edge itself costs. cpu-µs/op is
// that of both sides.
func BenchmarkUnary(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			opts := serverOptions(b, nodeB, clusterOf(nodeB, nodeA), echo)
			opts.Coordinator = &stillCoordinator{read: coord.GetResponse{
				Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 2}, Value: bytes.Repeat([]byte{1}, 1024)}},
				Token:    make([]byte, 60), Context: causal.Context{{Actor: 1, Counter: 2}},
			}}
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
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			req := &pairdbv1.GetRequest{TenantId: "default", Key: []byte("a key of 16 byte")}
			if _, err := kv.Get(ctx, req); err != nil {
				b.Fatal(err)
			}
			cpu := cpuTime(b)
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := kv.Get(ctx, req); err != nil {
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

// stillCoordinator answers reads without a lock.
type stillCoordinator struct {
	fakeCoordinator
	read coord.GetResponse
}

func (s *stillCoordinator) Get(context.Context, coord.GetRequest) (coord.GetResponse, error) {
	return s.read, nil
}
