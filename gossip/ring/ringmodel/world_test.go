package ringmodel

import (
	"fmt"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// node is one node. What is marked "disk" survives a crash.
type node struct {
	id          int
	actor       uint64 // disk
	up, lost    bool   // lost: its disk is gone for good
	asleepUntil int    // it stands still
	skew        int    // of its clock, in steps

	known     int                  // the log up to here
	durable   int                  // disk
	seq       [partitions]uint64   // disk: the last dot drawn
	data      [units]causal.Object // disk
	holds     [units]bool          // disk: there is data of the unit
	changes   [units]int           // how often it changed
	changedAt [units]ring.Version  // disk: under which version of the partition
	spans     spans                // disk
	forgot    [tenants]bool        // which deleted tenants it has dropped since it started
	gains     [units]gain          // disk
	report    ring.Report          // disk; Acked is durable
	hints     []*hint              // disk
	vote      ring.Register        // what it says
	voted     ring.Register        // disk
	entries   map[string]bool      // without entryBytes: which it holds
	kept      map[string]bool      // disk: of these
	heard     map[ring.NodeID]ring.Register
	reports   [maxIDs]ring.Report // of all, as it has heard

	proposer *ring.Proposer
	value    []byte // what it wants chosen
	rounds   uint64 // the highest ballot round used or seen
	tries    int
	pushes   [units]push
	condemn  [units]bool // without recheckDrop: to be dropped
	round    round
}

// gain is how far a node is with a unit that a change gives it.
type gain struct {
	change   ring.Version // ProposedAt of the change
	told     mask         // who has told it what was confirmed
	got      mask         // who has told it all that it holds
	finished bool
}

type hint struct {
	target, u int
	object    causal.Object
}

// push is a unit on its way from somebody who does not own it.
type push struct {
	active  bool
	pv      ring.Version
	changes int
	acks    mask
}

// world is one schedule.
type world struct {
	chance
	off   ruleSet
	prof  *profile
	step  int
	nodes []*node
	rf    int // of the second tenant, when it is made first
	// shortcuts says that reads are confirmed only where they have to be.
	shortcuts bool

	// The log: all know it up to base from the beginning. The second tenant may be made
	// later, others beside it, and they may be deleted and made again.
	base           int
	lateTenant     bool
	moreTenants    bool
	deletesTenants bool
	views          []*view // by version
	chosen         [][]byte
	opIDs          int
	had            map[string]int            // where was kept what the deleted tenant of a name had
	slots          map[ring.TenantNumber]int // without freshNumbers: where that of others is kept

	msgs     []*message
	ops      []*operation
	keys     [units]key
	cut      [maxIDs]mask // cut[a] has b: what a sends to b is lost
	cutUntil int
	actors   int
	opCount  int
	roundIDs int
	healing  bool
	forced   mask // retired, or lost

	found []string // classes of violations
	count map[string]int
	log   func(string)
}

// fail notes a violation.
func (w *world) fail(class, format string, args ...any) {
	for _, c := range w.found {
		if c == class {
			return
		}
	}
	w.found = append(w.found, class)
	w.trace("*** %s: %s", class, fmt.Sprintf(format, args...))
}

func (w *world) trace(format string, args ...any) {
	if w.log != nil {
		w.log(fmt.Sprintf("%5d ", w.step) + fmt.Sprintf(format, args...))
	}
}

func newWorld(c chance, off ruleSet, p *profile) *world {
	w := &world{chance: c, off: off, prof: p, count: map[string]int{}, slots: map[ring.TenantNumber]int{}, had: map[string]int{}}
	for range p.minNodes + w.n(p.maxNodes-p.minNodes+1) {
		w.addNode()
	}
	for u := range w.keys {
		w.keys[u].dots = map[causal.Dot]int{}
	}
	first := plan{}
	for i := range min(len(w.nodes), p.minStart+w.n(p.maxStart-p.minStart+1)) {
		first.nodes |= bit(i)
	}
	w.shortcuts = w.n(2) == 0
	w.lateTenant = w.n(4) == 0
	w.moreTenants, w.deletesTenants = w.n(3) == 0, w.n(4) == 0
	w.rf = 3
	if p.factors && w.n(3) > 0 {
		w.rf = 1 + w.n(ring.MaxRF)
	}
	for i := range first.rows {
		row := first.nodes.list()
		w.shuffle(row)
		first.rows[i] = row[:min(ring.MaxRF, len(row))]
	}
	first.voters = w.pickVoters(first.nodes, 0)
	w.foundCluster(first)
	return w
}

func (w *world) addNode() *node {
	n := &node{id: len(w.nodes), up: true, heard: map[ring.NodeID]ring.Register{}, entries: map[string]bool{}, kept: map[string]bool{}}
	n.known, n.durable = w.base, w.base
	if w.prof.skew > 0 {
		n.skew = w.n(2*w.prof.skew+1) - w.prof.skew
	}
	w.newActor(n)
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) newActor(n *node) {
	w.actors++
	n.actor = uint64(w.actors)
}

func (w *world) alive(i int) bool {
	n := w.nodes[i]
	return n.up && n.asleepUntil <= w.step
}

func (w *world) allAlive() (m mask) {
	for i := range w.nodes {
		if w.alive(i) {
			m |= bit(i)
		}
	}
	return m
}

func (w *world) lostDisks() (m mask) {
	for _, n := range w.nodes {
		if n.lost {
			m |= bit(n.id)
		}
	}
	return m
}

// someone is a node that runs, nil if there is none.
func (w *world) someone() *node {
	if i := w.pick(w.allAlive()); i >= 0 {
		return w.nodes[i]
	}
	return nil
}

func (w *world) linked(a, b int) bool { return a == b || !w.cut[a].has(b) }

// view is what a node's log says, serving what it serves by.
func (w *world) view(n *node) *view { return w.views[n.known] }

func (w *world) serving(n *node) *view {
	if !w.in(durableAck) {
		return w.views[n.known]
	}
	return w.views[n.durable]
}

// set stores what n holds of u.
func (w *world) set(n *node, u int, o causal.Object) {
	n.data[u], n.holds[u] = o, true
	n.changes[u]++
	n.changedAt[u] = w.serving(n).at[u].pv
}
