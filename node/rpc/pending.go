package rpc

import (
	"time"

	"github.com/pairdb/pairdb/coord"
)

// pendingTable holds the requests of one peer that wait for a reply. Finding,
// adding and removing cost O(1) and no allocation once it has grown. It is
// guarded by its peer's mutex; callbacks are the caller's to run, without it.
//
// An id is the slot's number in the low and the slot's use count in the high
// half, so that a late reply to an earlier use finds nothing.
type pendingTable struct {
	slots []pendingSlot
	free  []uint32
	count int
	// next is no later than the earliest deadline in the table; zero if the
	// table has been empty since the last sweep.
	next time.Time
}

type pendingSlot struct {
	reply    func(coord.Reply, error)
	deadline time.Time
	use      uint32
	lane     Lane
	// frame is the sequence number of the frame that carries the request.
	frame uint64
}

// add enters a request and returns its id.
func (t *pendingTable) add(s pendingSlot) uint64 {
	var i uint32
	if n := len(t.free); n > 0 {
		i = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		i = uint32(len(t.slots))
		t.slots = append(t.slots, pendingSlot{})
	}
	s.use = t.slots[i].use + 1
	t.slots[i] = s
	t.count++
	return uint64(s.use)<<32 | uint64(i)
}

// take removes the request of that id. The reply is nil if there is none: it
// was answered, has expired, or never was.
func (t *pendingTable) take(id uint64) (pendingSlot, bool) {
	if !t.has(id) {
		return pendingSlot{}, false
	}
	s := t.slots[uint32(id)]
	t.remove(uint32(id))
	return s, true
}

// has says that the request of that id waits for its reply.
func (t *pendingTable) has(id uint64) bool {
	i := uint32(id)
	return uint64(i) < uint64(len(t.slots)) && t.slots[i].reply != nil && t.slots[i].use == uint32(id>>32)
}

func (t *pendingTable) remove(i uint32) {
	t.slots[i] = pendingSlot{use: t.slots[i].use}
	t.free = append(t.free, i)
	t.count--
}

// sweep removes and returns the requests whose deadline is not after now, and
// sets next anew.
func (t *pendingTable) sweep(now time.Time) []pendingSlot {
	var over []pendingSlot
	t.next = time.Time{}
	for i := range t.slots {
		s := &t.slots[i]
		switch {
		case s.reply == nil:
		case !s.deadline.After(now):
			over = append(over, *s)
			t.remove(uint32(i))
		case t.next.IsZero() || s.deadline.Before(t.next):
			t.next = s.deadline
		}
	}
	return over
}

// clear removes and returns everything.
func (t *pendingTable) clear() []pendingSlot {
	var all []pendingSlot
	for i := range t.slots {
		if t.slots[i].reply != nil {
			all = append(all, t.slots[i])
			t.remove(uint32(i))
		}
	}
	return all
}
