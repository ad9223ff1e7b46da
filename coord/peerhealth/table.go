package peerhealth

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Change is a change of a state. That a probe was sent, and found nothing, is none.
type Change struct {
	ID       ring.NodeID
	Part     Part
	From, To State
	Why      string
}

// Table has a Record for each peer that was asked something, and two for this
// node. It holds no more of them than the cluster has members. It is safe for
// concurrent use.
type Table struct {
	self        ring.NodeID
	maxHedge    time.Duration
	disk, reads *Record
	peers       atomic.Pointer[roster]
	// impaired counts records that are not closed.
	impaired atomic.Int32
	timed    atomic.Uint32 // requests since the last tick

	mu struct {
		sync.Mutex
		last time.Time // of the tick before; zero if none is under way
		seen *schema.Snapshot
		// learned is the age of what Wait says.
		learned time.Duration
	}
}

// roster is immutable: it is copied to add a peer, which happens once for each.
type roster struct {
	byID map[ring.NodeID]*Record
	all  []*Record
}

// NewTable returns the table of a node. maxHedge is the longest that Wait says,
// and what it says until something is known.
func NewTable(self ring.NodeID, maxHedge time.Duration) *Table {
	t := &Table{self: self, maxHedge: max(maxHedge, minHedge)}
	t.disk, t.reads = t.newRecord(self, Disk), t.newRecord(self, Reads)
	t.peers.Store(&roster{})
	return t
}

// Disk is the record of whether this node's writes get to its disk.
func (t *Table) Disk() *Record { return t.disk }

// Reads is the record of how this node's replica answers reads.
func (t *Table) Reads() *Record { return t.reads }

// Peer returns the record of another node, which it makes if there is none.
func (t *Table) Peer(id ring.NodeID) *Record {
	if r := t.peers.Load().find(id); r != nil {
		return r
	}
	return t.add(id)
}

// find returns nil if there is none. Few are found faster without hashing.
func (p *roster) find(id ring.NodeID) *Record {
	if len(p.all) > fewPeers {
		return p.byID[id]
	}
	for _, r := range p.all {
		if r.id == id {
			return r
		}
	}
	return nil
}

const fewPeers = 8

func (t *Table) add(id ring.NodeID) *Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.peers.Load()
	if r := old.find(id); r != nil {
		return r
	}
	r := t.newRecord(id, Requests)
	t.setLocked(append(slices.Clone(old.all), r))
	t.mu.seen = nil // so that the next tick tells it what the failure detector says
	return r
}

// setLocked replaces the peers. The lock is held.
func (t *Table) setLocked(all []*Record) {
	next := &roster{byID: make(map[ring.NodeID]*Record, len(all)), all: all}
	for _, r := range all {
		next.byID[r.id] = r
	}
	t.peers.Store(next)
}

// Impaired reports whether any record is not closed. If none is, there is nothing
// to decide.
func (t *Table) Impaired() bool { return t.impaired.Load() != 0 }

// Timed reports whether the request that is about to be sent is to be timed: the
// first between two ticks, and some of the rest.
func (t *Table) Timed() bool {
	n := t.timed.Add(1)
	return n <= sampledEach || n%sampledOne == 0
}

// Note is told of an answer whose Answered returned true, or that was timed: begun
// is when it was asked for, zero if it was not timed. It returns what to report.
func (t *Table) Note(r *Record, k Kind, begun, now time.Time) (Change, bool) {
	var took time.Duration
	if !begun.IsZero() {
		took = max(now.Sub(begun), 1)
	}
	return r.note(now, k, begun, took)
}

// Busy reports whether Tick has to be called: something is awaited, or was sent since
// the last tick.
func (t *Table) Busy() bool {
	busy := func(r *Record) bool {
		c := r.counts()
		return c.sent != c.answered+c.failed || c.sent != r.seen.Load()
	}
	return busy(t.disk) || busy(t.reads) || slices.ContainsFunc(t.peers.Load().all, busy)
}

// Start is called before a first Tick, Interval ahead of it.
func (t *Table) Start() {
	t.mu.Lock()
	t.mu.last = time.Time{}
	t.mu.Unlock()
}

