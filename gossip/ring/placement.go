package ring

import (
	"cmp"
	"slices"

	"github.com/zeebo/xxh3"
)

// NewLayout places partitions on the nodes that found a cluster. The result has
// version 1, and so has every partition.
//
// Zones are spread first: within every prefix of a row the zones differ by at
// most one copy, as far as they have nodes left. Under that rule each node's
// share of every prefix 1..7 is proportional to its capacity, because a tenant
// uses only the first RF owners of a row. It depends on the set of nodes alone,
// not on their order.
//
// Voters: one of one or two nodes (the lowest id: two voters would be worse than
// one), 3 of 3..4, 5 of 5..6, else 7, spread over zones.
func NewLayout(partitions int, nodes []LayoutNode) (*Layout, error) {
	if err := checkPartitions(partitions); err != nil {
		return nil, err
	}
	sorted := slices.Clone(nodes)
	slices.SortFunc(sorted, func(a, b LayoutNode) int { return a.ID.Compare(b.ID) })
	if err := checkNodes(sorted); err != nil {
		return nil, err
	}
	p := newPlacer(partitions, sorted)
	p.fillRows()
	for k := p.width - 1; k >= 1; k-- {
		p.thin(k, false)
	}
	l := &Layout{
		version: 1,
		shift:   shiftFor(partitions),
		nodes:   sorted,
		width:   p.width,
		table:   p.table,
		voters:  pickVoters(sorted, nil),
		pv:      make([]Version, partitions),
	}
	for i := range l.pv {
		l.pv[i] = 1
	}
	return l, nil
}

// placer fills the table from the outside in: first the set of owners of every
// row, then, for each shorter prefix, who of the row is the last. That order is
// what makes all prefixes even at once: a set with the right shares can always
// be thinned to a smaller one with the right shares, while filling columns from
// the left can paint itself into a corner.
type placer struct {
	partitions int
	width      int
	nodes      []LayoutNode
	zone       []int // node index → zone index
	zoneSize   []int
	table      []uint16
	// chains bounds how many times a level is mended.
	chains int
	// count is, per node, its copies at the level being worked on.
	count []int
	// used[p*zones+z] counts the copies of row p in zone z at that level.
	used []uint8
}

func newPlacer(partitions int, nodes []LayoutNode) *placer {
	p := &placer{
		partitions: partitions,
		width:      min(MaxRF, len(nodes)),
		nodes:      nodes,
		zone:       make([]int, len(nodes)),
		chains:     4 * len(nodes),
		count:      make([]int, len(nodes)),
	}
	index := map[string]int{}
	for i, n := range nodes {
		z, ok := index[n.Zone]
		if !ok {
			z = len(p.zoneSize)
			index[n.Zone] = z
			p.zoneSize = append(p.zoneSize, 0)
		}
		p.zone[i] = z
		p.zoneSize[z]++
	}
	p.table = make([]uint16, partitions*p.width)
	p.used = make([]uint8, partitions*len(p.zoneSize))
	return p
}

func (p *placer) row(part, k int) []uint16 { return p.table[part*p.width:][:k] }

func (p *placer) zones(part int) []uint8 {
	return p.used[part*len(p.zoneSize):][:len(p.zoneSize)]
}

// balanced says whether a copy may be added to zone z of a row: no zone with
// nodes left has fewer.
func (p *placer) balanced(used []uint8, z int) bool {
	for other, n := range used {
		if n < used[z] && int(n) < p.zoneSize[other] {
			return false
		}
	}
	return true
}

// fillRows chooses the owners of every row. Each pick goes to the node that is
// furthest behind its share so far.
func (p *placer) fillRows() {
	target := p.targets(p.width)
	behind := make([]float64, len(p.nodes))
	for part := range p.partitions {
		for i := range behind {
			behind[i] = target[i]*float64(part+1)/float64(p.partitions) - float64(p.count[i])
		}
		used := p.zones(part)
		for k := range p.width {
			row := p.row(part, k)
			best := pick(part, k, len(p.nodes), func(i int) float64 { return behind[i] }, func(i int) bool {
				return !slices.Contains(row, uint16(i)) && p.balanced(used, p.zone[i])
			})
			p.table[part*p.width+k] = uint16(best)
			used[p.zone[best]]++
			p.count[best]++
		}
	}
	p.level(target, p.width, 0, p.replaceable)
}

// replaceable offers, for a copy of node at in a row, the nodes that could hold
// it instead.
func (p *placer) replaceable(part, at int, offer func(to int)) {
	used, row := p.zones(part), p.row(part, p.width)
	used[p.zone[at]]--
	for to := range p.nodes {
		if !slices.Contains(row, uint16(to)) && p.balanced(used, p.zone[to]) {
			offer(to)
		}
	}
	used[p.zone[at]]++
}

