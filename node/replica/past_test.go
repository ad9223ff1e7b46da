package replica

import (
	"testing"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// TestMinterLearnsWhoHasNotSeenIt: a delete with a clock that is ahead is here, then comes
// what has replaced d elsewhere, then d itself. Its minter is told that the delete has not
// seen d, also by a node that is about to own the partition and keeps all values.
func TestMinterLearnsWhoHasNotSeenIt(t *testing.T) {
	for _, gaining := range []bool{false, true} {
		b := newSweepBench(t)
		w, d, c := causal.Dot{Actor: 7, Counter: 1}, causal.Dot{Actor: 8, Counter: 1}, causal.Dot{Actor: 9, Counter: 1}
		merge := func(o causal.Object) (told causal.Object) {
			it := coord.MergeItem{Address: spanned("k"), Object: o.Append(nil), LastWriteWins: true}
			if gaining {
				it.Gaining = 5
			}
			b.Merge([]coord.MergeItem{it}, func(_ int, body []byte, err error) {
				if err != nil {
					t.Fatal(err)
				}
				told = decode(t, body)
			})
			b.jobs.run()
			return told
		}
		merge(causal.Object{Context: causal.NewContext(w), Siblings: []causal.Sibling{{Dot: w, HLC: 90, Flags: causal.FlagTombstone}}})
		merge(causal.Object{Context: causal.NewContext(c, d), Siblings: []causal.Sibling{{Dot: c, HLC: 20, Value: []byte("c")}}})
		told := merge(causal.Object{Context: causal.NewContext(d), Siblings: []causal.Sibling{{Dot: d, HLC: 10, Value: []byte("d")}}})
		if x := told.Winner(); x == nil || x.Dot != w || told.Saw(x, d) {
			t.Errorf("gaining %v: the minter of %v is told %+v", gaining, d, told)
		}
	}
}
