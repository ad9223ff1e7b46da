package repair

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// ringed is a cluster whose ring changes: the first founders of its nodes found it.
type ringed struct {
	*cluster
	change [16]byte
	// filled are the values that all owners were given, by tenant and key.
	filled map[ring.TenantNumber]map[string]string
}

func newRinged(t *testing.T, nodes, founders, rf int) *ringed {
	r := &ringed{filled: map[ring.TenantNumber]map[string]string{tenantA: {}, tenantB: {}}}
	t.Cleanup(func() { time.Sleep(time.Minute) }) // messages that are lost are over then
	r.cluster = newCluster(t, nodes, 8, rf, func(i int, o *Options) {
		id := ring.NodeID{byte(i + 1)}
		o.Synced = func(v ring.Version) error {
			r.says(id, func(p *ring.Report) { p.Synced = max(p.Synced, v) })
			return nil
		}
		o.Cleaned = func(v ring.Version) error { r.says(id, func(p *ring.Report) { p.Clean = max(p.Clean, v) }); return nil }
	})
	layout, err := ring.NewLayout(8, r.members(0, founders))
	if err != nil {
		t.Fatal(err)
	}
	r.layout = layout
	r.log = &ring.State{}
	r.add(&ring.Entry{Kind: ring.KindFound, Found: &ring.Found{
		ClusterID: ring.ClusterID{9}, ClusterName: "test", Founder: layout.Nodes()[0].ID, Layout: layout, TokenKeyID: 1, TokenKey: [32]byte{1}, CreatedAtMs: 1,
	}})
	tenants := slices.Clone(r.tenants)
	for len(tenants) < int(tenantB)-1 { // there is one before them, which every cluster has
		other := *r.tenants[0]
		other.Name = fmt.Sprint("other", len(tenants))
		tenants = slices.Insert(tenants, 0, &other)
	}
	for _, tenant := range tenants {
		r.add(&ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: tenant.Name, RF: uint8(tenant.RF), Policy: uint8(tenant.Policy), CreatedAtMs: 1}})
	}
	r.install()
	return r
}

// members are the nodes from one to before another.
func (r *ringed) members(from, to int) (all []ring.LayoutNode) {
	for i := from; i < to; i++ {
		all = append(all, ring.LayoutNode{ID: ring.NodeID{byte(i + 1)}, Name: string(rune('a' + i)), Zone: "z" + string(rune('a'+i)), Capacity: 1})
	}
	return all
}

func (r *ringed) says(id ring.NodeID, change func(*ring.Report)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.reports[id]
	change(&p)
	r.reports[id] = p
}

func (r *ringed) report(id ring.NodeID) ring.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.reports[id]
	p.Acked = r.log.Version()
	return p
}

// add appends an entry to the log, which nobody knows yet.
func (r *ringed) add(e *ring.Entry) {
	r.t.Helper()
	e.Version = r.log.Version() + 1
	if e.Op == ([16]byte{}) {
		e.Op = [16]byte{byte(e.Version)}
	}
	next, err := r.log.Next(e)
	if err != nil {
		r.t.Fatal(err)
	}
	r.log = next
}

// install makes the log known to nodes, to all if none is named.
func (r *ringed) install(nodes ...int) {
	for i, n := range r.nodes {
		if len(nodes) == 0 || slices.Contains(nodes, i) {
			n.state.Store(r.log)
		}
	}
}

// propose opens a change to a layout of other nodes.
func (r *ringed) propose(members []ring.LayoutNode) {
	r.t.Helper()
	next, err := ring.NewLayout(8, members)
	if err != nil {
		r.t.Fatal(err)
	}
	r.proposeLayout(next)
}

func (r *ringed) proposeLayout(next *ring.Layout, factors ...ring.Factor) {
	r.t.Helper()
	v := r.log.Version() + 1
	b := ring.AppendLayout(nil, next)
	binary.BigEndian.PutUint64(b[1:], uint64(v))
	next, err := ring.DecodeLayout(b)
	if err != nil {
		r.t.Fatal(err)
	}
	r.change = [16]byte{200, byte(v)}
	r.add(&ring.Entry{Kind: ring.KindPropose, Op: r.change, Propose: &ring.Propose{Parent: r.log.Layout().Version(), Layout: next, Factors: factors}})
	if r.log.Change() == nil {
		r.t.Fatal("the proposal is void")
	}
}

func (r *ringed) step(k ring.Kind) {
	r.t.Helper()
	r.add(&ring.Entry{Kind: k, Step: &ring.Step{Change: r.change, Reason: "test"}})
}

