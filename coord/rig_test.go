package coord_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// rig is one coordinator whose replica, transport and catch-up do nothing by
// themselves: the test decides when each answers, so that it can put one event
// exactly between two others. Its clock is that of the synctest bubble.
type rig struct {
	t     *testing.T
	coord *coord.Coordinator
	self  ring.NodeID
	// onUpdate runs inside Replica.Update, once the object is made.
	onUpdate func(object []byte, durable func(error))
	// onSend, if set, takes a message instead of sends.
	onSend func(s sentMessage)

	mu struct {
		sync.Mutex
		view     *schema.Snapshot
		held     causal.Object
		minted   uint64
		sends    []sentMessage
		reads    []func([]byte, error)
		scans    []func(coord.ScanPiece, error)
		catchUps []catchUp
		hints    []hinted
		// record is that of every idempotency key.
		record *causal.Record
	}
}

// hinted is what the coordinator said that an owner lacks.
type hinted struct {
	to      ring.NodeID
	key, id string
}

type sentMessage struct {
	to    ring.NodeID
	m     coord.Message
	reply func(coord.Reply, error)
}

type catchUp struct {
	from    ring.NodeID
	atLeast ring.Version
	done    func(error)
}

// newRig returns node 1 of a cluster of the given size; each key has three
// owners. Metrics may be set before the first operation only.
func newRig(t *testing.T, nodes int, stats coord.Metrics) *rig {
	return newRigWith(t, nodes, stats, func(*coord.Options) {})
}

// newRigWith is newRig with options edited.
func newRigWith(t *testing.T, nodes int, stats coord.Metrics, edit func(*coord.Options)) *rig {
	r := &rig{t: t, self: ring.NodeID{1}}
	var members []ring.LayoutNode
	for i := range nodes {
		members = append(members, ring.LayoutNode{ID: ring.NodeID{byte(i + 1)}, Name: nodeName(i), Zone: nodeName(i), Capacity: 1})
	}
	layout, err := ring.NewLayout(simPartitions, members)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.view = &schema.Snapshot{Layout: layout}
	r.learn(1)
	o := coord.Options{
		Self: r.self, View: r.view, Replica: r, Transport: r, Clock: r, CatchUp: r.catchUp, Hint: r.hint, Metrics: stats,
	}
	edit(&o)
	r.coord, err = coord.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// learn makes v the version of the ring and of the tenant.
func (r *rig) learn(v ring.Version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.view = schema.Build(schema.Snapshot{Version: v, Layout: r.mu.view.Layout, Ready: true, TokenKeys: []schema.TokenKey{{ID: 1}}},
		[]*schema.Tenant{{Number: 7, Name: simTenant, RF: 3, Policy: schema.PolicyLWW, Version: v}})
}

func (r *rig) view() *schema.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.view
}

// key returns one that node 1 owns, or one that it does not.
func (r *rig) key(owned bool) []byte {
	l := r.view().Layout
	for i := range 10_000 {
		k := fmt.Appendf(nil, "k%d", i)
		if l.IsOwner(r.self, l.PartitionOf(ring.KeyToken(7, k)), 3) == owned {
			return k
		}
	}
	r.t.Fatal("there is no such key")
	return nil
}

// message is one that a peer at version v sends about a key.
func (r *rig) message(op coord.Op, key []byte, v ring.Version) coord.Message {
	l, token := r.view().Layout, ring.KeyToken(7, key)
	p := l.PartitionOf(token)
	return coord.Message{Op: op, Partition: p, PV: l.PV(p), Tenant: 7, TenantVersion: v, Token: token, Key: key}
}

// sends returns what was sent since it was last called.
func (r *rig) sends() []sentMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.mu.sends
	r.mu.sends = nil
	return s
}

// catchUps returns the exchanges begun since it was last called.
func (r *rig) catchUps() []catchUp {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.mu.catchUps
	r.mu.catchUps = nil
	return c
}

func (r *rig) hint(to ring.NodeID, at coord.Address, id []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.hints = append(r.mu.hints, hinted{to, string(at.Key), string(id)})
}

// hints returns what was hinted since it was last called.
func (r *rig) hints() []hinted {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.mu.hints
	r.mu.hints = nil
	return h
}

func (r *rig) catchUp(from ring.NodeID, atLeast ring.Version, done func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.catchUps = append(r.mu.catchUps, catchUp{from, atLeast, done})
}

// Send implements coord.Transport.
func (r *rig) Send(to ring.NodeID, m *coord.Message, reply func(coord.Reply, error)) {
	s := sentMessage{to, *m, reply}
	if r.onSend != nil {
		r.onSend(s)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.sends = append(r.mu.sends, s)
}

// Now and AfterFunc implement coord.Clock.
func (r *rig) Now() time.Time { return time.Now() }

func (r *rig) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// Update implements coord.Replica, for one key.
func (r *rig) Update(_ coord.Address, edit func(*causal.Object, func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error) {
	r.mu.Lock()
	o, err := edit(&r.mu.held, func() causal.Dot {
		r.mu.minted++
		return causal.Dot{Actor: 1, Counter: r.mu.minted}
	})
	if err == nil {
		r.mu.held = o
	}
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	b := o.Append(nil)
	r.onUpdate(b, durable)
	return b, nil
}

// Merge implements coord.Replica: it is durable at once and held nowhere.
func (r *rig) Merge(items []coord.MergeItem, done func(int, []byte, error)) {
	for i := range items {
		done(i, nil, nil)
	}
}

// Read implements coord.Replica.
func (r *rig) Read(_ coord.Address, done func([]byte, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.reads = append(r.mu.reads, done)
}

// ReadDigest implements coord.Replica: there is nothing.
func (r *rig) ReadDigest(_ coord.Address, done func([16]byte, error)) {
	var none causal.Object
	done(none.Digest(), nil)
}

// Lookup implements coord.Replica.
func (r *rig) Lookup(_ coord.Address, _ []byte, _ time.Time, done func(coord.Held, error)) {
	r.mu.Lock()
	h := coord.Held{Record: r.mu.record}
	r.mu.Unlock()
	done(h, nil)
}

// Claim implements coord.Replica: every vote is taken and durable at once.
func (r *rig) Claim(_ coord.Address, _ []byte, c *causal.Record, _ time.Time, done func(causal.Record, error)) {
	done(*c, nil)
}

// close starts a Close and returns where its result will be.
func (r *rig) close() <-chan error {
	closed := make(chan error, 1)
	go func() { closed <- r.coord.Close(r.t.Context()) }()
	return closed
}
