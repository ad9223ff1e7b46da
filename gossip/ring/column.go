package ring

import (
	"math"
	"slices"
)

// spared is how many owners of a partition should not change more than one at a time,
// if that can be avoided: those of a tenant with the usual replication factor.
const spared = DefaultTenantRF

// What it costs to have a node in a column. The units only order the choices.
const (
	// costOrder: it was among these owners, but elsewhere.
	costOrder = 1
	// costMove: its data must be moved here.
	costMove = 16
	// costCrowd is what is added if an owner of its zone will have to go, too.
	costCrowd = 4
	// costTwice is what is added if the partition has another new owner already.
	costTwice = 8
)

// column is one column of the table while its owners are decided.
type column struct {
	*mover
	k int
	// picks are the owners so far, by partition.
	picks []uint16
	// excess is, by node, what it has beyond its share of this and all columns before.
	excess []float64
	// within is the prefix that should not change more than is needed, and rounds is
	// placer.rounds of it.
	within, rounds int
	// twice marks partitions that have a new owner among the first ones already.
	twice []bool
}

func (c *column) allowed(part, i int) bool {
	return !slices.Contains(c.wide(part)[:c.k], uint16(i)) && c.balanced(c.zones(part), c.zone[i])
}

func (c *column) cost(part int, i uint16) int {
	cost := c.atLeast(part, i)
	if cost >= costMove && c.crowds(part, i) {
		cost += costCrowd
	}
	return cost
}

// atLeast is the cost as far as it is quickly known.
func (c *column) atLeast(part int, i uint16) int {
	switch {
	case i == c.wide(part)[c.k]:
		return 0
	case slices.Contains(c.was(part)[:c.k+1], i):
		return costOrder
	case c.twice[part]:
		return costMove + costTwice
	default:
		return costMove
	}
}

// crowds says whether a new owner leaves no room in its zone for those that could stay.
func (c *column) crowds(part int, i uint16) bool {
	was, zone := c.was(part)[:c.within], c.zone[i]
	if slices.Contains(was, i) {
		return false
	}
	in := int(c.zones(part)[zone]) + 1
	for _, o := range was {
		if o != nobody && c.zone[o] == zone && !slices.Contains(c.wide(part)[:c.k], o) {
			in++
		}
	}
	return in > min(c.zoneSize[zone], c.rounds+1)
}

// hop is the cheapest way to give one copy of a node to another.
type hop struct {
	cost, part int
}

// hops are, by node, the cheapest ways from it to every other.
type hops [][]hop

// from gives the ways out of a node and works them out if they are not known.
func (h hops) from(c *column, at int, held []int) []hop {
	if h[at] != nil {
		return h[at]
	}
	out := make([]hop, len(c.nodes))
	for i := range out {
		out[i].part = -1
	}
	for _, part := range held {
		have := c.cost(part, uint16(at))
		for to := range out {
			best := &out[to]
			if to == at || best.part >= 0 && max(0, c.atLeast(part, uint16(to))-have) >= best.cost || !c.allowed(part, to) {
				continue
			}
			// What is won by a hop does not make up for others, or chains could go round.
			if cost := max(0, c.cost(part, uint16(to))-have); best.part < 0 || cost < best.cost {
				*best = hop{cost, part}
			}
		}
	}
	h[at] = out
	return out
}

// level gives copies from nodes with too many to nodes with too few, always along the
// cheapest chain, until no two differ by more than a copy from their shares or there
// is no way between them. Each chain brings the column nearer to the shares.
func (c *column) level() {
	held := make([][]int, len(c.nodes))
	for part, i := range c.picks {
		held[i] = append(held[i], part)
	}
	ways := make(hops, len(c.nodes))
	for range 2 * c.partitions {
		path := c.cheapest(ways, held)
		if path == nil {
			return
		}
		for _, s := range path {
			c.picks[s.part] = uint16(s.to)
			held[s.from] = slices.DeleteFunc(held[s.from], func(part int) bool { return part == s.part })
			held[s.to] = append(held[s.to], s.part)
			ways[s.from], ways[s.to] = nil, nil
		}
		first, last := path[len(path)-1].from, path[0].to
		c.excess[first]--
		c.excess[last]++
	}
}

// cheapest looks for a chain from the node with the most to one that has a copy less
// than it, both against their shares; from the next one if there is none.
func (c *column) cheapest(ways hops, held [][]int) []step {
	least := slices.Min(c.excess)
	for _, start := range c.richest() {
		if !c.differ(c.excess[start], least) {
			return nil
		}
		if path := c.cheapestFrom(start, ways, held); path != nil {
			return path
		}
	}
	return nil
}

// differ says whether a copy given from one node to another makes them more even.
func (c *column) differ(from, to float64) bool { return from-to > 1+1e-6 }

// richest are the nodes, those with the most beyond their share first.
func (c *column) richest() []int {
	order := make([]int, len(c.nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case c.excess[a] > c.excess[b]:
			return -1
		case c.excess[a] < c.excess[b]:
			return 1
		}
		return 0
	})
	return order
}

// cheapestFrom is Dijkstra's search. Of ends that cost the same it takes the one that
// is furthest behind.
func (c *column) cheapestFrom(start int, ways hops, held [][]int) []step {
	n := len(c.nodes)
	dist, done, reached := slices.Repeat([]int{math.MaxInt}, n), make([]bool, n), make([]*step, n)
	dist[start] = 0
	best := -1
	for {
		at := -1
		for i := range n {
			if !done[i] && dist[i] != math.MaxInt && (at < 0 || dist[i] < dist[at]) {
				at = i
			}
		}
		if at < 0 || best >= 0 && dist[at] > dist[best] {
			break
		}
		done[at] = true
		if c.differ(c.excess[start], c.excess[at]) && (best < 0 || c.excess[at] < c.excess[best]) {
			best = at
		}
		for to, h := range ways.from(c, at, held[at]) {
			if h.part >= 0 && !done[to] && dist[at]+h.cost < dist[to] {
				dist[to], reached[to] = dist[at]+h.cost, &step{h.part, at, to}
			}
		}
	}
	if best < 0 {
		return nil
	}
	return unwind(reached, start, best)
}
