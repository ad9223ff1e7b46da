package cache

import "sync/atomic"

const stripes = 16

// counters counts hits and misses in stripes chosen by key, each on cache
// lines of its own, so that readers on several cores do not fight for one.
type counters struct {
	stripe [stripes]struct {
		hits, misses atomic.Uint64
		_            [112]byte
	}
}

func (c *counters) count(k Key, hit bool) {
	s := &c.stripe[((k.Offset^k.File)*0x9e3779b97f4a7c15)>>60]
	if hit {
		s.hits.Add(1)
	} else {
		s.misses.Add(1)
	}
}

func (c *counters) sum() (hits, misses uint64) {
	for i := range c.stripe {
		hits += c.stripe[i].hits.Load()
		misses += c.stripe[i].misses.Load()
	}
	return hits, misses
}