// finish commits and finalises once all that gain have said that they are synced.
func (r *ringed) finish() {
	r.t.Helper()
	r.until("committed", func() bool { ok, _ := r.log.MayCommit(r.report); return ok })
	r.step(ring.KindCommit)
	r.install()
	r.step(ring.KindFinalize)
	r.install()
}

// until waits for something, ten minutes at most.
func (r *ringed) until(what string, ok func() bool) {
	r.t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, n := range r.nodes {
		for _, note := range n.told() {
			r.t.Log(n.i, note.Text, note.Details)
		}
		if n.m != nil {
			for _, tr := range n.m.Transfers() {
				if tr.Error != "" {
					r.t.Log(n.i, tr)
				}
			}
		}
	}
	r.t.Fatalf("not %s in ten minutes", what)
}

// told is what the node has told people.
func (n *fakeNode) told() []Note {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.notes)
}

func (r *ringed) start() {
	for _, n := range r.nodes {
		n.m.Start()
	}
}

// rf is how many copies a tenant wants by now.
func (r *ringed) rf(t ring.TenantNumber) int {
	known, _ := r.log.TenantByNumber(t)
	return int(known.RF)
}

// owners are the nodes that own a key in a layout.
func (r *ringed) owners(l *ring.Layout, t ring.TenantNumber, key string) (all []int) {
	_, p := r.nodes[0].data.place(t, key)
	for _, id := range l.Owners(nil, p, r.rf(t)) {
		all = append(all, int(id[0])-1)
	}
	return all
}

// write makes a write at the first owner of a key and brings it to the first so many of
// its owners in all.
func (r *ringed) write(t ring.TenantNumber, key, value string, copies int) causal.Object {
	owners := r.owners(r.log.Layout(), t, key)
	return r.put(owners[0], t, key, value, owners[1:min(copies, len(owners))]...)
}

// fill writes keys to all their owners.
func (r *ringed) fill(n int) {
	for i := range n {
		r.give(tenantA, fmt.Sprint("key", i), fmt.Sprint("value", i))
		r.give(tenantB, fmt.Sprint("other", i), fmt.Sprint("value", i))
	}
}

// give writes a key to all its owners, empty for a delete.
func (r *ringed) give(t ring.TenantNumber, key, value string) {
	r.filled[t][key] = value
	r.write(t, key, value, 7)
}

// check holds what nodes have against the layout: owners of each partition have the same,
// what they were given among it, and nobody else anything.
func (r *ringed) check() {
	r.t.Helper()
	l := r.log.Layout()
	for t, keys := range r.filled {
		for key, value := range keys {
			for _, i := range r.owners(l, t, key) {
				if v := r.values(i, t, key); value == "" && len(v) > 0 || value != "" && !slices.Equal(v, []string{value}) {
					r.t.Errorf("node %d has %q of %s, not %q", i, v, key, value)
				}
			}
		}
	}
	for i := range 2 * l.Partitions() {
		p, t := ring.Partition(i/2), []ring.TenantNumber{tenantA, tenantB}[i%2]
		first, last := tokens(l, p)
		var want, who string
		for i, n := range r.nodes {
			var b strings.Builder
			for _, row := range n.data.sorted(Range{p, t, first, last}) {
				for _, s := range row.Object.Siblings {
					fmt.Fprintf(&b, "%d %s %v %q\n", t, row.Key, s.Dot, s.Value)
				}
			}
			switch got := b.String(); {
			case r.log.IsRetired(n.id): // it is given up
			case !l.IsOwner(n.id, p, r.rf(t)):
				if got != "" {
					r.t.Errorf("partition %d: node %d does not own it and has\n%.500s", p, i, got)
				}
			case who == "":
				want, who = got, fmt.Sprint("node ", i)
			case got != want:
				r.t.Errorf("partition %d: %s has\n%.1500s\nand node %d\n%.1500s", p, who, want, i, got)
			}
		}
	}
}

// values are what a node holds of a key.
func (r *ringed) values(i int, t ring.TenantNumber, key string) (all []string) {
	f := r.nodes[i].data
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.rows[t][key]
	for k := range o.Siblings {
		if !o.Siblings[k].Tombstone() {
			all = append(all, string(o.Siblings[k].Value))
		}
	}
	return all
}

// cleaned waits until all nodes have said that they hold nothing that they do not own.
func (r *ringed) cleaned() {
	r.t.Helper()
	r.until("clean", func() bool {
		for p := range r.log.Layout().Partitions() {
			for _, t := range []ring.TenantNumber{tenantA, tenantB} {
				if !r.log.Clean(ring.Partition(p), r.rf(t), r.report) {
					return false
				}
			}
		}
		return true
	})
}
