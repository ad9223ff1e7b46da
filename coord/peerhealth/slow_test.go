package peerhealth

import (
	"testing"
	"time"
)

// TestSlowAndBack: a peer that answers far later than the other is slow, is sent a
// probe now and then, and is not slow any more once it answers like the other. One
// that is a little slower is left alone.
func TestSlowAndBack(t *testing.T) {
	n := newNode()
	n.run(2*time.Second, 10)
	n.took[id(2)] = 50 * time.Millisecond
	n.run(2*time.Second, 10)
	if n.state(2) != Slow || n.state(3) != Closed {
		t.Fatalf("100 times slower, it is %v, the other %v", n.state(2), n.state(3))
	}
	if w, other := n.t.Peer(id(2)).Wait(Read), n.t.Peer(id(3)).Wait(Read); w > 2*time.Millisecond || other > 2*time.Millisecond {
		t.Errorf("one more owner is asked after %v and %v", w, other)
	}
	n.took[id(2)] = 0
	n.run(time.Second, 3)
	if n.state(2) != Closed {
		t.Errorf("as fast as the other, it is %v", n.state(2))
	}
	n.took[id(2)] = 3 * time.Millisecond
	n.run(5*time.Second, 10)
	if n.state(2) != Closed {
		t.Errorf("3 ms slower, it is %v", n.state(2))
	}
}

// TestSlowWithoutSamples: a verdict without evidence ends.
func TestSlowWithoutSamples(t *testing.T) {
	n := newNode()
	n.run(2*time.Second, 10)
	n.took[id(2)] = 50 * time.Millisecond
	n.run(2*time.Second, 10)
	for range 250 {
		n.ask(id(3))
		n.tick(Interval)
	}
	if n.state(2) != Closed {
		t.Errorf("nobody has asked it for %v, and it is %v", 250*Interval, n.state(2))
	}
}

// TestSlowWithOneKind: answers of another kind do not keep a verdict.
func TestSlowWithOneKind(t *testing.T) {
	n := newNode()
	forward := func(took time.Duration) {
		r := n.t.Peer(id(2))
		r.Sent()
		r.Answered()
		n.t.Note(r, ForwardWrite, n.now.Add(-took), n.now)
		r = n.t.Peer(id(3))
		r.Sent()
		r.Answered()
		n.t.Note(r, ForwardWrite, n.now.Add(-time.Millisecond), n.now)
	}
	for i := range 400 {
		took := time.Millisecond
		if i > 200 {
			took = 100 * time.Millisecond
		}
		forward(took)
		if i%5 == 0 {
			n.tick(Interval)
		}
	}
	if n.state(2) != Slow {
		t.Fatalf("100 times slower, it is %v", n.state(2))
	}
	n.run(slowLife+time.Second, 3)
	if n.state(2) != Closed {
		t.Errorf("nothing was handed to it for %v, and it is %v", slowLife, n.state(2))
	}
}

// TestAllSlow: where all are slow, none is slower than the others.
func TestAllSlow(t *testing.T) {
	n := newNode()
	n.run(2*time.Second, 10)
	n.took[id(2)], n.took[id(3)] = 80*time.Millisecond, 90*time.Millisecond
	n.run(10*time.Second, 10)
	if n.state(2) == Slow && n.state(3) == Slow {
		t.Error("both are slower than the other")
	}
	if w := n.t.Peer(id(2)).Wait(Read); w < 80*time.Millisecond {
		t.Errorf("one more owner is asked after %v", w)
	}
}
