package sums

import (
	"sync"
	"sync/atomic"
)

// gateShards is how many sets of counters there are, a power of two.
const gateShards = 16

// gate counts those who are between the write to the engine and Add, so that one
// can wait for all who were there at a moment while others go on coming. Who
// comes counts under the parity of the epoch; who waits begins another epoch.
type gate struct {
	epoch  atomic.Uint32
	shards [gateShards]gateShard

	mu sync.Mutex // held by the one who waits
	// waits says that somebody does; wake has room for one notice.
	waits atomic.Bool
	wake  chan struct{}
	// pause, if not nil, is called instead of waiting: a test lets others go on.
	pause func()
}

type gateShard struct {
	in [2]atomic.Int64
	_  [128 - 2*8]byte // a line and its neighbour, which are fetched together
}

// Pass is to be given back with Leave.
type Pass struct {
	gate *gate
	n    *atomic.Int64
}

// Enter is called before a write is given to the engine, and Leave once all of it
// was given to Add, or failed. Calls with different hints seldom meet in memory.
func (s *Sums) Enter(hint int) Pass { return s.gate.enter(hint) }

func (g *gate) enter(hint int) Pass {
	sh := &g.shards[hint&(gateShards-1)]
	for {
		e := g.epoch.Load()
		p := Pass{g, &sh.in[e&1]}
		p.n.Add(1)
		if g.epoch.Load() == e {
			return p
		}
		p.Leave() // whoever began the epoch may not have seen this one
	}
}

// Leave gives the pass back.
func (p Pass) Leave() {
	if p.n.Add(-1) == 0 && p.gate.waits.Load() {
		select {
		case p.gate.wake <- struct{}{}:
		default: // there is a notice already
		}
	}
}

// Drain returns once everybody has left who had entered before the call. The
// caller holds nothing that they may need; the engine may hold them up for long.
func (s *Sums) Drain() { s.gate.drain() }

func (g *gate) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wake == nil {
		g.wake = make(chan struct{}, 1)
	}
	// In this order: a writer who leaves afterwards sees that somebody waits, and
	// one who enters afterwards sees the new epoch.
	g.waits.Store(true)
	defer g.waits.Store(false)
	old := (g.epoch.Add(1) - 1) & 1
	for !g.empty(old) {
		g.await()
	}
}

// await returns when somebody has left, or at any time.
func (g *gate) await() {
	if g.pause != nil {
		g.pause()
		return
	}
	<-g.wake
}

func (g *gate) empty(parity uint32) bool {
	for i := range g.shards {
		if g.shards[i].in[parity].Load() != 0 {
			return false
		}
	}
	return true
}
