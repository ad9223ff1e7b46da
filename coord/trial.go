package coord

import (
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/coord/quorum"
)

// trial asks owners that do not answer whether they do by now, for an operation that
// cannot do without them. Nothing of it has been sent or minted; it runs again when
// enough of them have answered, or none can any more, or after peerhealth.TrialTime.
type trial struct {
	job *job
	// goal is what is needed.
	goal quorum.Goal
	mu   sync.Mutex
	// usable are the owners that are known to answer, open those that may still.
	usable, open uint16
	over         bool
	stop         func() bool
}

// answering decides whether an operation goes on, given which owners answer. It
// returns an error if the level cannot be met without those that do not: nothing is
// minted or sent then. With wait it will run again.
func (c *Coordinator) answering(j *job, u *unit) (wait bool, err *Error) {
	if !c.health.table.Impaired() {
		return false, nil
	}
	goal := u.goal(j)
	if !u.mints() {
		// Who coordinates it knows better who answers there.
		goal = quorum.Goal{First: quorum.Of(quorum.One, u.r1)}
	}
	var shut []int
	var usable uint16
	for i := range u.owners {
		switch {
		case u.down(i):
		case i != u.self && c.shut(u, i):
			shut = append(shut, i)
		default:
			usable |= 1 << i
		}
	}
	if goal.Met(usable) {
		return false, nil
	}
	if !j.tried {
		now := c.opts.Clock.Now()
		var try []int
		may := usable
		for _, i := range shut {
			if c.record(u, i).Trial(now) {
				try = append(try, i)
				may |= 1 << i
			}
		}
		if goal.Met(may) {
			c.try(&trial{job: j, goal: goal, usable: usable, open: may &^ usable}, u, try)
			return true, nil
		}
	}
	t := goal.Tally()
	for i := range u.owners {
		if u.down(i) {
			t.Fail(i, reasonDown)
		}
	}
	for _, i := range shut {
		t.Fail(i, c.silent(u, i))
	}
	return false, u.quorumError(j, &t, errcode.QuorumNotReached, errcode.NotApplied, "too few owners of "+j.subject()+" answer")
}

// try starts a trial that asks these owners.
func (c *Coordinator) try(t *trial, u *unit, owners []int) {
	t.job.tried = true
	c.hold(1 + len(owners))
	stop := c.opts.Clock.AfterFunc(peerhealth.TrialTime, func() { t.heard(^uint16(0), false) })
	t.mu.Lock()
	t.stop = stop
	t.mu.Unlock()
	for _, i := range owners {
		c.sendProbe(u, i, nil, func(err error) {
			t.heard(1<<i, err == nil)
			c.leave()
		})
	}
}

// heard notes owners that have answered, or are not waited for any more.
func (t *trial) heard(owners uint16, answered bool) {
	t.mu.Lock()
	t.open &^= owners
	if answered {
		t.usable |= owners
	}
	if t.over || !t.goal.Met(t.usable) && t.open != 0 {
		t.mu.Unlock()
		return
	}
	t.over = true
	stop := t.stop
	t.mu.Unlock()
	if stop != nil {
		stop()
	}
	t.job.run()
	t.job.c.leave()
}
