package coord_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica"
)

// Rounds of a simulation are as much more frequent than real ones as its writes end
// sooner.
const (
	simRoundEach    = 2 * time.Second
	simWriteTimeout = time.Second
	simSettle       = 1500 * time.Millisecond
)

// mender is what keeps a node's copy equal to the others': the real manager of rounds
// over the real replica. It is all that the manager is given, so that a process that
// has died does nothing more while what it was about is ended.
type mender struct {
	*replica.Store
	n       *simNode
	objects coord.Replica
	manager *repair.Manager
	dead    bool
	// jobs are those that have not begun.
	jobs []*menderJob
}

// menderJob is a job of a manager.
type menderJob struct{ run func() }

var errSimDead = errors.New("the process has died")

// mend begins rounds on a node, and at each of its starts from now on.
func (n *simNode) mend() {
	d := n.disk.(*storeDisk)
	m := &mender{Store: d.rep, n: n, objects: d.rep}
	var err error
	m.manager, err = repair.New(repair.Options{
		Self: n.id, View: n.mendsBy, Replica: m, Objects: m, Transport: m, Clock: n, Scheduler: m,
		Random:   n.w.rand(n.name + " rounds").Float64,
		Interval: n.w.roundEach, Settle: simSettle, Synced: n.synced, Cleaned: n.cleaned,
		Note: func(note repair.Note) { n.w.note("%s: %s %v", n.name, note.Text, note.Details) },
	})
	if err != nil {
		panic(err)
	}
	n.mender = m
	m.manager.Start()
}

// end ends what the manager was about.
func (m *mender) end() {
	st := m.manager.Status()
	for name, n := range map[string]uint64{
		"spans confirmed": st.Confirmed, "spans partial": st.Partial, "spans void": st.Void, "spans failed": st.Failed,
		"rows sent": st.Sent, "rows received": st.Received, "keys damaged": st.Damaged,
	} {
		m.n.w.counts[name] += int(n)
	}
	m.dead = true
	for len(m.jobs) > 0 {
		m.begin(m.jobs[0])
	}
	if err := m.manager.Close(context.Background()); err != nil {
		panic(err)
	}
}

// ownersOf are the owners of a span as the node knows them.
func (n *simNode) ownersOf(s repair.Span) []ring.NodeID {
	return n.view.Layout.Owners(nil, s.Partition, n.view.Copies(s.Class).From)
}

// serveRepair answers a peer.
func (n *simNode) serveRepair(from ring.NodeID, msg *coord.Message, reply func(coord.Reply)) {
	m := n.mender
	if m == nil {
		reply(coord.Reply{Status: coord.StatusOverloaded})
		return
	}
	m.manager.Serve(from, msg, func(r coord.Reply) {
		if !m.dead {
			reply(r)
		}
	})
}

// Go implements coord.Scheduler. What is left to do for a process that has died is done
// at once.
func (m *mender) Go(name string, f func()) {
	if m.dead {
		f()
		return
	}
	j := &menderJob{f}
	m.jobs = append(m.jobs, j)
	m.n.Go(name, func() { m.begin(j) })
}

// begin runs a job, once.
func (m *mender) begin(j *menderJob) {
	if i := slices.Index(m.jobs, j); i >= 0 {
		m.jobs = slices.Delete(m.jobs, i, i+1)
		j.run()
	}
}

// Send implements coord.Transport.
func (m *mender) Send(to ring.NodeID, msg *coord.Message, reply func(coord.Reply, error)) {
	if !m.dead {
		m.n.Send(to, msg, reply)
	}
}

// Read implements repair.Objects.
func (m *mender) Read(at coord.Address, done func([]byte, error)) {
	if !m.dead {
		m.objects.Read(at, done)
	}
}

// Merge implements repair.Objects.
func (m *mender) Merge(items []coord.MergeItem, done func(int, []byte, error)) {
	if !m.dead {
		m.objects.Merge(items, done)
	}
}

// State implements repair.Replica.
func (m *mender) State(s repair.Span) (repair.State, error) {
	if m.dead {
		return repair.State{}, errSimDead
	}
	return m.Store.State(m.mistaken(s))
}

