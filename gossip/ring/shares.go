package ring

import "math"

// targets gives each node's fair number of copies in the first k columns of all
// rows: zones share k in proportion to the capacity they have, each within one
// copy a row of the others as far as it has nodes, and so do the nodes of a zone.
func (p *placer) targets(k int) []float64 {
	weight := make([]float64, len(p.zoneSize))
	for i, n := range p.nodes {
		weight[p.zone[i]] += float64(n.Capacity)
	}
	round := p.rounds(k)
	lo, hi := make([]float64, len(weight)), make([]float64, len(weight))
	for z, size := range p.zoneSize {
		lo[z], hi[z] = float64(min(size, round)), float64(min(size, round+1))
	}
	out := make([]float64, len(p.nodes))
	for z, share := range fill(weight, lo, hi, float64(k)) {
		p.zoneTargets(out, z, share)
	}
	return out
}

// rounds is how often every zone has given a copy, as far as it has nodes, when k
// copies are not enough for once more.
func (p *placer) rounds(k int) int {
	for round := 0; ; round++ {
		next := 0
		for _, size := range p.zoneSize {
			next += min(size, round+1)
		}
		if next >= k {
			return round
		}
	}
}

// zoneTargets divides a zone's copies among its nodes. A row has floor(share) or
// one more of them, so the shares lie on the line between those two.
func (p *placer) zoneTargets(out []float64, z int, share float64) {
	var member []int
	var weight, zero, one []float64
	for i := range p.nodes {
		if p.zone[i] == z {
			member = append(member, i)
			weight, zero, one = append(weight, float64(p.nodes[i].Capacity)), append(zero, 0), append(one, 1)
		}
	}
	floor := math.Floor(share + 1e-9)
	frac := share - floor
	a, b := fill(weight, zero, one, floor), fill(weight, zero, one, math.Min(floor+1, float64(len(member))))
	for j, i := range member {
		out[i] = (a[j] + frac*(b[j]-a[j])) * float64(p.partitions)
	}
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
	// The sum grows with the level: find the level by halving.
	low, high := 0.0, 1.0
	for sum(high) < total && high < 1e9 {
		high *= 2
	}
	for range 100 {
		if mid := (low + high) / 2; sum(mid) < total {
			low = mid
		} else {
			high = mid
		}
	}
	sum(high)
	return out
}
