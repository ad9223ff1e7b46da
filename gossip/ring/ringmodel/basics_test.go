package ringmodel

import (
	"fmt"
	"math/bits"
	"math/rand/v2"

	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	maxIDs     = 14 // nodes over one schedule: who lost a disk comes back as another
	maxActors  = 48
	maxWrites  = 56 // of one key
	tenants    = 4  // over one schedule, by number
	partitions = 2
	units      = tenants * partitions
)

// A unit is what one tenant has in one partition: one key.
func tenantOf(u int) int               { return u / partitions }
func partitionOf(u int) ring.Partition { return ring.Partition(u % partitions) }

// kindOf says how the key of a unit is used.
func kindOf(u int) keyKind {
	return [units]keyKind{many, single, many, blind, single, many, many, single}[u]
}

type keyKind int

const (
	many   keyKind = iota // two clients with tokens, siblings stay
	single                // one client, one write at a time, siblings stay
	blind                 // one client without tokens, the last write wins
)

func lww(u int) bool { return kindOf(u) == blind }

// blindUnit is the one whose key is blind.
const blindUnit = 3

// idOf names a node to package ring, indexOf is the way back.
func idOf(i int) ring.NodeID     { return ring.NodeID{0: byte(i + 1)} }
func indexOf(id ring.NodeID) int { return int(id[0]) - 1 }

// mask is a set of nodes.
type mask uint32

func bit(i int) mask          { return 1 << uint(i) }
func (m mask) has(i int) bool { return m&bit(i) != 0 }
func (m mask) n() int         { return bits.OnesCount32(uint32(m)) }

func (m mask) list() []int {
	l := make([]int, 0, m.n())
	for ; m != 0; m &= m - 1 {
		l = append(l, bits.TrailingZeros32(uint32(m)))
	}
	return l
}

func maskOf(ids []ring.NodeID) (m mask) {
	for _, id := range ids {
		m |= bit(indexOf(id))
	}
	return m
}

// quorate says whether a has a majority of s, which is true of an empty s.
func quorate(a, s mask) bool { return s == 0 || (a&s).n() >= ring.Majority(s.n()) }

// chance makes the choices of a schedule.
type chance struct{ r *rand.Rand }

func newChance(seed uint64) chance { return chance{rand.New(rand.NewPCG(seed, 0x72696e67))} }

func (c chance) n(n int) int              { return c.r.IntN(n) }
func (c chance) percent(percent int) bool { return c.n(100) < percent }

// pick is one of m, -1 of none.
func (c chance) pick(m mask) int {
	if m == 0 {
		return -1
	}
	l := m.list()
	return l[c.n(len(l))]
}

func (c chance) shuffle(l []int) {
	c.r.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
}

// writes names a set of writes.
func writes(m uint64) string {
	s := "{"
	for ; m != 0; m &= m - 1 {
		s += fmt.Sprintf(" w%d", bits.TrailingZeros64(m))
	}
	return s + " }"
}
