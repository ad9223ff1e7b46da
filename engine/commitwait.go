package engine

import (
	"runtime"
	"sync"

	"github.com/pairdb/pairdb/engine/base"
)

// commitWaiter is a goroutine that waits for a sync of others.
type commitWaiter struct {
	// ready gets one value when there is a reason to look again. It has room
	// for it, so that whoever wakes never waits.
	ready chan struct{}
	// lead says that the waiter was handed the lead. It is set before ready and
	// read after it.
	lead bool
	next *commitWaiter // in its list
}

var commitWaiters = sync.Pool{New: func() any { return &commitWaiter{ready: make(chan struct{}, 1)} }}

func (w *commitWaiter) wake() { w.ready <- struct{}{} }

// waitList holds waiters in the order in which they came.
type waitList struct {
	head, tail *commitWaiter
	n          int
}

func (l *waitList) empty() bool { return l.head == nil }

func (l *waitList) add(w *commitWaiter) {
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
	l.n++
}

// first takes the first waiter out.
func (l *waitList) first() *commitWaiter {
	w := l.head
	l.head, w.next = w.next, nil
	if l.head == nil {
		l.tail = nil
	}
	l.n--
	return w
}

// wakeAll wakes and forgets all of them.
func (l *waitList) wakeAll() {
	for !l.empty() {
		l.first().wake()
	}
}

// handOver is what the end of a group leaves to be done without the lock: to
// wake those whose batches are durable, and the one who leads on.
type handOver struct {
	done waitList
	next *commitWaiter
}

func (h *handOver) pass() {
	h.done.wakeAll()
	if h.next != nil {
		h.next.wake()
		runtime.Gosched()
	}
}

// wait returns once everything up to seq, which was applied, is durable. It is
// called and returns without mu.
func (db *DB) wait(seq base.SeqNum) error {
	for db.DurableSeq() < seq {
		db.mu.Lock()
		if err := db.stepLocked(seq); err != nil {
			return err
		}
	}
	return nil
}

// stepLocked does what brings seq nearer to being durable: it leads a group, or
// waits until somebody has. It is called with mu and returns without it.
func (db *DB) stepLocked(seq base.SeqNum) error {
	q := &db.commit
	if db.DurableSeq() >= seq {
		db.mu.Unlock()
		return nil
	}
	if err := db.usableLocked(); err != nil {
		db.mu.Unlock()
		return err
	}
	if !q.leading && !db.putOffLocked() {
		group := db.beginLocked(true)
		db.mu.Unlock()
		return db.lead(group, true)
	}
	w := commitWaiters.Get().(*commitWaiter)
	if q.leading && q.inflight >= seq {
		q.inGroup.add(w)
	} else {
		q.inNext.add(w)
	}
	db.mu.Unlock()
	<-w.ready
	lead := w.lead
	w.lead = false
	commitWaiters.Put(w)
	if lead {
		return db.leadOn()
	}
	return nil
}

// putOffLocked reports whether a writer who could lead is to wait for others
// instead. The last of those expected leads, or whoever came first once the time
// is over.
func (db *DB) putOffLocked() bool {
	q := &db.commit
	if q.expect == 0 || q.wanted > 0 || q.inNext.n+1 >= q.expect {
		return false
	}
	db.gatherLocked()
	return true
}

// gatherLocked sees to it that the gathering ends.
func (db *DB) gatherLocked() {
	q := &db.commit
	if q.gathering {
		return
	}
	q.gathering = true
	if q.timer == nil {
		q.timer = db.opts.Timer(db.gathered)
	}
	q.timer.Reset(q.patience)
}

// gathered hands the lead to whoever has waited longest, if nobody took it. It is
// called by the timer, which may be late and mean a gathering that is over; then
// this one ends early, which does no harm.
func (db *DB) gathered() {
	db.mu.Lock()
	defer db.mu.Unlock()
	q := &db.commit
	if !q.gathering || q.leading || q.inNext.empty() || db.usableLocked() != nil {
		return
	}
	w := q.inNext.first()
	q.reserveFor(w)
	w.wake()
}

// reserveFor gives w, who is woken next, the lead of a group that is yet to begin.
func (q *commitQueue) reserveFor(w *commitWaiter) {
	w.lead, q.leading, q.gathering = true, true, false
	q.inflight = 0
}

// leadOn syncs the next group for a waiter who was handed the lead.
func (db *DB) leadOn() error {
	db.mu.Lock()
	if err := db.usableLocked(); err != nil {
		db.commit.leading = false
		db.wakeAllLocked()
		db.mu.Unlock()
		return err
	}
	group := db.beginLocked(true)
	db.mu.Unlock()
	return db.lead(group, true)
}

// lead writes a group that was begun, and syncs it if asked to, without mu.
func (db *DB) lead(group []byte, sync bool) error {
	err := db.writeGroup(group, sync)
	db.mu.Lock()
	h, err := db.endLocked(group, sync, err)
	db.mu.Unlock()
	h.pass()
	return err
}
