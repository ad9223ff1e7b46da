package coord

import (
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// RepairHandler serves an OpRepair whose partition this node owns at the sender's
// version of the ring, or is about to own. The sender need not: it may gain the
// partition, or hand over what it has of it. It calls reply exactly once, now or later, from any
// goroutine, and must not block. It may keep m, which nobody changes.
type RepairHandler func(from ring.NodeID, m *Message, reply func(Reply))

// RepairBody begins the body of an OpRepair: the format, and the class that says which
// owners of the partition are meant.
func RepairBody(dst []byte, class ring.Class) []byte {
	return ring.AppendClass(append(dst, bodyFormat), class)
}

// RepairClass returns the class that a body of an OpRepair begins with, and what follows
// it; ok is false if it is none.
func RepairClass(body []byte) (class ring.Class, rest []byte, ok bool) {
	if len(body) < 2 || body[0] != bodyFormat {
		return 0, nil, false
	}
	return ring.CutClass(body[1:])
}

// fenceRepair is fence for OpRepair, which no tenant fences.
func (c *Coordinator) fenceRepair(s *schema.Snapshot, m *Message) fence {
	class, _, ok := RepairClass(m.Body)
	switch pv := s.Layout.PV(m.Partition); {
	case pv < m.PV:
		return fenceBehind
	case pv > m.PV:
		return fenceAhead
	case !ok || !roleOf(s, c.opts.Self, m.Partition, s.Copies(class)).owner:
		return fenceForeign
	}
	return fenceServe
}

// repair serves OpRepair.
func (f *frame) repair(i int) {
	if f.c.opts.Repair == nil {
		f.unknown(i)
		return
	}
	f.c.hold(1)
	f.c.opts.Repair(f.from, &f.msgs[i], func(r Reply) {
		f.reply(i, r)
		f.c.leave()
	})
}
