package check

import (
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
)

func TestConvergence(t *testing.T) {
	k, j := Key{"acme", "k"}, Key{"acme", "j"}
	a, b := causal.Dot{Actor: 1, Counter: 1}, causal.Dot{Actor: 2, Counter: 1}
	object := func(edit func(*causal.Object)) causal.Object {
		o := causal.Object{Context: causal.NewContext(a, b), Siblings: []causal.Sibling{
			{Dot: a, HLC: 5, Value: []byte("x")},
			{Dot: b, HLC: 6, Value: []byte("y")},
		}}
		edit(&o)
		return o
	}
	same := object(func(*causal.Object) {})
	strip := func(i int) causal.Object {
		return object(func(o *causal.Object) {
			o.Siblings[i].Flags |= causal.FlagStripped
			o.Siblings[i].Value = nil
		})
	}
	dump := func(name string, k Key, o causal.Object) Dump {
		return Dump{Replica: name, Objects: map[Key]causal.Object{k: o}}
	}
	// deleted is where a was deleted by b, and all of it was confirmed for whom knows.
	deleted := object(func(o *causal.Object) {
		o.Siblings = o.Siblings[1:]
		o.Siblings[0].Flags, o.Siblings[0].Value = causal.FlagTombstone, nil
	})
	expired := object(func(o *causal.Object) {
		o.Siblings = o.Siblings[1:]
		o.Siblings[0].Flags, o.Siblings[0].ExpiresAt = causal.FlagExpiry, 50
	})
	knows := func(d Dump, expired int64, dots ...causal.Dot) Dump {
		d.Confirmed = func(Key) causal.Confirmed {
			return causal.Confirmed{Seen: causal.NewContext(dots...), Expired: expired}
		}
		return d
	}
	wins := func(d Dump) Dump {
		d.LWW = func(Key) bool { return true }
		return d
	}
	two := func(Key) []string { return []string{"n1", "n2"} }
	for _, c := range []struct {
		name   string
		dumps  []Dump
		owners func(Key) []string
		want   string
	}{
		{"equal", []Dump{dump("n1", k, same), dump("n2", k, same)}, nil, ""},
		{"a loser without its value", []Dump{dump("n1", k, same), dump("n2", k, strip(0))}, nil, ""},
		{"the third owns nothing", []Dump{dump("n1", k, same), dump("n2", k, same), {Replica: "n3"}}, two, ""},
		{"a leftover at a node that does not own it", []Dump{
			dump("n1", k, same), dump("n2", k, same), dump("n3", k, causal.Object{Context: causal.NewContext(a)}),
		}, two, ""},
		{"one owner has collected a delete", []Dump{dump("n1", k, deleted), knows(Dump{Replica: "n2"}, 0, a, b)}, nil, ""},
		{"one owner has collected what expired", []Dump{dump("n1", k, expired), knows(Dump{Replica: "n2"}, 50, a, b)}, nil, ""},
		{"one owner has cut its context", []Dump{
			dump("n1", k, same), knows(dump("n2", k, object(func(o *causal.Object) { o.Context = causal.NewContext(b); o.Siblings = o.Siblings[1:] })), 0, a),
		}, nil, "siblings"},
		{"one owner has cut what nobody needs", []Dump{
			dump("n1", k, object(func(o *causal.Object) { o.Siblings = o.Siblings[1:] })),
			knows(dump("n2", k, object(func(o *causal.Object) { o.Context = causal.NewContext(b); o.Siblings = o.Siblings[1:] })), 0, a),
		}, nil, ""},
		{"one owner has collected a delete that nobody confirmed", []Dump{dump("n1", k, deleted), dump("n2", j, same)}, nil, "contexts"},
		{"one owner has collected a delete too early", []Dump{dump("n1", k, deleted), knows(Dump{Replica: "n2"}, 0, a)}, nil, "contexts"},
		{"one owner has collected a value that expires later", []Dump{dump("n1", k, expired), knows(Dump{Replica: "n2"}, 49, a, b)}, nil, "siblings"},
		{"one owner lacks a value that all are said to have", []Dump{knows(dump("n1", k, same), 0, a, b), dump("n2", j, same)}, two, "siblings"},
		{"one owner has dropped a loser", []Dump{
			dump("n1", k, same), wins(knows(dump("n2", k, object(func(o *causal.Object) { o.Siblings = o.Siblings[1:] })), 0, a, b)),
		}, nil, ""},
		{"one owner has dropped the winner", []Dump{
			dump("n1", k, same), wins(knows(dump("n2", k, object(func(o *causal.Object) { o.Siblings = o.Siblings[:1] })), 0, a, b)),
		}, nil, "siblings"},
		{"one owner has dropped what it must keep", []Dump{
			dump("n1", k, same), knows(dump("n2", k, object(func(o *causal.Object) { o.Siblings = o.Siblings[1:] })), 0, a, b),
		}, nil, "siblings"},
		{"one owner lacks the key", []Dump{dump("n1", k, same), dump("n2", j, same)}, two, "contexts"},
		{"one owner lacks a write", []Dump{
			dump("n1", k, same), dump("n2", k, object(func(o *causal.Object) { o.Context = causal.NewContext(a); o.Siblings = o.Siblings[:1] })),
		}, nil, "contexts"},
		{"one owner lacks a sibling that it has seen", []Dump{
			dump("n1", k, same), dump("n2", k, object(func(o *causal.Object) { o.Siblings = o.Siblings[1:] })),
		}, nil, "siblings"},
		{"one dot, two values", []Dump{
			dump("n1", k, same), dump("n2", k, object(func(o *causal.Object) { o.Siblings[1].Value = []byte("z") })),
		}, nil, "the value of 2.1"},
		{"one dot, two clocks", []Dump{
			dump("n1", k, same), dump("n2", k, object(func(o *causal.Object) { o.Siblings[0].HLC = 4 })),
		}, nil, "what they know of 1.1"},
		{"a delete at one owner", []Dump{
			dump("n1", k, same), dump("n2", k, object(func(o *causal.Object) { o.Siblings[0].Flags = causal.FlagTombstone; o.Siblings[0].Value = nil })),
		}, nil, "what they know of 1.1"},
		{"the winner has lost its value", []Dump{dump("n1", k, same), dump("n2", k, strip(1))}, nil, "lost its value"},
		{"a sibling nobody has seen", []Dump{
			dump("n1", k, object(func(o *causal.Object) { o.Context = causal.NewContext(a) })),
		}, nil, "does not cover"},
		{"an owner without a dump", []Dump{dump("n1", k, same)}, two, "no dump of n2"},
		{"two dumps of one", []Dump{dump("n1", k, same), dump("n1", k, same)}, nil, "two dumps of n1"},
		{"no dumps", nil, nil, "show nothing"},
		{"empty dumps", []Dump{{Replica: "n1"}, {Replica: "n2"}}, nil, "show nothing"},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, Convergence(c.dumps, c.owners), c.want) })
	}
}