// Adopt implements repair.Replica. What is adopted has to be true.
func (m *mender) Adopt(s repair.Span, c *causal.Confirmed) error {
	if m.dead {
		return errSimDead
	}
	m.n.w.confirmed.isTrue(m.n, s, c)
	m.n.w.confirmed.isOwnersOnly(m.n, s, c)
	err := m.Store.Adopt(m.mistaken(s), c)
	if err == nil {
		m.n.w.confirmed.adopted(m.n, s, c)
	}
	return err
}

// Inherit implements repair.Replica. What is inherited is true of the old owners.
func (m *mender) Inherit(s repair.Span, pv ring.Version, confirmed, released *causal.Confirmed, floor uint64) error {
	if m.dead {
		return errSimDead
	}
	err := m.Store.Inherit(m.mistaken(s), pv, confirmed, released, floor)
	if err == nil {
		m.n.w.confirmed.adopted(m.n, s, confirmed)
		m.n.w.counts["inherited"]++
	}
	return err
}

// Drop implements repair.Replica. What is dropped is not known any more.
func (m *mender) Drop(s repair.Span, still func() bool) error {
	if m.dead {
		return errSimDead
	}
	err := m.Store.Drop(s, still)
	if err == nil {
		m.n.w.confirmed.by[adopter{m.n.i, s}] = causal.Confirmed{}
		m.n.w.counts["dropped"]++
	}
	return err
}

// Scan implements repair.Objects.
func (m *mender) Scan(r *coord.ScanRange, done func(coord.ScanPiece, error)) {
	if !m.dead {
		m.objects.Scan(r, done)
	}
}

// Release implements repair.Replica. What is released has been adopted by all owners.
func (m *mender) Release(s repair.Span, c *causal.Confirmed) error {
	if m.dead {
		return errSimDead
	}
	m.n.w.confirmed.isAdopted(m.n, s, c)
	return m.Store.Release(m.mistaken(s), c)
}

// ledger is what has been confirmed in a simulation.
type ledger struct {
	// by is what each node has adopted, and all what any has, by span.
	by  map[adopter]causal.Confirmed
	all map[repair.Span]causal.Confirmed
	// wrong is what is not as it should be.
	wrong []string
}

type adopter struct {
	node int
	span repair.Span
}

func newLedger() *ledger {
	return &ledger{by: map[adopter]causal.Confirmed{}, all: map[repair.Span]causal.Confirmed{}}
}