// thin decides who stands in column k of every row, the columns after it being
// settled, so that the first k columns are even. Whoever stands there stays, if wanted,
// unless the zones forbid it.
func (p *placer) thin(k int, stay bool) {
	target := p.targets(k)
	drop := make([]float64, len(p.nodes)) // how many rows a node should end
	for i := range drop {
		drop[i] = float64(p.count[i]) - target[i]
		p.count[i] = 0
	}
	for part := range p.partitions {
		row, used := p.row(part, k+1), p.zones(part)
		if stay && droppable(used, p.zone[row[k]]) {
			p.count[row[k]]++
			continue
		}
		last := pick(part, k, len(row), func(j int) float64 {
			i := row[j]
			return drop[i]*float64(part+1)/float64(p.partitions) - float64(p.count[i])
		}, func(j int) bool { return droppable(used, p.zone[row[j]]) })
		row[last], row[k] = row[k], row[last]
		p.count[row[k]]++
	}
	p.level(drop, k+1, k, func(part, at int, offer func(to int)) {
		used := p.zones(part)
		for _, to := range p.row(part, k) {
			if droppable(used, p.zone[to]) {
				offer(int(to))
			}
		}
	})
	for i := range p.count {
		p.count[i] = 0
	}
	for part := range p.partitions {
		p.zones(part)[p.zone[p.table[part*p.width+k]]]--
		for _, i := range p.row(part, k) {
			p.count[i]++
		}
	}
}

// droppable says whether a row may lose a copy in zone z: none has more.
func droppable(used []uint8, z int) bool { return used[z] == slices.Max(used) }

// pick gives the candidate with the highest score among n; equals are told apart
// by a hash, so that the second owners of one node's partitions are not all the
// same node. There always is a candidate.
func pick(part, k, n int, score func(int) float64, allowed func(int) bool) int {
	const near = 1e-9
	best, bestScore, bestTie := -1, 0.0, uint64(0)
	for i := range n {
		s := score(i)
		if best >= 0 && s < bestScore-near || !allowed(i) {
			continue
		}
		tie := xxh3.Hash([]byte{byte(part >> 8), byte(part), byte(k), byte(i >> 8), byte(i)})
		if best < 0 || s > bestScore+near || tie < bestTie {
			best, bestScore, bestTie = i, s, tie
		}
	}
	return best
}

// step says that in a row, one node's copy becomes another's.
type step struct{ part, from, to int }

// level mends what picking left uneven among the columns [from, upTo) of all
// rows. It looks for a chain of steps from a node with too many copies to one
// with too few, and goes on until there is none.
func (p *placer) level(target []float64, upTo, from int, options func(part, at int, offer func(to int))) {
	for range p.chains {
		held := make([][]int, len(p.nodes))
		for part := range p.partitions {
			for _, i := range p.row(part, upTo)[from:] {
				held[i] = append(held[i], part)
			}
		}
		path := p.chain(target, held, options)
		if path == nil {
			return
		}
		for _, s := range path {
			p.apply(s, upTo, from)
		}
	}
}

func (p *placer) apply(s step, upTo, from int) {
	row := p.row(s.part, upTo)
	at := from + slices.Index(row[from:], uint16(s.from))
	if other := slices.Index(row, uint16(s.to)); other >= 0 {
		row[at], row[other] = row[other], row[at] // a change of places
	} else {
		row[at] = uint16(s.to)
		used := p.zones(s.part)
		used[p.zone[s.from]]--
		used[p.zone[s.to]]++
	}
	p.count[s.from]--
	p.count[s.to]++
}

// chain searches breadth-first from each node above its target, the worst first,
// for one so far below that a shift leaves both nearer to theirs.
func (p *placer) chain(target []float64, held [][]int, options func(part, at int, offer func(to int))) []step {
	excess := func(i int) float64 { return float64(p.count[i]) - target[i] }
	var over []int
	for i := range p.nodes {
		if excess(i) > 1e-6 {
			over = append(over, i)
		}
	}
	slices.SortStableFunc(over, func(a, b int) int { return cmp.Compare(excess(b), excess(a)) })
	for _, start := range over {
		reached := make([]*step, len(p.nodes))
		queue := []int{start}
		for head := 0; head < len(queue); head++ {
			at := queue[head]
			if at != start && excess(start)-excess(at) > 1+1e-6 {
				return unwind(reached, start, at)
			}
			for _, part := range held[at] {
				options(part, at, func(to int) {
					if to != start && reached[to] == nil {
						reached[to] = &step{part, at, to}
						queue = append(queue, to)
					}
				})
			}
		}
	}
	return nil
}

// unwind gives the steps of a chain, the last first. No two of them meet in one
// row, or a shorter chain would have been found.
func unwind(reached []*step, start, end int) []step {
	var path []step
	for at := end; at != start; {
		s := reached[at]
		path = append(path, *s)
		at = s.from
	}
	return path
}

// maxVoters bounds them.
const maxVoters = 7

// votersOf is how many of so many nodes vote.
func votersOf(nodes int) int {
	switch {
	case nodes <= 2:
		return 1
	case nodes <= 4:
		return 3
	case nodes <= 6:
		return 5
	default:
		return maxVoters
	}
}

// pickVoters takes one node of each zone in turn: who votes already first, then the
// lowest ids.
func pickVoters(nodes []LayoutNode, present []NodeID) []NodeID {
	taken := map[string]int{}
	left := slices.Clone(nodes)
	votes := func(n LayoutNode) bool { return slices.Contains(present, n.ID) }
	var voters []NodeID
	for want := votersOf(len(nodes)); len(voters) < want; {
		best := 0
		for i, n := range left {
			if d := taken[n.Zone] - taken[left[best].Zone]; d < 0 || d == 0 && votes(n) && !votes(left[best]) {
				best = i
			}
		}
		voters = append(voters, left[best].ID)
		taken[left[best].Zone]++
		left = slices.Delete(left, best, best+1)
	}
	slices.SortFunc(voters, NodeID.Compare)
	return voters
}
