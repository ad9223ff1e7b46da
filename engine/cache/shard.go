package cache

import (
	"sync"
	"sync/atomic"
)

// list is a queue of blocks, most recently used first.
type list struct {
	root  Block // root.next is the first, root.prev the last
	bytes int64
}

func (l *list) init() { l.root.prev, l.root.next = &l.root, &l.root }

func (l *list) pushFront(e *Block) {
	e.prev, e.next = &l.root, l.root.next
	e.prev.next, e.next.prev = e, e
	e.in = l
	l.bytes += e.weight
}

func (l *list) remove(e *Block) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next, e.in = nil, nil, nil
	l.bytes -= e.weight
}

func (l *list) moveToFront(e *Block) {
	if l.root.next != e {
		l.remove(e)
		l.pushFront(e)
	}
}

// last returns the least recently used entry, nil if there is none.
func (l *list) last() *Block {
	if l.root.prev == &l.root {
		return nil
	}
	return l.root.prev
}

// shard is a part of the cache with a policy of its own.
//
// A new block enters the window. What the window has no room for becomes a
// candidate: it gets into probation only if the sketch has seen it more often
// than the blocks that would have to go. A block used again while in probation
// is protected.
type shard struct {
	table atomic.Pointer[table]

	mu        sync.Mutex // all below, changes of the table
	sketch    sketch
	window    list
	probation list
	protected list
	maxBytes  int64
	windowMax int64 // bytes; the rest is for probation and protected
	climb     climber
	evictions uint64
	hits      uint64

	_         [64]byte
	misses    atomic.Uint64
	lockedOut atomic.Uint64 // hits while another held mu
	_         [64]byte
}

func (s *shard) init(maxBytes int64) {
	s.maxBytes = maxBytes
	s.windowMax = maxBytes / 100
	s.climb.init(maxBytes)
	s.clear()
}

func (s *shard) clear() {
	old := s.table.Load()
	s.table.Store(newTable(64))
	s.sketch = newSketch(int(s.maxBytes / (4 << 10)))
	for _, l := range []*list{&s.window, &s.probation, &s.protected} {
		l.init()
		l.bytes = 0
	}
	if old == nil {
		return
	}
	for i := range old.slots {
		if e := old.slots[i].Load(); e != nil {
			e.in = nil // a late use moves nothing
			e.Release()
		}
	}
}

func (s *shard) bytes() int64 { return s.window.bytes + s.probation.bytes + s.protected.bytes }

// get looks a block up without a lock. The use is noted only if the lock is
// free: under contention a few uses more or less change nothing.
func (s *shard) get(k Key, h uint64) *Block {
	e := s.table.Load().find(k, h)
	if e == nil || !e.acquire() {
		s.misses.Add(1)
		return nil
	}
	if s.mu.TryLock() {
		s.hits++
		s.touch(e)
		s.mu.Unlock()
	} else {
		s.lockedOut.Add(1)
	}
	return e
}

// touch notes a use of e.
func (s *shard) touch(e *Block) {
	s.sketch.add(e.hash)
	switch e.in {
	case &s.window, &s.protected:
		e.in.moveToFront(e)
	case &s.probation:
		s.probation.remove(e)
		s.protected.pushFront(e)
		s.demote()
	}
}

// demote keeps the protected part within four fifths of what the window leaves.
func (s *shard) demote() {
	most := (s.maxBytes - s.windowMax) / 5 * 4
	for s.protected.bytes > most {
		e := s.protected.last()
		s.protected.remove(e)
		s.probation.pushFront(e)
	}
}

// set puts a block in, or in the place of the one under its key.
func (s *shard) set(k Key, h uint64, e *Block) {
	t := s.table.Load()
	old := t.find(k, h)
	if old == e || e.weight != 0 {
		return // it is there, or was
	}
	e.key, e.hash, e.weight = k, h, int64(e.mem.Size())+overheadBytes
	s.sketch.add(h)
	if e.weight > s.maxBytes {
		if old != nil {
			s.remove(old)
		}
		s.evictions++
		return
	}
	e.refs.Add(1)
	if old != nil {
		in := old.in
		in.remove(old)
		t.replace(old, e)
		old.Release()
		in.pushFront(e)
		s.demote()
	} else {
		s.grow(t).insert(e)
		s.window.pushFront(e)
	}
	s.evict()
	s.adapt()
}

// grow returns a table with room for one more entry, and keeps the sketch as
// large as the number of entries asks for.
func (s *shard) grow(t *table) *table {
	if 2*(t.used+1) <= len(t.slots) {
		return t
	}
	bigger := newTable(2 * len(t.slots))
	for i := range t.slots {
		if e := t.slots[i].Load(); e != nil {
			bigger.insert(e)
		}
	}
	s.table.Store(bigger)
	if bigger.used > len(s.sketch.words) {
		s.sketch = newSketch(2 * bigger.used)
	}
	return bigger
}

// remove drops e.
func (s *shard) remove(e *Block) {
	e.in.remove(e)
	s.table.Load().remove(e)
	e.Release()
}

// evict brings the shard back within its bytes.
func (s *shard) evict() {
	for s.window.bytes > s.windowMax {
		c := s.window.last()
		s.window.remove(c)
		s.probation.pushFront(c)
		for s.bytes() > s.maxBytes && c.in != nil {
			s.evictFor(c)
		}
	}
	for s.bytes() > s.maxBytes { // the window was given room that the rest still holds
		v := s.probation.last()
		if v == nil {
			v = s.protected.last()
		}
		if v == nil {
			v = s.window.last()
		}
		s.evictions++
		s.remove(v)
	}
}

// evictFor drops the candidate c, or the least recently used block if c was
// used more often.
func (s *shard) evictFor(c *Block) {
	v := s.probation.last()
	if v == c {
		if v = s.protected.last(); v == nil {
			v = c
		}
	}
	s.evictions++
	if v != c && s.sketch.count(c.hash) > s.sketch.count(v.hash) {
		s.remove(v)
	} else {
		s.remove(c)
	}
}

// adapt moves the border between the window and the rest.
func (s *shard) adapt() {
	by := s.climb.step(s.hits+s.lockedOut.Load(), s.misses.Load(), s.table.Load().used)
	if by == 0 {
		return
	}
	s.windowMax = min(max(s.windowMax+by, s.maxBytes/100), s.maxBytes/5*4)
	s.demote()
	s.evict()
}

// climber finds the window size by hill climbing: it keeps moving the border
// the same way for as long as the hit rate improves, and turns when it drops.
type climber struct {
	hits, misses uint64 // at the last step
	rate         float64
	by           float64 // bytes and direction of the last move
	first        float64
}

func (c *climber) init(maxBytes int64) {
	c.first = float64(maxBytes) / 16
	c.by = c.first
}

// step returns the bytes to add to the window; it does so once in ten uses an
// entry.
func (c *climber) step(hits, misses uint64, entries int) int64 {
	uses := (hits - c.hits) + (misses - c.misses)
	if uses < uint64(sampleFactor*max(entries, 64)) {
		return 0
	}
	rate := float64(hits-c.hits) / float64(uses)
	change := rate - c.rate
	c.hits, c.misses, c.rate = hits, misses, rate
	dir := 1.0
	if c.by < 0 {
		dir = -1
	}
	if change < 0 {
		dir = -dir
	}
	// A leap in the hit rate means another workload: search anew.
	if change >= 0.05 || change <= -0.05 {
		c.by = dir * c.first
	} else {
		c.by = dir * max(c.by, -c.by) * 0.98
	}
	return int64(c.by)
}