// Tick looks at what has come since the last one, and at what the failure detector
// says. It returns what to report, and whether there is to be another: something was
// sent since the last one, or is awaited. So the last tick sees that nobody asks.
func (t *Table) Tick(now time.Time, s *schema.Snapshot) (changes []Change, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	elapsed := Interval
	if !t.mu.last.IsZero() {
		elapsed = max(now.Sub(t.mu.last), 0)
	}
	t.mu.last = now
	t.timed.Store(0)
	step, paused := min(elapsed, 2*Interval), elapsed > ownPause
	note := func(c Change, ok bool) {
		if ok {
			changes = append(changes, c)
		}
	}
	if s != t.mu.seen {
		t.mu.seen = s
		for _, c := range t.observeLocked(now, s) {
			note(c, true)
		}
	}
	again = t.Busy()
	all := t.peers.Load().all
	for _, r := range all {
		note(r.tick(now, step, paused))
	}
	note(t.disk.tick(now, step, paused))
	note(t.reads.tick(now, step, paused))
	if t.mu.learned += step; t.mu.learned >= windowTime/2 {
		t.mu.learned = 0
		t.compare(all)
	}
	return changes, again
}

// observeLocked tells the records what the failure detector says, and forgets nodes that
// are no members any more. The lock is held.
func (t *Table) observeLocked(now time.Time, s *schema.Snapshot) (changes []Change) {
	old := t.peers.Load().all
	kept := make([]*Record, 0, len(old))
	for _, r := range old {
		m, ok := s.Member(r.id)
		if !ok && len(s.Members) > 0 || ok && m.Liveness == schema.Left {
			if c, ok := r.forget(now); ok {
				changes = append(changes, c)
			}
			continue
		}
		kept = append(kept, r)
		if !ok {
			continue
		}
		if c, ok := r.observe(now, m); ok {
			changes = append(changes, c)
		}
	}
	if len(kept) < len(old) {
		t.setLocked(kept)
	}
	return changes
}

// compare sets what the records learned from one another.
func (t *Table) compare(all []*Record) {
	var usual, others []time.Duration
	for k := range Kind(learned) {
		usual = usual[:0]
		for _, r := range all {
			usual = append(usual, r.quantile(k))
		}
		for i, r := range all {
			others = others[:0]
			for j, d := range usual {
				if j != i && d > 0 {
					others = append(others, d)
				}
			}
			r.setWait(k, usual[i], median(others))
		}
		if k == Read {
			// What this node has by itself is compared with what it could have
			// from others.
			others = others[:0]
			for _, d := range usual {
				if d > 0 {
					others = append(others, d)
				}
			}
			t.reads.setWait(k, t.reads.quantile(k), median(others))
		}
	}
}

// median returns the lower one of d, which it sorts; 0 for none.
func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[(len(d)-1)/2]
}

func (r *Record) quantile(k Kind) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.learned[k].quantile(95)
}

// setWait sets what follows from what the peer needs and what the others need, 0
// where that is not known.
func (r *Record) setWait(k Kind, own, others time.Duration) {
	wait := r.table.maxHedge
	if own > 0 {
		wait = min(wait, own)
	}
	far := time.Duration(0)
	if others > 0 {
		wait = min(wait, 2*others)
		far = max(farFactor*others, farFloor)
	}
	r.wait[k].Store(int64(max(wait, min(minHedge, r.table.maxHedge))))
	r.far[k].Store(int64(far))
}

// Status is what is known of one Record.
type Status struct {
	ID    ring.NodeID
	Part  Part
	State State
	// Since is that of Record.Since, zero if nothing has happened yet.
	Since time.Time
	// ReadWait is Record.Wait for reads.
	ReadWait time.Duration
}

// All returns the status of every record: this node's two, then the peers in the
// order in which they were first asked something.
func (t *Table) All() []Status {
	var out []Status
	for _, r := range append([]*Record{t.disk, t.reads}, t.peers.Load().all...) {
		out = append(out, Status{ID: r.id, Part: r.part, State: r.State(), Since: r.Since(), ReadWait: r.Wait(Read)})
	}
	return out
}
