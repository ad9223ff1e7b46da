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
	pv      [partitions]ring.Version
	class   [tenants]ring.Class // 0 of a tenant that is not
	classes []ring.Class        // that have tenants, sorted
}

// owners says who owns a unit, as ring.SetsOf does.
type owners struct {
	pv             ring.Version
	stage          ring.Stage
	w1, w2, r1, r2 mask
	sync           mask // who has to bring its copy level before COMMIT
	touched        bool // by the open change, though perhaps for other tenants only
	deleted        bool // its tenant is
}

func (o *owners) all() mask { return o.w1 | o.w2 }

// there says whether its tenant is known, and not deleted.
func (o *owners) there() bool { return o.pv > 0 && !o.deleted }

func (v *view) deleted(t int) bool { return v.at[t*partitions].deleted }

// viewOf looks at what the log says, which before was last.
func (w *world) viewOf(s *ring.State, last *view) *view {
	v := &view{state: s, retired: maskOf(s.Retired())}
	for _, n := range s.Members() {
		v.members |= bit(indexOf(n.ID))
	}
	l := s.Layout()
	for _, n := range l.Nodes() {
		v.nodes |= bit(indexOf(n.ID))
	}
	for i := range v.pv {
		v.pv[i] = w.versionOf(s, last, ring.Partition(i))
	}
	for number := ring.TenantNumber(1); number <= s.LastTenant(); number++ {
		if s.Deleted(number) {
			for i := range partitions {
				v.at[w.slot(number)*partitions+i] = owners{pv: v.pv[i], deleted: true}
			}
		}
	}
	for _, t := range s.Tenants() {
		at := w.slot(t.Number)
		v.class[at] = t.Class()
		v.classes = append(v.classes, t.Class())
		for i := range partitions {
			v.at[at*partitions+i] = w.ownersOf(v, t, ring.Partition(i))
		}
	}
	slices.Sort(v.classes)
	v.classes = slices.Compact(v.classes)
	return v
}

func (w *world) ownersOf(v *view, t *ring.TenantRecord, p ring.Partition) owners {
	l, c, copies := v.state.Layout(), v.state.Change(), v.state.Copies(t)
	sets := ring.SetsOf(l, c, nil, p, copies)
	of := func(bits uint16) (m mask) {
		for i, id := range sets.Owners {
			if bits>>i&1 == 1 {
				m |= bit(indexOf(id))
			}
		}
		return m
	}
	o := owners{
		pv: v.pv[p], stage: sets.Stage, touched: c.Touches(p),
		w1: of(sets.W1), w2: of(sets.W2), r1: of(sets.R1), r2: of(sets.R2),
	}
	if c != nil {
		if !w.in(gainCopies) {
			copies = ring.Same(copies.From)
		}
		for _, n := range c.Next.Nodes() {
			if c.Gains(l, n.ID, p, copies) {
				o.sync |= bit(indexOf(n.ID))
			}
		}
	}
	return o
}

// versionOf is the version of a partition. Without classFenced a change of replication
// factors alone moves only those of partitions in which owners are others.
func (w *world) versionOf(s *ring.State, last *view, p ring.Partition) ring.Version {
	now := s.Layout().PV(p)
	if w.in(classFenced) || last == nil {
		return now
	}
	open := s
	if open.Change() == nil {
		open = last.state
	}
	c := open.Change()
	if c == nil || len(c.Factors) == 0 {
		return max(now, last.pv[p])
	}
	for _, t := range open.Tenants() {
		copies := c.Copies(t.Number, int(t.RF))
		a, b := open.Layout().Owners(nil, p, copies.From), c.Next.Owners(nil, p, copies.To)
		if maskOf(a) != maskOf(b) {
			return now
		}
	}
	return last.pv[p]
}

// slot is where what a tenant has is kept. Without freshNumbers that is where it was of
// the one that had the name before.
func (w *world) slot(t ring.TenantNumber) int {
	if at, ok := w.slots[t]; ok {
		return at
	}
	return int(t) - 1
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
		s, err = s.Next(w.tenantEntry(2, secondTenant, w.rf))
	}
	if err != nil {
		panic(fmt.Sprintf("found: %v", err))
	}
	w.base = int(s.Version())
	w.views = append(make([]*view, w.base), w.viewOf(s, nil))
	w.chosen = make([][]byte, w.base+1)
	for _, n := range w.nodes {
		n.known, n.durable = w.base, w.base
	}
}

const (
	secondTenant = "second"
	thirdTenant  = "third"
)

// tenantEntry creates a tenant.
func (w *world) tenantEntry(v ring.Version, name string, rf int) *ring.Entry {
	e := w.entry(ring.KindTenantCreate, v, nil)
	e.Tenant = &ring.TenantCreate{Name: name, RF: uint8(rf), Policy: 1}
	return e
}

// newTenant is the entry that makes one of the tenants that are not there, nil if all are,
// or if there were too many.
func (w *world) newTenant(s *ring.State) *ring.Entry {
	name, rf := secondTenant, w.rf
	if _, made := s.Tenant(name); made {
		if name = thirdTenant; !w.moreTenants {
			return nil
		}
		if _, made := s.Tenant(name); made {
			return nil
		}
	}
	if s.LastTenant() >= tenants {
		return nil
	}
	if s.LastTenant() > 1 {
		rf = []int{2, 3, 3, 3, 4, 5}[w.n(6)]
	}
	return w.tenantEntry(s.Version()+1, name, rf)
}

// deleteTenant is the entry that deletes a tenant.
func (w *world) deleteTenant(t ring.TenantNumber, v ring.Version) *ring.Entry {
	e := w.entry(ring.KindTenantDelete, v, nil)
	e.Delete = &ring.TenantDelete{Number: t}
	return e
}

// noteTenant keeps in mind who had a name, and what nobody must see any more.
func (w *world) noteTenant(s *ring.State, e *ring.Entry) {
	if e.Kind == ring.KindTenantDelete {
		if t, ok := w.last().state.TenantByNumber(e.Delete.Number); ok {
			w.had[t.Name] = w.slot(t.Number)
		}
	}
	if e.Kind != ring.KindTenantCreate || w.in(freshNumbers) {
		return
	}
	t, ok := s.Tenant(e.Tenant.Name)
	if at, had := w.had[e.Tenant.Name]; ok && had && t.Version == e.Version {
		w.slots[t.Number] = at
		for i := range partitions {
			k := &w.keys[at*partitions+i]
			k.old = 1<<k.made - 1
			k.covered, k.dead, k.acked, k.lastAcked, k.ones = 0, 0, 0, 0, nil
		}
	}
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
	w.noteTenant(s, e)
	v := w.viewOf(s, before)
	w.views, w.chosen = append(w.views, v), append(w.chosen, value)
	w.trace("v%d is %v, seen by n%d%s", e.Version, e.Kind, by, v.describe())
	w.count[e.Kind.String()]++
	if e.Kind == ring.KindFinalize {
		w.count["factors changed"] += len(before.state.Change().Factors)
	}
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
func (w *world) proposal(p *plan, removed mask, v ring.Version, s *ring.State, factors ...ring.Factor) *ring.Entry {
	e := w.entry(ring.KindPropose, v, s)
	e.Propose = &ring.Propose{Parent: s.Layout().Version(), Layout: p.layout(v), Factors: factors}
	w.count["factors proposed"] += len(factors)
	for _, i := range removed.list() {
		e.Propose.Removed = append(e.Propose.Removed, idOf(i))
	}
	return e
}
