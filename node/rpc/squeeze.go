package rpc

import "time"

// What decides whether the frames of a lane are compressed. Rates are in bytes
// per second as they leave, compressed or not.
const (
	// slowRate is a lane's rate below which its link may be what holds it up;
	// s2 makes more than ten times that on one core. A loaded machine reaches
	// as little only over a network.
	slowRate = 32 << 20
	// fastRate is the rate above which it is not, even if it was.
	fastRate = 128 << 20
	// slowWindows of squeezeWindow bytes each have to be slow, one after the
	// other.
	slowWindows   = 2
	squeezeWindow = 1 << 20
	// gainPercent is what compressed frames have to carry at least, of what
	// plain ones did before.
	gainPercent = 115
	// firstCooling is how long compression stays off after it did not pay. It
	// doubles up to maxCooling, and begins anew when it did.
	firstCooling = 10 * time.Second
	maxCooling   = 5 * time.Minute
)

// squeeze decides for one lane of one link, from how long its frames took. It is
// a value without clock or lock.
//
// That a link is slow is not enough: a peer that is slow to read looks the same,
// and compression makes that worse. So it is tried, and goes on only if more
// gets through than before.
type squeeze struct {
	on bool

	// plain bytes became wire bytes in the window that is open, which took so
	// long to send and to compress.
	plain, wire int
	took        time.Duration
	// slow windows came last.
	slow int
	// before is the rate of plain bytes that was reached without compression.
	before float64
	// coolUntil is when it may be tried again, cooling the pause after that.
	coolUntil time.Time
	cooling   time.Duration
}

// sent takes note of a frame of plain bytes that left as wire bytes, which took
// so long, compressing included, and was done at now.
func (s *squeeze) sent(now time.Time, plain, wire int, took time.Duration) {
	s.plain += plain
	s.wire += wire
	s.took += max(took, 0)
	if s.wire < squeezeWindow && s.took < time.Second {
		return
	}
	seconds := max(s.took, time.Microsecond).Seconds()
	rate, through := float64(s.wire)/seconds, float64(s.plain)/seconds
	saved := s.wire < s.plain-s.plain/10
	s.plain, s.wire, s.took = 0, 0, 0
	if !s.on {
		s.consider(now, rate, through)
		return
	}
	switch {
	case rate > fastRate:
		s.on, s.slow = false, 0
	case !saved:
		// Nothing in it could be compressed: nothing was gained, or lost.
	case through < s.before*gainPercent/100:
		s.on, s.slow = false, 0
		s.cooling = min(max(2*s.cooling, firstCooling), maxCooling)
		s.coolUntil = now.Add(s.cooling)
	default:
		s.cooling = 0
	}
}

// consider looks at a window without compression.
func (s *squeeze) consider(now time.Time, rate, through float64) {
	if rate >= slowRate {
		s.slow = 0
		return
	}
	s.slow++
	if s.slow >= slowWindows && !now.Before(s.coolUntil) {
		s.on, s.before = true, through
	}
}
