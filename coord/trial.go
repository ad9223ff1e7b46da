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
	mu  sync.Mutex
	// missing is how many answers are needed, open how many may still come.
	missing, open int
	over          bool
	stop          func() bool
}

// answering decides whether an operation goes on, given which owners answer. It
// returns an error if the level cannot be met without those that do not: nothing is
// minted or sent then. With wait it will run again.
func (c *Coordinator) answering(j *job, u *unit) (wait bool, err *Error) {
	if !c.health.table.Impaired() {
		return false, nil
	}
	need := quorum.Need(j.level, len(u.owners))
	if u.self < 0 {
		need = 1 // who coordinates it knows better who answers there
	}
	var shut []int
	usable := 0
	for i := range u.owners {
		switch {
		case u.down(i):
		case i != u.self && c.shut(u, i):
			shut = append(shut, i)
		default:
			usable++
		}
	}
	if usable >= need {
		return false, nil
	}
	if !j.tried {
		now := c.opts.Clock.Now()
		var try []int
		for _, i := range shut {
			if c.record(u, i).Trial(now) {
				try = append(try, i)
			}
		}
		if usable+len(try) >= need {
			c.try(j, u, try, need-usable)
			return true, nil
		}
	}
	t := quorum.NewTally(len(u.owners), need)
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

// try starts a trial that needs so many answers of these owners.
func (c *Coordinator) try(j *job, u *unit, owners []int, missing int) {
	j.tried = true
	t := &trial{job: j, missing: missing, open: len(owners)}
	c.hold(1 + len(owners))
	stop := c.opts.Clock.AfterFunc(peerhealth.TrialTime, func() { t.heard(0, len(owners)) })
	t.mu.Lock()
	t.stop = stop
	t.mu.Unlock()
	for _, i := range owners {
		c.sendProbe(u, i, nil, func(err error) {
			if err == nil {
				t.heard(1, 1)
			} else {
				t.heard(0, 1)
			}
			c.leave()
		})
	}
}

// heard counts answers, and probes that have ended or are not waited for any more.
func (t *trial) heard(answers, ended int) {
	t.mu.Lock()
	t.missing -= answers
	t.open -= ended
	if t.over || t.missing > 0 && t.open > 0 {
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
