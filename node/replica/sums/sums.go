// Package sums keeps sums over ranges of tokens, write by write, so that owners
// of the same data find what they differ in without reading it. It is the
// arithmetic, the structure and the file of it: it reads no data, knows no storage
// keys, and starts nothing. DESIGN.md says why the sums are right.
package sums

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// sizes of leaves, in siblings. A tenant's part of a partition is divided anew,
// into leaves of target or half of it, when they have more than large or less than
// small on average: what lies between keeps it from going to and fro.
type sizes struct{ target, large, small uint64 }

// maxDepth bounds the leaves of a tenant in a partition: 2^20, 40 MiB.
const maxDepth = 20

// Position says where a key is.
type Position struct {
	Partition ring.Partition
	Tenant    ring.TenantNumber
	Token     ring.Token
}

// Sums has the sums of one node. It is safe for concurrent use.
type Sums struct {
	partitions func() int
	// parts has one for each partition once their number is known.
	parts atomic.Pointer[parts]
	begin sync.Mutex // held to make parts
	gate  gate
	sizes sizes
	// cursor is where Step goes on, guarded by stepping.
	stepping sync.Mutex
	cursor   int

	recomputed atomic.Int64 // keys
	file       fileState
}

// New returns sums that know nothing: everything has to be read first. partitions
// returns how many the ring has, a power of two, or 0 as long as that is not
// known; it is called until it is.
func New(partitions func() int) *Sums {
	return &Sums{partitions: partitions, sizes: sizes{target: 512, large: 750, small: 200}}
}

// parts are the partitions; bits are those of a token that name one.
type parts struct {
	all  []part
	bits uint
}

// part is one partition.
type part struct {
	// work is held by whoever computes anything of the partition anew, and while he
	// reads for it; mu never is. work comes first.
	work sync.Mutex

	mu      sync.Mutex
	tenants []*tenant // ascending
	// seen covers whatever was applied, as far as it is known.
	seen causal.Context
	// newest is the newest write that is in any sum.
	newest base.SeqNum
	// known says that all tenants with data here are in tenants.
	known bool
	// listed is the snapshot that they were listed of: a tenant that is not there had
	// nothing in it.
	listed base.SeqNum
	// changed says that the file does not say all of it, touched that nobody has
	// looked since whether there is anything to do.
	changed, touched bool
	_                [64]byte // writers of one partition do not slow down those of the next
}

// tenant is what a partition has of a tenant.
type tenant struct {
	number ring.TenantNumber
	grid   // the one that counts
	// next is finer, and takes the place of grid once it is computed; check is held
	// against it. nil mostly.
	next, check *grid
}

// grid divides the tokens of a partition into 1<<depth leaves.
type grid struct {
	depth  uint8
	leaves []leaf
}

// leaf is the sum of a stretch of tokens.
//
// Invariant: in a clean leaf, sum is that of the snapshot at base and of all
// writes above base that were counted. In one that is not, the first part is
// missing.
type leaf struct {
	sum   repair.Sum
	base  base.SeqNum
	state leafState
}

type leafState uint8

const (
	clean leafState = iota
	dirty
	computing
)

func newGrid(depth uint8, s leafState) grid {
	g := grid{depth: depth, leaves: make([]leaf, 1<<depth)}
	for i := range g.leaves {
		g.leaves[i].state = s
	}
	return g
}

// all returns the partitions, nil as long as their number is not known.
func (s *Sums) all() []part {
	if p := s.table(); p != nil {
		return p.all
	}
	return nil
}

func (s *Sums) table() *parts {
	if p := s.parts.Load(); p != nil {
		return p
	}
	return s.make()
}

func (s *Sums) make() *parts {
	s.begin.Lock()
	defer s.begin.Unlock()
	if p := s.parts.Load(); p != nil {
		return p
	}
	n := s.partitions()
	if n < ring.MinPartitions || n > ring.MaxPartitions || bits.OnesCount(uint(n)) != 1 {
		return nil
	}
	p := &parts{all: make([]part, n), bits: uint(bits.TrailingZeros(uint(n)))}
	for i := range p.all {
		p.all[i].touched = true
	}
	s.parts.Store(p)
	return p
}

func (s *Sums) part(p ring.Partition) *part {
	if parts := s.all(); int(p) < len(parts) {
		return &parts[p]
	}
	return nil
}

// Partitions returns how many there are, 0 if that is not known yet.
func (s *Sums) Partitions() int { return len(s.all()) }

// partitionBits is the number of bits of a token that name its partition, which is
// known.
func (s *Sums) partitionBits() uint { return s.table().bits }

// index returns the leaf of a token: what follows the bits of the partition.
func (g *grid) index(partitionBits uint, t ring.Token) int {
	return int(uint64(t) << partitionBits >> (64 - g.depth)) // a shift of 64 gives 0
}

// find returns a tenant, or nil and where it belongs.
func (p *part) find(t ring.TenantNumber) (*tenant, int) {
	for i, e := range p.tenants {
		if e.number >= t {
			if e.number == t {
				return e, i
			}
			return nil, i
		}
		if i == 8 { // many: halve what is left
			j, ok := slices.BinarySearchFunc(p.tenants, t, func(e *tenant, t ring.TenantNumber) int {
				return int(int64(e.number) - int64(t))
			})
			if ok {
				return p.tenants[j], j
			}
			return nil, j
		}
	}
	return nil, len(p.tenants)
}

