package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func testNodes(zones int, caps ...uint32) []LayoutNode {
	nodes := make([]LayoutNode, len(caps))
	for i, c := range caps {
		nodes[i] = LayoutNode{Name: fmt.Sprintf("n%d", i+1), Capacity: c}
		binary.BigEndian.PutUint64(nodes[i].ID[:], uint64(i+1)*0x9e3779b97f4a7c15)
		if zones > 0 {
			nodes[i].Zone = fmt.Sprintf("z%d", i%zones)
		}
	}
	return nodes
}

func mustLayout(t testing.TB, partitions int, nodes []LayoutNode) *Layout {
	t.Helper()
	l, err := NewLayout(partitions, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// prefixCounts counts copies per node in the first rf owners of all rows.
func prefixCounts(l *Layout, rf int) map[NodeID]int {
	counts := map[NodeID]int{}
	for p := range l.Partitions() {
		for _, id := range l.Owners(nil, Partition(p), rf) {
			counts[id]++
		}
	}
	return counts
}

func TestEqualNodesAreEvenForEveryPrefix(t *testing.T) {
	for n := 1; n <= 20; n++ {
		l := mustLayout(t, 1024, testNodes(0, slices.Repeat([]uint32{100}, n)...))
		for rf := 1; rf <= MaxRF; rf++ {
			lo, hi := math.MaxInt, 0
			for _, node := range l.Nodes() {
				c := prefixCounts(l, rf)[node.ID]
				lo, hi = min(lo, c), max(hi, c)
			}
			if hi-lo > 1 {
				t.Errorf("%d nodes, prefix %d: between %d and %d copies a node", n, rf, lo, hi)
			}
		}
	}
}

func TestPlacementLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		caps := rapid.SliceOfN(rapid.Uint32Range(1, 8), 1, 14).Draw(t, "caps")
		zones := rapid.IntRange(0, 5).Draw(t, "zones")
		partitions := 1 << rapid.IntRange(0, 9).Draw(t, "log2 partitions")
		nodes := testNodes(zones, caps...)
		l, err := NewLayout(partitions, nodes)
		if err != nil {
			t.Fatal(err)
		}
		checkRows(t, l, nodes)
		checkShares(t, l)
		again, err := NewLayout(partitions, rapid.Permutation(nodes).Draw(t, "order"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(AppendLayout(nil, l), AppendLayout(nil, again)) {
			t.Fatal("the layout depends on the order of the nodes")
		}
	})
}

func checkRows(t *rapid.T, l *Layout, nodes []LayoutNode) {
	size := map[string]int{}
	for _, n := range nodes {
		size[n.Zone]++
	}
	for p := range l.Partitions() {
		row := l.Owners(nil, Partition(p), MaxRF)
		if len(row) != min(MaxRF, len(nodes)) {
			t.Fatalf("partition %d has %d owners of %d nodes", p, len(row), len(nodes))
		}
		seen := map[NodeID]bool{}
		used := map[string]int{}
		for k, id := range row {
			if seen[id] {
				t.Fatalf("partition %d has %s twice", p, id.Short())
			}
			seen[id] = true
			n, _ := l.Node(id)
			used[n.Zone]++
			for z, s := range size {
				if used[z] < used[n.Zone]-1 && used[z] < s {
					t.Fatalf("partition %d, prefix %d: zone %q has %d copies, zone %q only %d", p, k+1, n.Zone, used[n.Zone], z, used[z])
				}
			}
			if !l.IsOwner(id, Partition(p), k+1) || l.IsOwner(id, Partition(p), k) {
				t.Fatalf("IsOwner disagrees with Owners at %d of %d", k, p)
			}
		}
		if l.PV(Partition(p)) != l.Version() {
			t.Fatalf("PV(%d) = %d", p, l.PV(Partition(p)))
		}
	}
}

// checkShares compares each prefix with the shares the zone rule allows. With
// equal nodes the difference is at most one copy, which a test of its own holds.
// Unequal capacities and zones can ask for shares that whole copies, settled
// column by column, do not give exactly: in 30,000 random clusters the worst node
// held 90 copies for a share of 73. That is a matter of balance, not of safety.
// maxSkew bounds that difference, in copies, beside 35 % of the share.
const maxSkew = 4

func checkShares(t *rapid.T, l *Layout) {
	pl := newPlacer(l.Partitions(), l.Nodes())
	for rf := 1; rf <= l.width; rf++ {
		target := pl.targets(rf)
		counts := prefixCounts(l, rf)
		for i, n := range l.Nodes() {
			if d := float64(counts[n.ID]) - target[i]; math.Abs(d) > maxSkew+0.35*target[i] {
				t.Fatalf("prefix %d: node %d (capacity %d, zone %q) holds %d, its share is %.1f", rf, i, n.Capacity, n.Zone, counts[n.ID], target[i])
			}
		}
	}
}

func TestSharesFollowCapacityWhereZonesLeaveRoom(t *testing.T) {
	l := mustLayout(t, 1024, testNodes(0, 1, 1, 2, 4, 4, 4))
	for i, n := range prefixCounts(l, 1) {
		node, _ := l.Node(i)
		if want := 64 * int(node.Capacity); n < want-1 || n > want+1 {
			t.Errorf("capacity %d: %d first copies, want %d", node.Capacity, n, want)
		}
	}
}

func TestLoadOfADeadNodeSpreads(t *testing.T) {
	l := mustLayout(t, 1024, testNodes(0, slices.Repeat([]uint32{1}, 5)...))
	second := map[NodeID]map[NodeID]int{}
	for p := range l.Partitions() {
		o := l.Owners(nil, Partition(p), 2)
		if second[o[0]] == nil {
			second[o[0]] = map[NodeID]int{}
		}
		second[o[0]][o[1]]++
	}
	for first, m := range second {
		for _, n := range l.Nodes() {
			if n.ID != first && m[n.ID] < 25 { // 51 each if perfectly even
				t.Errorf("%s would take over only %d of %s's partitions", n.Name, m[n.ID], first.Short())
			}
		}
	}
}

func TestVoters(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 5: 5, 6: 5, 7: 7, 12: 7} {
		l := mustLayout(t, 8, testNodes(3, slices.Repeat([]uint32{1}, n)...))
		if len(l.Voters()) != want {
			t.Errorf("%d nodes: %d voters, want %d", n, len(l.Voters()), want)
		}
		zones := map[string]int{}
		for _, v := range l.Voters() {
			node, _ := l.Node(v)
			zones[node.Zone]++
		}
		if n >= 3 && (len(zones) < 3 || zones["z0"] > want/3+1) {
			t.Errorf("%d nodes: voters by zone %v", n, zones)
		}
	}
	two := testNodes(0, 1, 1)
	if l := mustLayout(t, 8, two); l.Voters()[0] != l.Nodes()[0].ID {
		t.Error("of two nodes the lower id votes")
	}
}

