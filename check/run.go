package check

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Availability finds operations that had to succeed and did not. must returns
// within which time after its call an operation had to succeed, 0 if it need
// not have. A history in which nothing had to succeed shows nothing and is a
// violation too: a cluster that refuses everything breaks no other promise.
func Availability(h History, must func(*Op) time.Duration) []Violation {
	rep := report{checker: "availability"}
	due := 0
	for i := range h {
		o := &h[i]
		within := must(o)
		if within <= 0 {
			continue
		}
		due++
		switch {
		case !o.ok():
			rep.add(o.key(), []*Op{o}, "#%d had to succeed within %v", o.ID, within)
		case o.Answer.At-o.At > within:
			rep.add(o.key(), []*Op{o}, "#%d had to succeed within %v and took %v", o.ID, within, o.Answer.At-o.At)
		}
	}
	if due == 0 {
		rep.add(Key{}, nil, "none of %d operations had to succeed", len(h))
	}
	return rep.done()
}

// Canary returns a Value that carries its tenant, for TenantCanary.
func Canary(tenant, value string) string { return tenant + "/" + value }

// TenantCanary finds values that reached another tenant. Every Value must begin
// with its tenant, as Canary makes it.
func TenantCanary(h History) []Violation {
	rep := report{checker: "tenant"}
	for i := range h {
		o := &h[i]
		if o.Kind == Put && !carries(o.Value, o.Tenant) {
			rep.add(o.key(), []*Op{o}, "#%d writes %q, which does not begin with its tenant, so that nothing can be told from it", o.ID, o.Value)
		}
		if o.Answer == nil {
			continue
		}
		for _, v := range o.Answer.Siblings {
			if !v.Tombstone && !carries(v.Value, o.Tenant) {
				rep.add(o.key(), []*Op{o}, "#%d returns %q, which is not of its tenant", o.ID, v.Value)
			}
		}
	}
	return rep.done()
}

func carries(value, tenant string) bool {
	of, _, ok := strings.Cut(value, "/")
	return ok && of == tenant
}

// Tolerance says how far a gauge may be above what it was: by a factor, of at
// least 1, and by an amount in its own unit.
type Tolerance struct {
	Factor, Extra float64
}

// Resources finds gauges that have not come back to what they were before a
// run. A gauge without a tolerance may be no higher than before. One that was
// read only before or only after the run is a violation: it shows nothing.
func Resources(before, after map[string]float64, tolerances map[string]Tolerance) []Violation {
	rep := report{checker: "resources"}
	if len(before) == 0 {
		rep.add(Key{}, nil, "no gauge was read before the run")
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		was := before[name]
		is, ok := after[name]
		if !ok {
			rep.add(Key{}, nil, "%s was %v before the run and was not read after it", name, was)
			continue
		}
		t := tolerances[name]
		limit := was*max(t.Factor, 1) + t.Extra
		// The negation also catches what is not a number.
		if !(is <= limit) {
			rep.add(Key{}, nil, "%s was %v before the run and is %v after it, above the limit of %v", name, was, is, limit)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[name]; !ok {
			rep.add(Key{}, nil, "%s is %v after the run and was not read before it", name, after[name])
		}
	}
	return rep.done()
}
