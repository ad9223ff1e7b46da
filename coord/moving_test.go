package coord_test

import (
	"container/heap"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// moving is a cluster whose layout changes when the test says so, at each node by
// itself. All of it runs in the goroutine of the test: a message takes a millisecond,
// and so does a sync.
type moving struct {
	t      *testing.T
	now    time.Time
	seq    int
	events movingEvents
	// log are the states before, at each step of, and after the change.
	log   []*ring.State
	nodes []*movingNode
	// scanned, if set, is called when a replica is asked for a piece of a scan.
	scanned func(n *movingNode, r *coord.ScanRange)
	// heard, if set, is called when an answer gets to who has asked.
	heard func(n *movingNode)
	// deliver, if set, is called for each message before it is served.
	deliver func(from, to *movingNode, m *coord.Message)
}

type movingEvent struct {
	at  time.Time
	seq int
	f   func() // nil once it was stopped
}

// movingEvents is a heap of what is to happen, by time and then as it was planned.
type movingEvents []*movingEvent

func (q movingEvents) Len() int { return len(q) }
func (q movingEvents) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].seq < q[j].seq
}
func (q movingEvents) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *movingEvents) Push(e any)   { *q = append(*q, e.(*movingEvent)) }
func (q *movingEvents) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}

// movingNode is a node; its replica is a map.
type movingNode struct {
	w     *moving
	id    ring.NodeID
	coord *coord.Coordinator
	// at is the state that it knows, as an index into the log.
	at   int
	down bool
	// unknown says that it does not know what was confirmed; waiting are called when
	// it does.
	unknown bool
	waiting []func()
	// live is what is held, synced what is on disk, by tenant, key and record.
	live, synced map[string][]byte
	minted       uint64
	// mints counts updates that went through, gained merges of a gainer.
	mints, gained int
	// hangs says that its disk does not answer.
	hangs bool
	// before is called when a write gets here, before the key's lock is taken.
	before func()
	// reads is called when the replica begins to read a partition.
	reads func(ring.Partition)
}

// The states of a change, and those after it in which its tenants have been deleted, and
// others have been created that are called the same.
const (
	stable = iota
	proposed
	committed
	finalized
	deleted
	created
)

// movingStep is how long a message takes, and a sync.
const movingStep = time.Millisecond

// movingID is the id of the node with a number from 0.
func movingID(i int) ring.NodeID { return ring.NodeID{byte(i + 1)} }

// newMoving makes a cluster of the nodes in either set in which the layout changes from
// one over old to one over next, for tenants that keep rf copies.
func newMoving(t *testing.T, rf int, old, next []int) *moving {
	t.Helper()
	return newMovingTo(t, rf, rf, old, next)
}

