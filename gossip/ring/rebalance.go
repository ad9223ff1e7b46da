package ring

import (
	"fmt"
	"slices"
)

// Rebalance gives the layout of version v over nodes that moves as little as it can
// from l. All partitions have version v in it: State.Next sets those that are true.
//
// Zones are spread first, then shares follow capacity, both for every prefix of the
// rows and as NewLayout has them. A copy moves only for one of three reasons: its
// node is gone, its zone has too many of the row, or its node has more than its share.
// A node that is gone is followed by a new one of the same zone and capacity if there
// is one: it takes its place in all rows. Partitions whose first three owners change
// already are spared, so that as few as possible lose sight of two at once.
//
// Present voters stay voters as far as their number and their zones allow.
func (l *Layout) Rebalance(v Version, nodes []LayoutNode) (*Layout, error) {
	return l.rebalance(v, nodes, nil)
}

// rebalance is Rebalance with heirs: nodes that are gone, and who takes their place.
func (l *Layout) rebalance(v Version, nodes []LayoutNode, heirs map[NodeID]NodeID) (*Layout, error) {
	if v <= l.version {
		return nil, fmt.Errorf("%w: version %d does not follow %d", ErrLayout, v, l.version)
	}
	sorted := slices.Clone(nodes)
	slices.SortFunc(sorted, func(a, b LayoutNode) int { return a.ID.Compare(b.ID) })
	if err := checkNodes(sorted); err != nil {
		return nil, err
	}
	m := newMover(l, sorted, heirs)
	if !m.alike {
		for k := range m.width {
			m.column(k)
		}
	}
	for part := range m.partitions {
		copy(m.row(part, m.width), m.wide(part))
	}
	if !m.alike && m.uneven() {
		m.mend()
	}
	n := &Layout{
		version: v,
		shift:   l.shift,
		nodes:   sorted,
		width:   m.width,
		table:   m.table,
		voters:  pickVoters(sorted, l.voters),
		pv:      slices.Repeat([]Version{v}, m.partitions),
	}
	return n, nil
}

// nobody stands in a row where a copy is missing.
const nobody = ^uint16(0)

// mover is a placer that starts from a table and goes through it column by column.
type mover struct {
	*placer
	// alike says that there are as many nodes as before, each of the zone and capacity
	// of the one whose place it has: nothing has to move.
	alike bool
	// span is the wider of both widths. Rows of that width are what is worked on.
	span int
	rows []uint16
	// old are the rows as they were, with nobody for who is gone without an heir.
	old []uint16
}

func newMover(l *Layout, nodes []LayoutNode, heirs map[NodeID]NodeID) *mover {
	m := &mover{placer: newPlacer(l.Partitions(), nodes)}
	m.span = max(l.width, m.width)
	place := m.places(l, heirs)
	m.old = make([]uint16, 0, m.partitions*m.span)
	for part := range m.partitions {
		for _, i := range l.row(Partition(part), l.width) {
			m.old = append(m.old, place[i])
		}
		for range m.span - l.width {
			m.old = append(m.old, nobody)
		}
	}
	m.rows = slices.Clone(m.old)
	m.alike = len(nodes) == len(l.nodes)
	for i, n := range l.nodes {
		m.alike = m.alike && place[i] != nobody && nodes[place[i]].Zone == n.Zone && nodes[place[i]].Capacity == n.Capacity
	}
	return m
}

// places says, for each node of l, which of the new nodes has its place, or nobody.
func (m *mover) places(l *Layout, heirs map[NodeID]NodeID) []uint16 {
	index := make(map[NodeID]uint16, len(m.nodes))
	for i, n := range m.nodes {
		index[n.ID] = uint16(i)
	}
	taken := make([]bool, len(m.nodes))
	place := make([]uint16, len(l.nodes))
	for i, n := range l.nodes {
		at, ok := index[n.ID]
		if heir, has := heirs[n.ID]; !ok && has {
			at, ok = index[heir]
		}
		place[i] = nobody
		if ok && !taken[at] {
			place[i], taken[at] = at, true
		}
	}
	for i, n := range l.nodes {
		if place[i] != nobody {
			continue
		}
		for j, heir := range m.nodes {
			if _, was := l.index(heir.ID); !was && !taken[j] && heir.Zone == n.Zone && heir.Capacity == n.Capacity {
				place[i], taken[j] = uint16(j), true
				break
			}
		}
	}
	return place
}

