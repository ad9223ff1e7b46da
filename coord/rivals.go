package coord

import (
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// rivals is what the owners of a write had when its first mint reached them, besides
// what that covers.
type rivals struct {
	// none has a bit for each owner that had nothing.
	none uint16
	// told is what others had, by owner.
	told []rival
	// moved says that the write has other owners since: nothing is known of them.
	moved bool
}

// rival is what owner i had.
type rival struct {
	i    int
	held causal.Object
}

// heard notes what owner i had.
func (v *rivals) heard(i int, held *causal.Object) {
	if held.IsZero() {
		v.none |= 1 << i
		return
	}
	v.told = append(v.told, rival{i, *held})
}

// mayPrecede reports whether a write that wins over a mint m which has seen seen may
// have been acknowledged before m was made, at a level that meets that of the read
// goal. It was not if owners enough for such a read have lacked it since: self did when
// it minted.
func (v *rivals) mayPrecede(m *causal.Sibling, seen causal.Context, self int, goal quorum.Goal) bool {
	if v.moved {
		return true
	}
	for _, r := range v.told {
		replaced, w := r.held.Replaced(m.Dot), r.held.Winner()
		for i := range r.held.Siblings {
			s := &r.held.Siblings[i]
			switch {
			case s.HLC < m.HLC || seen.Covers(s.Dot):
			case replaced && (s != w || r.held.Saw(s, m.Dot)):
			case !goal.Met(v.lacked(s.Dot) | 1<<self):
				return true
			}
		}
	}
	return false
}

// lacked has a bit for each owner that is known to have lacked a write.
func (v *rivals) lacked(d causal.Dot) uint16 {
	owners := v.none
	for _, r := range v.told {
		if !r.held.Context.Covers(d) {
			owners |= 1 << r.i
		}
	}
	return owners
}
