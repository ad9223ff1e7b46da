package client

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// looks has v look at s for d, at each look a little later, until f says stop. It
// returns how long that took.
func looks(v *vigil, s *signs, d time.Duration, f func(trial bool) (stop bool)) time.Duration {
	for at := time.Duration(0); at < d; at += lookEach {
		if f(v.look(*s, lookEach)) {
			return at + lookEach
		}
	}
	return d
}

func TestSilenceIsNoticed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		usual  time.Duration
		within time.Duration // it is silent after
	}{
		{"nothing known", 0, 800 * time.Millisecond},
		{"fast", 5 * time.Millisecond, 800 * time.Millisecond},
		{"a second is usual", time.Second, 4050 * time.Millisecond},
		{"very slow", time.Minute, 5050 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := vigil{}
			s := signs{outstanding: 1, high: tc.usual}
			took := looks(&v, &s, time.Minute, func(bool) bool { return v.standing == silent })
			if took != tc.within {
				t.Errorf("noticed after %v, want %v", took, tc.within)
			}
		})
	}
	// Nobody waits: nothing is known, for as long as it may be.
	v := vigil{}
	looks(&v, &signs{}, time.Hour, func(bool) bool { return false })
	if v.standing != fine {
		t.Errorf("a node that is asked nothing is %s", v.standing)
	}
	// Short calls in a row that all go unanswered count together.
	s := signs{}
	took := looks(&v, &s, time.Minute, func(bool) bool {
		s.outstanding = 1 - s.outstanding
		return v.standing == silent
	})
	if took > 2*time.Second {
		t.Errorf("noticed after %v", took)
	}
}

// TestAnswersAreNoSilence: whatever else happens, a node that answers now and then
// is not silent.
func TestAnswersAreNoSilence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := vigil{}
		s := signs{}
		quiet := time.Duration(0)
		for range rapid.IntRange(1, 500).Draw(t, "looks") {
			s.outstanding = rapid.Int64Range(0, 3).Draw(t, "outstanding")
			if quiet >= minSilence-lookEach || rapid.Bool().Draw(t, "answered") {
				s.answers++
				quiet = 0
			} else {
				quiet += lookEach
			}
			v.look(s, lookEach)
			if v.standing != fine {
				t.Fatalf("it is %s", v.standing)
			}
		}
	})
}

// TestBackWithinSeconds: from whatever it was, a node that answers as the others do,
// its trials too, is fine again within 3 s; and a node is never given more than
// one trial each 250 ms.
func TestBackWithinSeconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := vigil{}
		s := signs{others: 2 * time.Millisecond}
		hung := 0 // looks for which it still answers nothing
		for range rapid.IntRange(0, 400).Draw(t, "looks") {
			if hung--; hung < 0 {
				hung = rapid.SampledFrom([]int{0, 0, 0, 30, 200}).Draw(t, "hung")
				s.answers += rapid.Uint64Range(0, 1).Draw(t, "answers")
			}
			s.outstanding = rapid.Int64Range(0, 2).Draw(t, "outstanding")
			s.troubles = rapid.Uint32Range(0, 2*troublesInRow).Draw(t, "troubles")
			s.median = time.Duration(rapid.IntRange(0, 200).Draw(t, "median")) * time.Millisecond
			s.latest = s.median
			s.probed = v.standing == silent && rapid.Bool().Draw(t, "probed")
			v.look(s, time.Duration(rapid.IntRange(1, 100).Draw(t, "passed"))*time.Millisecond)
		}
		before := v
		s.median, s.latest, s.troubles, s.probed = 0, time.Millisecond, 0, true
		var trials int
		took := looks(&v, &s, time.Minute, func(trial bool) bool {
			s.outstanding = 0
			if trial { // it is answered before the next look
				trials++
				s.answers++
			}
			return v.standing == fine
		})
		if took > 3*time.Second || trials > int(took/(250*time.Millisecond))+1 {
			t.Fatalf("from %+v: fine after %v and %d trials", before, took, trials)
		}
	})
}

// TestTrialsThatHang: a node that answers probes and nothing else costs one call at
// a time, with pauses that grow.
func TestTrialsThatHang(t *testing.T) {
	v := vigil{}
	s := signs{outstanding: 1, probed: true}
	var trials []time.Duration
	at := time.Duration(0)
	looks(&v, &s, time.Minute, func(trial bool) bool {
		if at += lookEach; trial {
			trials = append(trials, at)
		}
		return false
	})
	if v.standing != silent || len(trials) < 15 || len(trials) > 30 {
		t.Fatalf("%s after trials at %v", v.standing, trials)
	}
	for i := 1; i < len(trials); i++ {
		if gap := trials[i] - trials[i-1]; gap < minSilence+firstHold || gap > minSilence+maxHold+3*lookEach {
			t.Errorf("a trial %v after the one before", gap)
		}
	}
	s.probed = false
	looks(&v, &s, time.Minute, func(trial bool) bool {
		if trial && !v.trying {
			t.Error("a trial of a node that answers no probe")
		}
		return false
	})
}

