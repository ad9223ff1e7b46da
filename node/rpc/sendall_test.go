package rpc

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestSendAllIsOneFrame: what is sent together arrives together, a large item
// apart from it.
func TestSendAllIsOneFrame(t *testing.T) {
	var mu sync.Mutex
	var frames []int
	handler := handlerFunc(func(_ ring.NodeID, msgs []coord.Message, reply func(int, coord.Reply)) {
		mu.Lock()
		frames = append(frames, len(msgs))
		mu.Unlock()
		for i := range msgs {
			reply(i, coord.Reply{Status: coord.StatusOK, Body: msgs[i].Key})
		}
	})
	_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), handler))
	ps := startPeers(t, peersOptions(t, constant(addr)))
	if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
		t.Fatal(res.err)
	}
	for range 50 {
		mu.Lock()
		frames = nil
		mu.Unlock()
		var wg sync.WaitGroup
		msgs := make([]coord.Outgoing, 101)
		for i := range msgs {
			key, body := []byte{byte(i)}, make([]byte, 100)
			if i == 50 {
				body = make([]byte, largeItem)
			}
			wg.Add(1)
			msgs[i] = coord.Outgoing{
				Message: coord.Message{Op: coord.OpMerge, Key: key, Body: body, Deadline: time.Now().Add(20 * time.Second)},
				Reply: func(r coord.Reply, err error) {
					if err != nil || !bytes.Equal(r.Body, key) {
						t.Errorf("%v: %v, %v", key, r.Body, err)
					}
					wg.Done()
				},
			}
		}
		ps.SendAll(nodeB, msgs)
		wg.Wait()
		mu.Lock()
		if len(frames) != 2 || frames[0]+frames[1] != 101 || frames[0] != 1 && frames[1] != 1 {
			t.Errorf("frames of %v items", frames)
		}
		mu.Unlock()
	}
}

// TestSendAllRefuses: a full queue takes what it has room for, and each of the
// others is told, as is everybody if there is no such peer.
func TestSendAllRefuses(t *testing.T) {
	_, addr := startPeerServer(t, serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
	opts := peersOptions(t, constant(addr))
	opts.MaxPending = 10
	ps := startPeers(t, opts)
	for to, want := range map[ring.NodeID]int{nodeB: 15, {9}: 25} {
		var wg sync.WaitGroup
		var mu sync.Mutex
		refused := 0
		msgs := make([]coord.Outgoing, 25)
		for i := range msgs {
			wg.Add(1)
			msgs[i] = coord.Outgoing{
				Message: coord.Message{Op: coord.OpMerge, Deadline: time.Now().Add(20 * time.Second)},
				Reply: func(_ coord.Reply, err error) {
					defer wg.Done()
					if err == nil {
						return
					}
					if !errors.Is(err, coord.ErrNotSent) {
						t.Error(err)
					}
					mu.Lock()
					refused++
					mu.Unlock()
				},
			}
		}
		before := ps.Stats().Refused
		ps.SendAll(to, msgs)
		wg.Wait()
		if counted := ps.Stats().Refused - before; refused != want || int(counted) != want {
			t.Errorf("%d refused, %d counted, want %d", refused, counted, want)
		}
	}
}
