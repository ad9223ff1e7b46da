//go:build !race

package quorum

import "testing"

func TestJointTallyAllocatesNothing(t *testing.T) {
	g := Goal{First: Of(Quorum, 0b111), Second: Of(Quorum, 0b11100)}
	if n := testing.AllocsPerRun(100, func() {
		tl := g.Tally()
		for i := range 5 {
			tl.Ack(i)
		}
		if tl.Verdict() != Reached {
			t.Error(tl.Verdict())
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
