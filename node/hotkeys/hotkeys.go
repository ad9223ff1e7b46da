// Package hotkeys finds the keys that are asked for most at present: a sketch of
// fixed size of the reads and one of the writes that this node coordinates, fed by
// a sample and fading over about a minute.
package hotkeys

import (
	"bytes"
	"cmp"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// fade is in what time a count loses all but 1/e of itself, if nothing comes:
	// after a minute an eighth is left. Longer is more exact, shorter nearer to
	// now.
	fade = 30 * time.Second
	// sampled is about how many operations a second of each kind are looked at:
	// all, if there are fewer, else one of a power of two.
	sampled = 500
	// maxShift bounds how few are looked at: one of 1024.
	maxShift = 10
)

// Tracker counts the keys of operations. Touch is safe for concurrent use and costs
// a few nanoseconds for most calls; Tick is called about once a second.
type Tracker struct {
	reads, writes side
	// span is for how long has been counted, faded like the counts.
	mu    sync.Mutex
	span  float64 // seconds
	began time.Time
}

// side is one kind of operation.
type side struct {
	// mask says which operations are looked at: those of whose random number it
	// leaves nothing.
	mask atomic.Uint32
	mu   sync.Mutex
	*sketch
	seen int64 // operations looked at since the last tick
}

// New returns a tracker that has counted nothing. It holds about 550 KiB.
func New(now time.Time) *Tracker {
	t := &Tracker{began: now}
	t.reads.sketch, t.writes.sketch = newSketch(), newSketch()
	return t
}

// Touch counts one operation on a key, which it does not keep.
func (t *Tracker) Touch(tenant ring.TenantNumber, key []byte, write bool) {
	s := &t.reads
	if write {
		s = &t.writes
	}
	mask := s.mask.Load()
	if mask != 0 && rand.Uint32()&mask != 0 {
		return
	}
	s.mu.Lock()
	s.add(tenant, key, float64(mask)+1)
	s.seen++
	s.mu.Unlock()
}

// Tick lets the counts fade, and decides how many operations to look at from now on.
func (t *Tracker) Tick(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := now.Sub(t.began).Seconds()
	if d <= 0 {
		return
	}
	t.began = now
	by := math.Exp(-d / fade.Seconds())
	// What was counted since the last tick fades as if it had come just now, and
	// so does the time in which it did.
	t.span = (t.span + d) * by
	for _, s := range []*side{&t.reads, &t.writes} {
		s.mu.Lock()
		s.scale(by)
		rate := float64(s.seen) * float64(s.mask.Load()+1) / d
		s.seen = 0
		s.mask.Store(maskFor(rate))
		s.mu.Unlock()
	}
}

// maskFor is 2^k-1 for the least k at which not more than sampled are looked at of
// rate operations a second.
func maskFor(rate float64) uint32 {
	if rate <= sampled {
		return 0
	}
	k := bits.Len64(uint64(math.Ceil(rate/sampled)) - 1)
	return 1<<min(k, maxShift) - 1
}

// Key is a key and between which rates it is used, in operations a second. The
// bounds hold for what was looked at; Noise is the doubled standard deviation that
// looking at a part brings.
type Key struct {
	Tenant    ring.TenantNumber
	Key       []byte
	Write     bool
	Low, High float64
	Noise     float64
}

// Top is what a tracker has found.
type Top struct {
	// Keys are those of reads and writes, the hottest first, at most so many of
	// each as were asked for.
	Keys []Key
	// Reads and Writes are all operations a second, and the floors the most that a
	// key may have that is not kept: 0 if all are.
	Reads, Writes, ReadFloor, WriteFloor float64
}

// Top returns up to n keys of each kind.
func (t *Tracker) Top(now time.Time, n int) Top {
	t.mu.Lock()
	span := t.span + max(0, now.Sub(t.began).Seconds())
	t.mu.Unlock()
	span = max(span, 1) // of less than a second nothing can be said
	var top Top
	keys := func(s *side, write bool) (total, floor float64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		weight := float64(s.mask.Load())
		found := make([]Key, 0, s.used)
		for _, c := range s.heap[:s.used] {
			e := &s.all[c.entry]
			k := Key{Tenant: e.tenant, Write: write, Low: (c.count - e.over) / span, High: c.count / span}
			if weight > 0 {
				k.Noise = 2 * math.Sqrt((weight+1)*c.count) / span
			}
			k.Key = e.key[:e.size]
			found = append(found, k)
		}
		slices.SortFunc(found, func(a, b Key) int {
			return cmp.Or(cmp.Compare(b.High+b.Low, a.High+a.Low), cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Key, b.Key))
		})
		found = found[:min(n, len(found))]
		for i := range found {
			found[i].Key = bytes.Clone(found[i].Key)
		}
		top.Keys = append(top.Keys, found...)
		return s.total / span, s.floor() / span
	}
	top.Reads, top.ReadFloor = keys(&t.reads, false)
	top.Writes, top.WriteFloor = keys(&t.writes, true)
	return top
}
