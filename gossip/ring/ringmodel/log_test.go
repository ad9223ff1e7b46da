package ringmodel

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/gossip/ring"
)

// view is what the log says up to one version: a ring.State, and of it what is asked
// all the time.
type view struct {
	state   *ring.State
	at      [units]owners
	retired mask
	members mask
	nodes   mask // of the layout in force
}

// owners says who owns a unit, as ring.SetsOf does.
type owners struct {
	pv             ring.Version
	stage          ring.Stage
	w1, w2, r1, r2 mask
	sync           mask // who has to bring its copy level before COMMIT
	touched        bool // by the open change, though perhaps for other tenants only
}

func (o *owners) all() mask { return o.w1 | o.w2 }

func viewOf(s *ring.State, rf [tenants]int) *view {
	v := &view{state: s, retired: maskOf(s.Retired())}
	for _, n := range s.Members() {
		v.members |= bit(indexOf(n.ID))
	}
	l, c := s.Layout(), s.Change()
	for _, n := range l.Nodes() {
		v.nodes |= bit(indexOf(n.ID))
	}
	_, second := s.Tenant(secondTenant)
	for u := range units {
		if tenantOf(u) == 1 && !second {
			continue // nobody owns what is not there
		}
		p, f := partitionOf(u), rf[tenantOf(u)]
		sets := ring.SetsOf(l, c, nil, p, f)
		of := func(bits uint16) (m mask) {
			for i, id := range sets.Owners {
				if bits>>i&1 == 1 {
					m |= bit(indexOf(id))
				}
			}
			return m
		}
		o := &v.at[u]
		*o = owners{
			pv: l.PV(p), stage: sets.Stage, touched: c.Touches(p),
			w1: of(sets.W1), w2: of(sets.W2), r1: of(sets.R1), r2: of(sets.R2),
		}
		if c != nil {
			for _, n := range c.Next.Nodes() {
				if c.Gains(l, n.ID, p, f) {
					o.sync |= bit(indexOf(n.ID))
				}
			}
		}
	}
	return v
}

// plan is a layout before it has a version.
type plan struct {
	nodes  mask
	rows   [partitions][]int
	voters mask
}

// layout makes a real layout of p by way of its encoding, which alone can say any.
func (p *plan) layout(v ring.Version) *ring.Layout {
	list := p.nodes.list()
	b := binary.BigEndian.AppendUint64([]byte{1}, uint64(v))
	b = binary.BigEndian.AppendUint16(b, 1) // 2 partitions
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, i := range list {
		id, name := idOf(i), fmt.Sprintf("n%d", i)
		b = binary.BigEndian.AppendUint32(append(b, id[:]...), 1)
		b = append(append(b, byte(len(name))), name...)
		b = append(b, 0)
	}
	b = append(b, byte(min(ring.MaxRF, len(list))))
	for _, row := range p.rows {
		for _, i := range row {
			b = binary.BigEndian.AppendUint16(b, uint16(slices.Index(list, i)))
		}
	}
	b = append(b, byte(p.voters.n()))
	for _, i := range p.voters.list() {
		b = binary.BigEndian.AppendUint16(b, uint16(slices.Index(list, i)))
	}
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, partitions)
	b = binary.BigEndian.AppendUint64(b, 1)
	l, err := ring.DecodeLayout(b)
	if err != nil {
		panic(fmt.Sprintf("the model made a layout that is none: %v of %+v", err, *p))
	}
	return l
}

// planOf is the layout in force.
func planOf(l *ring.Layout) plan {
	p := plan{voters: maskOf(l.Voters())}
	for _, n := range l.Nodes() {
		p.nodes |= bit(indexOf(n.ID))
	}
	for i := range p.rows {
		for _, id := range l.Owners(nil, ring.Partition(i), ring.MaxRF) {
			p.rows[i] = append(p.rows[i], indexOf(id))
		}
	}
	return p
}

// foundCluster begins the log: a cluster with a layout and, mostly, a second tenant,
// known to all.
func (w *world) foundCluster(p plan) {
	s, err := new(ring.State).Next(&ring.Entry{
		Version: 1, Kind: ring.KindFound, Op: w.newOpID(),
		Found: &ring.Found{ClusterID: ring.ClusterID{1}, ClusterName: "model", Founder: idOf(p.nodes.list()[0]), Layout: p.layout(1)},
	})
	if err == nil && !w.lateTenant {
		s, err = s.Next(w.tenantEntry(2))
	}
	if err != nil {
		panic(fmt.Sprintf("found: %v", err))
	}
	w.base = int(s.Version())
	w.views = append(make([]*view, w.base), viewOf(s, w.rf))
	w.chosen = make([][]byte, w.base+1)
	for _, n := range w.nodes {
		n.known, n.durable = w.base, w.base
	}
}

const secondTenant = "second"

// tenantEntry creates the second tenant.
func (w *world) tenantEntry(v ring.Version) *ring.Entry {
	e := w.entry(ring.KindTenantCreate, v, nil)
	e.Tenant = &ring.TenantCreate{Name: secondTenant, RF: uint8(w.rf[1]), Policy: 1}
	return e
}

func (w *world) newOpID() (op [16]byte) {
	w.opIDs++
	binary.BigEndian.PutUint64(op[:], uint64(w.opIDs))
	return op
}

// last is the newest view there is.
func (w *world) last() *view { return w.views[len(w.views)-1] }

// appendEntry puts a chosen value into the log.
func (w *world) appendEntry(value []byte, by int) {
	e, err := ring.DecodeEntry(value)
	if err != nil {
		w.fail("a chosen entry cannot be read", "%v", err)
		return
	}
	before := w.last()
	s, err := before.state.Next(e)
	if err != nil {
		w.fail("a chosen entry cannot stand", "%v", err)
		return
	}
	v := viewOf(s, w.rf)
	w.views, w.chosen = append(w.views, v), append(w.chosen, value)
	w.trace("v%d is %v, seen by n%d%s", e.Version, e.Kind, by, v.describe())
	w.count[e.Kind.String()]++
	w.forced |= v.retired &^ before.retired
}

func (v *view) describe() string {
	s := ""
	for u := range v.at {
		if o := &v.at[u]; o.pv == v.state.Version() {
			s += fmt.Sprintf(" u%d:%v", u, o.w1.list())
			if o.w2 != 0 {
				s += fmt.Sprintf("->%v", o.w2.list())
			}
		}
	}
	return s
}

// entry makes an entry that the log may take at a version.
func (w *world) entry(kind ring.Kind, v ring.Version, s *ring.State) *ring.Entry {
	e := &ring.Entry{Version: v, Kind: kind, Op: w.newOpID()}
	switch kind {
	case ring.KindCommit, ring.KindAbort, ring.KindFinalize:
		e.Step = &ring.Step{Change: s.Change().ID}
	}
	return e
}

// proposal makes the entry that opens a change to p.
func (w *world) proposal(p *plan, removed mask, v ring.Version, s *ring.State) *ring.Entry {
	e := w.entry(ring.KindPropose, v, s)
	e.Propose = &ring.Propose{Parent: s.Layout().Version(), Layout: p.layout(v)}
	for _, i := range removed.list() {
		e.Propose.Removed = append(e.Propose.Removed, idOf(i))
	}
	return e
}
