package ring

import (
	"math"
	"slices"
	"sort"

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
	for k := range p.width {
		p.column(k)
	}
	l := &Layout{
		version: 1,
		shift:   shiftFor(partitions),
		nodes:   sorted,
		width:   p.width,
		table:   p.table,
		voters:  pickVoters(sorted),
		pv:      make([]Version, partitions),
	}
	for i := range l.pv {
		l.pv[i] = 1
	}
	return l, nil
}

// placer fills the table column by column.
type placer struct {
	partitions int
	width      int
	nodes      []LayoutNode
	zone       []int // node index → zone index
	zoneSize   []int
	zoneWeight []float64
	table      []uint16
	count      []int // node index → copies in the columns filled so far
	// used[p*zones+z] counts the copies of row p in zone z.
	used []uint8
}

func newPlacer(partitions int, nodes []LayoutNode) *placer {
	p := &placer{
		partitions: partitions,
		width:      min(MaxRF, len(nodes)),
		nodes:      nodes,
		zone:       make([]int, len(nodes)),
		count:      make([]int, len(nodes)),
	}
	index := map[string]int{}
	for i, n := range nodes {
		z, ok := index[n.Zone]
		if !ok {
			z = len(p.zoneSize)
			index[n.Zone] = z
			p.zoneSize = append(p.zoneSize, 0)
			p.zoneWeight = append(p.zoneWeight, 0)
		}
		p.zone[i] = z
		p.zoneSize[z]++
		p.zoneWeight[z] += float64(n.Capacity)
	}
	p.table = make([]uint16, partitions*p.width)
	p.used = make([]uint8, partitions*len(p.zoneSize))
	return p
}

// targets gives each node's fair number of copies in the first k columns.
func (p *placer) targets(k int) []float64 {
	// Full rounds: every zone has given min(size, round) copies.
	round := 0
	for {
		next := 0
		for _, size := range p.zoneSize {
			next += min(size, round+1)
		}
		if next >= k {
			break
		}
		round++
	}
	lo := make([]float64, len(p.zoneSize))
	hi := make([]float64, len(p.zoneSize))
	for z, size := range p.zoneSize {
		lo[z], hi[z] = float64(min(size, round)), float64(min(size, round+1))
	}
	zones := fill(p.zoneWeight, lo, hi, float64(k))
	out := make([]float64, len(p.nodes))
	for z := range p.zoneSize {
		var member []int
		var w, l, h []float64
		for i := range p.nodes {
			if p.zone[i] == z {
				member = append(member, i)
				w, l, h = append(w, float64(p.nodes[i].Capacity)), append(l, 0), append(h, 1)
			}
		}
		for j, share := range fill(w, l, h, zones[z]) {
			out[member[j]] = share * float64(p.partitions)
		}
	}
	return out
}

// fill divides total in proportion to weight, each part held within lo and hi.
func fill(weight, lo, hi []float64, total float64) []float64 {
	out := make([]float64, len(weight))
	sum := func(level float64) (s float64) {
		for i, w := range weight {
			out[i] = math.Min(hi[i], math.Max(lo[i], level*w))
			s += out[i]
		}
		return s
	}
	// The sum grows with the level: find it by halving, which gives the same
	// bits on every machine.
	low, high := 0.0, 1.0
	for sum(high) < total && high < 1e12 {
		high *= 2
	}
	for range 128 {
		mid := (low + high) / 2
		if sum(mid) < total {
			low = mid
		} else {
			high = mid
		}
	}
	sum(high)
	return out
}

// column fills column k of every row, then moves single copies along until each
// node is within one of its target, or no move helps.
func (p *placer) column(k int) {
	target := p.targets(k + 1)
	zones := len(p.zoneSize)
	for part := range p.partitions {
		best, bestScore, bestTie := -1, 0.0, uint64(0)
		for i := range p.nodes {
			if !p.eligible(part, k, i) {
				continue
			}
			score := float64(p.count[i]+1) / target[i]
			if best >= 0 && score > bestScore {
				continue
			}
			tie := tieBreak(part, k, i)
			if best < 0 || score < bestScore || tie < bestTie {
				best, bestScore, bestTie = i, score, tie
			}
		}
		p.table[part*p.width+k] = uint16(best)
		p.used[part*zones+p.zone[best]]++
		p.count[best]++
	}
	p.level(k, target)
}