func TestNewLayoutRefuses(t *testing.T) {
	good := testNodes(0, 1, 1)
	edit := func(f func(n []LayoutNode) []LayoutNode) []LayoutNode { return f(slices.Clone(good)) }
	for name, c := range map[string]struct {
		partitions int
		nodes      []LayoutNode
	}{
		"no nodes":       {8, nil},
		"not a power":    {12, good},
		"none":           {0, good},
		"too many":       {MaxPartitions * 2, good},
		"same id":        {8, edit(func(n []LayoutNode) []LayoutNode { n[1].ID = n[0].ID; return n })},
		"same name":      {8, edit(func(n []LayoutNode) []LayoutNode { n[1].Name = n[0].Name; return n })},
		"no id":          {8, edit(func(n []LayoutNode) []LayoutNode { n[1].ID = NodeID{}; return n })},
		"bad name":       {8, edit(func(n []LayoutNode) []LayoutNode { n[1].Name = "a b"; return n })},
		"bad zone":       {8, edit(func(n []LayoutNode) []LayoutNode { n[1].Zone = "-"; return n })},
		"no capacity":    {8, edit(func(n []LayoutNode) []LayoutNode { n[1].Capacity = 0; return n })},
		"absurd weight":  {8, edit(func(n []LayoutNode) []LayoutNode { n[1].Capacity = MaxCapacity + 1; return n })},
		"too many nodes": {8, testNodes(0, slices.Repeat([]uint32{1}, MaxNodes+1)...)},
	} {
		if _, err := NewLayout(c.partitions, c.nodes); !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v, want ErrLayout", name, err)
		}
	}
}