// TestLeftovers: deletes and expired values are found, others are not.
func TestLeftovers(t *testing.T) {
	hold := func(s ...causal.Sibling) []Dump {
		return []Dump{{Replica: "n1"}, {Replica: "n2", Objects: map[Key]causal.Object{{"acme", "k"}: {Siblings: s}}}}
	}
	a, b := causal.Dot{Actor: 1, Counter: 1}, causal.Dot{Actor: 2, Counter: 1}
	now := time.UnixMilli(100)
	expect(t, Leftovers(hold(causal.Sibling{Dot: a}, causal.Sibling{Dot: b, Flags: causal.FlagExpiry, ExpiresAt: 101}), now), "")
	expect(t, Leftovers(hold(causal.Sibling{Dot: a}, causal.Sibling{Dot: b, Flags: causal.FlagTombstone}), now), "n2 still holds")
	expect(t, Leftovers(hold(causal.Sibling{Dot: b, Flags: causal.FlagExpiry, ExpiresAt: 100}), now), "n2 still holds")
}

// expect wants the first violation's text to have a part, or none.
func expect(t *testing.T, got []Violation, want string) {
	t.Helper()
	switch {
	case want == "" && len(got) > 0:
		t.Errorf("rejected: %v", got)
	case want != "" && len(got) == 0:
		t.Error("accepted")
	case want != "" && !strings.Contains(got[0].Text, want):
		t.Errorf("%v\nwant %q", got[0], want)
	}
}
