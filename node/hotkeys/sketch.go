package hotkeys

import (
	"bytes"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// entries is how many keys a sketch keeps. What is said of a key is too much
	// by at most this part of all.
	entries = 256
	// slots of the table that finds entries by hash: a power of two, four times
	// the entries, so that a look takes one or two steps.
	slots = 4 * entries
	// MaxKey is the longest key, in bytes.
	MaxKey = 1024
)

// sketch is Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of
// Frequent and Top-k Elements in Data Streams, ICDT 2005) with weights: a fixed
// number of counters; a key that has none takes the smallest, with its count, which
// is then how much too high the new one may be. So a key that is more than the
// 256th part of all weight is always there. It allocates nothing once made. It is
// not safe for concurrent use.
type sketch struct {
	all  []entry
	used int
	// hashes of the used entries, and where in the heap they are. They are apart
	// from the keys so that most looks stay within few cache lines.
	hashes [entries]uint64
	at     [entries]int16
	// heap orders the used entries by count, the smallest first.
	heap [entries]counter
	// table has the index of an entry, plus 1, at or behind the slot of its hash.
	table [slots]int16
	// total is the weight of everything.
	total float64
}

// counter is the count of an entry.
type counter struct {
	count float64
	entry int16
}

type entry struct {
	over   float64 // how much of the count may be other keys'
	tenant ring.TenantNumber
	size   uint16
	key    [MaxKey]byte
}

func newSketch() *sketch { return &sketch{all: make([]entry, entries)} }

// add counts a key with a weight. Keys beyond MaxKey are told apart by what comes
// before it.
func (s *sketch) add(tenant ring.TenantNumber, key []byte, weight float64) {
	key = key[:min(len(key), MaxKey)]
	s.total += weight
	hash := xxh3.HashSeed(key, uint64(tenant))
	if i := s.find(hash, tenant, key); i >= 0 {
		at := int(s.at[i])
		s.heap[at].count += weight
		s.down(at)
		return
	}
	var i int16
	if s.used < entries {
		// It begins at the end of the heap and rises over what has more.
		i = int16(s.used)
		s.heap[i], s.at[i] = counter{0, i}, i
		s.all[i].over = 0
		s.used++
		s.up(int(i))
	} else {
		i = s.heap[0].entry
		s.forget(i)
		s.all[i].over = s.heap[0].count
	}
	e := &s.all[i]
	e.tenant, e.size, s.hashes[i] = tenant, uint16(copy(e.key[:], key)), hash
	s.remember(hash, i)
	at := int(s.at[i])
	s.heap[at].count += weight
	s.down(at)
}

// find returns the index of a key's entry, or -1.
func (s *sketch) find(hash uint64, tenant ring.TenantNumber, key []byte) int {
	for at := hash % slots; s.table[at] != 0; at = (at + 1) % slots {
		i := int(s.table[at]) - 1
		if s.hashes[i] != hash {
			continue
		}
		if e := &s.all[i]; e.tenant == tenant && bytes.Equal(e.key[:e.size], key) {
			return i
		}
	}
	return -1
}

func (s *sketch) remember(hash uint64, i int16) {
	at := hash % slots
	for s.table[at] != 0 {
		at = (at + 1) % slots
	}
	s.table[at] = i + 1
}

// forget takes an entry out of the table, and moves up those behind it that would
// not be found any more.
func (s *sketch) forget(i int16) {
	at := s.hashes[i] % slots
	for s.table[at] != i+1 {
		at = (at + 1) % slots
	}
	hole := at
	for at = (at + 1) % slots; s.table[at] != 0; at = (at + 1) % slots {
		home := s.hashes[s.table[at]-1] % slots
		if (at-home)%slots >= (at-hole)%slots {
			s.table[hole] = s.table[at]
			hole = at
		}
	}
	s.table[hole] = 0
}

func (s *sketch) swap(a, b int) {
	s.heap[a], s.heap[b] = s.heap[b], s.heap[a]
	s.at[s.heap[a].entry], s.at[s.heap[b].entry] = int16(a), int16(b)
}

func (s *sketch) up(at int) {
	for at > 0 {
		parent := (at - 1) / 2
		if s.heap[parent].count <= s.heap[at].count {
			return
		}
		s.swap(at, parent)
		at = parent
	}
}

func (s *sketch) down(at int) {
	for {
		least := at
		for c := 2*at + 1; c <= 2*at+2 && c < s.used; c++ {
			if s.heap[c].count < s.heap[least].count {
				least = c
			}
		}
		if least == at {
			return
		}
		s.swap(at, least)
		at = least
	}
}

// floor is the most that a key may have that has no entry.
func (s *sketch) floor() float64 {
	if s.used < entries {
		return 0
	}
	return s.heap[0].count
}

// scale multiplies all weights, which changes no order.
func (s *sketch) scale(by float64) {
	s.total *= by
	for i := range s.used {
		s.heap[i].count *= by
		s.all[i].over *= by
	}
}
