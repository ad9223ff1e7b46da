package check

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
)

// Dump is all that one replica holds.
type Dump struct {
	Replica string
	Objects map[Key]causal.Object
	// Confirmed returns what the replica knows that all owners of a key have; nil
	// if it knows of nothing.
	Confirmed func(Key) causal.Confirmed
	// LWW reports whether the last writer wins; it matters only to what is confirmed.
	LWW func(Key) bool
}

// Convergence finds keys whose owners do not hold the same. A key that a dump
// lacks counts as the zero object. owners returns the replicas that own a key;
// if it is nil, all do. What a replica holds of keys that it does not own is not
// looked at.
//
// Copies are the same if contexts, siblings and all of the siblings are, once they
// are settled by what the owners together know to be confirmed: one may have
// collected what another still holds, and contexts may differ in what is confirmed.
// Where the last writer wins, copies may lack the values of losers, and only of those.
func Convergence(dumps []Dump, owners func(Key) []string) []Violation {
	rep := report{checker: "convergence"}
	byReplica := make(map[string]Dump)
	keys := make(map[Key]bool)
	var all []string
	for _, d := range dumps {
		if _, ok := byReplica[d.Replica]; ok {
			rep.add(Key{}, nil, "there are two dumps of %s", d.Replica)
		}
		byReplica[d.Replica] = d
		all = append(all, d.Replica)
		//seams:ordered the set is the same in any order
		for k := range d.Objects {
			keys[k] = true
		}
	}
	if len(keys) == 0 {
		rep.add(Key{}, nil, "%d dumps with no key in them show nothing", len(dumps))
	}
	for _, k := range slices.SortedFunc(maps.Keys(keys), Key.compare) {
		of := all
		if owners != nil {
			of = owners(k)
		}
		c, lww := confirmed(byReplica, of, k)
		var first causal.Object
		for i, name := range of {
			d, ok := byReplica[name]
			if !ok {
				rep.add(k, nil, "there is no dump of %s, which owns the key", name)
				break
			}
			o := d.Objects[k]
			if wrong := malformed(&o); wrong != "" {
				rep.add(k, nil, "%s holds %s: %s", name, objectString(&o), wrong)
			}
			o = o.Settled(&c, lww)
			o.Context = beyond(o.Context, c.Seen)
			if i == 0 {
				first = o
			} else if differ := difference(&first, &o); differ != "" {
				rep.add(k, nil, "owners differ in %s: %s holds %s, %s holds %s", differ, of[0], objectString(&first), name, objectString(&o))
			}
		}
	}
	return rep.done()
}

// confirmed is what the owners of a key together know that all of them have, and
// whether the last writer wins.
func confirmed(dumps map[string]Dump, of []string, k Key) (c causal.Confirmed, lww bool) {
	for _, name := range of {
		if d := dumps[name]; d.Confirmed != nil {
			more := d.Confirmed(k)
			c, lww = c.Join(&more), lww || d.LWW != nil && d.LWW(k)
		}
	}
	return c, lww
}

// beyond is what a context covers and seen does not.
func beyond(c, seen causal.Context) (out causal.Context) {
	for _, d := range c {
		if !seen.Covers(d) {
			out = append(out, d)
		}
	}
	return out
}

// Leftovers finds what should have been collected: deletes, and values that have
// expired by the given instant. It is for dumps that were taken after the rounds in
// which all owners confirmed whatever there is.
func Leftovers(dumps []Dump, now time.Time) []Violation {
	rep := report{checker: "leftovers"}
	for _, d := range dumps {
		for _, k := range slices.SortedFunc(maps.Keys(d.Objects), Key.compare) {
			o := d.Objects[k]
			if slices.ContainsFunc(o.Siblings, func(s causal.Sibling) bool {
				return s.Tombstone() || s.Flags&causal.FlagExpiry != 0 && s.ExpiresAt <= now.UnixMilli()
			}) {
				rep.add(k, nil, "%s still holds %s", d.Replica, objectString(&o))
			}
		}
	}
	return rep.done()
}

// malformed says what is wrong with a copy by itself, empty for nothing.
func malformed(o *causal.Object) string {
	for i := range o.Siblings {
		if !o.Context.Covers(o.Siblings[i].Dot) {
			return "a sibling that its context does not cover"
		}
	}
	if w := o.Winner(); w != nil && w.Flags&causal.FlagStripped != 0 {
		return "a winner that has lost its value"
	}
	return ""
}

// difference names what two copies differ in, empty for nothing.
func difference(a, b *causal.Object) string {
	if !a.Context.Equal(b.Context) {
		return "contexts"
	}
	if !a.Equal(b) {
		return "siblings"
	}
	for i := range a.Siblings {
		s, t := &a.Siblings[i], &b.Siblings[i]
		switch {
		case s.HLC != t.HLC || s.ExpiresAt != t.ExpiresAt || (s.Flags^t.Flags)&^causal.FlagStripped != 0 ||
			!bytes.Equal(s.IdempotencyKey, t.IdempotencyKey):
			return "what they know of " + dotString(s.Dot)
		case (s.Flags|t.Flags)&causal.FlagStripped == 0 && !bytes.Equal(s.Value, t.Value):
			return "the value of " + dotString(s.Dot)
		}
	}
	return ""
}

// objectString shows a copy; values are cut short.
func objectString(o *causal.Object) string {
	if o.IsZero() {
		return "nothing"
	}
	const shown = 40
	var b strings.Builder
	for i := range o.Siblings {
		s := &o.Siblings[i]
		fmt.Fprintf(&b, "%s=", dotString(s.Dot))
		switch {
		case s.Tombstone():
			b.WriteString("deleted ")
		case s.Flags&causal.FlagStripped != 0:
			b.WriteString("lost ")
		default:
			fmt.Fprintf(&b, "%q ", s.Value[:min(len(s.Value), shown)])
		}
	}
	return b.String() + contextString(o.Context)
}
