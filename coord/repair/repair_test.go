package repair

import (
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
)

func TestPlan(t *testing.T) {
	write := func(o causal.Object, actor, n uint64) causal.Object {
		return causal.Mint(&o, o.Context, causal.Sibling{Dot: causal.Dot{Actor: actor, Counter: n}})
	}
	old := write(causal.Object{}, 1, 1)
	recent := write(old, 2, 1)
	aside := write(causal.Object{}, 3, 1)
	none := causal.Object{}

	for name, c := range map[string]struct {
		held     []*causal.Object
		siblings int
		lacking  uint16
	}{
		"nobody":              {nil, 0, 0},
		"all absent":          {[]*causal.Object{&none, &none}, 0, 0},
		"agree":               {[]*causal.Object{&recent, nil, &recent}, 1, 0},
		"one behind":          {[]*causal.Object{&recent, &old}, 1, 0b10},
		"one absent":          {[]*causal.Object{&none, &old}, 1, 0b01},
		"concurrent":          {[]*causal.Object{&aside, &recent}, 2, 0b11},
		"two behind, one not": {[]*causal.Object{&old, &recent, &none}, 1, 0b101},
	} {
		joined, lacking := Plan(c.held)
		if len(joined.Siblings) != c.siblings || lacking != c.lacking {
			t.Errorf("%s: %d siblings, lacking %b; want %d, %b", name, len(joined.Siblings), lacking, c.siblings, c.lacking)
		}
		for i, o := range c.held {
			if o != nil && !joined.Context.CoversAll(o.Context) {
				t.Errorf("%s: the join misses what owner %d has seen", name, i)
			}
		}
	}
}
