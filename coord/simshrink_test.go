package coord_test

import (
	"slices"
	"time"
)

// What looking for a smaller plan may cost.
const (
	maxShrinkRuns = 200
	maxShrinkTime = time.Minute
	// shrinkStep is how exactly the end of a run is looked for.
	shrinkStep = 100 * time.Millisecond
)

// minimiser looks for small plans that fail.
type minimiser struct {
	run func(plan) *outcome
	// runs and until bound the search.
	runs  int
	until time.Time
	tried int
}

// shrink returns the smallest plan it finds that fails by the same checker as
// what a plan was found to do, and what it does. Without bounds of time it is
// deterministic.
func (m *minimiser) shrink(p plan, o *outcome) (plan, *outcome) {
	checker := o.found[0].checker
	fails := func(q plan) bool {
		if m.tried == m.runs || time.Now().After(m.until) {
			return false
		}
		m.tried++
		got := m.run(q)
		if !got.has(checker) {
			return false
		}
		p, o = q, got
		return true
	}
	if p.keys == nil {
		p.keys = slices.Clone(o.names)
	}
	m.shorten(p, fails)
	if p.faults == nil {
		p.faults = []int{}
		for i, f := range o.faults {
			if f.at < p.until() {
				p.faults = append(p.faults, i)
			}
		}
	}
	fewer(p.faults, func(faults []int) bool {
		q := p
		q.faults = faults
		return fails(q)
	})
	fewer(p.keys, func(keys []string) bool {
		q := p
		q.keys = keys
		return len(keys) > 0 && fails(q)
	})
	for _, knob := range knobs {
		if p.isOn(knob) {
			q := p
			q.off = append(slices.Clone(p.off), knob)
			fails(q)
		}
	}
	m.shorten(p, fails)
	return p, o
}

// shorten halves the time between an end that is too early and one that is not.
func (m *minimiser) shorten(p plan, fails func(plan) bool) {
	early, late := time.Duration(0), p.until()
	for late-early > shrinkStep {
		p.end = ((early + late) / 2).Truncate(shrinkStep)
		if p.end <= early {
			return
		}
		if fails(p) {
			late = p.end
		} else {
			early = p.end
		}
	}
}

// fewer leaves out of items what is not needed for a failure: halves, then
// quarters, and in the end single ones.
func fewer[T any](items []T, fails func([]T) bool) {
	if len(items) > 0 && fails([]T{}) {
		return
	}
	for parts := 2; len(items) > 1; {
		size := (len(items) + parts - 1) / parts
		smaller := false
		for i := 0; i < len(items) && !smaller; i += size {
			rest := slices.Concat(items[:i], items[min(i+size, len(items)):])
			if fails(rest) {
				items, smaller = rest, true
			}
		}
		switch {
		case smaller:
			parts = max(parts-1, 2)
		case size == 1:
			return
		default:
			parts = min(2*parts, len(items))
		}
	}
}
