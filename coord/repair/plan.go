package repair

import (
	"slices"

	"github.com/pairdb/pairdb/coord/causal"
)

// view is what one owner holds of a key: a settled object, zero for nothing.
type view struct {
	object *causal.Object
	// vouches says that the owner has applied all that is confirmed: what it does
	// not hold of that has been superseded. An owner whose partition is under
	// quarantine may have lost it instead.
	vouches bool
}

func (v *view) covers(d causal.Dot, seen causal.Context) bool {
	return v.object.Context.Covers(d) || v.vouches && seen.Covers(d)
}

// misses reports whether the owner has neither had a dot that is superseded elsewhere
// nor what superseded it. It must, before the dot is confirmed.
func (v *view) misses(d causal.Dot, survives bool, seen causal.Context) bool {
	return !survives && !v.object.Has(d) && !v.covers(d, seen)
}

// verdict is what is to be done about a key.
type verdict struct {
	// want are the owners, by index, that lack something or hold what has been
	// superseded.
	want []int
	// from are those whose objects, joined, have what the others want.
	from []int
	// claims are superseded dots that no object of from may cover: what is sent has
	// to say so.
	claims causal.Context
	// absent says that no sibling is left: what is sent says what was superseded.
	absent bool
	// young says that owners differ in nothing but dots above the horizon, and what
	// those have superseded: writes that were under way.
	young bool
	// damaged says that an owner that has applied all that is confirmed has nothing
	// at all of a key of which others hold confirmed siblings, not even a context.
	// Nobody can have superseded them without leaving something, so it has lost data,
	// or another has got data back that was deleted. Neither can be told from here.
	damaged bool
}

// plan decides about a key from what its owners hold. agreed is what all of them have
// applied as far as they vouch for it, the horizon what may be expected of all:
// whatever is above it may still be on its way. A sibling that anybody may collect
// is no difference: it stays where it hides another from readers.
func plan(views []view, agreed *causal.Confirmed, horizon causal.Context) (v verdict) {
	seen := agreed.Seen
	type fate struct {
		dot      causal.Dot
		survives bool
	}
	var fates []fate
	left := 0 // how many survive
	for i := range views {
		for k := range views[i].object.Siblings {
			d := views[i].object.Siblings[k].Dot
			if agreed.Collectable(&views[i].object.Siblings[k]) {
				continue
			}
			if slices.ContainsFunc(fates, func(f fate) bool { return f.dot == d }) {
				continue
			}
			f := fate{d, true}
			for j := range views {
				f.survives = f.survives && (views[j].object.Has(d) || !views[j].covers(d, seen))
			}
			if f.survives {
				left++
			}
			fates = append(fates, f)
		}
	}
	var need, extra []causal.Dot
	note := func(all *[]causal.Dot, d causal.Dot) {
		if !slices.Contains(*all, d) {
			*all = append(*all, d)
		}
	}
	for i := range views {
		lacksOld, lacksYoung, extraOld, differs := false, false, false, false
		for _, f := range fates {
			holds := views[i].object.Has(f.dot)
			if views[i].misses(f.dot, f.survives, seen) {
				// What superseded it may be under way; that it is gone is not.
				lacksOld = lacksOld || horizon.Covers(f.dot)
			}
			if holds == f.survives {
				continue
			}
			differs = true
			switch old := horizon.Covers(f.dot); {
			case holds:
				extraOld = extraOld || old
			case old:
				lacksOld = true
			default:
				lacksYoung = true
			}
		}
		// What is here and superseded elsewhere may be so by a write under way.
		old := lacksOld || extraOld && !lacksYoung
		v.young = v.young || differs && !old
		if !old {
			continue
		}
		v.want = append(v.want, i)
		for _, f := range fates {
			switch holds := views[i].object.Has(f.dot); {
			case f.survives && !holds:
				note(&need, f.dot)
			case !f.survives && (holds || views[i].misses(f.dot, f.survives, seen)):
				note(&extra, f.dot)
			}
		}
	}
	if len(v.want) == 0 {
		return v
	}
	v.young = false
	v.source(views, need, extra, seen, left == 0)
	if left == 0 && len(v.claims) > 0 && !slices.ContainsFunc(views, func(w view) bool { return !w.vouches }) {
		return verdict{damaged: true}
	}
	return v
}

// source chooses the owners whose objects are to be sent: as few as have all that is
// needed, the first ones first.
func (v *verdict) source(views []view, need, extra []causal.Dot, seen causal.Context, absent bool) {
	use := func(i int) {
		if !slices.Contains(v.from, i) {
			v.from = append(v.from, i)
		}
	}
	has := func(d causal.Dot) func(int) bool { return func(i int) bool { return views[i].object.Has(d) } }
	for _, d := range need {
		if slices.ContainsFunc(v.from, has(d)) {
			continue
		}
		for i := range views {
			if views[i].object.Has(d) {
				use(i)
				break
			}
		}
	}
	for _, d := range extra {
		knows := func(i int) bool { return views[i].object.Replaced(d) }
		if slices.ContainsFunc(v.from, knows) {
			continue
		}
		at := 0
		for at < len(views) && !knows(at) {
			at++
		}
		switch {
		case at == len(views):
			// Only what is confirmed says so.
			v.claims = v.claims.With(d)
		case absent || !seen.Covers(d):
			use(at)
		default:
			v.claims = v.claims.With(d)
		}
	}
	if v.absent = absent; absent {
		return
	}
	for i := 0; i < len(views) && len(v.from) == 0; i++ {
		if !views[i].object.IsZero() && !slices.Contains(v.want, i) {
			use(i)
		}
	}
	for i := 0; i < len(views) && len(v.from) == 0; i++ {
		if len(views[i].object.Siblings) > 0 {
			use(i)
		}
	}
}