// eligible says whether node i may stand in column k of the row: it is not there
// yet, and no zone with nodes left has fewer copies than its own.
func (p *placer) eligible(part, k, i int) bool {
	for _, n := range p.table[part*p.width : part*p.width+k] {
		if int(n) == i {
			return false
		}
	}
	zones := len(p.zoneSize)
	used := p.used[part*zones : (part+1)*zones]
	mine := used[p.zone[i]]
	for z, u := range used {
		if u < mine && int(u) < p.zoneSize[z] {
			return false
		}
	}
	return true
}

// level mends what the greedy pass left uneven in column k. It looks for a chain
// of moves from a node with too many copies to one with too few and shifts one
// copy along it, until there is no such chain.
func (p *placer) level(k int, target []float64) {
	zones := len(p.zoneSize)
	move := func(part, to int) {
		slot := &p.table[part*p.width+k]
		p.used[part*zones+p.zone[*slot]]--
		p.count[*slot]--
		*slot = uint16(to)
		p.used[part*zones+p.zone[to]]++
		p.count[to]++
	}
	for range 2 * p.partitions {
		path := p.chain(k, target)
		if path == nil {
			return
		}
		for _, step := range path {
			move(step.part, step.to)
		}
	}
}

type step struct{ part, to int }

// chain finds the shortest chain of moves that lowers the worst unevenness by a
// breadth-first search over nodes, or nil.
func (p *placer) chain(k int, target []float64) []step {
	const slack = 1e-6 // targets are sums of fractions
	byExcess := make([]int, 0, len(p.nodes))
	for i := range p.nodes {
		if float64(p.count[i]) > target[i]+slack {
			byExcess = append(byExcess, i)
		}
	}
	sort.SliceStable(byExcess, func(a, b int) bool {
		return float64(p.count[byExcess[a]])-target[byExcess[a]] > float64(p.count[byExcess[b]])-target[byExcess[b]]
	})
	for _, from := range byExcess {
		excess := float64(p.count[from]) - target[from]
		if path := p.search(k, target, from, excess); path != nil {
			return path
		}
	}
	return nil
}

// search looks for a chain from a node to one so far below its target that the
// move leaves both nearer to theirs.
func (p *placer) search(k int, target []float64, from int, excess float64) []step {
	zones := len(p.zoneSize)
	prev := make([]step, len(p.nodes))
	before := make([]int, len(p.nodes))
	seen := make([]bool, len(p.nodes))
	seen[from] = true
	queue := []int{from}
	held := make([][]int, len(p.nodes))
	for part := range p.partitions {
		i := p.table[part*p.width+k]
		held[i] = append(held[i], part)
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, part := range held[at] {
			z := part*zones + p.zone[at]
			p.used[z]--
			for to := range p.nodes {
				if seen[to] || !p.eligible(part, k, to) {
					continue
				}
				seen[to], prev[to], before[to] = true, step{part, to}, at
				queue = append(queue, to)
			}
			p.used[z]++
		}
		for _, end := range queue {
			if excess-1 >= float64(p.count[end])-target[end]+1e-6 && end != from {
				return unwind(prev, before, from, end)
			}
		}
	}
	return nil
}

func unwind(prev []step, before []int, from, end int) []step {
	var path []step
	for at := end; at != from; at = before[at] {
		path = append(path, prev[at])
	}
	return path
}

// tieBreak spreads equal choices so that the second owners of one node's
// partitions are not all the same node.
func tieBreak(part, k, i int) uint64 {
	return xxh3.Hash([]byte{byte(part >> 8), byte(part), byte(k), byte(i >> 8), byte(i)})
}

// pickVoters takes one node of each zone in turn, lowest ids first.
func pickVoters(nodes []LayoutNode) []NodeID {
	want := 7
	switch n := len(nodes); {
	case n <= 2:
		want = 1
	case n <= 4:
		want = 3
	case n <= 6:
		want = 5
	}
	taken := map[string]int{}
	left := slices.Clone(nodes)
	var voters []NodeID
	for len(voters) < want {
		best := 0
		for i := range left {
			if taken[left[i].Zone] < taken[left[best].Zone] {
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
