package node

import (
	"sync"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/pace"
)

// loadPace is how fast something may go that others are not to wait for: it follows the
// time that they take.
type loadPace struct {
	pacer pace.Pacer

	thought time.Time // when the rate was last thought over
	count   int64
	took    time.Duration
}

// think has the pacer look at how much others have done, and the time that took.
func (p *loadPace) think(now time.Time, count int64, took time.Duration) {
	if !p.thought.IsZero() && now.Sub(p.thought) < pace.Interval {
		return
	}
	if !p.thought.IsZero() {
		p.pacer.Adjust(pace.Load{Syncs: count - p.count, SyncTime: took - p.took, Elapsed: now.Sub(p.thought)})
	}
	p.thought, p.count, p.took = now, count, took
}

// wait takes so many bytes, and returns for how long no more should be taken.
func (p *loadPace) wait(now time.Time, bytes int) time.Duration {
	p.pacer.Take(now, int64(bytes))
	return p.pacer.Wait(now)
}

// diskPace follows the syncs of the log.
type diskPace struct{ loadPace }

func (p *diskPace) look(now time.Time, m engine.Metrics) { p.think(now, m.WALSyncs, m.WALSyncTime) }

// leastStream is what a node always moves, in bytes a second, however long clients wait
// for it: a change of the ring has to come to its end.
const leastStream = 1 << 20

// streamPace is the pace of what moves because the ring changes, which all of a node's
// transfers share. It yields to clients, whatever keeps them waiting, and to the syncs of
// writes.
type streamPace struct {
	mu      sync.Mutex
	disk    diskPace
	clients loadPace
}

func newStreamPace() *streamPace {
	return &streamPace{clients: loadPace{pacer: pace.Pacer{Least: leastStream}}}
}

// took says that so many bytes were read or are about to be written, and returns for how
// long no more should be. count operations of clients have ended, and took so long
// together.
func (s *streamPace) took(now time.Time, m engine.Metrics, count int64, took time.Duration, bytes int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk.look(now, m)
	s.clients.think(now, count, took)
	return max(s.disk.wait(now, bytes), s.clients.wait(now, bytes))
}
