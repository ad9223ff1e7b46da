package peerhealth

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Part says what of a node a Record is about.
type Part string

const (
	// Requests: whether another node answers.
	Requests Part = "requests"
	// Disk: whether this node's writes get to its disk.
	Disk Part = "disk"
	// Reads: how this node's replica answers reads.
	Reads Part = "reads"
)

// Record is what is known of one peer, or of a part of this node. It is safe for
// concurrent use.
type Record struct {
	table *Table
	id    ring.NodeID
	part  Part

	sent, answered, failed atomic.Uint64
	// seen is what was sent by the last tick.
	seen atomic.Uint64
	// state is that of the breaker, for those that hold no lock.
	state atomic.Uint32
	// wait is after how long to ask one more owner, far from when on an answer
	// counts as far slower than the others'; 0 if that is not known. In ns.
	wait, far [learned]atomic.Int64

	mu struct {
		sync.Mutex
		breaker breaker
		learned [learned]latency
		// decayed is the age of the samples since they were last halved.
		decayed  time.Duration
		liveness schema.Liveness
		inc      uint64 // incarnation, 0 until known
	}
}

func (t *Table) newRecord(id ring.NodeID, p Part) *Record {
	r := &Record{table: t, id: id, part: p}
	for k := range r.wait {
		r.wait[k].Store(int64(t.maxHedge))
	}
	return r
}

// Sent notes a request. It is followed by one Answered or Failed.
func (r *Record) Sent() { r.sent.Add(1) }

// Answered notes an answer, whatever it says. It returns whether the Table has to
// be told with Note.
func (r *Record) Answered() (tell bool) {
	r.answered.Add(1)
	return State(r.state.Load()) >= HalfOpen
}

// Failed notes a request that ended without an answer.
func (r *Record) Failed() { r.failed.Add(1) }

// State returns the present state.
func (r *Record) State() State { return State(r.state.Load()) }

// Shut reports whether only probes are sent to it.
func (r *Record) Shut() bool { return r.State() >= HalfOpen }

// Wait is how long to wait for an answer of this kind until one more owner is
// asked: the 95th percentile of what it needs, or twice that of the others if
// that is less, within 1 ms and the most that the Table was given. It is the
// latter until enough is known.
func (r *Record) Wait(k Kind) time.Duration { return time.Duration(r.wait[k].Load()) }

// counts are consistent enough: no answer is seen without its request.
func (r *Record) counts() (t traffic) {
	t.answered, t.failed = r.answered.Load(), r.failed.Load()
	t.sent = r.sent.Load()
	return t
}

// change makes the breaker's state that of the record, and returns what to
// report. The lock is held.
func (r *Record) change(from State, why string) (c Change, ok bool) {
	to := r.mu.breaker.state
	if r.state.Swap(uint32(to)); from == to {
		return Change{}, false
	}
	switch {
	case from == Closed:
		r.table.impaired.Add(1)
	case to == Closed:
		r.table.impaired.Add(-1)
	}
	return Change{ID: r.id, Part: r.part, From: from, To: to, Why: why}, from < HalfOpen || to < HalfOpen
}

// note is told that something has come, at now, and how long it took, if took is
// not 0. begun is when it was asked for.
func (r *Record) note(now time.Time, k Kind, begun time.Time, took time.Duration) (Change, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.mu.breaker
	from := b.state
	switch {
	case b.answered(now):
		return r.change(from, "answers again")
	case took <= 0 || k >= learned || begun.Before(b.since):
		// What was asked before the last change tells of that time.
		return Change{}, false
	}
	r.mu.learned[k].add(took)
	if k > ForwardWrite {
		return Change{}, false // pieces of scans differ too much in size
	}
	far := r.far[k].Load()
	return r.change(from, b.sample(now, k, far > 0 && int64(took) > far))
}

// tick tells the breaker what came since the last tick.
func (r *Record) tick(now time.Time, step time.Duration, paused bool) (Change, bool) {
	return r.tickWith(r.counts(), now, step, paused)
}

// tickWith is tick with counts that may be older than what has come meanwhile.
func (r *Record) tickWith(c traffic, now time.Time, step time.Duration, paused bool) (Change, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.mu.breaker
	from := b.state
	r.seen.Store(c.sent)
	why := b.tick(now, step, paused, c)
	if b.state == from {
		why = b.judge(now, step)
	}
	if r.mu.decayed += step; r.mu.decayed >= halfLife {
		r.mu.decayed = 0
		for k := range r.mu.learned {
			if l := &r.mu.learned[k]; l.n >= 2*minWeight {
				l.decay()
			}
		}
	}
	change, ok := r.change(from, why)
	if from < HalfOpen && b.state == Open && r.answered.Load() != c.answered {
		// Whoever noted that answer may have seen the state before, and told nobody.
		b.close(now)
		change, _ = r.change(Open, "answers again")
		change.From, ok = from, from != Closed
	}
	return change, ok
}

// observe takes the failure detector's view into account. A node that has started
// again, or is alive again after it was dead, begins anew.
func (r *Record) observe(now time.Time, m *schema.Member) (Change, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.mu.breaker
	from, was, inc := b.state, r.mu.liveness, r.mu.inc
	r.mu.liveness, r.mu.inc = m.Liveness, m.Incarnation
	b.suspect = m.Liveness == schema.Suspect
	gone := was == schema.Dead || was == schema.Left
	switch {
	case m.Liveness != schema.Alive:
	case inc != 0 && m.Incarnation > inc, gone:
		r.mu.learned = [learned]latency{}
		if from != Closed {
			b.close(now)
			return r.change(from, "has started again")
		}
	case was == schema.Suspect:
		b.probed = time.Time{} // worth a probe at once
	}
	return Change{}, false
}

// forget closes the record of a node that is no member any more: answers that are
// still awaited may come.
func (r *Record) forget(now time.Time) (Change, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := r.mu.breaker.state
	r.mu.breaker.close(now)
	return r.change(from, "is no member any more")
}

// Probe reports whether a probe is to be sent now, and notes that it is.
func (r *Record) Probe(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := r.mu.breaker.state
	ok := r.mu.breaker.probe(now)
	r.change(from, "")
	return ok
}

// Trial reports whether a probe is to be sent now for an operation that cannot do
// without the peer, and notes that it is. It is true for a peer that is not shut.
func (r *Record) Trial(now time.Time) bool {
	if !r.Shut() {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	from := r.mu.breaker.state
	ok := r.mu.breaker.trial(now)
	r.change(from, "")
	return ok
}

// Since is when the state was reached; for HalfOpen and Open when the peer was last
// known to answer.
func (r *Record) Since() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.breaker.since
}