// ensure returns a tenant, new if there is none: dirty as long as there may be
// data of it, else without any.
func (p *part) ensure(t ring.TenantNumber) *tenant {
	e, i := p.find(t)
	if e == nil {
		state := dirty
		if p.known {
			state = clean
		}
		e = &tenant{number: t, grid: newGrid(0, state)}
		e.leaves[0].base = p.listed
		p.tenants = slices.Insert(p.tenants, i, e)
	}
	return e
}

// Add counts a write of a key that made after of before, both as they are stored,
// once it is visible; seq is the number of its batch. It is called once for each
// write, in any order, between Enter and Leave, and keeps nothing of its
// arguments.
func (s *Sums) Add(at Position, key []byte, before, after *causal.Object, seq base.SeqNum) {
	all := s.table()
	if all == nil || int(at.Partition) >= len(all.all) {
		return // whoever makes it will read what was written before
	}
	p, pb := &all.all[at.Partition], all.bits
	var d repair.Sum
	delta(&d, key, before, after)
	p.mu.Lock()
	p.changed, p.touched = true, true
	p.newest = max(p.newest, seq)
	p.notice(before.Context, after.Context)
	t := p.ensure(at.Tenant)
	t.add(pb, at.Token, &d, seq)
	if t.next != nil {
		t.next.add(pb, at.Token, &d, seq)
	}
	if t.check != nil {
		t.check.add(pb, at.Token, &d, seq)
	}
	p.mu.Unlock()
}

func (g *grid) add(partitionBits uint, t ring.Token, d *repair.Sum, seq base.SeqNum) {
	if l := &g.leaves[g.index(partitionBits, t)]; seq > l.base {
		plus(&l.sum, d)
	}
}

// notice covers what after has seen and before has not.
func (p *part) notice(before, after causal.Context) {
	i := 0
	for _, d := range after {
		for i < len(before) && before[i].Actor < d.Actor {
			i++
		}
		if i < len(before) && before[i] == d {
			continue
		}
		p.see(d)
	}
}

func (p *part) see(d causal.Dot) {
	lo, hi := 0, len(p.seen)
	for lo < hi {
		if mid := (lo + hi) / 2; p.seen[mid].Actor < d.Actor {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	switch {
	case lo < len(p.seen) && p.seen[lo].Actor == d.Actor:
		p.seen[lo].Counter = max(p.seen[lo].Counter, d.Counter)
	case len(p.seen) < causal.MaxActors: // less than was seen is no harm
		p.seen = p.seen.With(d)
	}
}

// Doubt makes the leaf of a key dirty: what is stored there is not certain. It is
// for writes that failed and may yet be seen, and for keys that were written while
// nobody counted.
func (s *Sums) Doubt(at Position) {
	p := s.part(at.Partition)
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed, p.touched = true, true
	t := p.ensure(at.Tenant)
	// Also if it is being computed: it may have been read before.
	t.leaves[t.index(s.partitionBits(), at.Token)].state = dirty
	t.next, t.check = nil, nil // begun again once all is clean
}

// Forget says that nothing is certain about a partition any more: data came or
// went by other ways than writes. What was seen stays.
func (s *Sums) Forget(p ring.Partition) {
	if q := s.part(p); q != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.forget()
	}
}

func (p *part) forget() {
	p.known, p.changed, p.touched = false, true, true
	for _, t := range p.tenants {
		for i := range t.leaves {
			t.leaves[i].state = dirty
		}
		t.next, t.check = nil, nil
	}
}

// Dropped says that the batch with number seq took away all that a tenant had in a
// partition. Nobody writes keys of that from before the batch until this returns, and it
// is called between Enter and Leave.
func (s *Sums) Dropped(at ring.Partition, n ring.TenantNumber, seq base.SeqNum) {
	p := s.part(at)
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed, p.touched = true, true
	p.newest = max(p.newest, seq)
	t, _ := p.find(n)
	if t == nil {
		return // it had nothing, or will be found when the tenants are listed
	}
	// The leaves stay as many: somebody may be computing one, and finds that what has
	// come of it is not wanted any more.
	for i := range t.leaves {
		t.leaves[i] = leaf{base: seq}
	}
	t.next, t.check = nil, nil
}

// Seen covers every dot that was applied in the partition, or superseded, as far
// as is known: of data from before this start what the file said and what was read
// since. newest is the write that has to be on disk before it is told.
func (s *Sums) Seen(p ring.Partition) (seen causal.Context, newest base.SeqNum) {
	q := s.part(p)
	if q == nil {
		return nil, 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.seen), q.newest
}

// Tenants returns the tenants that may have data in a partition, ascending; known
// is false if there may be others.
func (s *Sums) Tenants(p ring.Partition) (tenants []ring.TenantNumber, known bool) {
	q := s.part(p)
	if q == nil {
		return nil, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.tenants {
		if !t.empty() {
			tenants = append(tenants, t.number)
		}
	}
	return tenants, q.known
}

// empty reports whether a tenant has no data for certain.
func (t *tenant) empty() bool {
	for i := range t.leaves {
		if l := &t.leaves[i]; l.state != clean || l.sum != (repair.Sum{}) {
			return false
		}
	}
	return true
}

// Depth returns into how many leaves a tenant's part of a partition is divided,
// as a power of two.
func (s *Sums) Depth(p ring.Partition, n ring.TenantNumber) int {
	q := s.part(p)
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if t, _ := q.find(n); t != nil {
		return int(t.depth)
	}
	return 0
}
