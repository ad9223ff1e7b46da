package coord_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// simLog is the log of a simulated cluster, as if its voters always agreed at once: one
// sequence of entries, each chosen by a node that knew all before it. Nodes hear of
// entries and of each other's reports by gossip, each at its own time.
type simLog struct {
	w *world
	// states are what the log says, by version; the first stands before it.
	states []*ring.State
	ops    uint64
	// leaves and weights are what operators want and no change has taken up yet,
	// reorder that rows are to be put into another order, and aborts how many changes
	// are to be given up.
	leaves  []ring.NodeID
	weights map[ring.NodeID]uint32
	reorder bool
	aborts  int
	// factors are replication factors that operators want, in the order in which they
	// asked, and turns are when the tenant that comes and goes is to do so, with the
	// replication factor that it is to have if it comes.
	factors []ring.Factor
	turns   []uint8
	// planned says that operators note intents, from which changes are planned as a real
	// node plans them; else nodes are taken in and out as it comes, also where a node
	// would refuse it.
	planned bool
	// told says that nodes learn what a test tells them, and that it carries changes on.
	told bool
}

// simMember is what a node has to do with the log.
type simMember struct {
	// durable is how much of the log is on its disk, and target how much will be.
	durable, target ring.Version
	// own is what it reports of itself, on its disk, and heard what it knows of the
	// others, by their number.
	own   ring.Report
	heard []ring.Report
	// deaf is until when gossip does not reach it.
	deaf time.Duration
	// gone says that it will never run again, and lost that its disk is gone, too.
	gone, lost bool
}

// planted are mistakes that tests make on purpose.
type planted struct {
	// syncEarly: nobody waits for the gains before the COMMIT.
	syncEarly bool
	// noPush: what a node holds that it does not own is dropped, and not pushed.
	noPush bool
	// noCleanGate: all are taken for clean.
	noCleanGate bool
	// unminded: old owners do not mind that a change has been proposed.
	unminded bool
	// noShrinkSync: owners that stay are not waited for, though there will be fewer.
	noShrinkSync bool
	// oneSource: what is gained is fetched from the first of the old owners alone, of
	// tenants with a class for themselves.
	oneSource bool
	// classLost: of a tenant that has a class for itself nothing is known to be confirmed.
	classLost bool
	// classShared: what is confirmed of the class that a tenant was born in goes on to
	// hold for it, too, when it has left that.
	classShared bool
}

// never says that the node's process will not run again, or has not been started yet.
func (n *simNode) never() bool { return n.member != nil && (n.member.gone || n.start == 0) }

// shuns says that the node takes nothing from another, since that is no member any more.
func (n *simNode) shuns(from *simNode) bool {
	return n.member != nil && n.state().IsRetired(from.id)
}

// state is what the log says as far as the node knows it.
func (n *simNode) state() *ring.State { return n.w.chosen.states[n.known] }

func (l *simLog) last() *ring.State { return l.states[len(l.states)-1] }

// choose appends an entry that a node proposes.
func (l *simLog) choose(n *simNode, e *ring.Entry) {
	l.ops++
	e.Version = l.last().Version() + 1
	binary.BigEndian.PutUint64(e.Op[8:], l.ops)
	s, err := l.last().Next(e)
	if err != nil {
		panic(err)
	}
	if c := l.last().Change(); e.Kind == ring.KindFinalize && c != nil {
		l.w.counts["factors changed"] += len(c.Factors)
	}
	l.states = append(l.states, s)
	if e.Kind == ring.KindTenantDelete {
		for _, t := range l.w.tenants {
			if t.Number == e.Delete.Number {
				l.w.gone[mayflyName(t.Number)] = t
			}
		}
	}
	l.w.tenants = tenantsOf(s)
	for _, t := range l.w.tenants {
		if t.Class() != t.Class().Born() {
			l.w.confirmed.left(s.Layout().Partitions(), t.Class())
		}
	}
	l.w.note("entry %d: %v", e.Version, e.Kind)
	l.w.counts["entries "+e.Kind.String()]++
	if n != nil {
		n.learn(e.Version)
	}
}

// recall is what a new start knows.
func (n *simNode) recall() {
	if m := n.member; m != nil {
		n.known, m.target, m.heard = m.durable, m.durable, make([]ring.Report, len(n.w.nodes))
	}
}

// takePart makes a new start gossip, and carry changes on.
func (n *simNode) takePart() {
	if n.member == nil {
		return
	}
	n.dropping = map[ring.TenantNumber]bool{}
	n.forget()
	n.acknowledge(n.known)
	n.gossip()
	n.ask()
	n.drive()
}

