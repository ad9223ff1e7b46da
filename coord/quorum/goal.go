package quorum

import "math/bits"

// Set is one set of owners, by a bit for the index of each, and how many of them have
// to answer.
type Set struct {
	Members uint16
	Need    int
}

// Of returns the set with what level l needs of it.
func Of(l Level, members uint16) Set {
	return Set{Members: members, Need: Need(l, bits.OnesCount16(members))}
}

// missing is how many more of the set have to answer, beside those that have.
func (s Set) missing(answered uint16) int {
	return max(0, s.Need-bits.OnesCount16(s.Members&answered))
}

// Goal is what an operation needs: enough of the First set and, while the owners of
// a key change, enough of the Second. One answer counts in both if it is of a member
// of both. A Second without members asks for nothing.
type Goal struct{ First, Second Set }

// Met reports whether it is enough if those with a bit have answered.
func (g Goal) Met(answered uint16) bool {
	return g.First.missing(answered) == 0 && (g.Second.Members == 0 || g.Second.missing(answered) == 0)
}

// Helps reports whether an answer of owner i would count, beside those with a bit.
func (g Goal) Helps(i int, answered uint16) bool {
	return i >= 0 && i < MaxOwners && (g.short(answered)&^answered)>>i&1 == 1
}

// short returns the members of the sets of which too few have answered.
func (g Goal) short(answered uint16) (members uint16) {
	if g.First.missing(answered) > 0 {
		members = g.First.Members
	}
	if g.Second.Members != 0 && g.Second.missing(answered) > 0 {
		members |= g.Second.Members
	}
	return members
}

// Narrow is the set that people are told about: the one of which too few have
// answered, the First if that goes for both or none.
func (g Goal) Narrow(answered uint16) Set {
	if g.Second.Members != 0 && g.First.missing(answered) == 0 && g.Second.missing(answered) > 0 {
		return g.Second
	}
	return g.First
}
