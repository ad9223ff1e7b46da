package ring

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// ErrLayout marks a layout that is impossible: built from bad parts or decoded
// from bad bytes.
var ErrLayout = errors.New("invalid layout")

// LayoutNode is a node as the layout knows it.
type LayoutNode struct {
	ID NodeID
	// Name is unique in the layout, 1..MaxNameLen bytes, see ValidName.
	Name string
	// Zone is where the node stands; copies are spread over zones first. Empty
	// is a zone like any other.
	Zone string
	// Capacity is the relative weight, 1..MaxCapacity.
	Capacity uint32
}

// Layout is the numbered table of owners per partition. It is immutable and
// safe for concurrent use.
type Layout struct {
	version Version
	// shift turns a token into a partition: 64 - log2(partitions).
	shift uint
	// nodes is sorted by id, strictly.
	nodes []LayoutNode
	// width is the length of every row: min(MaxRF, len(nodes)).
	width int
	// table holds the rows one after the other: indexes into nodes in
	// preference order, distinct within a row.
	table []uint16
	// voters are ids, sorted.
	voters []NodeID
	// pv is, per partition, the last log entry that touched it.
	pv []Version
}

// Version is the log entry that put this layout in force.
func (l *Layout) Version() Version { return l.version }

// Partitions is the fixed number of partitions, a power of two.
func (l *Layout) Partitions() int { return len(l.pv) }

// PartitionOf gives the partition a token falls into: its top bits.
func (l *Layout) PartitionOf(t Token) Partition {
	return Partition(uint64(t) >> l.shift) // a shift of 64 gives 0
}

// FirstToken gives the smallest token that falls into p.
func (l *Layout) FirstToken(p Partition) Token { return Token(uint64(p) << l.shift) }

// PV is the last log entry that touched p; 0 if there is no such partition.
func (l *Layout) PV(p Partition) Version {
	if int(p) >= len(l.pv) {
		return 0
	}
	return l.pv[p]
}

// Nodes gives the nodes sorted by id. The caller must not change it.
func (l *Layout) Nodes() []LayoutNode { return l.nodes }

// Voters gives the ids of the nodes that vote on log entries, sorted. The caller
// must not change it.
func (l *Layout) Voters() []NodeID { return l.voters }

// Node finds a node by its id.
func (l *Layout) Node(id NodeID) (LayoutNode, bool) {
	if i, ok := l.index(id); ok {
		return l.nodes[i], true
	}
	return LayoutNode{}, false
}

// Owners appends the owners of p for a tenant with the given replication
// factor to dst, in preference order, and returns it: the first min(rf, nodes)
// of the row. It allocates only if dst lacks room. A partition that does not
// exist has no owners.
func (l *Layout) Owners(dst []NodeID, p Partition, rf int) []NodeID {
	for _, i := range l.row(p, rf) {
		dst = append(dst, l.nodes[i].ID)
	}
	return dst
}

// IsOwner says whether id is among the owners of p for that replication factor.
func (l *Layout) IsOwner(id NodeID, p Partition, rf int) bool {
	for _, i := range l.row(p, rf) {
		if l.nodes[i].ID == id {
			return true
		}
	}
	return false
}

func (l *Layout) row(p Partition, rf int) []uint16 {
	if int(p) >= len(l.pv) || rf <= 0 {
		return nil
	}
	from := int(p) * l.width
	return l.table[from : from+min(rf, l.width)]
}

func (l *Layout) index(id NodeID) (int, bool) {
	return slices.BinarySearchFunc(l.nodes, id, func(n LayoutNode, id NodeID) int { return n.ID.Compare(id) })
}

// ValidName says whether s can name a node or a zone: 1..63 bytes of letters,
// digits, '.', '_' and '-', beginning with a letter or digit.
func ValidName(s string) bool {
	if s == "" || len(s) > MaxNameLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return false
		}
	}
	return true
}

// checkNodes refuses node lists no layout can have. The list must be sorted.
func checkNodes(nodes []LayoutNode) error {
	if len(nodes) == 0 || len(nodes) > MaxNodes {
		return fmt.Errorf("%w: %d nodes, want 1..%d", ErrLayout, len(nodes), MaxNodes)
	}
	names := make(map[string]NodeID, len(nodes))
	for i, n := range nodes {
		switch {
		case n.ID.IsZero():
			return fmt.Errorf("%w: node %q has no id", ErrLayout, n.Name)
		case i > 0 && nodes[i-1].ID.Compare(n.ID) >= 0:
			return fmt.Errorf("%w: node id %s is there twice or out of order", ErrLayout, n.ID)
		case !ValidName(n.Name):
			return fmt.Errorf("%w: node name %q", ErrLayout, n.Name)
		case n.Zone != "" && !ValidName(n.Zone):
			return fmt.Errorf("%w: zone %q of node %s", ErrLayout, n.Zone, n.Name)
		case n.Capacity == 0 || n.Capacity > MaxCapacity:
			return fmt.Errorf("%w: capacity %d of node %s, want 1..%d", ErrLayout, n.Capacity, n.Name, MaxCapacity)
		}
		if other, dup := names[n.Name]; dup {
			return fmt.Errorf("%w: nodes %s and %s are both called %q", ErrLayout, other.Short(), n.ID.Short(), n.Name)
		}
		names[n.Name] = n.ID
	}
	return nil
}

func checkPartitions(partitions int) error {
	if partitions < MinPartitions || partitions > MaxPartitions || bits.OnesCount(uint(partitions)) != 1 {
		return fmt.Errorf("%w: %d partitions, want a power of two in %d..%d",
			ErrLayout, partitions, MinPartitions, MaxPartitions)
	}
	return nil
}

func shiftFor(partitions int) uint { return uint(64 - bits.TrailingZeros(uint(partitions))) }
