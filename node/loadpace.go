package node

import (
	"sync"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/pace"
)

// diskPace is how fast something may go that the syncs of the log are not to wait for.
type diskPace struct {
	pacer pace.Pacer

	thought time.Time // when the rate was last thought over
	syncs   int64
	took    time.Duration
}

// look has the pacer look at how many syncs there were, and the time that they took.
func (p *diskPace) look(now time.Time, m engine.Metrics) {
	if !p.thought.IsZero() && now.Sub(p.thought) < pace.Interval {
		return
	}
	if !p.thought.IsZero() {
		p.pacer.Adjust(pace.Load{Syncs: m.WALSyncs - p.syncs, SyncTime: m.WALSyncTime - p.took, Elapsed: now.Sub(p.thought)})
	}
	p.thought, p.syncs, p.took = now, m.WALSyncs, m.WALSyncTime
}

// wait takes so many bytes, and returns for how long no more should be taken.
func (p *diskPace) wait(now time.Time, bytes int) time.Duration {
	p.pacer.Take(now, int64(bytes))
	return p.pacer.Wait(now)
}

// leastStream is what a node always moves, in bytes a second, however long clients wait
// for it: a change of the ring has to come to its end.
const leastStream = 1 << 20

// streamPace is the pace of what moves because the ring changes, which all of a node's
// transfers share. It yields to clients, whatever keeps them waiting, and to the syncs of
// writes.
type streamPace struct {
	mu      sync.Mutex
	disk    diskPace
	clients pace.Tail
}

func newStreamPace() *streamPace { return &streamPace{clients: pace.Tail{Least: leastStream}} }

// watch is told how long all operations of clients took, again and again: what is usual
// has to be known before anything moves.
func (s *streamPace) watch(now time.Time, ended *pace.Latencies) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients.Look(now, ended)
}

// took says that so many bytes were read or are about to be written, and returns for how
// long no more should be. ended are all operations of clients.
func (s *streamPace) took(now time.Time, m engine.Metrics, ended *pace.Latencies, bytes int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk.look(now, m)
	s.clients.Look(now, ended)
	s.clients.Take(now, int64(bytes))
	return max(s.disk.wait(now, bytes), s.clients.Wait(now))
}
