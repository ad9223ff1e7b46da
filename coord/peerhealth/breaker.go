package peerhealth

import "time"

// traffic counts what was sent to a peer and what became of it, from its start.
// Answers are all that come from the peer, errors included; failures are all
// that end without: timeouts, lost links, messages that could not be sent.
type traffic struct {
	sent, answered, failed uint64
}

// breaker decides whether a peer is asked. It is not safe for concurrent use.
//
//	closed, slow --silence--> open --probe--> half open --answer--> closed
//	                           ^------- no answer --------|
//
// Silence is counted in ticks of this process, each of which adds little however
// long it took: a process that was stopped has not listened.
type breaker struct {
	state State
	// since is when the state was reached; for Open and HalfOpen, when the peer
	// was last known to answer.
	since time.Time
	// silence is how long answers have been awaited and none has come.
	silence time.Duration
	last    traffic
	// sentAt is what had been sent, and may be lost, when the peer last answered,
	// failedAt the count of failures then.
	sentAt, failedAt uint64
	// probed is when the last probe was sent, or when the breaker opened.
	probed time.Time
	// tried is when the last trials were allowed, trials how many are left of them.
	tried   time.Time
	trials  int
	suspect bool
	// slowness
	window struct {
		n, far  int
		age     time.Duration
		streak  int // windows in a row that were slow
		kind    Kind
		near    int // samples in a row that were not far, while slow
		sampled time.Time
	}
}

// tick looks at what came since the last one. paused says that this node itself
// was not running. It returns the state before and why it changed.
func (b *breaker) tick(now time.Time, step time.Duration, paused bool, t traffic) (why string) {
	before := b.last
	b.last = t
	// What was sent a tick before the last answer or earlier, and is still awaited, may
	// be lost: it says nothing of the peer.
	awaited := min(t.sent-t.answered-t.failed, t.sent-b.sentAt)
	switch {
	case t.answered != before.answered:
		b.silence, b.failedAt = 0, t.failed
		b.sentAt = min(before.sent+t.answered-before.answered, t.sent)
		return ""
	case awaited == 0 && t.failed == before.failed:
		b.silence = 0 // nobody asks
		return ""
	case paused:
		b.silence = -grace
		if b.state == HalfOpen {
			b.silence = 0
		}
		return ""
	}
	b.silence += step
	failures := t.failed - b.failedAt
	switch b.state {
	case HalfOpen:
		if b.silence >= TrialTime || t.failed != before.failed {
			b.state = Open // the probe found nothing: as before
		}
		return ""
	case Open:
		return ""
	}
	patience := func(d time.Duration) bool {
		if b.suspect {
			d /= 2
		}
		return b.silence >= d
	}
	switch {
	case awaited >= manyAwaited && patience(silentMany), awaited > 0 && patience(silentFew):
		b.open(now)
		return "nothing has come back while answers were awaited"
	case failures >= minFailures && patience(unreached):
		b.open(now)
		return "could not be reached"
	}
	return ""
}

func (b *breaker) open(now time.Time) {
	b.state, b.since, b.probed, b.tried, b.trials = Open, now.Add(-b.silence), now, now, 0
	b.resetWindow()
}

// answered closes a breaker: whatever came, it came from the peer.
func (b *breaker) answered(now time.Time) (changed bool) {
	if b.state != Open && b.state != HalfOpen {
		return false
	}
	b.close(now)
	return true
}

func (b *breaker) close(now time.Time) {
	b.state, b.since, b.silence = Closed, now, 0
	b.failedAt = b.last.failed
	b.resetWindow()
}

func (b *breaker) resetWindow() {
	w := &b.window
	w.n, w.far, w.age, w.streak, w.near = 0, 0, 0, 0, 0
}

// probe reports whether a probe is to be sent now, and notes that it is.
func (b *breaker) probe(now time.Time) bool {
	if b.state == Closed {
		return false
	}
	if d := now.Sub(b.probed); d >= 0 && d < ProbeInterval {
		return false
	}
	b.probed = now
	b.halfOpen(now)
	return true
}

func (b *breaker) halfOpen(now time.Time) {
	b.tried, b.trials = now, Trials
	if b.state == Open {
		b.state, b.silence = HalfOpen, 0
	}
}

// trial reports whether a probe is to be sent for an operation that cannot do without
// the peer.
func (b *breaker) trial(now time.Time) bool {
	if b.state < HalfOpen {
		return true
	}
	if d := now.Sub(b.tried); d < 0 || d >= TrialInterval {
		b.halfOpen(now)
	}
	if b.trials == 0 {
		return false
	}
	b.trials--
	return true
}

// sample is told how one answer of a kind came: far slower than the others' or not.
func (b *breaker) sample(now time.Time, k Kind, far bool) (why string) {
	w := &b.window
	if b.state == Closed || k == w.kind {
		w.sampled = now // else it tells nothing of what it is slow with
	}
	switch {
	case b.state == Slow && k == w.kind && far:
		w.near = 0
	case b.state == Slow && k == w.kind:
		if w.near++; w.near >= nearRun {
			b.close(now)
			return "answers as fast as the others again"
		}
	case b.state == Closed:
		w.n++
		if far {
			w.far++
			w.kind = k
		}
	}
	return ""
}

// judge is called after each tick, and decides whether a peer is slow.
func (b *breaker) judge(now time.Time, step time.Duration) (why string) {
	w := &b.window
	switch b.state {
	case Slow:
		if now.Sub(w.sampled) > slowLife {
			b.close(now)
			return "was not asked for long"
		}
	case Closed:
		w.age += step
		if w.n < windowSamples || w.age < windowTime {
			return ""
		}
		if 4*w.far >= w.n {
			w.streak++
		} else {
			w.streak = 0
		}
		streak := w.streak
		w.n, w.far, w.age = 0, 0, 0
		if streak >= slowWindows {
			b.state, b.since = Slow, now
			b.resetWindow()
			return "answers far slower than the others"
		}
	}
	return ""
}