// newMovingTo is newMoving where the tenants keep another number of copies then.
func newMovingTo(t *testing.T, rf, to int, old, next []int) *moving {
	t.Helper()
	w := &moving{t: t, now: time.UnixMilli(1_700_000_000_000)}
	members := func(which []int) (all []ring.LayoutNode) {
		for _, i := range which {
			all = append(all, ring.LayoutNode{ID: movingID(i), Name: nodeName(i), Zone: nodeName(i), Capacity: 1})
		}
		return all
	}
	layout, err := ring.NewLayout(16, members(old))
	if err != nil {
		t.Fatal(err)
	}
	s := &ring.State{}
	add := func(e ring.Entry) {
		t.Helper()
		e.Version, e.Op = s.Version()+1, [16]byte{byte(s.Version() + 1)}
		if s, err = s.Next(&e); err != nil {
			t.Fatal(err)
		}
	}
	add(ring.Entry{Kind: ring.KindFound, Found: &ring.Found{
		ClusterID: ring.ClusterID{1}, ClusterName: "moving", Founder: movingID(old[0]), Layout: layout, TokenKeyID: 1, TokenKey: [32]byte{1},
	}})
	createTenants := func() {
		for i, policy := range []schema.ConflictPolicy{schema.PolicyLWW, schema.PolicySiblings} {
			add(ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: movingTenants[i], RF: uint8(rf), Policy: uint8(policy)}})
		}
	}
	createTenants()
	w.log = append(w.log, s)
	moved, err := layout.Rebalance(s.Version()+1, members(next))
	if err != nil {
		t.Fatal(err)
	}
	change := [16]byte{byte(s.Version() + 1)}
	var factors []ring.Factor
	for _, name := range movingTenants {
		if tenant, _ := s.Tenant(name); to != rf {
			factors = append(factors, ring.Factor{Tenant: tenant.Number, RF: uint8(to), AskedAtMs: 1})
		}
	}
	add(ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: layout.Version(), Layout: moved, Factors: factors}})
	w.log = append(w.log, s)
	for _, kind := range []ring.Kind{ring.KindCommit, ring.KindFinalize} {
		add(ring.Entry{Kind: kind, Step: &ring.Step{Change: change}})
		w.log = append(w.log, s)
	}
	for _, name := range movingTenants {
		tenant, _ := s.Tenant(name)
		add(ring.Entry{Kind: ring.KindTenantDelete, Delete: &ring.TenantDelete{Number: tenant.Number, DeletedAtMs: 1}})
	}
	w.log = append(w.log, s)
	createTenants()
	w.log = append(w.log, s)
	for i := range 1 + max(slices.Max(old), slices.Max(next)) {
		n := &movingNode{w: w, id: movingID(i), live: map[string][]byte{}, synced: map[string][]byte{}}
		n.coord, err = coord.New(coord.Options{
			Self: n.id, View: n.view, Replica: n, Transport: n, Clock: w, CatchUp: n.catchUp, Horizon: n.horizon,
		})
		if err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, n)
	}
	return w
}

// movingTenants are one where the last writer wins, and one that keeps siblings.
var movingTenants = []string{"last", "all"}

// everywhere makes all nodes know a state.
func (w *moving) everywhere(at int) {
	for _, n := range w.nodes {
		n.at = at
	}
}

// moves returns keys of a tenant whose owners change, and the sets they have.
func (w *moving) moves(tenant string, n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		key := "k" + time.Duration(i).String()
		if w.sets(tenant, key, proposed).W2 != 0 {
			keys = append(keys, key)
		}
		if i > 10_000 {
			w.t.Fatal("no key moves")
		}
	}
	return keys
}

func (w *moving) sets(tenant, key string, at int) ring.Sets {
	s := w.log[at]
	t, ok := s.Tenant(tenant)
	if !ok {
		w.t.Fatal("there is no tenant", tenant)
	}
	p := s.Layout().PartitionOf(ring.KeyToken(t.Number, []byte(key)))
	return ring.SetsOf(s.Layout(), s.Change(), nil, p, s.Copies(t))
}

// having is a bit for each owner of whom has is true.
func (w *moving) having(owners []ring.NodeID, has func(*movingNode) bool) (mask uint16) {
	for i, id := range owners {
		if has(w.nodes[id[0]-1]) {
			mask |= 1 << i
		}
	}
	return mask
}

func (w *moving) later(d time.Duration, f func()) *movingEvent {
	w.seq++
	e := &movingEvent{w.now.Add(d), w.seq, f}
	heap.Push(&w.events, e)
	return e
}

// run lets happen what happens until done, or for a time.
func (w *moving) run(d time.Duration, done func() bool) {
	w.t.Helper()
	end := w.now.Add(d)
	for range 1_000_000 {
		if done() {
			return
		}
		if len(w.events) == 0 || w.events[0].at.After(end) {
			w.now = end
			return
		}
		e := heap.Pop(&w.events).(*movingEvent)
		if e.f != nil {
			w.now = e.at
			e.f()
		}
	}
	w.t.Fatal("it goes on for ever")
}

// settle lets everything under way end.
func (w *moving) settle() { w.run(time.Minute, func() bool { return len(w.events) == 0 }) }

// Now and AfterFunc implement coord.Clock.
func (w *moving) Now() time.Time { return w.now }

func (w *moving) AfterFunc(d time.Duration, f func()) func() bool {
	ran := false
	e := w.later(d, func() { ran = true; f() })
	return func() bool {
		stopped := !ran && e.f != nil
		e.f = nil
		return stopped
	}
}