// look is what the node believes.
func (m *simMember) look(n *simNode) *schema.Snapshot {
	state := n.state()
	s := schema.Snapshot{
		ClusterID: ring.ClusterID{9}, Self: n.id, Version: n.known, Layout: state.Layout(), Change: state.Change(), Ring: state, Ready: n.known > 0,
		TokenKeys: []schema.TokenKey{{ID: 2, Key: [32]byte{2}}, {ID: 1, Key: [32]byte{1}}},
	}
	if s.Layout != nil && n.w.planted.unminded && s.Change != nil && s.Change.Stage == ring.Proposed && s.Layout.IsOwner(n.id, 0, 1) {
		s.Change = nil
	}
	for _, p := range n.w.nodes {
		if p.start == 0 {
			continue
		}
		l, ok := n.believed[p.i]
		switch {
		case p.member.gone:
			l = schema.Dead
		case !ok:
			l = schema.Alive
		}
		r := n.report(p.id)
		if n.w.planted.noCleanGate {
			r.Clean = 1 << 62
		}
		s.Members = append(s.Members, schema.Member{
			ID: p.id, Name: p.name, Liveness: l, AckedVersion: r.Acked, SyncedVersion: r.Synced, CleanVersion: r.Clean,
		})
	}
	return schema.Build(s, tenantsOf(state))
}

// tenantsOf are the tenants that the log knows.
func tenantsOf(s *ring.State) (all []*schema.Tenant) {
	for _, t := range s.Tenants() {
		all = append(all, meta.TenantOf(t, s.Change()))
	}
	return all
}

// copies says how many copies the tenants of a class want by now, none if there are none
// that had it for themselves.
func (l *simLog) copies(c ring.Class) ring.Copies {
	for _, t := range l.last().Tenants() {
		if t.Class() == c {
			return l.last().Copies(t)
		}
	}
	if _, own := c.Own(); own {
		return ring.Copies{}
	}
	return ring.Same(int(c))
}

// report is what the node knows of another's reports.
func (n *simNode) report(id ring.NodeID) ring.Report {
	if id == n.id {
		return n.member.own
	}
	return n.member.heard[id[0]-1]
}

// learn makes entries up to v durable, and then puts them in force.
func (n *simNode) learn(v ring.Version) {
	m := n.member
	if v <= m.target {
		return
	}
	m.target = v
	n.Go("log", func() {
		if v <= m.durable {
			return
		}
		m.durable = v
		n.install(v)
		n.acknowledge(v)
	})
}

// install puts entries in force: what is begun from now on is begun under them, and
// what was under way at a key has passed its lock.
func (n *simNode) install(v ring.Version) {
	if v <= n.known {
		return
	}
	n.known = v
	n.look()
	n.w.note("%s knows the log up to %v", n.name, v)
	for _, t := range n.view.Tenants() {
		if t.Class() != t.Class().Born() {
			n.w.confirmed.leftHere(n, t.Class())
		}
	}
	n.forget()
	n.barrier()
	if n.w.planted.noPush {
		n.dropForeign()
	}
	if n.state().IsRetired(n.id) {
		n.retire()
	}
}

// acknowledge says, once it is on disk, that everything is done under v.
func (n *simNode) acknowledge(v ring.Version) {
	n.Go("acked", func() {
		n.member.own.Acked = max(n.member.own.Acked, v)
		n.look()
	})
}

// horizon says whether the node knows what the old owners of a partition have confirmed
// that it gains; nil if it always does.
func (n *simNode) horizon() func(ring.Partition, func()) bool {
	if n.member == nil {
		return nil
	}
	return func(p ring.Partition, then func()) bool { return n.mender.manager.Horizon(p, then) }
}

// synced notes that the node has fetched what it gains by a change.
func (n *simNode) synced(v ring.Version) error {
	n.w.note("%s has what it gains by %v", n.name, v)
	if v > n.member.own.Acked {
		n.w.confirmed.fail("%v: %s is synced for %v, and does not know of it", n.w.now, n.name, v)
	}
	n.member.own.Synced = max(n.member.own.Synced, v)
	n.look()
	return nil
}

// cleaned notes that the node held nothing under v of what it did not own.
func (n *simNode) cleaned(v ring.Version) error {
	if n.member == nil {
		return nil // the others have no log
	}
	n.w.note("%s is clean as of %v", n.name, v)
	s := n.state()
	n.foreign(func(p ring.Partition, c ring.Copies) bool {
		return slices.Contains(ring.SetsOf(s.Layout(), s.Change(), nil, p, c).Owners, n.id)
	}, "says that it is clean")
	n.member.own.Clean = max(n.member.own.Clean, v)
	n.look()
	return nil
}

