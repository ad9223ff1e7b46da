package engine

import "sync/atomic"

// filterShards is how many sets of filter counters there are, a power of two.
const filterShards = 16

// filterCounters count what the filters of tables say to point reads. Readers
// on different processors seldom write to the same cache line.
type filterCounters struct{ shards [filterShards]filterShard }

type filterShard struct {
	negatives, found, falsePositives atomic.Int64
	_                                [128 - 3*8]byte // a line and its neighbour, which are fetched together
}

// of returns the counters for a read of key.
func (c *filterCounters) of(key []byte) *filterShard {
	h := uint8(0)
	if n := len(key); n > 0 {
		h = key[n-1]
	}
	return &c.shards[h%filterShards]
}

// FilterMetrics count what the filters of tables said to point reads: of the
// Probes, Negatives spared a look into the table, and FalsePositives cost one
// that found no version of the key. Tables without a filter do not count.
type FilterMetrics struct{ Probes, Negatives, FalsePositives int64 }

func (c *filterCounters) metrics() FilterMetrics {
	var m FilterMetrics
	for i := range c.shards {
		s := &c.shards[i]
		n, fp := s.negatives.Load(), s.falsePositives.Load()
		m.Negatives += n
		m.FalsePositives += fp
		m.Probes += n + fp + s.found.Load()
	}
	return m
}
