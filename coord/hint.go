package coord

import (
	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// hint tells that owner i lacks a write, or may. Nothing is counted by it. What
// this node's own copy lacks nobody here can bring it. The caller holds no lock.
func (c *Coordinator) hint(u *unit, i int, idempotencyKey []byte) {
	if i != u.self {
		c.opts.Hint(u.owners[i], u.Address, idempotencyKey)
	}
}

// hintAll is hint for the owners that have a bit.
func (c *Coordinator) hintAll(u *unit, owners uint16, idempotencyKey []byte) {
	for i := range u.owners {
		if owners>>i&1 == 1 {
			c.hint(u, i, idempotencyKey)
		}
	}
}

// Delivered says how an attempt to deliver a hint ended.
type Delivered uint8

const (
	// DeliveryAcked: the target has what this node holds, on disk.
	DeliveryAcked Delivered = iota
	// DeliveryGone: this node holds nothing of the key, or its tenant has been
	// deleted. There is nothing to deliver.
	DeliveryGone
	// DeliveryNotOwner: the target does not own the key.
	DeliveryNotOwner
	// DeliveryOverloaded: the target, or the way to it, has too much to do.
	DeliveryOverloaded
	// DeliveryFailed: the target did not answer, or refused.
	DeliveryFailed
)

// Deliver brings the target what this node holds of a key, with the record of the
// idempotency key if there is one and it was applied, and calls done exactly once,
// maybe before it returns: with what became of it, how many bytes were sent, and why
// it failed. It takes its turn behind whatever clients wait for. A target that does
// not answer is only asked now and then whether it does by now. at and
// idempotencyKey are Deliver's to keep.
func (c *Coordinator) Deliver(target ring.NodeID, at Address, idempotencyKey []byte, done func(d Delivered, sent int, why string)) {
	if !c.enter() {
		done(DeliveryFailed, 0, "this node is shutting down")
		return
	}
	defer c.leave()
	s := c.opts.View()
	if !s.Ready || s.Layout == nil {
		done(DeliveryFailed, 0, "this node has no ring")
		return
	}
	t, ok := s.TenantByNumber(at.Tenant)
	if !ok && s.Deleted(at.Tenant) {
		done(DeliveryGone, 0, "")
		return
	}
	if !ok {
		done(DeliveryFailed, 0, "this node does not know the tenant yet")
		return
	}
	u := c.place(s, t, at.Key)
	i := u.index(target)
	switch {
	case i < 0 || i == u.self:
		done(DeliveryNotOwner, 0, "")
		return
	case u.down(i):
		done(DeliveryFailed, 0, reasonDown)
		return
	case c.record(u, i).Shut():
		if c.record(u, i).Probe(c.opts.Clock.Now()) {
			c.hold(1)
			c.sendProbe(u, i, nil, func(error) { c.leave() })
		}
		done(DeliveryFailed, 0, c.silent(u, i))
		return
	}
	d := &delivery{c: c, u: u, i: i, idempotencyKey: idempotencyKey, done: done}
	c.hold(1)
	if len(idempotencyKey) == 0 || t.Policy != schema.PolicyLWW {
		d.read(nil)
		return
	}
	c.opts.Replica.Lookup(u.Address, idempotencyKey, c.opts.Clock.Now(), func(h Held, err error) {
		switch {
		case err != nil:
			d.end(DeliveryFailed, 0, asError(err).reason())
		case h.Record != nil && h.Record.Applied:
			d.read(h.Record)
		default:
			d.read(nil)
		}
	})
}

func (u *unit) index(id ring.NodeID) int {
	for i, owner := range u.owners {
		if owner == id {
			return i
		}
	}
	return -1
}

// delivery is one attempt to deliver a hint. It holds the coordinator once.
type delivery struct {
	c              *Coordinator
	u              *unit
	i              int
	idempotencyKey []byte
	done           func(Delivered, int, string)
}

func (d *delivery) end(how Delivered, sent int, why string) {
	d.done(how, sent, why)
	d.c.leave()
}

// read takes what this node holds, and sends it with the record, if there is one.
func (d *delivery) read(r *causal.Record) {
	d.c.opts.Replica.Read(d.u.Address, func(object []byte, err error) {
		switch {
		case err != nil:
			d.end(DeliveryFailed, 0, asError(err).reason())
		case len(object) == 0:
			d.end(DeliveryGone, 0, "")
		default:
			d.send(r, object)
		}
	})
}

func (d *delivery) send(r *causal.Record, object []byte) {
	c, u := d.c, d.u
	m := u.message(OpMerge)
	m.Body, m.Background = object, true
	if r != nil {
		m.Op = OpApply
		m.Body = append(appendClaim(make([]byte, 0, claimLen(d.idempotencyKey, r)+len(object)), d.idempotencyKey, r), object...)
	}
	m.Deadline = c.opts.Clock.Now().Add(c.opts.WriteTimeout)
	sent := len(m.Key) + len(m.Body)
	a := c.health.sentTo(u.owners[d.i], peerhealth.Write)
	c.opts.Transport.Send(u.owners[d.i], &m, func(rep Reply, err error) {
		c.health.heard(a, err)
		if err == nil && rep.Status == StatusStale {
			// The next attempt is made under the newer ring.
			c.opts.Metrics.StaleBounce()
			c.hold(1)
			c.catchUp(u.owners[d.i], rep.Version, c.leave)
			d.end(DeliveryFailed, sent, reasonStale)
			return
		}
		how, why := deliveryOf(&rep, err)
		d.end(how, sent, why)
	})
}

// deliveryOf says what an answer to a delivery means, other than a newer ring.
func deliveryOf(rep *Reply, err error) (Delivered, string) {
	if err == nil && rep.Status == StatusOK {
		return DeliveryAcked, ""
	}
	if err == nil && rep.Stripped() {
		// What was left out has been superseded there; the rest is in.
		return DeliveryAcked, ""
	}
	why, e, _ := refused(rep, err)
	switch {
	case saysDeleted(e):
		return DeliveryGone, why
	case err != nil:
		return DeliveryFailed, why
	case rep.Status == StatusNotOwner:
		// Under the versions that both agree on.
		return DeliveryNotOwner, why
	case rep.Status == StatusOverloaded, rep.Status == StatusExpired:
		return DeliveryOverloaded, why
	case e != nil && (e.Code == errcode.DiskThrottled || e.Code == errcode.ResourceExhausted || e.Code == errcode.RateLimited):
		return DeliveryOverloaded, why
	}
	return DeliveryFailed, why
}