// retire ends the process for good, once it is no member any more.
func (n *simNode) retire() {
	n.later(0, func() {
		n.w.counts["retired"]++
		n.foreign(func(ring.Partition, ring.Copies) bool { return false }, "is retired")
		n.member.gone = true
		n.crash(n.w.rand(n.name), keepDisk)
	})
}

// dropForeign drops what the node does not own, whoever else has it.
func (n *simNode) dropForeign() {
	rep := n.disk.(*storeDisk).rep
	spans, err := rep.Foreign(func(s repair.Span) bool {
		return slices.Contains(n.view.Sets(nil, s.Partition, n.view.Copies(s.Class)).Owners, n.id)
	})
	for _, span := range spans {
		err = errors.Join(err, rep.Drop(span, func() bool { return true }))
	}
	if err != nil {
		panic(err)
	}
}

// foreign fails if the node holds data of spans that it does not own.
func (n *simNode) foreign(owns func(ring.Partition, ring.Copies) bool, why string) {
	d := n.disk.(*storeDisk)
	for p := range n.w.layout.Partitions() {
		for key := range d.objects(ring.Partition(p)) { //seams:ordered it only fails
			if t, ok := n.view.TenantByNumber(keyTenant(key)); ok && !owns(ring.Partition(p), t.Copies()) {
				n.w.confirmed.fail("%v: %s %s, and holds %s of partition %d", n.w.now, n.name, why, key, p)
			}
		}
	}
}

// peers are the other nodes that have been started and not gone for good.
func (n *simNode) peers() (all []*simNode) {
	for _, p := range n.w.nodes {
		if p != n && !p.never() {
			all = append(all, p)
		}
	}
	return all
}

func (n *simNode) gossip() {
	rng := n.w.rand(n.name + " gossip")
	n.later(time.Duration(50+rng.IntN(400))*time.Millisecond, func() {
		if peers := n.peers(); len(peers) > 0 {
			n.tell(peers[rng.IntN(len(peers))], true)
		}
		n.gossip()
	})
}

// tell tells a peer what the node knows, and is told what that knows.
func (n *simNode) tell(p *simNode, answer bool) {
	m := n.member
	if m.deaf > n.w.now {
		return
	}
	reports := slices.Clone(m.heard)
	reports[n.i] = m.own
	v := m.durable
	if n.w.chosen.told {
		v = 0
	}
	n.w.travel(n.w.rand(n.name+" gossip"), n, p, func() {
		p.hear(v, reports)
		if answer {
			p.tell(n, false)
		}
	})
}

func (n *simNode) hear(v ring.Version, reports []ring.Report) {
	m := n.member
	if m.deaf > n.w.now {
		return
	}
	for i, r := range reports {
		if i == n.i {
			if own := m.own; r.Acked > own.Acked || r.Synced > own.Synced || r.Clean > own.Clean {
				n.w.confirmed.fail("%v: %s reports %+v, and had reported %+v", n.w.now, n.name, own, r)
			}
			continue
		}
		h := &m.heard[i]
		h.Acked, h.Synced, h.Clean = max(h.Acked, r.Acked), max(h.Synced, r.Synced), max(h.Clean, r.Clean)
	}
	n.learn(v)
	n.look()
}

// ask learns the log from the voters, now and then, as one does that nobody gossips with.
func (n *simNode) ask() {
	rng := n.w.rand(n.name + " gossip")
	n.later(time.Duration(3000+rng.IntN(5000))*time.Millisecond, func() {
		if n.member.deaf <= n.w.now && !n.w.chosen.told {
			n.learn(n.w.chosen.last().Version())
		}
		n.ask()
	})
}

var errSimBehind = errors.New("nothing newer is known there")

// learnFrom learns what a peer has of the log.
func (n *simNode) learnFrom(from ring.NodeID, atLeast ring.Version, done func(error)) {
	w, p, answered := n.w, n.w.nodes[from[0]-1], false
	rng := w.rand(n.name + " gossip")
	finish := func(err error) {
		if !answered {
			answered = true
			done(err)
		}
	}
	n.later(time.Second, func() { finish(errSimBehind) })
	w.travel(rng, n, p, func() {
		v := p.member.durable
		w.travel(rng, p, n, func() {
			n.learn(v)
			n.awaitKnown(atLeast, time.Second, finish)
		})
	})
}

func (n *simNode) awaitKnown(v ring.Version, patience time.Duration, done func(error)) {
	switch {
	case n.known >= v:
		done(nil)
	case patience <= 0:
		done(errSimBehind)
	default:
		n.later(2*time.Millisecond, func() { n.awaitKnown(v, patience-2*time.Millisecond, done) })
	}
}