// wide is the whole row that is worked on, was the one that it comes from.
func (m *mover) wide(part int) []uint16 { return m.rows[part*m.span:][:m.span] }
func (m *mover) was(part int) []uint16  { return m.old[part*m.span:][:m.span] }

// column decides column k of every row, those before it being settled. Whoever stands
// there stays, unless the zones forbid it; gaps go to whoever is furthest behind its
// share of the first k+1 columns; and then nodes with too much give to those with too
// little, along chains that move as little as possible.
func (m *mover) column(k int) {
	target := m.targets(k + 1)
	c := &column{
		mover: m, k: k, within: m.within(k), picks: make([]uint16, m.partitions),
		excess: make([]float64, len(m.nodes)), twice: make([]bool, m.partitions),
	}
	c.rounds = m.placer.rounds(c.within)
	for i := range c.excess {
		c.excess[i] = float64(m.count[i]) - target[i]
	}
	dear := float64(2 * m.partitions) // what is cheaper goes before what is evener
	var gaps []int
	for part := range m.partitions {
		c.picks[part] = nobody
		c.twice[part] = k < spared && slices.ContainsFunc(m.wide(part)[:k], func(i uint16) bool { return !slices.Contains(m.was(part)[:k+1], i) })
		if at := m.wide(part)[k]; at != nobody && c.allowed(part, int(at)) {
			c.picks[part] = at
			c.excess[at]++
		} else {
			gaps = append(gaps, part)
		}
	}
	for _, part := range gaps {
		best := pick(part, k, len(m.nodes), func(i int) float64 {
			return -c.excess[i] - float64(c.cost(part, uint16(i)))*dear
		}, func(i int) bool { return c.allowed(part, i) })
		c.picks[part] = uint16(best)
		c.excess[best]++
	}
	c.level()
	for part, i := range c.picks {
		m.put(part, k, i)
	}
}

// within is the prefix that one looks ahead to from column k: where the zones will
// have given equally many, not before the owners that are spared.
func (m *mover) within(k int) int {
	zones, ahead := len(m.zoneSize), max(k+1, spared)
	return min((ahead+zones-1)/zones*zones, m.width)
}

// put makes i the owner in column k of a row, and keeps who stood there in the row if
// there is room behind.
func (m *mover) put(part, k int, i uint16) {
	row := m.wide(part)
	m.zones(part)[m.zone[i]]++
	m.count[i]++
	before, rest := row[k], row[k+1:]
	row[k] = i
	if before == i {
		return
	}
	if at := slices.Index(rest, i); at >= 0 {
		rest[at] = before
	} else if at := slices.Index(rest, nobody); at >= 0 {
		rest[at] = before
	}
}

// uneven says whether a prefix is further from the shares than whole copies explain.
func (m *mover) uneven() bool {
	count := make([]int, len(m.nodes))
	for k := range m.width {
		for part := range m.partitions {
			count[m.row(part, m.width)[k]]++
		}
		for i, t := range m.targets(k + 1) {
			if d := float64(count[i]) - t; d > max(1.5, t/50) || -d > max(1.5, t/50) {
				return true
			}
		}
	}
	return false
}

// mend evens out what going from the left cannot: it can run out of nodes for the last
// columns when capacities differ much. Like in a new layout, the whole rows are
// levelled first, and then who of a row is the last, for ever shorter prefixes.
func (p *placer) mend() {
	p.chains = p.partitions // it may be far from even
	for i := range p.count {
		p.count[i] = 0
	}
	for i := range p.used {
		p.used[i] = 0
	}
	for part := range p.partitions {
		for _, i := range p.row(part, p.width) {
			p.count[i]++
			p.zones(part)[p.zone[i]]++
		}
	}
	p.level(p.targets(p.width), p.width, 0, p.replaceable)
	for k := p.width - 1; k >= 1; k-- {
		p.thin(k, true)
	}
}
