// Package crdt holds the state that nodes gossip and how copies of it converge:
// a map of single-writer registers, one signed entry per node. It is pure: no
// clocks, no files, no sockets, no goroutines.
//
// Laws, kept by the tests: Merge is commutative, associative and idempotent, and
// never goes back.
package crdt

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/gossip/ring"
)

// MaxNodes bounds the entries of a map; what comes beyond it is not taken in.
const MaxNodes = 2 * ring.MaxNodes

// Stamp is the position of a register's content among all its writer gave it:
// by incarnation, then by sequence number.
type Stamp struct {
	Incarnation, Seq uint64
}

// Compare orders stamps: -1, 0 or +1.
func (s Stamp) Compare(o Stamp) int {
	return cmp.Or(cmp.Compare(s.Incarnation, o.Incarnation), cmp.Compare(s.Seq, o.Seq))
}

// Nodes is the map of node entries. The zero value is empty and ready. It is not
// safe for concurrent use.
type Nodes struct {
	entries []*NodeEntry // sorted by id
}

func (n *Nodes) find(id ring.NodeID) (int, bool) {
	return slices.BinarySearchFunc(n.entries, id, func(e *NodeEntry, id ring.NodeID) int { return e.ID.Compare(id) })
}

// Get finds the entry of a node. It is shared: do not change it.
func (n *Nodes) Get(id ring.NodeID) (*NodeEntry, bool) {
	i, ok := n.find(id)
	if !ok {
		return nil, false
	}
	return n.entries[i], true
}

// All gives the entries sorted by id. The caller must not change it.
func (n *Nodes) All() []*NodeEntry { return n.entries }

// Len is the number of entries.
func (n *Nodes) Len() int { return len(n.entries) }

// Merge takes in e, which must not be changed afterwards, if it is newer than
// what is there, and says whether it did. Two different contents under one
// stamp cannot come from one writer; should a cloned node make them, the greater
// bytes win, so that all copies still agree.
func (n *Nodes) Merge(e *NodeEntry) bool {
	i, ok := n.find(e.ID)
	if !ok {
		if len(n.entries) >= MaxNodes {
			return false
		}
		n.entries = slices.Insert(n.entries, i, e)
		return true
	}
	if e.compare(n.entries[i]) <= 0 {
		return false
	}
	n.entries[i] = e
	return true
}

// Remove forgets the entry of a node.
func (n *Nodes) Remove(id ring.NodeID) {
	if i, ok := n.find(id); ok {
		n.entries = slices.Delete(n.entries, i, i+1)
	}
}

// VectorItem says up to which stamp a copy has a node's entry.
type VectorItem struct {
	ID ring.NodeID
	Stamp
}

// Vector says what this copy has, sorted by id.
func (n *Nodes) Vector() []VectorItem {
	v := make([]VectorItem, len(n.entries))
	for i, e := range n.entries {
		v[i] = VectorItem{e.ID, e.Stamp}
	}
	return v
}

// Newer gives the entries that a copy with the given vector, sorted by id,
// lacks or has older.
func (n *Nodes) Newer(vector []VectorItem) []*NodeEntry {
	var out []*NodeEntry
	for _, e := range n.entries {
		i, ok := slices.BinarySearchFunc(vector, e.ID, func(v VectorItem, id ring.NodeID) int { return v.ID.Compare(id) })
		if !ok || vector[i].Stamp.Compare(e.Stamp) < 0 {
			out = append(out, e)
		}
	}
	return out
}

// Hash is equal for equal maps. It only saves work: nothing is decided by it.
func (n *Nodes) Hash() uint64 {
	h := xxh3.New()
	var b [32]byte
	for _, e := range n.entries {
		copy(b[:], e.ID[:])
		binary.BigEndian.PutUint64(b[16:], e.Incarnation)
		binary.BigEndian.PutUint64(b[24:], e.Seq)
		_, _ = h.Write(b[:]) // a hash does not fail
		_, _ = h.Write(e.sig[:])
	}
	return h.Sum64()
}
