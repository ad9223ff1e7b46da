package rpc

import (
	"fmt"
	"testing"
	"time"
)

// lane is a link that carries rate bytes per second, and data that compresses to
// percent of its size; a peer that reads slowly takes plain bytes at its rate.
type laneModel struct {
	rate    float64
	percent int
	reads   float64
}

// run sends for so long, in frames of 256 KiB, and returns when compression was
// on, as a share of the time, and how often it changed.
func (m laneModel) run(s *squeeze, from time.Time, d time.Duration) (on float64, changes int, end time.Time) {
	now := from
	var squeezed time.Duration
	for now.Sub(from) < d {
		plain := 256 << 10
		wire := plain
		if s.on && m.percent < 90 {
			wire = plain * m.percent / 100
		}
		took := time.Duration(float64(wire) / m.rate * 1e9)
		if m.reads > 0 {
			took = max(took, time.Duration(float64(plain)/m.reads*1e9))
		}
		now = now.Add(took)
		was := s.on
		if was {
			squeezed += took
		}
		s.sent(now, plain, wire, took)
		if s.on != was {
			changes++
		}
	}
	return squeezed.Seconds() / now.Sub(from).Seconds(), changes, now
}

func TestSqueeze(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		m           laneModel
		least, most float64 // share of the time with compression
		changes     int     // at most
	}{
		"loopback":              {laneModel{rate: 1000 * mb, percent: 30}, 0, 0, 0},
		"loaded loopback":       {laneModel{rate: 60 * mb, percent: 30}, 0, 0, 0},
		"slow":                  {laneModel{rate: 5 * mb, percent: 30}, .95, 1, 1},
		"slow, little to gain":  {laneModel{rate: 5 * mb, percent: 80}, .95, 1, 1},
		"slow, incompressible":  {laneModel{rate: 5 * mb, percent: 100}, .95, 1, 1}, // each frame's sample says no
		"a peer that is slow":   {laneModel{rate: 1000 * mb, percent: 30, reads: 5 * mb}, 0, .05, 12},
		"between the two rates": {laneModel{rate: 100 * mb, percent: 30}, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var s squeeze
			on, changes, _ := c.m.run(&s, time.Unix(0, 0), 3*time.Minute)
			if on < c.least || on > c.most || changes > c.changes {
				t.Errorf("on for %.0f %% of the time, %d changes", 100*on, changes)
			}
		})
	}
}

// TestSqueezeFollowsTheLink: it goes off when the link becomes fast, and on again
// when it becomes slow, without flapping between.
func TestSqueezeFollowsTheLink(t *testing.T) {
	var s squeeze
	now := time.Unix(0, 0)
	for i, c := range []struct {
		mb float64
		on bool
	}{{5, true}, {20, true}, {100, true}, {500, false}, {100, false}, {40, false}, {10, true}} {
		var changes int
		_, changes, now = laneModel{rate: c.mb * (1 << 20), percent: 40}.run(&s, now, 30*time.Second)
		if s.on != c.on || changes > 2 {
			t.Errorf("step %d, %v MB/s: on %v after %d changes", i, c.mb, s.on, changes)
		}
	}
}

// TestSqueezeCools: each time that it did not pay it waits longer, up to a bound.
func TestSqueezeCools(t *testing.T) {
	var s squeeze
	now := time.Unix(0, 0)
	var waits []string
	for range 8 {
		for !s.on {
			now = now.Add(100 * time.Millisecond)
			s.sent(now, squeezeWindow, squeezeWindow, 200*time.Millisecond)
		}
		s.sent(now, 4*squeezeWindow, squeezeWindow, 900*time.Millisecond)
		if s.on {
			t.Fatal("on, though less gets through")
		}
		waits = append(waits, s.coolUntil.Sub(now).String())
	}
	if got := fmt.Sprint(waits); got != "[10s 20s 40s 1m20s 2m40s 5m0s 5m0s 5m0s]" {
		t.Error(got)
	}
}
