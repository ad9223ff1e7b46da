package quorum

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestNeed(t *testing.T) {
	for _, c := range []struct {
		l       Level
		n, want int
	}{
		{One, 1, 1},
		{One, 7, 1},
		{All, 1, 1},
		{All, 7, 7},
		{All, 0, 1},
		{Quorum, 0, 1},
		{Quorum, 1, 1},
		{Quorum, 2, 2},
		{Quorum, 3, 2},
		{Quorum, 4, 3},
		{Quorum, 5, 3},
		{Quorum, 6, 4},
		{Quorum, 7, 4},
	} {
		if got := Need(c.l, c.n); got != c.want {
			t.Errorf("Need(%v, %d) = %d, want %d", c.l, c.n, got, c.want)
		}
	}
}

func TestTwoQuorumsMeet(t *testing.T) {
	for n := 1; n <= MaxOwners; n++ {
		if 2*Need(Quorum, n) <= n {
			t.Errorf("two quorums of %d can miss each other", n)
		}
	}
}

func TestLevelText(t *testing.T) {
	for l := One; l <= All; l++ {
		got, err := ParseLevel(strings.ToUpper(l.String()))
		if err != nil || got != l || !l.Valid() {
			t.Errorf("%v: got %v, %v", l, got, err)
		}
	}
	if _, err := ParseLevel("two"); err == nil || Level(0).Valid() || Level(4).Valid() {
		t.Error("a level that is none was taken")
	}
	if s := Level(9).String(); s != "level(9)" {
		t.Error(s)
	}
}

// event is an answer: owner i acknowledged, or failed.
type event struct {
	i   int
	ack bool
}

func (t *Tally) apply(e event) {
	if e.ack {
		t.Ack(e.i)
	} else {
		t.Fail(e.i, "why")
	}
}

func TestVerdictTable(t *testing.T) {
	for _, c := range []struct {
		n, need int
		script  string // a0 = owner 0 acks, f1 = owner 1 fails
		want    Verdict
		acks    int
	}{
		{3, 2, "", Pending, 0},
		{3, 2, "a0", Pending, 1},
		{3, 2, "a0 a0", Pending, 1},
		{3, 2, "a0 a2", Reached, 2},
		{3, 2, "f0", Pending, 0},
		{3, 2, "f0 f1", Lost, 0},
		{3, 2, "f0 f0", Pending, 0},
		{3, 2, "a0 f1 f2", Lost, 1},
		{3, 2, "f0 f1 a1 a2", Reached, 2},
		{3, 1, "f0 f1 a2", Reached, 1},
		{3, 3, "a0 a1 f2", Lost, 2},
		{2, 2, "a0 f1", Lost, 1},
		{1, 1, "a0", Reached, 1},
		{0, 1, "", Lost, 0},
		{3, 2, "a7 f9", Pending, 0},
	} {
		tl := tallyOf(c.n, c.need)
		for _, w := range strings.Fields(c.script) {
			tl.apply(event{int(w[1] - '0'), w[0] == 'a'})
		}
		if tl.Verdict() != c.want || tl.Acks() != c.acks || tl.Need() != c.need {
			t.Errorf("n=%d need=%d %q: %v with %d acks, want %v with %d", c.n, c.need, c.script, tl.Verdict(), tl.Acks(), c.want, c.acks)
		}
	}
}

// tallyOf is an empty tally of n owners of which need must acknowledge.
func tallyOf(n, need int) Tally {
	return Goal{First: Set{Members: uint16(1<<n - 1), Need: need}}.Tally()
}

// TestVerdictIgnoresOrder replays random sets of answers in random orders.
func TestVerdictIgnoresOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		n := 1 + rng.IntN(7)
		need := Need(Level(1+rng.IntN(3)), n)
		var evs []event
		for range rng.IntN(2 * n) {
			evs = append(evs, event{rng.IntN(n), rng.IntN(2) == 0})
		}
		first := tallyOf(n, need)
		for _, e := range evs {
			first.apply(e)
		}
		rng.Shuffle(len(evs), func(i, j int) { evs[i], evs[j] = evs[j], evs[i] })
		second := tallyOf(n, need)
		before := Pending
		for _, e := range evs {
			second.apply(e)
			if v := second.Verdict(); before == Reached && v != Reached {
				t.Fatalf("reached, then %v", v)
			}
			before = second.Verdict()
		}
		if first != second {
			t.Fatalf("n=%d need=%d: %+v and %+v", n, need, first, second)
		}
	}
}

func TestCausesLeaveOutOwnersThatAcked(t *testing.T) {
	tl := tallyOf(4, 4)
	tl.Fail(3, "down")
	tl.Fail(1, "slow")
	tl.Fail(1, "slower")
	tl.Ack(0)
	tl.Fail(2, "late")
	tl.Ack(2)
	var got []string
	for i, why := range tl.Causes() {
		got = append(got, string(rune('0'+i))+why)
	}
	if !slices.Equal(got, []string{"1slow", "3down"}) || !tl.Acked(2) || tl.Acked(1) || tl.Acked(-1) {
		t.Fatalf("%v", got)
	}
	for range tl.Causes() {
		break
	}
	for v := Pending; v <= Lost; v++ {
		if v.String() == "" {
			t.Error("verdict without a name")
		}
	}
}
