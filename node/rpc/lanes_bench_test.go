package rpc

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// BenchmarkLanes has 4 callers send 1 KiB each, one at a time, on an idle link
// and beside two callers that send 10 MiB, or read 10 MiB, one at a time. The
// p99 of the small ones is what it is about.
func BenchmarkLanes(b *testing.B) {
	for _, rate := range []int64{0, 20 << 20} {
		for _, beside := range []string{"nothing", "writes", "reads"} {
			b.Run(fmt.Sprintf("MBps=%d/beside=%s", rate>>20, beside), func(b *testing.B) { benchLanes(b, rate, beside) })
		}
	}
}

func benchLanes(b *testing.B, rate int64, beside string) {
	big := noise(10 << 20)
	handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		for i := range msgs {
			r := coord.Reply{Status: coord.StatusOK}
			if msgs[i].Op == coord.OpRead {
				r.Body = big
			}
			reply(i, r)
		}
	})
	_, addr := startPeerServer(b, serverOptions(b, nodeB, clusterOf(nodeB, nodeA), handler))
	if rate > 0 {
		addr = newSlowLink(b, addr, rate).addr()
	}
	ps := startPeers(b, peersOptions(b, constant(addr)))
	if res := call(b, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
		b.Fatal(res.err)
	}
	stop := make(chan struct{})
	var large sync.WaitGroup
	var moved int64
	if beside != "nothing" {
		for range 2 {
			large.Go(func() {
				m := coord.Message{Op: coord.OpMerge, Body: big}
				if beside == "reads" {
					m = coord.Message{Op: coord.OpRead}
				}
				c := make(chan error, 1)
				for {
					select {
					case <-stop:
						return
					default:
					}
					m.Deadline = time.Now().Add(30 * time.Second)
					ps.Send(nodeB, &m, func(_ coord.Reply, err error) { c <- err })
					if err := <-c; err != nil {
						b.Error(err)
						return
					}
					moved += int64(len(big)) // about
				}
			})
		}
	}
	var mu sync.Mutex
	var took []time.Duration
	b.ResetTimer()
	var small sync.WaitGroup
	body := bytes.Repeat([]byte{7}, 1024)
	for range 4 {
		small.Go(func() {
			m := coord.Message{Op: coord.OpMerge, Body: body}
			c := make(chan error, 1)
			for range (b.N + 3) / 4 {
				start := time.Now()
				m.Deadline = start.Add(30 * time.Second)
				ps.Send(nodeB, &m, func(_ coord.Reply, err error) { c <- err })
				if err := <-c; err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
		})
	}
	small.Wait()
	b.StopTimer()
	seconds := b.Elapsed().Seconds()
	close(stop)
	large.Wait()
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) }
	b.ReportMetric(at(.5), "p50-µs")
	b.ReportMetric(at(.99), "p99-µs")
	b.ReportMetric(at(.999), "p99.9-µs")
	b.ReportMetric(float64(moved)/seconds/1e6, "large-MB/s")
}

// BenchmarkLarge sends 1 MiB and 10 MiB from two callers on loopback. cpu-µs/MiB
// is that of both sides.
func BenchmarkLarge(b *testing.B) {
	for _, size := range []int{1 << 20, 10 << 20} {
		b.Run(fmt.Sprintf("MiB=%d", size>>20), func(b *testing.B) {
			handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
				for i := range msgs {
					reply(i, coord.Reply{Status: coord.StatusOK})
				}
			})
			_, addr := startPeerServer(b, serverOptions(b, nodeB, clusterOf(nodeB, nodeA), handler))
			ps := startPeers(b, peersOptions(b, constant(addr)))
			m := coord.Message{Op: coord.OpMerge, Body: bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, size/8)}
			if res := call(b, ps, m); res.err != nil {
				b.Fatal(res.err)
			}
			b.SetBytes(int64(size))
			cpu := cpuTime(b)
			b.ResetTimer()
			run(b, ps, m, 2)
			b.StopTimer()
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N)/float64(size>>20), "cpu-µs/MiB")
		})
	}
}
