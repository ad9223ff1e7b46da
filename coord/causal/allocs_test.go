//go:build !race

package causal

import "testing"

// TestSettledAllocatesNothing in the common cases.
func TestSettledAllocatesNothing(t *testing.T) {
	d := Dot{1, 3}
	c := Confirmed{Seen: NewContext(Dot{1, 9}, Dot{2, 2}), Expired: 4}
	none := Confirmed{}
	live := Object{Context: NewContext(d, Dot{2, 1}), Siblings: []Sibling{{Dot: d, Value: []byte("v")}}}
	if n := testing.AllocsPerRun(100, func() {
		for _, lww := range []bool{false, true} {
			a, b := live.Settled(&c, lww), live.Settled(&none, lww)
			if len(a.Siblings)+len(b.Siblings) != 2 {
				t.Fatal("settled away")
			}
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
