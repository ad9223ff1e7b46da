package coord

import (
	"time"

	"github.com/pairdb/pairdb/coord/peerhealth"
)

// wait is how long the owners that a read asks first may take until it asks one
// more. The lock is held.
func (r *read) wait() (d time.Duration) {
	var first uint16
	for _, i := range r.mu.order {
		if r.mu.goal.Helps(i, first) {
			first |= 1 << i
			d = max(d, r.job.c.record(r.mu.u, i).Wait(peerhealth.Read))
		}
	}
	return d
}

// armHedge involves one more owner after d without an answer to the read.
func (r *read) armHedge(d time.Duration) {
	c := r.job.c
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.answered {
		return
	}
	if r.mu.unhedge != nil {
		r.mu.unhedge()
	}
	r.mu.unhedge = c.opts.Clock.AfterFunc(d, r.hedge)
}

// hedge asks one more owner, or has one more hold the join, unless there is none, or
// none that answers, or the budget is spent; then it looks again later. An owner is
// asked once in a round, so that it counts once.
func (r *read) hedge() {
	c := r.job.c
	r.mu.Lock()
	if r.mu.answered {
		r.mu.Unlock()
		return
	}
	c.hold(1) // the answer may be given before this has sent
	defer c.leave()
	u, round := r.mu.u, r.mu.round
	again := c.opts.HedgeDelay
	var qs []question
	var send []int
	switch i, free := r.another(); {
	case i < 0: // under a newer ring there may be
	case c.shut(u, i) || !c.mayHedge(free):
	case r.mu.joined == nil:
		q := r.askOwner(i)
		q.whole = true
		r.mu.hedged |= 1 << q.i
		qs = append(qs, q)
		again = c.record(u, q.i).Wait(peerhealth.Read)
	default:
		r.mu.sent |= 1 << i
		send = append(send, i)
	}
	r.mu.Unlock()
	r.ask(u, round, qs)
	r.writeBack(u, round, send)
	r.armHedge(again)
}

// another returns the owner that a hedge would involve, -1 if there is none, and
// whether the read waits for one that does not answer at all. The lock is held.
func (r *read) another() (i int, free bool) {
	c, u := r.job.c, r.mu.u
	i = -1
	if r.mu.joined == nil {
		have, _ := r.count()
		i = r.next(have)
		for k := range r.mu.answers {
			free = free || r.mu.answers[k].state == asked && c.shut(u, k)
		}
		return i, free
	}
	acks, fails := r.mu.tally.Answered()
	for k := range r.mu.answers {
		waits := r.mu.sent>>k&1 == 1
		switch {
		case acks>>k&1 == 1 || fails>>k&1 == 1:
		case waits:
			free = free || c.shut(u, k)
		case !r.mu.goal.Helps(k, acks):
		case i < 0 || c.shut(u, i):
			i = k
		}
	}
	return i, free
}

// hedgeWon reports whether the answer rests on an owner that was asked because
// another kept the read waiting, which still does. The lock is held.
func (r *read) hedgeWon() bool {
	won, waits := false, false
	for i := range r.mu.answers {
		switch s := r.mu.answers[i].state; {
		case s == asked:
			waits = true
		case s == hasAnswered && r.mu.hedged>>i&1 == 1:
			won = true
		}
	}
	return won && waits
}
