package coord_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestOwnDiskHangs: when nothing gets to this node's disk any more, it hands writes to
// another owner and mints nothing; a write that another node has handed to it is
// minted, and when the disk answers again so are its own.
func TestOwnDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(t, coord.Metrics{})
		forwards := 0
		w.onSend = func(s sentMessage) {
			if s.m.Op == coord.OpForward {
				forwards++
			}
			go s.reply(coord.Reply{Status: coord.StatusOK}, nil)
		}
		for range 5 {
			w.put()
		}
		elapse(time.Second)
		if len(w.got()) != 5 || forwards != 0 {
			t.Fatalf("%d of 5 writes were answered by the other owners, %d handed on", len(w.got()), forwards)
		}
		if s := w.state(w.self, peerhealth.Disk); s != peerhealth.Open {
			t.Fatalf("the disk is %v", s)
		}
		minted := w.mu.minted
		w.put()
		elapse(time.Millisecond)
		if forwards != 1 || w.mu.minted != minted {
			t.Errorf("%d writes handed on, %d minted", forwards, w.mu.minted-minted)
		}
		for _, durable := range w.durable {
			durable(nil)
		}
		w.put()
		elapse(time.Millisecond)
		if forwards != 1 || w.mu.minted != minted+1 {
			t.Errorf("the disk answers; %d writes handed on, %d minted", forwards, w.mu.minted-minted)
		}
		w.durable[len(w.durable)-1](nil)
	})
}

// TestOwnDiskGivenUp: that the replica gives up waiting for the disk, and refuses
// what comes then, is no answer of the disk. The next write that gets there is.
func TestOwnDiskGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(t, coord.Metrics{})
		w.onSend = func(s sentMessage) { go s.reply(coord.Reply{Status: coord.StatusOK}, nil) }
		for range 5 {
			w.put()
		}
		elapse(time.Second)
		gaveUp := &coord.Error{Code: errcode.Unavailable, Outcome: errcode.Indeterminate, Message: "the disk of this node does not answer"}
		for _, durable := range w.durable {
			durable(gaveUp)
		}
		if s := w.state(w.self, peerhealth.Disk); s != peerhealth.Open {
			t.Errorf("the disk is %v once nobody waits for it any more", s)
		}
		minted := w.mu.minted
		w.put()
		elapse(time.Second)
		if s := w.state(w.self, peerhealth.Disk); s != peerhealth.Open || w.mu.minted != minted {
			t.Errorf("a second later it is %v, and %d writes were minted", s, w.mu.minted-minted)
		}
		w.coord.HandlePeer(ring.NodeID{2}, []coord.Message{w.message(coord.OpMerge, w.key, 1)}, func(int, coord.Reply) {})
		if s := w.state(w.self, peerhealth.Disk); s != peerhealth.Closed {
			t.Errorf("the disk is %v after a merge that got there", s)
		}
	})
}

// TestSlowIsTriedWithOperations: an owner that is slow with what is handed to it, and
// only with that, is found to be fast again by some of it: probes, which are reads, do
// not tell.
func TestSlowIsTriedWithOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 6, coord.Metrics{})
		slow := time.Duration(0)
		l := r.view().Layout
		peer := ring.NodeID{2}
		r.onSend = func(s sentMessage) {
			d := time.Millisecond
			if s.to == peer && s.m.Op == coord.OpForward {
				d += slow
			}
			time.AfterFunc(d, func() { s.reply(coord.Reply{Status: coord.StatusOK}, nil) })
		}
		var keys [][]byte // which this node does not own, and some of which the peer does
		for i := 0; len(keys) < 60; i++ {
			k := fmt.Appendf(nil, "k%d", i)
			if p := l.PartitionOf(ring.KeyToken(7, k)); !l.IsOwner(r.self, p, 3) {
				keys = append(keys, k)
			}
		}
		n := 0
		run := func(d time.Duration) {
			for ; d > 0; d -= 5 * time.Millisecond {
				n++
				r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: keys[n%len(keys)], Value: []byte("v")}, func(coord.WriteResponse, error) {})
				elapse(5 * time.Millisecond)
			}
		}
		state := func() peerhealth.State {
			for _, s := range r.coord.PeerHealth() {
				if s.ID == peer {
					return s.State
				}
			}
			return peerhealth.Closed
		}
		run(3 * time.Second)
		slow = 60 * time.Millisecond
		run(5 * time.Second)
		if s := state(); s != peerhealth.Slow {
			t.Fatalf("60 times slower, it is %v", s)
		}
		slow = 0
		run(3 * time.Second)
		if s := state(); s != peerhealth.Closed {
			t.Errorf("3 s after it has become fast again it is %v", s)
		}
		elapse(10 * time.Second)
	})
}