func TestPartitionOf(t *testing.T) {
	l := mustLayout(t, 1024, testNodes(0, 1))
	for _, c := range []struct {
		t Token
		p Partition
	}{{0, 0}, {1<<54 - 1, 0}, {1 << 54, 1}, {math.MaxUint64, 1023}} {
		if got := l.PartitionOf(c.t); got != c.p {
			t.Errorf("PartitionOf(%s) = %d, want %d", c.t, got, c.p)
		}
	}
	for _, p := range []Partition{0, 1, 1023} {
		if first := l.FirstToken(p); l.PartitionOf(first) != p || p > 0 && l.PartitionOf(first-1) != p-1 {
			t.Errorf("partition %d begins at %s", p, first)
		}
	}
	if one := mustLayout(t, 1, testNodes(0, 1)); one.PartitionOf(math.MaxUint64) != 0 {
		t.Error("one partition holds every token")
	}
}

func TestOwnersAllocatesNothing(t *testing.T) {
	l := mustLayout(t, 64, testNodes(0, 1, 1, 1))
	buf := make([]NodeID, 0, MaxRF)
	key := []byte("user/{42}/cart")
	if n := testing.AllocsPerRun(100, func() {
		p := l.PartitionOf(KeyToken(7, key))
		buf = l.Owners(buf[:0], p, 3)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestKeyToken(t *testing.T) {
	// Golden values: stored data is found by them for ever.
	for _, c := range []struct {
		tenant TenantNumber
		key    string
		want   string
	}{
		{1, "", goldenEmpty},
		{1, "hello", goldenHello},
		{258, "hello", goldenOther},
	} {
		if got := KeyToken(c.tenant, []byte(c.key)).String(); got != c.want {
			t.Errorf("KeyToken(%d, %q) = %s, want %s", c.tenant, c.key, got, c.want)
		}
	}
	long := make([]byte, 5000)
	if KeyToken(1, long) == KeyToken(1, long[:4999]) {
		t.Error("the end of a long key does not count")
	}
	for key, tag := range map[string]string{
		"a{b}c": "b", "{b}": "b", "x{b}{c}": "b", "{}b": "{}b", "{}{b}": "{}{b}", "a{b": "a{b", "a}b{": "a}b{",
		"}{b}": "b", "{{b}": "{b", "": "",
	} {
		if got := string(KeyTag([]byte(key))); got != tag {
			t.Errorf("KeyTag(%q) = %q, want %q", key, got, tag)
		}
		if KeyToken(3, []byte(key)) != KeyToken(3, []byte(tag)) && tag != "{b" {
			t.Errorf("%q and its tag %q differ", key, tag)
		}
	}
}

func TestIDs(t *testing.T) {
	id := testNodes(0, 1)[0].ID
	got, err := ParseNodeID(id.String())
	if err != nil || got != id {
		t.Errorf("ParseNodeID(%s) = %s, %v", id, got, err)
	}
	for _, bad := range []string{"", "zz", id.String()[:31] + "g", id.String() + "0"} {
		if _, err := ParseNodeID(bad); err == nil {
			t.Errorf("ParseNodeID(%q) works", bad)
		}
	}
	if ClusterID(id).String() != id.String() {
		t.Error("the two kinds of id are written differently")
	}
}

func TestLayoutCodec(t *testing.T) {
	l := mustLayout(t, 64, testNodes(2, 1, 2, 3, 4))
	b := AppendLayout(nil, l)
	got, err := DecodeLayout(b)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(AppendLayout(nil, got), b) || got.Partitions() != 64 || got.Version() != 1 {
		t.Error("the layout changed on the way")
	}
	for i := range b {
		if _, err := DecodeLayout(b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	newer := slices.Clone(b)
	newer[0] = 2
	if _, err := DecodeLayout(newer); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("newer format: %v", err)
	}
	if _, err := DecodeLayout(append(b, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("trailing byte: %v", err)
	}
	if _, err := DecodeLayout(make([]byte, MaxLayoutBytes+1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too long: %v", err)
	}
	big := AppendLayout(nil, mustLayout(t, MaxPartitions, testNodes(0, slices.Repeat([]uint32{1}, 9)...)))
	if _, err := DecodeLayout(big); err != nil || len(big) > MaxLayoutBytes {
		t.Errorf("largest table: %d bytes, %v", len(big), err)
	}
}

func FuzzDecodeLayout(f *testing.F) {
	f.Add(AppendLayout(nil, mustLayout(f, 1, testNodes(0, 1))))
	f.Add(AppendLayout(nil, mustLayout(f, 8, testNodes(2, 1, 2, 3))))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLayout(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !slices.Equal(AppendLayout(nil, l), b) {
			t.Fatal("two encodings of one layout")
		}
		for p := range l.Partitions() {
			if len(l.Owners(nil, Partition(p), MaxRF)) == 0 {
				t.Fatalf("partition %d has no owner", p)
			}
		}
	})
}
