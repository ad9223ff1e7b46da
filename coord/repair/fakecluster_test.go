package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// cluster is a few nodes with their data in memory, between which messages can be
// lost. It runs in a synctest bubble.
type cluster struct {
	t      *testing.T
	layout *ring.Layout
	// log is what the ring's log says, nil in a cluster whose ring never changes; reports
	// are what nodes say of themselves.
	log     *ring.State
	reports map[ring.NodeID]ring.Report
	tenants []*schema.Tenant
	nodes   []*fakeNode
	// lose decides which messages do not arrive; nil: all do.
	lose func(from, to int, m *coord.Message) bool
	// frame is how many objects come in bulk at once.
	frame int
	// edit changes the options of nodes at each start.
	edit func(i int, o *Options)
	// seen is called with every message that arrives.
	seen func(from, to int, m *coord.Message)
	mu   sync.Mutex
}

type fakeNode struct {
	*cluster
	i     int
	id    ring.NodeID
	data  *fakeReplica
	coord *coord.Coordinator
	m     *Manager
	lives uint64 // its incarnation
	up    bool
	notes []Note
	// state is what the node knows of the log.
	state atomic.Pointer[ring.State]
}

const (
	tenantA = ring.TenantNumber(7) // last writer wins
	tenantB = ring.TenantNumber(8) // siblings
)

func newCluster(t *testing.T, nodes, partitions, rf int, edit func(i int, o *Options)) *cluster {
	c := &cluster{t: t, edit: edit, frame: 8, reports: make(map[ring.NodeID]ring.Report)}
	var members []ring.LayoutNode
	for i := range nodes {
		members = append(members, ring.LayoutNode{ID: ring.NodeID{byte(i + 1)}, Name: string(rune('a' + i)), Zone: "z" + string(rune('a'+i)), Capacity: 1})
	}
	var err error
	if c.layout, err = ring.NewLayout(partitions, members); err != nil {
		t.Fatal(err)
	}
	c.tenants = []*schema.Tenant{
		{Number: tenantA, Name: "acme", RF: rf, Policy: schema.PolicyLWW, Version: 1},
		{Number: tenantB, Name: "keeper", RF: rf, Policy: schema.PolicySiblings, Version: 1},
	}
	for i := range nodes {
		n := &fakeNode{cluster: c, i: i, id: members[i].ID, up: true, data: newFakeReplica(c, i)}
		c.nodes = append(c.nodes, n)
		n.boot(edit)
	}
	t.Cleanup(c.close)
	return c
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.stop()
	}
}

func (n *fakeNode) stop() {
	if n.m != nil {
		if err := n.m.Close(context.Background()); err != nil {
			n.t.Error(err)
		}
		if err := n.coord.Close(context.Background()); err != nil {
			n.t.Error(err)
		}
		n.m = nil
	}
}

func (n *fakeNode) boot(edit func(int, *Options)) {
	n.lives++
	random := rand.New(rand.NewPCG(1, uint64(n.i)))
	o := Options{
		Self: n.id, View: n.view, Replica: n.data, Objects: n.data, Transport: n, Clock: realClock{}, Scheduler: goScheduler{},
		Random: random.Float64, Interval: time.Hour, Settle: 2 * time.Second,
		Note: func(note Note) { n.mu.Lock(); defer n.mu.Unlock(); n.notes = append(n.notes, note) },
	}
	if edit != nil {
		edit(n.i, &o)
	}
	var err error
	if n.m, err = New(o); err != nil {
		n.t.Fatal(err)
	}
	n.coord, err = coord.New(coord.Options{
		Self: n.id, View: n.view, Replica: n.data, Transport: n, Clock: realClock{}, Repair: n.m.Serve,
		CatchUp: func(_ ring.NodeID, _ ring.Version, done func(error)) { done(errors.New("nothing newer")) },
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// restart begins a new life of the node, with what it has on disk.
func (n *fakeNode) restart() {
	m, c := n.m, n.coord
	n.mu.Lock()
	n.up = false
	n.mu.Unlock()
	if err := errors.Join(m.Close(context.Background()), c.Close(context.Background())); err != nil {
		n.t.Error(err)
	}
	n.data.restart()
	n.mu.Lock()
	n.boot(n.edit)
	n.up = true
	n.mu.Unlock()
}

func (n *fakeNode) view() *schema.Snapshot {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := schema.Snapshot{ClusterID: ring.ClusterID{9}, Self: n.id, Version: 1, Layout: n.layout, Ready: true}
	tenants := slices.Clone(n.tenants)
	if st := n.state.Load(); st != nil {
		s.Version, s.Ring, s.Layout, s.Change = st.Version(), st, st.Layout(), st.Change()
		tenants = nil
		for _, t := range st.Tenants() {
			tenants = append(tenants, meta.TenantOf(t, st.Change()))
		}
	}
	for _, m := range n.nodes {
		r := n.reports[m.id]
		l := schema.Alive
		if !m.up {
			l = schema.Dead
		}
		s.Members = append(s.Members, schema.Member{ID: m.id, Name: string(rune('a' + m.i)), Liveness: l, Incarnation: m.lives, AckedVersion: s.Version, SyncedVersion: r.Synced, CleanVersion: r.Clean})
	}
	return schema.Build(s, tenants)
}

// Send implements coord.Transport.
func (n *fakeNode) Send(to ring.NodeID, m *coord.Message, reply func(coord.Reply, error)) {
	msg := *m
	msg.Body, msg.Key = bytes.Clone(m.Body), bytes.Clone(m.Key)
	peer := n.nodes[to[0]-1]
	n.mu.Lock()
	lost := !peer.up || !n.up || n.lose != nil && n.lose(n.i, peer.i, &msg)
	if !lost && n.seen != nil {
		n.seen(n.i, peer.i, &msg)
	}
	served := peer.coord
	n.mu.Unlock()
	go func() {
		if lost {
			time.Sleep(time.Until(msg.Deadline)) // of the bubble
			reply(coord.Reply{}, errors.New("no answer"))
			return
		}
		time.Sleep(time.Millisecond) // of the bubble
		served.HandlePeer(n.id, []coord.Message{msg}, func(_ int, r coord.Reply) { go reply(r, nil) })
	}()
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }
func (realClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

type goScheduler struct{}

func (goScheduler) Go(_ string, f func()) { go f() }

// same reports how the data of two nodes differ, "" if they do not.
func (c *cluster) same(nodes ...int) string {
	var first string
	for n, i := range nodes {
		f := c.nodes[i].data
		var b strings.Builder
		for _, t := range []ring.TenantNumber{tenantA, tenantB} {
			for p := range c.layout.Partitions() {
				from, to := tokens(c.layout, ring.Partition(p))
				for _, row := range f.sorted(Range{ring.Partition(p), t, from, to}) {
					if len(row.Object.Siblings) == 0 {
						continue
					}
					fmt.Fprintf(&b, "%d %d %s:", p, t, row.Key)
					for k := range row.Object.Siblings {
						s := &row.Object.Siblings[k]
						fmt.Fprintf(&b, " %v=%q", s.Dot, s.Value)
					}
					b.WriteByte(10)
				}
			}
		}
		text := b.String()
		if n == 0 {
			first = text
		} else if text != first {
			return fmt.Sprintf("node %d has\n%.2000s\nand node %d\n%.2000s", nodes[0], first, i, text)
		}
	}
	return ""
}
