package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestReconnectionHasJitter: nodes that lost the same peer at the same moment do
// not call it in step, each pauses between a half and the whole of what is due,
// and no pause is longer than the bound.
func TestReconnectionHasJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes = 20
		var mu sync.Mutex
		attempts := make([][]time.Duration, nodes)
		start := time.Now()
		for i := range nodes {
			opts := peersOptions(t, constant("ignored:1"))
			opts.Logger = nil
			opts.Dial = func(context.Context, string) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				attempts[i] = append(attempts[i], time.Since(start))
				return nil, errors.New("nobody is there")
			}
			ps, err := NewPeers(opts)
			if err != nil {
				t.Fatal(err)
			}
			defer ps.Close()
			ps.Send(nodeB, &coord.Message{}, func(coord.Reply, error) {})
		}
		time.Sleep(20 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		moments := make(map[time.Duration]int)
		for i, times := range attempts {
			// The small lane's connection is tried first, and alone if it fails,
			// or both are at the same moment.
			times = slices.Compact(times)
			want := firstBackoff
			for k := 1; k < len(times); k++ {
				pause := times[k] - times[k-1]
				if pause < want/2 || pause > want {
					t.Errorf("node %d: pause %d is %v, due is %v", i, k, pause, want)
				}
				want = min(2*want, 2*time.Second)
			}
			// About 11 at the bound of 2 s and 7 on the way there.
			if len(times) < 14 || len(times) > 30 {
				t.Errorf("node %d: %d attempts in 20 s", i, len(times))
			}
			for _, at := range times[len(times)/2:] {
				moments[at.Truncate(10*time.Millisecond)]++
			}
		}
		for at, n := range moments {
			if n > nodes/3 {
				t.Errorf("%d of %d nodes called within 10 ms at %v", n, nodes, at)
			}
		}
	})
}

// bufferedNodeB is node B, which is reached through memory, so that a bubble can have it.
// The caller closes it within the bubble.
func bufferedNodeB(t *testing.T) (*Server, *bufconn.Listener) {
	t.Helper()
	server, err := NewServer(serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 20)
	if err := server.ServePeers(l); err != nil {
		t.Fatal(err)
	}
	return server, l
}

// TestRefreshDuringAnAttempt: a peer that could not be reached, and whose packets
// nobody answers, is connected to within about a second of the word that it is
// back, though the attempt under way would go on for three.
func TestRefreshDuringAnAttempt(t *testing.T) {
	for _, late := range []time.Duration{0, 100 * time.Millisecond, 1500 * time.Millisecond, 2900 * time.Millisecond} {
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, l := bufferedNodeB(t)
				defer server.Close()
				var reachable atomic.Bool
				opts := peersOptions(t, constant("ignored:1"))
				opts.Logger = nil
				opts.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
					if !reachable.Load() {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return l.DialContext(ctx)
				}
				up := make(chan time.Time, 10)
				opts.LinkChanged = func(id ring.NodeID, is bool, _ string) {
					if is && id == nodeB {
						up <- time.Now()
					}
				}
				ps, err := NewPeers(opts)
				if err != nil {
					t.Fatal(err)
				}
				defer ps.Close()
				ps.Send(nodeB, &coord.Message{}, func(coord.Reply, error) {})
				synctest.Wait()
				time.Sleep(late)
				reachable.Store(true)
				ps.Refresh()
				began := time.Now()
				if took := (<-up).Sub(began); took > refreshPatience+firstBackoff {
					t.Errorf("connected %v after the word", took)
				}
			})
		})
	}
}

// TestLinkChanged: each change of a link is told once, in order.
func TestLinkChanged(t *testing.T) {
	first, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	var where atomic.Pointer[string]
	where.Store(&addr)
	told := make(chan string, 100)
	opts := peersOptions(t, func() string { return *where.Load() })
	opts.Logger = nil
	opts.LinkChanged = func(id ring.NodeID, up bool, why string) {
		told <- fmt.Sprintf("%v %v %v", id == nodeB, up, why != "")
	}
	ps := startPeers(t, opts)
	if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
		t.Fatal(res.err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	_, addr2 := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	where.Store(&addr2)
	waitFor(t, func() bool { return call(t, ps, coord.Message{Op: coord.OpMerge}).err == nil })
	for _, want := range []string{"true true false", "true false true", "true true false"} {
		if got := <-told; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	if len(told) != 0 {
		t.Errorf("and %q", <-told)
	}
}

// TestLosingAStalledLink: a link to a peer that reads nothing ends at once when
// it is to end; what was not taken for sending is known not to be sent.
func TestLosingAStalledLink(t *testing.T) {
	_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	stalled := newSlowLink(t, addr, 0)
	opts := peersOptions(t, constant(stalled.addr()))
	opts.Logger = nil
	ps := startPeers(t, opts)
	if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
		t.Fatal(res.err)
	}
	stalled.rate(-1)
	var notSent, lost atomic.Int64
	var wg sync.WaitGroup
	m := coord.Message{Op: coord.OpMerge, Body: make([]byte, 1<<20), Deadline: time.Now().Add(time.Minute)}
	const n = 40
	for range n {
		wg.Add(1)
		ps.Send(nodeB, &m, func(_ coord.Reply, err error) {
			switch {
			case errors.Is(err, coord.ErrNotSent):
				notSent.Add(1)
			case errors.Is(err, ErrLinkLost):
				lost.Add(1)
			default:
				t.Errorf("got %v", err)
			}
			wg.Done()
		})
	}
	// The sender is stuck in the connection.
	waitFor(t, func() bool { s := ps.Stats(); return s.FramesSent >= 2 && s.QueuedItems > 0 })
	start := time.Now()
	if err := ps.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	if notSent.Load() < n/2 || lost.Load() == 0 || notSent.Load()+lost.Load() != n {
		t.Errorf("of %d %d were not sent and %d lost", n, notSent.Load(), lost.Load())
	}
}
