package coord

import (
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// frame is what is left to do of the messages that came together.
type frame struct {
	c     *Coordinator
	from  ring.NodeID
	msgs  []Message
	reply func(i int, r Reply)
}

// HandlePeer serves the messages of one frame from a peer; see PeerHandler. The
// merges among them become one batch of the replica. Once Close was called
// everything is refused.
func (c *Coordinator) HandlePeer(from ring.NodeID, msgs []Message, reply func(i int, r Reply)) {
	if !c.enter() {
		for i := range msgs {
			reply(i, Reply{Status: StatusOverloaded})
		}
		return
	}
	f := &frame{c: c, from: from, msgs: msgs, reply: reply}
	all := make([]int, len(msgs))
	for i := range all {
		all[i] = i
	}
	f.run(all)
	c.leave()
}

// run serves messages, those for which this node is behind when it has caught up.
func (f *frame) run(indices []int) {
	if behind, need := f.serve(indices, true, false); len(behind) > 0 {
		f.c.catchUp(f.from, need, func() { f.serve(behind, false, false) })
	}
}

// fence is how a message's versions compare with this node's.
type fence uint8

const (
	fenceServe  fence = iota
	fenceBehind       // this node is behind the sender
	fenceAhead        // the sender is behind this node
	fenceForeign
	fenceDeleted // the tenant is no more
)

// serve handles the messages with the given indices under one snapshot. With
// mayWait it leaves those for which this node must catch up first, and returns
// them and the version they need. Unless admitted is set, those of partitions that
// this node gains go through admit.
func (f *frame) serve(indices []int, mayWait, admitted bool) (behind []int, need ring.Version) {
	c := f.c
	s := c.opts.View()
	now := c.opts.Clock.Now()
	gained := c.gainedBy(s)
	var merges []MergeItem
	var merged []int
	merge := func(i int, item MergeItem) {
		if merges == nil { // mostly the rest of the frame is merges, too
			merges, merged = make([]MergeItem, 0, len(indices)), make([]int, 0, len(indices))
		}
		merges, merged = append(merges, item), append(merged, i)
	}
	// What forwarded operations send goes together, as they came.
	var b *bundle
	var wait []gains
	for _, i := range indices {
		m := &f.msgs[i]
		if !m.Deadline.IsZero() && !now.Before(m.Deadline) {
			f.reply(i, Reply{Status: StatusExpired})
			continue
		}
		switch verdict, t, gaining := c.fence(s, m); {
		case verdict == fenceBehind && mayWait:
			behind = append(behind, i)
			need = max(need, m.PV, m.TenantVersion)
		case verdict == fenceBehind:
			f.fail(i, &Error{
				Code: errcode.Unavailable, Outcome: errcode.NotApplied,
				Message: fmt.Sprintf("at ring version %v, behind the request", s.Version),
			})
		case verdict == fenceAhead:
			f.reply(i, Reply{Status: StatusStale, Version: s.Version})
		case verdict == fenceForeign:
			f.reply(i, Reply{Status: StatusNotOwner})
		case verdict == fenceDeleted:
			f.fail(i, errDeleted())
		case gaining && !admitted:
			wait = f.await(wait, i, now)
		case m.Op == OpMerge || m.Op == OpFound:
			item := MergeItem{Address: m.address(t), Object: m.Body, LastWriteWins: t.Policy == schema.PolicyLWW, Found: m.Op == OpFound}
			if gaining {
				item.Gaining = gained
			}
			merge(i, item)
		case m.Op == OpApply:
			if item, ok := f.applied(i, t); ok {
				if gaining {
					item.Gaining = gained
				}
				merge(i, item)
			}
		case m.Op == OpForward:
			if b == nil && len(indices) > 1 {
				b = c.newBundle()
			}
			f.coordinate(i, t, b)
		default:
			f.one(i, t)
		}
	}
	if b != nil {
		b.close()
	}
	f.merge(merges, merged)
	f.admit(wait)
	return behind, need
}

// fence decides whether this node may serve m under the snapshot. gaining says that
// it is about to own the partition.
func (c *Coordinator) fence(s *schema.Snapshot, m *Message) (verdict fence, t *schema.Tenant, gaining bool) {
	if s.Layout == nil || !s.Ready {
		return fenceBehind, nil, false
	}
	if int(m.Partition) >= s.Layout.Partitions() {
		return fenceForeign, nil, false
	}
	if m.Op == OpRepair {
		return c.fenceRepair(s, m), nil, false
	}
	var version ring.Version
	t, ok := s.TenantByNumber(m.Tenant)
	if ok {
		version = t.Version
	}
	pv := s.Layout.PV(m.Partition)
	switch {
	case !ok && s.Deleted(m.Tenant): // which nothing newer changes
		return fenceDeleted, nil, false
	case pv < m.PV || version < m.TenantVersion:
		return fenceBehind, nil, false
	case pv > m.PV || version > m.TenantVersion || !ok:
		return fenceAhead, nil, false
	}
	r := roleOf(s, c.opts.Self, m.Partition, t.Copies())
	if !r.owner || m.Op == OpForward && !r.coordinates {
		return fenceForeign, nil, false
	}
	// A peer's arithmetic is not trusted: data under a partition or token that
	// are not the key's would never be found again.
	if m.Op != OpForward && m.Op != OpScan {
		if len(m.Key) == 0 || len(m.Key) > MaxKeySize || ring.KeyToken(t.Number, m.Key) != m.Token {
			return fenceForeign, nil, false
		}
	}
	if s.Layout.PartitionOf(m.Token) != m.Partition {
		return fenceForeign, nil, false
	}
	return fenceServe, t, r.gains
}

// address is that of the message's key, which is one of t's.
func (m *Message) address(t *schema.Tenant) Address {
	return Address{
		Partition: m.Partition, Tenant: m.Tenant, Token: m.Token, Key: m.Key, Class: t.Class(), LWW: t.Policy == schema.PolicyLWW,
		PV: m.PV,
	}
}

// merge joins the objects of one frame into the replica.
func (f *frame) merge(items []MergeItem, indices []int) {
	if len(items) == 0 {
		return
	}
	f.c.hold(len(items))
	disk := f.c.health.sent(f.c.health.table.Disk(), peerhealth.Write)
	f.c.opts.Replica.Merge(items, func(k int, uncovered []byte, err error) {
		if k == 0 { // they share a sync
			f.c.health.heardDisk(disk, err)
		}
		f.answer(indices[k], Reply{Status: StatusOK, Body: uncovered}, err)
		f.c.leave()
	})
}

// one serves a message other than a merge or a forward.
func (f *frame) one(i int, t *schema.Tenant) {
	c, m := f.c, &f.msgs[i]
	switch m.Op {
	case OpRead:
		c.hold(1)
		c.opts.Replica.Read(m.address(t), func(object []byte, err error) {
			f.answer(i, Reply{Status: StatusOK, Body: object}, c.unmoved(m.Partition, m.Tenant, m.PV, err))
			c.leave()
		})
	case OpDigest:
		c.hold(1)
		c.opts.Replica.ReadDigest(m.address(t), func(digest [16]byte, err error) {
			f.answer(i, Reply{Status: StatusOK, Digest: digest}, c.unmoved(m.Partition, m.Tenant, m.PV, err))
			c.leave()
		})
	case OpLookup:
		f.lookup(i, t)
	case OpClaim:
		f.claim(i, t)
	case OpScan:
		f.scan(i, t)
	case OpRepair:
		f.repair(i)
	default:
		f.unknown(i)
	}
}

// errDeleted is what is answered for a tenant that has been deleted. There is nothing
// that the sender could do about it but to tell.
func errDeleted() *Error {
	return &Error{Code: errcode.TenantNotFound, Outcome: errcode.NotApplied, Message: "the tenant has been deleted"}
}

func (f *frame) unknown(i int) {
	f.fail(i, &Error{
		Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
		Message: fmt.Sprintf("peer operation %d is not known here", f.msgs[i].Op),
	})
}

func (f *frame) answer(i int, r Reply, err error) {
	switch {
	case errors.Is(err, ErrMoved) && f.c.opts.View().Deleted(f.msgs[i].Tenant):
		f.fail(i, errDeleted())
	case errors.Is(err, ErrMoved): // since it passed the fence
		f.reply(i, Reply{Status: StatusStale, Version: f.c.opts.View().Version})
	case err != nil:
		f.fail(i, asError(err))
	default:
		f.reply(i, r)
	}
}

func (f *frame) fail(i int, e *Error) {
	if e.Code == errcode.Internal && e.Err != nil {
		f.c.opts.Logger.Warn("serve peer", "peer", f.from.Short(), "op", f.msgs[i].Op, "err", e.Err)
	}
	f.reply(i, Reply{Status: StatusError, Body: EncodeError(e)})
}

// moved refuses an operation that this node does not coordinate, or not any more:
// then the sender has to learn the newer ring.
func (f *frame) moved(i int) {
	m, s := &f.msgs[i], f.c.opts.View()
	t, ok := s.TenantByNumber(m.Tenant)
	if !ok && s.Deleted(m.Tenant) {
		f.fail(i, errDeleted())
		return
	}
	if s.Layout.PV(m.Partition) > m.PV || !ok || t.Version > m.TenantVersion {
		f.reply(i, Reply{Status: StatusStale, Version: s.Version})
		return
	}
	f.reply(i, Reply{Status: StatusNotOwner})
}

// coordinate runs a client operation that a peer handed over, and sends with
// the others of b, if there is one.
func (f *frame) coordinate(i int, t *schema.Tenant, b *bundle) {
	c, m := f.c, &f.msgs[i]
	r, err := decodeRequest(m.Body)
	if err != nil {
		f.fail(i, &Error{Code: errcode.InvalidArgument, Outcome: errcode.NotApplied, Message: "the forwarded request does not decode"})
		return
	}
	r.tenant, r.deadline = t.Name, m.Deadline
	now := c.opts.Clock.Now()
	j := &job{request: r, c: c, bundle: b, forwarded: true, number: t.Number, began: now}
	j.deadline = c.operationDeadline(now, &j.request)
	c.hold(1)
	j.answer = func(res result, e *Error) {
		switch {
		case e != nil && e.Code == errcode.StaleRing && e.Outcome != errcode.Indeterminate:
			f.moved(i)
		case e != nil:
			f.fail(i, e)
		case j.kind == KindGet:
			f.reply(i, Reply{Status: StatusOK, Body: encodeGetResponse(&res.get)})
		default:
			f.reply(i, Reply{Status: StatusOK, Body: encodeWriteResponse(&res.write)})
		}
		c.leave()
	}
	if err := c.validate(&j.request); err != nil {
		j.done(result{}, err)
		return
	}
	j.runAt(now)
}