func (n *movingNode) state() *ring.State { return n.w.log[n.at] }

func (n *movingNode) view() *schema.Snapshot {
	s := n.state()
	var tenants []*schema.Tenant
	for _, t := range s.Tenants() {
		tenants = append(tenants, meta.TenantOf(t, s.Change()))
	}
	return schema.Build(schema.Snapshot{
		Self: n.id, Version: s.Version(), Layout: s.Layout(), Change: s.Change(), Ring: s, Ready: true, TokenKeys: []schema.TokenKey{{ID: 1}},
	}, tenants)
}

func (n *movingNode) catchUp(from ring.NodeID, atLeast ring.Version, done func(error)) {
	n.w.later(movingStep, func() {
		for at := n.at; at <= n.w.nodes[from[0]-1].at && n.state().Version() < atLeast; at++ {
			n.at = at
		}
		done(nil)
	})
}

func (n *movingNode) horizon(_ ring.Partition, then func()) bool {
	if n.unknown {
		n.waiting = append(n.waiting, then)
	}
	return !n.unknown
}

// know lets the node know what was confirmed.
func (n *movingNode) know() {
	waiting := n.waiting
	n.unknown, n.waiting = false, nil
	for _, f := range waiting {
		f()
	}
}

// Send implements coord.Transport.
func (n *movingNode) Send(to ring.NodeID, m *coord.Message, reply func(coord.Reply, error)) {
	w, p, sent := n.w, n.w.nodes[to[0]-1], *m
	var r coord.Reply
	var failed error
	late := &movingEvent{}
	answer := sync.OnceFunc(func() { late.f = nil; reply(r, failed) })
	if !m.Deadline.IsZero() {
		late = w.later(m.Deadline.Sub(w.now), func() { failed = errors.New("no answer in time"); answer() })
	}
	w.later(movingStep, func() {
		if p.down {
			failed = coord.ErrNotSent
			answer()
			return
		}
		if w.deliver != nil {
			w.deliver(n, p, &sent)
		}
		p.coord.HandlePeer(n.id, []coord.Message{sent}, func(_ int, got coord.Reply) {
			w.later(movingStep, func() {
				if w.heard != nil {
					w.heard(n)
				}
				r = got
				answer()
			})
		})
	})
}

func movingKey(at coord.Address, id []byte) string {
	return string(rune('0'+at.Tenant)) + string(at.Key) + "\x00" + string(id)
}

func (n *movingNode) object(m map[string][]byte, at coord.Address) causal.Object {
	o, err := causal.Decode(m[movingKey(at, nil)])
	if err != nil {
		n.w.t.Fatal(err)
	}
	return o
}

// moved is what a replica refuses a write for, once it has the key's lock.
func (n *movingNode) moved(at coord.Address) bool {
	if n.before != nil {
		n.before()
	}
	_, there := n.view().TenantByNumber(at.Tenant)
	return !there || at.PV != n.state().Layout().PV(at.Partition)
}

func (n *movingNode) sync(done func(error), keys ...string) {
	if n.hangs {
		return
	}
	n.w.later(movingStep, func() {
		for _, k := range keys {
			n.synced[k] = n.live[k]
		}
		done(nil)
	})
}

