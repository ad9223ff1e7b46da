package rpc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// frail is a connection that dies after a number of bytes.
type frail struct {
	net.Conn
	left atomic.Int64
}

func (f *frail) Write(b []byte) (int, error) {
	if f.left.Add(-int64(len(b))) < 0 {
		return 0, errors.Join(io.ErrClosedPipe, f.Close())
	}
	return f.Conn.Write(b)
}

// TestOnceUnderDisconnects breaks links at random and checks, for each message,
// that exactly one thing came of it, that a reply is its own, and that the peer
// never saw what is said not to have been sent.
func TestOnceUnderDisconnects(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var rngMu sync.Mutex
	random := func(n int64) int64 {
		rngMu.Lock()
		defer rngMu.Unlock()
		return rng.Int64N(n)
	}
	var seen sync.Map // token -> times
	var slow sync.WaitGroup
	handler := handlerFunc(func(f ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		for i := range msgs {
			times, _ := seen.LoadOrStore(msgs[i].Token, new(atomic.Int64))
			times.(*atomic.Int64).Add(1)
		}
		// Half of the frames are answered from elsewhere.
		if random(2) == 0 {
			slow.Go(func() { echo(f, msgs, reply) })
			return
		}
		echo(f, msgs, reply)
	})
	_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler))
	defer slow.Wait()
	opts := peersOptions(t, constant(addr))
	opts.Logger = nil
	opts.MaxBackoff = 2 * time.Millisecond
	opts.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		f := &frail{Conn: c}
		f.left.Store(2000 + random(400<<10))
		return f, nil
	}
	ps := startPeers(t, opts)
	const callers, each = 8, 400
	var ok, notSent, unknown atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range each {
				token := ring.Token(caller*each + i)
				size := 8 + random(2000)
				if i%50 == 0 {
					size = largeItem + random(100<<10)
				}
				m := coord.Message{Op: coord.OpMerge, Token: token, Body: make([]byte, size), Deadline: time.Now().Add(20 * time.Second)}
				m.Body[0], m.Body[1], m.Body[2] = byte(token), byte(token>>8), byte(token>>16)
				var calls atomic.Int64
				done := make(chan result, 2)
				ps.Send(nodeB, &m, func(r coord.Reply, err error) {
					calls.Add(1)
					done <- result{r, err}
				})
				res := <-done
				switch {
				case res.err == nil:
					ok.Add(1)
					if len(res.r.Body) != int(size) || ring.Token(res.r.Body[0])|ring.Token(res.r.Body[1])<<8|ring.Token(res.r.Body[2])<<16 != token {
						t.Errorf("message %d got the reply of another", token)
					}
				case errors.Is(res.err, coord.ErrNotSent):
					notSent.Add(1)
					if _, served := seen.Load(token); served {
						t.Errorf("message %d was served: %v", token, res.err)
					}
					<-time.After(100 * time.Microsecond)
				case errors.Is(res.err, ErrLinkLost):
					unknown.Add(1)
				default:
					t.Errorf("message %d: %v", token, res.err)
				}
				if calls.Load() != 1 {
					t.Errorf("message %d: %d calls", token, calls.Load())
				}
			}
		})
	}
	wg.Wait()
	seen.Range(func(token, times any) bool {
		if n := times.(*atomic.Int64).Load(); n != 1 {
			t.Errorf("message %d was served %d times", token, n)
		}
		return true
	})
	s := ps.Stats()
	t.Logf("%d answered, %d not sent, %d unknown, %d links", ok.Load(), notSent.Load(), unknown.Load(), s.Connects)
	if s.Pending != 0 || s.QueuedItems != 0 || s.QueuedBytes != 0 || s.Connects < 3 || ok.Load() == 0 {
		t.Errorf("stats %+v", s)
	}
}
