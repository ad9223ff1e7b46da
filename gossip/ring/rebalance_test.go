package ring

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// moved counts the copies that are elsewhere in next than in old, and the partitions
// of which more than one is.
func moved(old, next *Layout, rf int) (copies, two int) {
	for p := range old.Partitions() {
		n := 0
		for _, i := range next.row(Partition(p), rf) {
			if !old.IsOwner(next.nodes[i].ID, Partition(p), rf) {
				n++
			}
		}
		copies += n
		if n > 1 {
			two++
		}
	}
	return copies, two
}

func mustRebalance(t testing.TB, l *Layout, nodes []LayoutNode) *Layout {
	t.Helper()
	n, err := l.Rebalance(l.Version()+1, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// counts is prefixCounts by index of the node, for every prefix at once.
func counts(l *Layout) (by [MaxRF + 1][]int) {
	for rf := range by {
		by[rf] = make([]int, len(l.nodes))
	}
	for i, n := range l.table {
		for rf := i%l.width + 1; rf <= MaxRF; rf++ {
			by[rf][n]++
		}
	}
	return by
}

// held sums what some nodes hold in the first rf owners of all rows.
func held(l *Layout, nodes []LayoutNode, rf int) (sum int) {
	all := counts(l)[rf]
	for _, n := range nodes {
		i, _ := l.index(n.ID)
		sum += all[i]
	}
	return sum
}

// skew is how far the worst node is from its share of any prefix, as a part of it. One
// copy is no distance.
func skew(l *Layout) float64 {
	worst, pl, all := 0.0, newPlacer(l.Partitions(), l.Nodes()), counts(l)
	for rf := 1; rf <= l.width; rf++ {
		for i, target := range pl.targets(rf) {
			if d := math.Abs(float64(all[rf][i]) - target); d > 1 {
				worst = max(worst, d/target)
			}
		}
	}
	return worst
}

// TestRebalanceMovesTheFairShare: joining moves what the new nodes shall hold, leaving
// what the leavers held, and both leave every prefix even.
func TestRebalanceMovesTheFairShare(t *testing.T) {
	for _, zones := range []int{0, 3} {
		for n := 3; n <= 9; n++ {
			for j := 1; j <= 4; j++ {
				all := testNodes(zones, slices.Repeat([]uint32{100}, n+j)...)
				old := mustLayout(t, 256, all[:n])
				next := mustRebalance(t, old, all)
				back := mustRebalance(t, next, all[:n])
				for rf := 1; rf <= MaxRF; rf++ {
					share := float64(held(next, all[n:], rf))
					grown, _ := moved(old, next, rf)
					shrunk, _ := moved(next, back, rf)
					slack := 1.15
					if rf != 3 && zones > 0 {
						slack = 1.3 // the zones' own shares change, too
					}
					if rf > n {
						continue // the rows were shorter
					}
					if float64(grown) > slack*share {
						t.Errorf("%d zones, prefix %d: %d nodes joining %d hold %.0f copies, but %d move", zones, rf, j, n, share, grown)
					}
					if float64(shrunk) > slack*share {
						t.Errorf("%d zones, prefix %d: %d nodes leaving %d held %.0f copies, but %d move", zones, rf, j, n+j, share, shrunk)
					}
				}
				if a, b := skew(next), skew(back); a > 0.05 || b > 0.05 {
					t.Errorf("%d zones, %d nodes and %d: a share is off by %.3f, and by %.3f after they left", zones, n, j, a, b)
				}
			}
		}
	}
}

// TestRebalanceChangesOneOwnerAtATime: with one joiner or leaver no partition changes
// two of its first three owners.
func TestRebalanceChangesOneOwnerAtATime(t *testing.T) {
	for n := 4; n <= 9; n++ {
		all := testNodes(3, slices.Repeat([]uint32{100}, n+1)...)
		old := mustLayout(t, 256, all[:n])
		next := mustRebalance(t, old, all)
		if _, two := moved(old, next, 3); two != 0 {
			t.Errorf("one joins %d: %d partitions change two owners", n, two)
		}
		if _, two := moved(next, mustRebalance(t, next, all[:n]), 3); two != 0 {
			t.Errorf("one of %d leaves: %d partitions change two owners", n+1, two)
		}
	}
	for n := 7; n <= 9; n++ { // there is room for both apart
		all := testNodes(0, slices.Repeat([]uint32{100}, n+2)...)
		old := mustLayout(t, 256, all[:n])
		if _, two := moved(old, mustRebalance(t, old, all), 3); two != 0 {
			t.Errorf("two join %d: %d partitions change two owners", n, two)
		}
	}
}

func TestRebalanceReplacesInPlace(t *testing.T) {
	caps := []uint32{1, 2, 3, 1, 2, 4, 1, 1}
	all := testNodes(3, append(caps, 3, 2)...)
	old := mustLayout(t, 1024, all[:8])
	nodes := slices.Clone(all[:8])
	nodes[2] = all[8]
	nodes[2].Zone = all[2].Zone
	next := mustRebalance(t, old, nodes)
	for rf := 1; rf <= MaxRF; rf++ {
		had := prefixCounts(old, rf)[all[2].ID]
		if copies, _ := moved(old, next, rf); copies != had {
			t.Errorf("prefix %d: %d copies move, the lost node had %d", rf, copies, had)
		}
	}
	same := mustRebalance(t, next, nodes)
	if !slices.Equal(same.table, next.table) || !slices.Equal(same.voters, next.voters) {
		t.Error("something moves though nothing is new")
	}
}

func TestRebalanceFollowsCapacity(t *testing.T) {
	for _, caps := range [][]uint32{
		{1, 1, 2, 2, 3}, {1, 2, 1, 2}, {1, 2, 3, 4, 5, 6, 7, 8}, {100, 100, 100, 200, 400}, {5, 1, 1, 1, 1, 1, 1, 1, 1, 1},
	} {
		nodes := testNodes(0, caps...)
		even := slices.Clone(nodes)
		for i := range even {
			even[i].Capacity = 1
		}
		l := mustLayout(t, 1024, even)
		weighed := mustRebalance(t, l, nodes)
		if s := skew(weighed); s > 0.05 {
			t.Errorf("capacities %v: a share is off by %.3f", caps, s)
		}
		if s := skew(mustRebalance(t, weighed, nodes[1:])); s > 0.05 {
			t.Errorf("capacities %v without the first: a share is off by %.3f", caps, s)
		}
		if s := skew(mustRebalance(t, weighed, even)); s > 0.05 {
			t.Errorf("capacities %v and even again: a share is off by %.3f", caps, s)
		}
	}
}

// drawNodes draws some of the nodes with capacities, at least one.
func drawNodes(t *rapid.T, all []LayoutNode) []LayoutNode {
	mask := rapid.Uint64Range(1, 1<<len(all)-1).Draw(t, "nodes")
	weights := rapid.SliceOfN(rapid.Uint32Range(1, 8), len(all), len(all)).Draw(t, "capacities")
	equal := rapid.Bool().Draw(t, "equal")
	var nodes []LayoutNode
	for i, n := range all {
		if mask>>i&1 != 0 {
			if n.Capacity = weights[i]; equal {
				n.Capacity = 1
			}
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// TestRebalanceLaws: whatever cluster becomes whatever other, again and again, the
// rows are as sound as those of a new layout.
func TestRebalanceLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := testNodes(rapid.IntRange(0, 5).Draw(t, "zones"), slices.Repeat([]uint32{1}, 12)...)
		partitions := 1 << rapid.IntRange(0, 8).Draw(t, "log2 partitions")
		l, err := NewLayout(partitions, drawNodes(t, all))
		if err != nil {
			t.Fatal(err)
		}
		for v := Version(2); v < 5; v++ {
			nodes := drawNodes(t, all)
			next, err := l.Rebalance(v, nodes)
			if err != nil {
				t.Fatal(err)
			}
			checkRows(t, next, nodes)
			checkShares(t, next)
			checkVoters(t, l, next)
			again, err := l.Rebalance(v, rapid.Permutation(nodes).Draw(t, "order"))
			if err != nil {
				t.Fatal(err)
			}
			b := AppendLayout(nil, next)
			if !bytes.Equal(b, AppendLayout(nil, again)) {
				t.Fatal("the layout depends on the order of the nodes")
			}
			if _, err := DecodeLayout(b); err != nil {
				t.Fatal(err)
			}
			if same, err := next.Rebalance(v+1, nodes); err != nil || !slices.Equal(same.table, next.table) || !slices.Equal(same.voters, next.voters) {
				t.Fatalf("something moves though nothing is new: %v", err)
			}
			l = next
		}
	})
}

// checkVoters: as many as there should be, spread over zones, and nobody gives up the
// vote to another of its zone.
func checkVoters(t *rapid.T, old, next *Layout) {
	if len(next.voters) != votersOf(len(next.nodes)) {
		t.Fatalf("%d voters of %d nodes", len(next.voters), len(next.nodes))
	}
	votes, size := map[string]int{}, map[string]int{}
	fresh := map[string]bool{}
	for _, n := range next.nodes {
		size[n.Zone]++
		if slices.Contains(next.voters, n.ID) {
			votes[n.Zone]++
			fresh[n.Zone] = fresh[n.Zone] || !slices.Contains(old.voters, n.ID)
		}
	}
	for a := range size {
		for b := range size {
			if votes[a] < votes[b]-1 && votes[a] < size[a] {
				t.Fatalf("zone %q has %d voters, zone %q %d", a, votes[a], b, votes[b])
			}
		}
	}
	for _, n := range next.nodes {
		if slices.Contains(old.voters, n.ID) && !slices.Contains(next.voters, n.ID) && fresh[n.Zone] {
			t.Fatalf("%s gives up its vote to a new voter of its zone", n.Name)
		}
	}
}

func TestRebalanceKeepsVoters(t *testing.T) {
	all := testNodes(0, slices.Repeat([]uint32{1}, 9)...)
	l := mustLayout(t, 8, all[3:5]) // one votes
	first := l.Voters()[0]
	for _, n := range []int{6, 9} {
		next := mustRebalance(t, l, all[:n])
		for _, v := range l.Voters() {
			if !slices.Contains(next.Voters(), v) {
				t.Errorf("%s does not vote any more", v.Short())
			}
		}
		l = next
	}
	n, _ := l.Node(first)
	other := all[0]
	if n.ID == other.ID {
		other = all[1]
	}
	voters := slices.Clone(l.Voters())
	two := mustRebalance(t, &Layout{
		version: 1, shift: l.shift, nodes: l.nodes, width: l.width, table: l.table, voters: []NodeID{first}, pv: l.pv,
	}, []LayoutNode{other, n})
	if v := two.Voters(); len(v) != 1 || v[0] != first {
		t.Errorf("of two nodes %v votes, it was %s of %v", v, first.Short(), voters)
	}
}

func TestRebalanceRefuses(t *testing.T) {
	nodes := testNodes(0, 1, 1)
	l := mustLayout(t, 8, nodes)
	for _, c := range []struct {
		v     Version
		nodes []LayoutNode
	}{{1, nodes}, {0, nodes}, {2, nil}, {2, append(nodes, nodes[0])}} {
		if _, err := l.Rebalance(c.v, c.nodes); !errors.Is(err, ErrLayout) {
			t.Errorf("version %d, %d nodes: %v", c.v, len(c.nodes), err)
		}
	}
}
