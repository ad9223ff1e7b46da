package hints_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/hints"
)

// receiver stands for the targets.
type receiver struct {
	mu       sync.Mutex
	got      map[string]int
	answer   func(h hints.Hint) (hints.Outcome, hints.Reason, int)
	flying   map[ring.NodeID]int
	most     int
	attempts int
	hold     func(h hints.Hint, done func()) // nil: answered at once
}

func (r *receiver) deliver(h hints.Hint, done func(hints.Outcome, hints.Reason, int)) {
	r.mu.Lock()
	r.attempts++
	r.flying[h.Target]++
	r.most = max(r.most, r.flying[h.Target])
	hold := r.hold
	r.mu.Unlock()
	end := func() {
		r.mu.Lock()
		o, why, sent := r.answer(h)
		if o == hints.Done && why == hints.Delivered {
			r.got[h.Target.Short()+" "+string(h.Key)]++
		}
		r.flying[h.Target]--
		r.mu.Unlock()
		done(o, why, sent)
	}
	if hold != nil {
		hold(h, end)
		return
	}
	end()
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func (r *receiver) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func newReceiver() *receiver {
	return &receiver{got: map[string]int{}, flying: map[ring.NodeID]int{}, answer: func(hints.Hint) (hints.Outcome, hints.Reason, int) { return hints.Done, hints.Delivered, 100 }}
}

func (h *heard) start(t *testing.T, s *hints.Store, r *receiver, change func(*hints.DeliveryOptions)) *hints.Delivery {
	t.Helper()
	o := hints.DeliveryOptions{
		Store: s, Deliver: r.deliver,
		Reachable: func(id ring.NodeID) (ok bool) { h.set(func() { ok = h.alive[id] }); return ok },
	}
	if change != nil {
		change(&o)
	}
	d, err := hints.StartDelivery(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// TestDelivery: nothing goes to a target that is away, everything to one that is
// back, several at once, and what was delivered is not kept.
func TestDelivery(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hints")
	var h heard
	s := h.open(t, dir, nil)
	for i := range 700 {
		s.Add(hint(nodeA, i))
		s.Add(hint(nodeB, i))
	}
	s.Flush()
	if err := s.Close(); err != nil { // the holder starts again
		t.Fatal(err)
	}
	s = h.open(t, dir, nil)
	s.Flush()
	r := newReceiver()
	h.set(func() { h.alive[nodeA] = true })
	h.start(t, s, r, nil)
	eventually(t, "one is delivered to", func() bool { return count(s, nodeA) == 0 })
	if n := r.count(); n != 700 || count(s, nodeB) != 700 {
		t.Fatalf("%d delivered, %d kept for the other", n, count(s, nodeB))
	}
	h.set(func() { h.alive[nodeB] = true })
	eventually(t, "the other, too", func() bool { return count(s, nodeB) == 0 })
	if st := s.Stats(); r.count() != 1400 || st.Removed[hints.Delivered] != 1400 || dropped(s) != 0 {
		t.Fatalf("%d delivered, counted %+v", r.count(), st)
	}
	if r.most > 64 {
		t.Fatalf("%d were under way to one target", r.most)
	}
	// It is said a moment after it is so.
	eventually(t, "both targets are said to be done", func() bool {
		emptied := 0
		h.set(func() {
			for _, n := range h.notices {
				if n.Emptied {
					emptied++
				}
			}
		})
		return emptied == 2
	})
	s.Add(hint(nodeB, 5))
	eventually(t, "one more", func() bool { return s.Stats().Removed[hints.Delivered] == 1401 })
}

// TestSettledHints are not tried again: the key is gone, or is not the target's.
func TestSettledHints(t *testing.T) {
	for _, why := range []hints.Reason{hints.Gone, hints.NotOwner} {
		var h heard
		s := h.open(t, filepath.Join(t.TempDir(), "hints"), nil)
		h.set(func() { h.alive[nodeA] = true })
		r := newReceiver()
		r.answer = func(hints.Hint) (hints.Outcome, hints.Reason, int) { return hints.Done, why, 0 }
		h.start(t, s, r, nil)
		for i := range 10 {
			s.Add(hint(nodeA, i))
		}
		s.Flush()
		eventually(t, "all are settled", func() bool { return count(s, nodeA) == 0 })
		if st := s.Stats(); st.Removed[why] != 10 || r.attempts != 10 || r.count() != 0 {
			t.Fatalf("%v: %d attempts, counted %+v", why, r.attempts, st)
		}
	}
}

// TestAWriteDuringADelivery may be one that was not delivered: its hint stays.
func TestAWriteDuringADelivery(t *testing.T) {
	var h heard
	s := h.open(t, filepath.Join(t.TempDir(), "hints"), nil)
	h.set(func() { h.alive[nodeA] = true })
	r := newReceiver()
	begun := make(chan func(), 10)
	r.hold = func(_ hints.Hint, done func()) { begun <- done }
	h.start(t, s, r, nil)
	s.Add(hint(nodeA, 1))
	end := <-begun
	s.Add(hint(nodeA, 1))
	s.Flush()
	end()
	select { // it is delivered once more
	case end = <-begun:
		end()
	case <-time.After(10 * time.Second):
		t.Fatal("the hint of the other write is gone")
	}
	eventually(t, "it is settled", func() bool { return count(s, nodeA) == 0 })
	if st := s.Stats(); st.Removed[hints.Delivered] != 1 || r.attempts != 2 {
		t.Fatalf("%d attempts, counted %+v", r.attempts, st)
	}
}

// TestFailedDeliveries are tried again, less and less often, and no others starve.
func TestFailedDeliveries(t *testing.T) {
	var h heard
	s := h.open(t, filepath.Join(t.TempDir(), "hints"), nil)
	h.set(func() { h.alive[nodeA] = true })
	r := newReceiver()
	sound := false
	r.answer = func(x hints.Hint) (hints.Outcome, hints.Reason, int) {
		if !sound && x.Token%50 == 3 {
			return hints.Failed, 0, 10
		}
		return hints.Done, hints.Delivered, 10
	}
	h.start(t, s, r, nil)
	for i := range 500 {
		s.Add(hint(nodeA, i))
	}
	eventually(t, "the others are delivered", func() bool { return r.count() == 490 && count(s, nodeA) == 10 })
	r.set(func() { sound = true })
	eventually(t, "all are", func() bool { return count(s, nodeA) == 0 })
	if r.attempts > 600 {
		t.Fatalf("%d attempts", r.attempts)
	}
}

// TestBackPressure: a target that has too much to do is asked less.
func TestBackPressure(t *testing.T) {
	var h heard
	s := h.open(t, filepath.Join(t.TempDir(), "hints"), nil)
	h.set(func() { h.alive[nodeA] = true })
	r := newReceiver()
	busy := true
	var first sync.Once // not the start, after which it may take a while until anything is tried
	r.answer = func(hints.Hint) (hints.Outcome, hints.Reason, int) {
		first.Do(func() {
			time.AfterFunc(1500*time.Millisecond, func() { r.set(func() { busy = false }) })
		})
		if busy {
			return hints.Busy, 0, 10
		}
		return hints.Done, hints.Delivered, 10
	}
	for i := range 500 {
		s.Add(hint(nodeA, i))
	}
	s.Flush()
	h.start(t, s, r, nil)
	eventually(t, "all are delivered", func() bool { return count(s, nodeA) == 0 })
	// 100, 200, 400, 800 ms: a handful of attempts each.
	if extra := r.attempts - 500; extra > 60 || extra < 3 {
		t.Fatalf("%d attempts too many", extra)
	}
}

// TestRates: neither more bytes nor more hints a second than allowed.
func TestRates(t *testing.T) {
	for _, c := range []struct {
		rate, size int64
		items      int
		n          int
	}{
		{rate: 100_000, size: 1000, items: 5000, n: 150},
		{rate: 10 << 20, size: 10, items: 100, n: 150},
	} {
		var h heard
		s := h.open(t, filepath.Join(t.TempDir(), "hints"), nil)
		h.set(func() { h.alive[nodeA] = true })
		r := newReceiver()
		r.answer = func(hints.Hint) (hints.Outcome, hints.Reason, int) { return hints.Done, hints.Delivered, int(c.size) }
		for i := range c.n {
			s.Add(hint(nodeA, i))
		}
		s.Flush()
		begun := time.Now()
		h.start(t, s, r, func(o *hints.DeliveryOptions) { o.Rate, o.Items = c.rate, c.items })
		eventually(t, "all are delivered", func() bool { return count(s, nodeA) == 0 })
		// 1.5 s by the rate, less a burst of 0.1 s and what is under way.
		if took := time.Since(begun); took < time.Second {
			t.Fatalf("%+v took %v", c, took)
		}
	}
}

// TestLargeObjects are not many at a time.
func TestLargeObjects(t *testing.T) {
	var h heard
	s := h.open(t, filepath.Join(t.TempDir(), "hints"), nil)
	h.set(func() { h.alive[nodeA] = true })
	r := newReceiver()
	r.answer = func(hints.Hint) (hints.Outcome, hints.Reason, int) { return hints.Done, hints.Delivered, 2 << 20 }
	r.hold = func(_ hints.Hint, done func()) { time.AfterFunc(time.Millisecond, done) }
	for i := range 100 {
		s.Add(hint(nodeA, i))
	}
	s.Flush()
	h.start(t, s, r, func(o *hints.DeliveryOptions) { o.Rate = 1 << 30 })
	eventually(t, "all are delivered", func() bool { return count(s, nodeA) == 0 })
	if r.most > 4 { // the first ones, when nothing was known
		t.Fatalf("%d at a time", r.most)
	}
}
