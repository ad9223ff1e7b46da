package replica_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// gainKeys is how many keys TestGainOverStores moves; PAIRDB_REPAIR_KEYS is for more.
const gainKeys = 12_000

// reports are what nodes say of themselves.
type reports struct {
	sync.Mutex
	of map[ring.NodeID]ring.Report
}

func (r *reports) say(id ring.NodeID, f func(*ring.Report)) {
	r.Lock()
	defer r.Unlock()
	p := r.of[id]
	f(&p)
	r.of[id] = p
}

func (r *reports) report(id ring.NodeID) ring.Report {
	r.Lock()
	defer r.Unlock()
	return r.of[id]
}

// growing is a cluster of three nodes with real stores, and a fourth one that joins them.
type growing struct {
	*owners
	t       *testing.T
	wide    *schema.Snapshot // with the layout over all of them
	members []ring.LayoutNode
	log     *ring.State
	said    *reports
	change  [16]byte
}

func newGrowing(t *testing.T) *growing {
	g := &growing{t: t, log: &ring.State{}, said: &reports{of: make(map[ring.NodeID]ring.Report)}, change: [16]byte{99}}
	g.owners = newNodes(t, 4, func(int) (vfs.FS, string) { return vfs.NewMem(), "data" }, func(i int, opts *repair.Options) {
		id := ring.NodeID{byte(i + 1)}
		opts.StreamRate = 1 << 30
		opts.Synced = func(v ring.Version) error { g.said.say(id, func(p *ring.Report) { p.Synced = v }); return nil }
		opts.Cleaned = func(v ring.Version) error { g.said.say(id, func(p *ring.Report) { p.Clean = v }); return nil }
	})
	g.wide = g.snap.Load()
	g.members = g.wide.Layout.Nodes()
	layout, err := ring.NewLayout(64, g.members[:3])
	if err != nil {
		t.Fatal(err)
	}
	g.install(&ring.Entry{Kind: ring.KindFound, Found: &ring.Found{
		ClusterID: ring.ClusterID{1}, ClusterName: "test", Founder: g.members[0].ID, Layout: layout, TokenKeyID: 1, TokenKey: [32]byte{1}, CreatedAtMs: 1,
	}})
	return g
}

// install appends an entry to the log, and makes it known to all nodes.
func (g *growing) install(e *ring.Entry) {
	g.t.Helper()
	e.Version = g.log.Version() + 1
	if e.Op == ([16]byte{}) {
		e.Op[0] = byte(e.Version)
	}
	next, err := g.log.Next(e)
	if err != nil {
		g.t.Fatal(err)
	}
	g.log = next
	snap := *g.wide
	snap.Ring, snap.Layout, snap.Change, snap.Version = next, next.Layout(), next.Change(), next.Version()
	snap.Members = slices.Clone(snap.Members)
	for i := range snap.Members {
		snap.Members[i].AckedVersion = snap.Version // they have it with the barrier below
	}
	g.snap.Store(schema.Build(snap, g.wide.Tenants()))
	for _, s := range g.stores {
		s.Barrier()
	}
}

// propose opens the change by which the fourth node joins.
func (g *growing) propose() {
	g.t.Helper()
	b := ring.AppendLayout(nil, g.wide.Layout)
	binary.BigEndian.PutUint64(b[1:], uint64(g.log.Version()+1))
	next, err := ring.DecodeLayout(b)
	if err != nil {
		g.t.Fatal(err)
	}
	g.install(&ring.Entry{Kind: ring.KindPropose, Op: g.change, Propose: &ring.Propose{Parent: g.log.Layout().Version(), Layout: next}})
}

func (g *growing) finish() {
	g.t.Helper()
	for _, k := range []ring.Kind{ring.KindCommit, ring.KindFinalize} {
		g.install(&ring.Entry{Kind: k, Step: &ring.Step{Change: g.change}})
	}
}

func (g *growing) until(what string, ok func() bool) {
	g.t.Helper()
	for end := time.Now().Add(5 * time.Minute); !ok(); {
		if time.Now().After(end) {
			g.t.Fatalf("not %s in five minutes: %+v", what, g.rounds[3].Transfers())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestGainOverStores: a fourth node joins three over real stores. It has its share when it
// says so, the others drop what they own no more, and all sums are right. It prints how
// fast the data came.
func TestGainOverStores(t *testing.T) {
	keys := gainKeys
	if s := os.Getenv("PAIRDB_REPAIR_KEYS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		keys = n
	}
	g := newGrowing(t)
	o, members, said := g.owners, g.members, g.said
	o.fill(t, keys)
	g.propose()
	began := time.Now()
	for _, m := range o.rounds {
		m.Start()
	}
	g.until("synced", func() bool { return said.report(members[3].ID).Synced == g.log.Version() })
	took := time.Since(began)
	st := o.rounds[3].Status()
	t.Logf("%d keys, %d MiB in %v: %.0f MB/s with the second that it takes to begin", st.Gained, st.GainedBytes>>20, took.Round(time.Millisecond),
		float64(st.GainedBytes)/1e6/took.Seconds())
	g.finish()
	for _, m := range members {
		g.until("clean", func() bool { return said.report(m.ID).Clean == g.log.Version() })
	}
	for p := range 64 {
		first := g.log.Layout().FirstToken(ring.Partition(p))
		r := repair.Range{Partition: ring.Partition(p), Tenant: roundTenant, First: first, Last: first + 1<<58 - 1}
		var want []repair.Sum
		for i, s := range o.stores {
			differed, err := s.VerifySums(ring.Partition(p))
			if err != nil || differed > 0 {
				t.Errorf("partition %d of node %d: %d sums are wrong, %v", p, i, differed, err)
			}
			got, err := s.Sums(r, 0)
			switch {
			case err != nil:
				t.Error(err)
			case !g.log.Layout().IsOwner(members[i].ID, ring.Partition(p), 3):
				if got[0].Count != 0 {
					t.Errorf("partition %d: node %d does not own it and has %d keys", p, i, got[0].Count)
				}
			case want == nil:
				want = got
			case got[0] != want[0] || got[0].Count == 0:
				t.Errorf("partition %d: node %d has %v, another owner %v", p, i, got, want)
			}
		}
	}
}

// fill brings keys to the owners there are.
func (o *owners) fill(t *testing.T, keys int) {
	t.Helper()
	value := make([]byte, 1000)
	var items []coord.MergeItem
	for k := range keys {
		d := causal.Dot{Actor: 99, Counter: uint64(k + 1)}
		object := causal.Object{Context: causal.NewContext(d), Siblings: []causal.Sibling{{Dot: d, HLC: 1 << 20, Value: value}}}
		items = append(items, coord.MergeItem{Address: o.address(fmt.Appendf(nil, "key%08d", k)), Object: object.Append(nil), LastWriteWins: true})
		if len(items) < 500 && k < keys-1 {
			continue
		}
		for _, s := range o.stores[:3] {
			var done sync.WaitGroup
			done.Add(len(items))
			s.Merge(items, func(_ int, _ []byte, err error) {
				if err != nil {
					t.Error(err)
				}
				done.Done()
			})
			done.Wait()
		}
		items = items[:0]
	}
}
