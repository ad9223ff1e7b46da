//go:build !race

package coord_test

import "testing"

// TestOperationAllocates holds what an operation allocates in the coordinator
// where it is: each is about a thousandth of what a single call costs a node. The
// counts have some of the test's own.
func TestOperationAllocates(t *testing.T) {
	limits := map[string]float64{"GetOne": 14, "GetQuorum": 22, "PutQuorum": 24}
	for name, op := range soloOps() {
		s := newSolo(t)
		run := func() { op(s, func(err error) { t.Fatal(err) }) }
		if n := testing.AllocsPerRun(500, run); n > limits[name] {
			t.Errorf("%s: %v allocations, at most %v are known", name, n, limits[name])
		}
	}
}
