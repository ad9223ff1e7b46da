package e2e

import (
	"testing"

	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// TestNemesisCheckersReject: the checkers that only the nemesis has accept what
// is right and reject what is not.
func TestNemesisCheckersReject(t *testing.T) {
	d := func(n uint64) causal.Dot { return causal.Dot{Actor: n, Counter: 1} }
	attempt := func(id string, dot causal.Dot, duplicate bool) check.Op {
		return check.Op{
			Call:   check.Call{Client: "a", Kind: check.Put, Tenant: lwwTenant, Key: "once/1", Level: quorum.Quorum, Value: "default/" + id, IdempotencyKey: id},
			Answer: &check.Answer{Outcome: check.OK, Dot: dot, Duplicate: duplicate},
		}
	}
	open := attempt("first", d(1), false)
	open.Answer = &check.Answer{Outcome: check.Indeterminate}
	bought := func(items string) check.Op {
		return check.Op{
			Call:   check.Call{Client: "a", Kind: check.Put, Tenant: siblingTenant, Key: "cart/1", Level: quorum.Quorum, Value: "carts/" + items},
			Answer: &check.Answer{Outcome: check.OK, Dot: d(1)},
		}
	}
	last := func(tenant, key string, context []causal.Dot, siblings ...check.Version) check.Op {
		return check.Op{
			Call:   check.Call{Client: healClient, Kind: check.Get, Tenant: tenant, Key: key, Level: quorum.All},
			Answer: &check.Answer{Outcome: check.OK, Context: context, Siblings: siblings},
		}
	}
	v := func(n uint64, value string) check.Version { return check.Version{Dot: d(n), Value: value} }
	for name, c := range map[string]struct {
		check func(check.History) []check.Violation
		h     check.History
		want  int
	}{
		"once": {effects, check.History{
			attempt("first", d(1), false), open, attempt("first", d(1), true), last(lwwTenant, "once/1", []causal.Dot{d(1)}, v(1, "default/first")),
		}, 0},
		"two writes": {effects, check.History{
			attempt("first", d(1), false), attempt("second", d(2), false), last(lwwTenant, "once/1", []causal.Dot{d(1), d(2)}, v(2, "default/second")),
		}, 0},
		"two dots":        {effects, check.History{attempt("first", d(1), false), attempt("first", d(2), true)}, 1},
		"begun twice":     {effects, check.History{attempt("first", d(1), false), attempt("first", d(1), false)}, 1},
		"never":           {effects, check.History{open}, 1},
		"another at last": {effects, check.History{attempt("first", d(1), false), last(lwwTenant, "once/1", []causal.Dot{d(2)}, v(2, "default/first"))}, 1},
		"gone at last":    {effects, check.History{attempt("first", d(1), false), last(lwwTenant, "once/1", nil)}, 1},
		"hidden effect":   {effects, check.History{attempt("first", d(1), false), last(lwwTenant, "once/1", []causal.Dot{d(1), d(2)}, v(1, "default/first"))}, 1},
		"carts": {lostItems, check.History{
			bought("0.1"), bought("1.1 0.1"), bought("2.1"), last(siblingTenant, "cart/1", []causal.Dot{d(1), d(2)}, v(1, "carts/1.1 0.1"), v(2, "carts/2.1")),
		}, 0},
		"lost item": {lostItems, check.History{
			bought("0.1"), bought("1.1"), last(siblingTenant, "cart/1", []causal.Dot{d(1)}, v(1, "carts/1.1")),
		}, 1},
	} {
		if got := c.check(c.h); len(got) != c.want {
			t.Errorf("%s: %d violations, want %d: %v", name, len(got), c.want, got)
		}
	}
}
