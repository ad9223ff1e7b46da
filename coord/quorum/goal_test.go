package quorum

import (
	"math/bits"
	"math/rand/v2"
	"testing"
)

// drawSets draws two sets as owners have them while they change: each has 1 to 7
// members, and they may share some.
func drawSets(rng *rand.Rand) (a, b uint16) {
	draw := func() (m uint16) {
		for range 1 + rng.IntN(7) {
			m |= 1 << rng.IntN(14)
		}
		return m
	}
	return draw(), draw()
}

// TestJointIsBoth holds the tally of two sets against one tally for each.
func TestJointIsBoth(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	verdicts := map[Verdict]int{}
	for range 20_000 {
		a, b := drawSets(rng)
		l := Level(1 + rng.IntN(3))
		g := Goal{First: Of(l, a), Second: Of(l, b)}
		joint, first, second := g.Tally(), Goal{First: g.First}.Tally(), Goal{First: g.Second}.Tally()
		for range rng.IntN(20) {
			e := event{rng.IntN(MaxOwners), rng.IntN(3) > 0}
			joint.apply(e)
			first.apply(e)
			second.apply(e)
			want := Pending
			switch v, w := first.Verdict(), second.Verdict(); {
			case v == Reached && w == Reached:
				want = Reached
			case v == Lost || w == Lost:
				want = Lost
			}
			if got := joint.Verdict(); got != want {
				t.Fatalf("%v of %b and of %b, acks %b: %v, want %v", l, a, b, joint.acks, got, want)
			}
			verdicts[want]++
			told := &first
			if first.Verdict() == Reached && second.Verdict() != Reached {
				told = &second
			}
			if joint.Acks() != told.Acks() || joint.Need() != told.Need() {
				t.Fatalf("%d of %d are told, want %d of %d", joint.Acks(), joint.Need(), told.Acks(), told.Need())
			}
			if acks, fails := joint.Answered(); (acks|fails)&^(a|b) != 0 || acks&fails != 0 || acks != first.acks|second.acks {
				t.Fatalf("acks %b, fails %b of %b and %b", acks, fails, a, b)
			}
		}
	}
	if len(verdicts) != 3 {
		t.Fatal(verdicts)
	}
}

// TestJointQuorumsMeet: what is at a quorum of the old owners and of the new ones is
// seen by whoever asks a quorum of either.
func TestJointQuorumsMeet(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		a, b := drawSets(rng)
		written := Goal{First: Of(Quorum, a), Second: Of(Quorum, b)}
		acks := drawEnough(rng, written)
		for _, g := range []Goal{written, {First: Of(Quorum, a)}, {First: Of(Quorum, b)}, {First: Of(Quorum, b), Second: Of(Quorum, a)}} {
			if acks&drawEnough(rng, g) == 0 {
				t.Fatalf("%+v misses %b", g, acks)
			}
		}
	}
}

// drawEnough asks one owner after the other, in any order, as long as each helps.
func drawEnough(rng *rand.Rand, g Goal) (answered uint16) {
	for _, i := range rng.Perm(MaxOwners) {
		if helps := g.Helps(i, answered); helps {
			if g.Met(answered) || answered>>i&1 == 1 || (g.First.Members|g.Second.Members)>>i&1 == 0 {
				panic("an answer that cannot count is said to help")
			}
			answered |= 1 << i
		}
	}
	if !g.Met(answered) {
		panic("all that helped have answered, and it is not enough")
	}
	return answered
}

func TestGoalOfOneSet(t *testing.T) {
	for n := 1; n <= 7; n++ {
		for l := One; l <= All; l++ {
			g := Goal{First: Of(l, 1<<n-1)}
			plain, joint := tallyOf(n, Need(l, n)), g.Tally()
			if plain != joint {
				t.Errorf("%v of %d: %+v and %+v", l, n, plain, joint)
			}
			for mask := range uint16(1 << n) {
				if g.Met(mask) != (bits.OnesCount16(mask) >= Need(l, n)) {
					t.Errorf("%v of %d with %b", l, n, mask)
				}
			}
			if g.Helps(-1, 0) || g.Helps(n, 0) || g.Helps(MaxOwners, 0) {
				t.Error("one that is no owner helps")
			}
		}
	}
	if none := (Goal{First: Of(Quorum, 0)}); none.Met(0xffff) {
		t.Error("no owners suffice")
	}
}
