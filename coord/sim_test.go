package coord_test

import (
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// world is a cluster in one goroutine under virtual time. All that happens is
// an event; equal times run in the order in which they were planned. Every
// event of note goes into the trace, so that a run can be compared with itself.
type world struct {
	now    time.Duration
	seq    int
	events eventHeap
	seed   uint64
	rngs   map[string]*rand.Rand
	trace  hash.Hash64
	line   []byte // what note writes, to be used again
	log    func(line string)
	// stops are the pauses of nodes so far, by when they began.
	stops []stop

	// layout is that of the beginning, and chosen the log that changes it, nil if it
	// stays.
	layout  *ring.Layout
	chosen  *simLog
	tenants []*schema.Tenant
	// gone are tenants that were deleted, by mayflyName.
	gone  map[string]*schema.Tenant
	nodes []*simNode
	net   network
	// rings holds what snapshots by version look like, for tests that move it.
	version ring.Version
	stats   coord.Metrics
	counts  map[string]int
	// actors are the names of the starts that drew them.
	actors map[uint64]string
	// confirmed is what rounds have confirmed, which begin each roundEach;
	// writeTimeout is 0 for the default.
	confirmed    *ledger
	writeTimeout time.Duration
	roundEach    time.Duration
	planted      planted
}

// maxEvents bounds a run: it is far more than any needs.
const maxEvents = 20e6

type event struct {
	at  time.Duration
	seq int
	run func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// simNode is one process and its disk.
type simNode struct {
	w     *world
	i     int
	id    ring.NodeID
	name  string
	skew  time.Duration
	up    bool
	start int // how often it was started
	// view is what the node believes; believed overrides liveness.
	view     *schema.Snapshot
	believed map[int]schema.Liveness
	disk     disk
	coord    *coord.Coordinator
	known    ring.Version
	// stopped is until when the process does not run, and syncing how long each of
	// its syncs takes beside what it always does.
	stopped, syncing time.Duration
	// mender is nil where there are no rounds, mends says that there are.
	mender *mender
	mends  bool
	// member is what it has to do with the log, nil where there is none.
	member *simMember
	// dropping are the deleted tenants that this start drops, or has dropped.
	dropping map[ring.TenantNumber]bool
	// changed are the states of peers that it reported, by what they changed to.
	changed map[peerhealth.State]int
}

// disk is a node's storage across restarts.
type disk interface {
	// open returns the replica of a new start, and the actor that mints there.
	open(n *simNode) (coord.Replica, uint64)
	// crash loses what was not synced, and what else the harm says.
	crash(rng *rand.Rand, h harm)
	// object is what the node holds now, and record what it remembers of an
	// idempotency key, nil if nothing.
	object(at coord.Address) causal.Object
	record(at coord.Address, id []byte) *causal.Record
	// failSyncs makes every sync from now on fail.
	failSyncs()
}

const (
	simPartitions = 16
	simTenant     = "acme"
	// simKeeper is a tenant that keeps siblings.
	simKeeper = "manyvalues"
	// simFuture has a policy that does not exist yet.
	simFuture = "future"
)

// simEpoch is when virtual time begins.
var simEpoch = time.UnixMilli(1_700_000_000_000)

func nodeName(i int) string { return string(rune('a' + i)) }

func newWorld(seed uint64, nodes, rf int, newDisk func(*simNode) disk) *world {
	w := makeWorld(seed, nodes, rf, newDisk)
	for _, n := range w.nodes {
		n.boot()
	}
	return w
}

// makeWorld makes a world in which no process has been started.
func makeWorld(seed uint64, nodes, rf int, newDisk func(*simNode) disk) *world {
	w := &world{
		seed: seed, rngs: map[string]*rand.Rand{}, trace: fnv.New64a(),
		net: network{delay: time.Millisecond, cut: map[[2]int]bool{}, slow: map[int]time.Duration{}}, version: 2,
		counts: map[string]int{}, actors: map[uint64]string{}, confirmed: newLedger(), roundEach: simRoundEach,
	}
	var members []ring.LayoutNode
	for i := range nodes {
		members = append(members, ring.LayoutNode{ID: ring.NodeID{byte(i + 1)}, Name: nodeName(i), Zone: "z" + nodeName(i), Capacity: 1})
	}
	l, err := ring.NewLayout(simPartitions, members)
	if err != nil {
		panic(err)
	}
	w.layout = l
	w.tenants = []*schema.Tenant{
		{Number: 7, Name: simTenant, RF: rf, Policy: schema.PolicyLWW, Version: 2},
		{Number: 8, Name: simKeeper, RF: rf, Policy: schema.PolicySiblings, Version: 2},
		{Number: 6, Name: simFuture, RF: rf, Policy: 3, Version: 2},
	}
	count := func(name string) func() { return func() { w.counts[name]++ } }
	w.stats = coord.Metrics{
		QuorumFailure: count("quorum failures"), Conflict: count("conflicts"), ReadRepair: count("read repairs"),
		Remint: count("remints"), Forward: count("forwards"), StaleBounce: count("stale bounces"),
		Duplicate:    count("duplicates"),
		ManySiblings: count("many siblings"),
		Hedge:        count("hedges"), HedgeWon: count("hedges won"), HedgeRefused: count("hedges refused"),
		ForwardRetry: count("forwards retried"), ForwardRefused: count("forwards refused"),
		PeerState: func(to peerhealth.State) { w.counts["breakers "+to.String()]++ },
	}
	for i := range nodes {
		n := &simNode{w: w, i: i, id: members[i].ID, name: nodeName(i), believed: map[int]schema.Liveness{}, changed: map[peerhealth.State]int{}}
		n.known = w.version
		n.disk = newDisk(n)
		w.nodes = append(w.nodes, n)
	}
	return w
}

// rand is the random stream of one purpose: a key, with its clients and its
// messages, or a node. Each has its own, so that a run from which something is
// left out stays like the whole one where it can.
func (w *world) rand(of string) *rand.Rand {
	r := w.rngs[of]
	if r == nil {
		r = rand.New(rand.NewPCG(w.seed, nameHash(of)))
		w.rngs[of] = r
	}
	return r
}

func nameHash(name string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, name) // a hash takes everything
	return h.Sum64()
}

func (w *world) note(format string, args ...any) {
	w.line = fmt.Appendf(append(w.line[:0], w.now.String()...), " "+format, args...)
	w.trace.Write(w.line)
	if w.log != nil {
		w.log(string(w.line))
	}
}

// after plans run.
func (w *world) after(d time.Duration, run func()) {
	if w.seq++; w.seq > maxEvents {
		panic("a simulation that does not end")
	}
	heap.Push(&w.events, event{w.now + max(d, 0), w.seq, run})
}

// step runs the next event that is not later than until.
func (w *world) step(until time.Duration) bool {
	if len(w.events) == 0 || w.events[0].at > until {
		return false
	}
	e := heap.Pop(&w.events).(event)
	w.now = e.at
	e.run()
	return true
}

func (w *world) advance(d time.Duration) {
	until := w.now + d
	for w.step(until) {
	}
	w.now = until
}

// boot starts the node's process.
func (n *simNode) boot() {
	n.start++
	n.up = true
	n.recall()
	n.look()
	replica, actor := n.disk.open(n)
	n.w.actors[actor] = n.name + strconv.Itoa(n.start)
	opts := coord.Options{
		Self: n.id, View: func() *schema.Snapshot { return n.view },
		Replica: replica, Transport: n, Clock: n,
		CatchUp: n.catchUp, Horizon: n.horizon(), Metrics: n.w.stats, Repair: n.serveRepair, WriteTimeout: n.w.writeTimeout,
		PeerChanged: func(id ring.NodeID, from, to peerhealth.State, why string) {
			n.changed[to]++
			n.w.note("%s takes %s for %v, was %v: %s", n.name, nodeName(int(id[0])-1), to, from, why)
		},
		Refresh: func(_ string, done func(informed bool)) {
			n.w.counts["refreshes"]++
			n.later(n.w.net.delay, func() {
				if n.member == nil {
					n.known = n.w.version
				}
				n.look()
				done(true)
			})
		},
	}
	c, err := coord.New(opts)
	if err != nil {
		panic(err)
	}
	n.coord = c
	if n.mends {
		n.mend()
	}
	n.takePart()
	n.w.note("boot %s with actor %x", n.name, actor)
}

// look builds the node's snapshot.
func (n *simNode) look() {
	if n.member != nil {
		n.view = n.member.look(n)
		return
	}
	s := schema.Snapshot{
		ClusterID: ring.ClusterID{9}, Self: n.id, Version: n.known, Layout: n.w.layout, Ready: true,
		TokenKeys: []schema.TokenKey{{ID: 2, Key: [32]byte{2}}, {ID: 1, Key: [32]byte{1}}},
	}
	for _, m := range n.w.nodes {
		l, ok := n.believed[m.i]
		if !ok {
			l = schema.Alive
		}
		s.Members = append(s.Members, schema.Member{ID: m.id, Name: m.name, Liveness: l})
	}
	var ts []*schema.Tenant
	for _, t := range n.w.tenants {
		if t.Version <= n.known {
			ts = append(ts, t)
		}
	}
	n.view = schema.Build(s, ts)
}

// catchUp learns the newest ring.
func (n *simNode) catchUp(from ring.NodeID, atLeast ring.Version, done func(error)) {
	if n.member != nil {
		n.learnFrom(from, atLeast, done)
		return
	}
	n.later(n.w.net.delay, func() {
		n.known = max(n.known, min(atLeast, n.w.version))
		n.look()
		n.w.note("%s caught up to %v", n.name, n.known)
		done(nil)
	})
}

// crash ends the process; random is what its disk loses.
func (n *simNode) crash(random *rand.Rand, h harm) {
	n.w.note("crash %s, disk %s", n.name, h)
	n.up = false
	n.coord = nil
	if n.mender != nil {
		n.mender.end()
		n.mender = nil
	}
	n.disk.crash(random, h)
}

// later plans an event of this process; it does not survive a crash.
func (n *simNode) later(d time.Duration, run func()) {
	start := n.start
	n.w.after(d, func() {
		switch {
		case !n.up || n.start != start:
		case n.paused():
			n.later(n.stopped-n.w.now, run)
		default:
			run()
		}
	})
}

// paused reports whether the process is stopped. What would have happened in it
// happens when it goes on, in order.
func (n *simNode) paused() bool { return n.stopped > n.w.now }

// Now implements coord.Clock.
func (n *simNode) Now() time.Time {
	return simEpoch.Add(n.w.now + n.skew)
}

// AfterFunc implements coord.Clock.
func (n *simNode) AfterFunc(d time.Duration, f func()) func() bool {
	done := false
	n.later(d, func() {
		if !done {
			done = true
			f()
		}
	})
	return func() bool {
		was := !done
		done = true
		return was
	}
}

// Go implements coord.Scheduler. Jobs take as long as a sync.
func (n *simNode) Go(_ string, f func()) {
	n.later(n.w.jitter(n.w.rand(n.name), time.Millisecond)+n.syncing, f)
}

// address is where a key of the first tenant lives.
func (w *world) address(key string) coord.Address { return w.addressIn(simTenant, key) }

// tenant finds a tenant.
func (w *world) tenant(name string) *schema.Tenant {
	for _, t := range w.tenants {
		if t.Name == name || strings.HasPrefix(name, simMayfly) && name == mayflyName(t.Number) {
			return t
		}
	}
	if t := w.gone[name]; t != nil {
		return t
	}
	panic("there is no tenant " + name)
}

// lww says whether the last writer wins in a tenant.
func (w *world) lww(tenant string) bool { return w.tenant(tenant).Policy == schema.PolicyLWW }

// ownersOf are the owners of a partition now, as far as all has been decided.
func (w *world) ownersOf(p ring.Partition, rf int) []ring.NodeID {
	if w.chosen != nil {
		return w.chosen.last().Layout().Owners(nil, p, rf)
	}
	return w.layout.Owners(nil, p, rf)
}

// addressIn is where a key of a tenant lives.
func (w *world) addressIn(tenant, key string) coord.Address {
	t := w.tenant(tenant)
	token := ring.KeyToken(t.Number, []byte(key))
	return coord.Address{Partition: w.layout.PartitionOf(token), Tenant: t.Number, Token: token, Key: []byte(key), Class: t.Class(), LWW: t.Policy == schema.PolicyLWW}
}

func (w *world) node(name string) *simNode { return w.nodes[name[0]-'a'] }

// dotString names a dot by the node and the start that minted it.
func (w *world) dotString(d causal.Dot) string {
	name, ok := w.actors[d.Actor]
	if !ok {
		name = fmt.Sprintf("%x", d.Actor)
	}
	return fmt.Sprintf("%s.%d", name, d.Counter)
}

func (w *world) objectString(o causal.Object) string {
	if o.IsZero() {
		return "nothing"
	}
	var parts []string
	for i := range o.Siblings {
		s := &o.Siblings[i]
		v := fmt.Sprintf("%q", s.Value)
		switch {
		case s.Tombstone():
			v = "deleted"
		case s.Flags&causal.FlagStripped != 0:
			v = "lost"
		}
		if at, ok := s.Expiry(); ok {
			v += fmt.Sprintf(" until %v", at.Sub(simEpoch))
		}
		parts = append(parts, w.dotString(s.Dot)+"="+v)
	}
	var seen []string
	for _, d := range o.Context {
		seen = append(seen, w.dotString(d))
	}
	return strings.Join(parts, " ") + " seen{" + strings.Join(seen, " ") + "}"
}
