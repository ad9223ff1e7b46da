package engine

import "time"

// gather decides how long the next sync is put off, so that those whose batches
// have just become durable can bring their next ones: a sync for all of them
// instead of one for each half, which is what comes of syncing whatever happens
// to wait. It is a function of what it is told; who waits, and on what clock, is
// not its business.
type gather struct {
	// sync is the smoothed time of a sync.
	sync time.Duration
	// skip is how many groups are still synced at once, and pause how many will
	// be after the next time that waiting was in vain.
	skip, pause int
}

const (
	// Nobody waits longer than half a sync. A sync that takes less than minSync is
	// not put off: timers and wake-ups are late by half as much, and a group of all
	// writers instead of one of half of them hardly saves anything. maxGather is
	// where a slow disk would make the wait felt.
	minSync   = 200 * time.Microsecond
	maxGather = 500 * time.Microsecond
	// After waiting in vain this many groups are not put off, twice as many each
	// time, until it pays again.
	minPause, maxPause = 8, 1024
)

// plan is told that a sync took a time, woke writers, and finds others waiting.
// It returns how many of them the next sync is to be for, and how long at most it
// may be put off; 0 to sync at once.
func (g *gather) plan(took time.Duration, woken, waiting int) (expect int, limit time.Duration) {
	if g.sync == 0 {
		g.sync = took
	}
	g.sync += (took - g.sync) / 8
	if g.skip > 0 {
		g.skip--
		return 0, 0
	}
	if woken+waiting < 2 || g.sync < minSync {
		return 0, 0 // one writer, who waits for nobody; or not worth it
	}
	return woken + waiting, min(g.sync/2, maxGather)
}

// outcome is told how many of the expected writers came. One in four may stay away.
func (g *gather) outcome(came, expected int) {
	if came >= expected-expected/4 {
		g.pause = minPause
		return
	}
	g.pause = min(max(2*g.pause, minPause), maxPause)
	g.skip = g.pause
}