func (l *ledger) fail(format string, args ...any) {
	if len(l.wrong) < maxReported {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) adopted(n *simNode, s repair.Span, c *causal.Confirmed) {
	own, all := l.by[adopter{n.i, s}], l.all[s]
	l.by[adopter{n.i, s}], l.all[s] = own.Join(c), all.Join(c)
	n.w.counts["adopted"]++
	if n.member == nil {
		return
	}
	// It is true of those, too, that have left the class and are in it here.
	for _, last := range n.w.tenants {
		if t, ok := n.view.TenantByNumber(last.Number); ok && t.Class() == s.Class && last.Class() != s.Class {
			left := repair.Span{Partition: s.Partition, Class: last.Class()}
			before := l.all[left]
			l.all[left] = before.Join(c)
		}
	}
}

// known is what a node has adopted.
func (l *ledger) known(i int, s repair.Span) causal.Confirmed {
	c, ok := l.by[adopter{i, s}]
	if !ok {
		c = l.by[adopter{i, repair.Span{Partition: s.Partition, Class: s.Class.Born()}}]
	}
	return c
}

// left notes that tenants have left the class that they were born in: what was known of
// that is known of them.
func (l *ledger) left(partitions int, to ring.Class) {
	for p := range partitions {
		s, born := repair.Span{Partition: ring.Partition(p), Class: to}, repair.Span{Partition: ring.Partition(p), Class: to.Born()}
		if _, ok := l.all[s]; !ok {
			l.all[s] = l.all[born]
		}
	}
}

// leftHere is left for what a node knows, now that it knows of that.
func (l *ledger) leftHere(n *simNode, to ring.Class) {
	for p := range n.w.layout.Partitions() {
		s, born := repair.Span{Partition: ring.Partition(p), Class: to}, repair.Span{Partition: ring.Partition(p), Class: to.Born()}
		if _, ok := l.by[adopter{n.i, s}]; !ok {
			l.by[adopter{n.i, s}] = l.by[adopter{n.i, born}]
		}
	}
}

// isTrue checks that every owner that runs, as n knows the owners, has whatever any owner holds that c covers,
// or has seen it go, and that no clock is behind the instant of c if nobody had
// confirmed that before.
func (l *ledger) isTrue(n *simNode, s repair.Span, c *causal.Confirmed) {
	w := n.w
	held := map[int]map[string]causal.Object{}
	written := map[string][]causal.Dot{}
	for _, id := range n.ownersOf(s) {
		if p := w.nodes[id[0]-1]; p.up {
			held[p.i] = p.disk.(*storeDisk).objectsOf(s, n)
		}
	}
	for _, objects := range held {
		for key, o := range objects {
			for i := range o.Siblings {
				if d := o.Siblings[i].Dot; c.Seen.Covers(d) && !slices.Contains(written[key], d) {
					written[key] = append(written[key], d)
				}
			}
		}
	}
	for _, i := range slices.Sorted(maps.Keys(held)) {
		known := l.known(i, s)
		for _, key := range slices.Sorted(maps.Keys(written)) {
			o := held[i][key]
			for _, d := range written[key] {
				if !o.Context.Covers(d) && !known.Seen.Covers(d) {
					l.fail("%v: %s is confirmed in %v, and %s has never had it of %q: it holds %s", w.now, w.dotString(d), s, w.nodes[i].name, key, w.objectString(o))
				}
			}
		}
		if now := w.nodes[i].Now().UnixMilli(); now < c.Expired && c.Expired > l.all[s].Expired {
			l.fail("%v: what expires by %d is confirmed in %v, and %s has %d", w.now, c.Expired, s, w.nodes[i].name, now)
		}
	}
}

// isOwnersOnly checks that nobody but owners holds anything that c covers and that nobody
// had confirmed before: it could come back when they have collected it. What had been
// confirmed whoever has been an owner may still hold, and gainers that were told less are
// told of it before he has cleaned up, by his clean-up itself or by a round.
func (l *ledger) isOwnersOnly(n *simNode, s repair.Span, c *causal.Confirmed) {
	if n.member == nil {
		return
	}
	last := n.w.chosen.last()
	if n.w.chosen.copies(s.Class) == (ring.Copies{}) {
		return // it is of a tenant that has been deleted
	}
	before := l.all[s]
	owners := append(ring.SetsOf(last.Layout(), last.Change(), nil, s.Partition, n.w.chosen.copies(s.Class)).Owners, n.ownersOf(s)...)
	for _, p := range n.w.nodes {
		if !p.up || slices.Contains(owners, p.id) {
			continue
		}
		held := p.disk.(*storeDisk).objectsOf(s, n)
		for _, key := range slices.Sorted(maps.Keys(held)) {
			o := held[key]
			for i := range o.Siblings {
				if d := o.Siblings[i].Dot; c.Seen.Covers(d) && !before.Seen.Covers(d) {
					l.fail("%v: %s is confirmed in %v, and %s, which is no owner, holds it of %q", n.w.now, n.w.dotString(d), s, p.name, key)
				}
			}
		}
	}
}

// isAdopted checks that all owners, as n knows them, have adopted c.
func (l *ledger) isAdopted(n *simNode, s repair.Span, c *causal.Confirmed) {
	w := n.w
	for _, id := range n.ownersOf(s) {
		n := w.nodes[id[0]-1]
		if known := l.known(n.i, s); !c.Within(&known) {
			l.fail("%v: %v is released, and %s has not adopted it", w.now, s, n.name)
		}
	}
}

// spanOf is the span of an address.
func spanOf(at coord.Address) repair.Span {
	return repair.Span{Partition: at.Partition, Class: at.Class}
}

// timedOut is what a client notes that gave up on a write.
func timedOut() error { return &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate} }
