package check

import (
	"strings"
	"testing"

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
		return Dump{name, map[Key]causal.Object{k: o}}
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