func TestSlowNodes(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, tc := range []struct {
		median, others int // ms
		want           standing
	}{
		{100, 2, slow}, {23, 2, slow}, {21, 2, fine}, {100, 26, fine}, {100, 0, fine}, {0, 10, fine}, {2000, 100, slow},
	} {
		v := vigil{}
		s := signs{answers: 1, median: ms(tc.median), others: ms(tc.others)}
		v.look(s, lookEach)
		if v.standing != tc.want {
			t.Errorf("a median of %d ms beside %d: %s", tc.median, tc.others, v.standing)
		}
	}
	// It stays so as long as it is, whatever comes late.
	v := vigil{standing: slow}
	s := signs{others: ms(2), latest: ms(100)}
	trials := 0
	looks(&v, &s, 10*time.Second, func(trial bool) bool {
		if trial {
			trials++
			s.answers++
		}
		return v.standing != slow
	})
	if v.standing != slow || trials < 18 || trials > 20 {
		t.Errorf("%s after %d trials in 10 s", v.standing, trials)
	}
}

func TestFailingNodes(t *testing.T) {
	v := vigil{}
	for n := range uint32(troublesInRow) {
		v.look(signs{answers: uint64(n), troubles: n}, lookEach)
		if v.standing != fine {
			t.Fatalf("%s after %d", v.standing, n)
		}
	}
	v.look(signs{answers: 9, troubles: troublesInRow}, lookEach)
	if v.standing != failing {
		t.Fatalf("it is %s", v.standing)
	}
	v.look(signs{answers: 10, troubles: 0}, lookEach)
	if v.standing != fine {
		t.Errorf("it is %s", v.standing)
	}
}

// TestClassesOfANode: if writes hang and reads do not, only writes are silent; if
// nothing was heard at all, all classes are, until something is.
func TestClassesOfANode(t *testing.T) {
	var reading, writing, resting vigil
	all := []*vigil{&reading, &writing, &resting}
	s := signs{}
	step := func(readAnswers uint64) {
		reading.look(signs{outstanding: 1, answers: readAnswers}, lookEach)
		writing.look(s, lookEach)
		resting.look(signs{}, lookEach)
		together(all)
	}
	s.outstanding = 1
	for n := range uint64(20) {
		step(n)
	}
	if writing.standing != silent || reading.standing != fine {
		t.Fatalf("reads %s, writes %s", reading.standing, writing.standing)
	}
	for range 20 {
		step(19)
	}
	if reading.standing != silent || resting.standing != silent || !resting.with {
		t.Fatalf("reads %s, others %s", reading.standing, resting.standing)
	}
	step(20)
	if reading.standing != fine || resting.standing != fine || writing.standing != silent {
		t.Errorf("reads %s, others %s, writes %s", reading.standing, resting.standing, writing.standing)
	}
}

func TestLatencyBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "latency"))
		got := bucketLatency(latencyBucket(d))
		if got < d.Truncate(time.Microsecond) || float64(got) > 1.26*float64(d)+float64(time.Microsecond) {
			t.Fatalf("%v is counted as %v", d, got)
		}
	})
	if i := latencyBucket(time.Hour); i != latencyBuckets-1 {
		t.Errorf("an hour is in bucket %d", i)
	}
}

func TestQuantiles(t *testing.T) {
	var r recent
	var counts [latencyBuckets]uint32
	counts[latencyBucket(time.Millisecond)] = 9
	r.add(&counts)
	if m, h := r.quantiles(); m != 0 || h != 0 {
		t.Errorf("9 calls tell %v and %v", m, h)
	}
	counts[latencyBucket(time.Millisecond)] = 980
	counts[latencyBucket(time.Second)] = 20
	r.add(&counts)
	if m, h := r.quantiles(); m < time.Millisecond || m > 2*time.Millisecond || h < time.Second || h > 1300*time.Millisecond {
		t.Errorf("median %v, 99 %% %v", m, h)
	}
	// When a node becomes slow its median says so within three seconds.
	counts = [latencyBuckets]uint32{}
	counts[latencyBucket(time.Second)] = 1000
	for range 3 {
		r.add(&counts)
	}
	if m, _ := r.quantiles(); m < time.Second {
		t.Errorf("the median is still %v", m)
	}
}

// TestHesitationIsNoticedAtOnce: a node that keeps calls waiting comes after others
// within two looks, or twice what is usual, and is as good as they are with any
// answer, or when nothing waits for it.
func TestHesitationIsNoticedAtOnce(t *testing.T) {
	for _, c := range []struct {
		high, want time.Duration
	}{{0, minHesitation}, {5 * time.Millisecond, minHesitation}, {200 * time.Millisecond, 400 * time.Millisecond}} {
		var v vigil
		s := signs{answers: 1, high: c.high}
		v.look(s, lookEach)
		if v.hesitates(s) {
			t.Errorf("%s: it hesitates with nothing to answer", c.high)
		}
		s.outstanding = 3
		var took time.Duration
		for !v.hesitates(s) {
			if took += lookEach; took > time.Second {
				t.Fatalf("%s: not noticed", c.high)
			}
			v.look(s, lookEach)
		}
		if took != c.want {
			t.Errorf("%s: noticed after %s, want %s", c.high, took, c.want)
		}
		s.answers++
		if v.look(s, lookEach); v.hesitates(s) {
			t.Errorf("%s: it hesitates after an answer", c.high)
		}
	}
}