// Update implements coord.Replica.
func (n *movingNode) Update(at coord.Address, edit func(*causal.Object, func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error) {
	if n.moved(at) {
		return nil, coord.ErrMoved
	}
	held := n.object(n.live, at)
	o, err := edit(&held, func() causal.Dot {
		n.minted++
		return causal.Dot{Actor: uint64(n.id[0]), Counter: n.minted}
	})
	if err != nil {
		return nil, err
	}
	n.mints++
	key := movingKey(at, nil)
	n.live[key] = o.Append(nil)
	n.sync(durable, key)
	return n.live[key], nil
}

// Merge implements coord.Replica.
func (n *movingNode) Merge(items []coord.MergeItem, done func(int, []byte, error)) {
	for i, it := range items {
		if n.moved(it.Address) {
			done(i, nil, coord.ErrMoved)
			continue
		}
		if it.Gaining != 0 {
			n.gained++
		}
		in, err := causal.Decode(it.Object)
		if err != nil {
			n.w.t.Fatal(err)
		}
		held := n.object(n.live, it.Address)
		var body []byte
		if stub, ok := causal.Uncovered(&held, &in); ok {
			body = stub.Append(nil)
		}
		joined := causal.Join(&held, &in)
		if it.LastWriteWins {
			joined.StripLosers(&held, &in)
		}
		keys := []string{movingKey(it.Address, nil)}
		n.live[keys[0]] = joined.Append(nil)
		if it.Record != nil {
			keys = append(keys, movingKey(it.Address, it.IdempotencyKey))
			n.live[keys[1]] = it.Record.Append(nil)
		}
		n.sync(func(err error) { done(i, body, err) }, keys...)
	}
}

// Read implements coord.Replica.
func (n *movingNode) Read(at coord.Address, done func([]byte, error)) {
	if n.reads != nil {
		n.reads(at.Partition)
	}
	key := movingKey(at, nil)
	b := n.live[key]
	n.sync(func(err error) { done(b, err) }, key)
}

// ReadDigest implements coord.Replica.
func (n *movingNode) ReadDigest(at coord.Address, done func([16]byte, error)) {
	if n.reads != nil {
		n.reads(at.Partition)
	}
	o := n.object(n.live, at)
	n.sync(func(err error) { done(o.Digest(), err) }, movingKey(at, nil))
}

// Lookup implements coord.Replica.
func (n *movingNode) Lookup(at coord.Address, id []byte, _ time.Time, done func(coord.Held, error)) {
	o := n.object(n.live, at)
	h := coord.Held{Context: o.Context, Record: n.record(at, id)}
	if w := o.Winner(); w != nil {
		h.HLC = w.HLC
	}
	n.sync(func(err error) { done(h, err) }, movingKey(at, nil), movingKey(at, id))
}

func (n *movingNode) record(at coord.Address, id []byte) *causal.Record {
	b := n.live[movingKey(at, id)]
	if b == nil {
		return nil
	}
	r, err := causal.DecodeRecord(b)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return &r
}

// Claim implements coord.Replica.
func (n *movingNode) Claim(at coord.Address, id []byte, r *causal.Record, _ time.Time, done func(causal.Record, error)) {
	if n.moved(at) {
		done(causal.Record{}, coord.ErrMoved)
		return
	}
	held := n.record(at, id)
	if held == nil || held.GivesWay(r) {
		held = r
		n.live[movingKey(at, id)] = r.Append(nil)
	}
	kept := *held
	n.sync(func(err error) { done(kept, err) }, movingKey(at, id))
}

// Scan implements coord.Replica.
func (n *movingNode) Scan(r *coord.ScanRange, done func(coord.ScanPiece, error)) {
	if n.w.scanned != nil {
		n.w.scanned(n, r)
	}
	ask := *r
	n.w.later(movingStep, func() {
		if n.reads != nil {
			n.reads(ask.Partition)
		}
		var p coord.ScanPiece
		var all []coord.Position
		for k := range n.live {
			at := coord.Position{Key: []byte(k[1 : len(k)-1])}
			at.Token = ring.KeyToken(ask.Tenant, at.Key)
			if k[0] == byte('0'+ask.Tenant) && k[len(k)-1] == 0 && n.state().Layout().PartitionOf(at.Token) == ask.Partition &&
				at.Compare(&ask.From) >= 0 && (ask.Until == nil || at.Compare(ask.Until) < 0) && ask.Wants(at.Key) {
				all = append(all, at)
			}
		}
		slices.SortFunc(all, func(a, b coord.Position) int { return a.Compare(&b) })
		for _, at := range all {
			o := n.object(n.live, coord.Address{Tenant: ask.Tenant, Key: at.Key})
			e := coord.ScanEntry{Key: at.Key, Size: o.EncodedLen()}
			if ask.Mode == coord.ScanDigests {
				e.Digest = o.Digest()
			} else {
				e.Object = o.Append(nil)
			}
			p.Entries = append(p.Entries, e)
		}
		done(p, nil)
	})
}
