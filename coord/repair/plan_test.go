package repair

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/coord/causal"
)

// history draws writes of one key by a few actors, each of which reaches some owners,
// and returns what each owner holds.
func history(t *rapid.T) (owners []causal.Object) {
	owners = make([]causal.Object, rapid.IntRange(2, 4).Draw(t, "owners"))
	drawn := map[uint64]uint64{}
	for range rapid.IntRange(1, 8).Draw(t, "writes") {
		at := rapid.IntRange(0, len(owners)-1).Draw(t, "at")
		actor := uint64(at + 1)
		drawn[actor]++
		seen := owners[at].Context
		if rapid.Bool().Draw(t, "blind") {
			seen = nil
		}
		o := causal.Mint(&owners[at], seen, causal.Sibling{Dot: causal.Dot{Actor: actor, Counter: drawn[actor]}, HLC: drawn[actor]})
		owners[at] = o
		for i := range owners {
			if rapid.Bool().Draw(t, "reaches") {
				owners[i] = causal.Join(&owners[i], &o)
			}
		}
	}
	return owners
}

func viewsOf(owners []causal.Object) (views []view) {
	for i := range owners {
		views = append(views, view{&owners[i], true})
	}
	return views
}

// carryOut does what a verdict says.
func carryOut(v verdict, owners []causal.Object) []causal.Object {
	out := slices.Clone(owners)
	o := causal.Object{Context: v.claims}
	for _, i := range v.from {
		o = causal.Join(&o, &owners[i])
	}
	for _, i := range v.want {
		out[i] = causal.Join(&out[i], &o)
	}
	return out
}

func dots(o *causal.Object) (all []causal.Dot) {
	for i := range o.Siblings {
		all = append(all, o.Siblings[i].Dot)
	}
	return all
}

// TestPlanMakesEqual: once a verdict is carried out all owners hold the siblings of the
// join of all, and exactly those are sent something that did not.
func TestPlanMakesEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		owners := history(t)
		var all causal.Object
		for i := range owners {
			all = causal.Join(&all, &owners[i])
		}
		v := plan(viewsOf(owners), &causal.Confirmed{}, all.Context)
		after := carryOut(v, owners)
		for i := range owners {
			if !slices.Equal(dots(&after[i]), dots(&all)) {
				t.Fatalf("owner %d of %+v has %+v after %+v", i, owners, after[i], v)
			}
			if differed := !slices.Equal(dots(&owners[i]), dots(&all)); differed != slices.Contains(v.want, i) {
				t.Fatalf("owner %d of %+v differs: %v; %+v", i, owners, differed, v)
			}
		}
		if v.damaged || v.young {
			t.Fatalf("%+v of %+v", v, owners)
		}
	})
}

// TestPlanLeavesYoungAlone: what is above the horizon never makes an owner want
// anything; and once the young have arrived, all else is equal, too.
func TestPlanLeavesYoungAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		owners := history(t)
		if v := plan(viewsOf(owners), &causal.Confirmed{}, nil); len(v.want) > 0 {
			t.Fatalf("%+v, of which all is young, wants %+v", owners, v)
		}
		horizon := causal.Context{}
		for a := range uint64(4) {
			horizon = horizon.With(causal.Dot{Actor: a + 1, Counter: uint64(rapid.IntRange(0, 4).Draw(t, "old"))})
		}
		after := carryOut(plan(viewsOf(owners), &causal.Confirmed{}, horizon), owners)
		var all causal.Object
		for i := range owners {
			all = causal.Join(&all, &owners[i])
		}
		for i := range after {
			for _, d := range dots(&all) {
				if horizon.Covers(d) && !after[i].Has(d) {
					t.Fatalf("owner %d of %+v lacks %v, which is old", i, owners, d)
				}
			}
		}
	})
}

// TestPlanConfirmed: a sibling that all have had and an owner holds no more has been
// superseded there, and is nowhere brought back; where the owner has nothing at all it
// is left as it is, and said so.
func TestPlanConfirmed(t *testing.T) {
	one, two := causal.Dot{Actor: 1, Counter: 1}, causal.Dot{Actor: 2, Counter: 1}
	object := func(dots ...causal.Dot) *causal.Object {
		o := &causal.Object{Context: causal.NewContext(dots...)}
		for _, d := range dots {
			o.Siblings = append(o.Siblings, causal.Sibling{Dot: d})
		}
		return o
	}
	agreed := &causal.Confirmed{Seen: causal.NewContext(one)}
	horizon := causal.NewContext(one, two)
	views := []view{{object(one), true}, {object(two), true}}
	v := plan(views, agreed, horizon)
	if !slices.Equal(v.want, []int{0}) || !slices.Equal(v.from, []int{1}) || !v.claims.Covers(one) {
		t.Errorf("%+v", v)
	}
	if after := carryOut(v, []causal.Object{*object(one), *object(two)}); after[0].Has(one) || !after[0].Has(two) {
		t.Errorf("%+v", after)
	}
	if v := plan([]view{{object(one), true}, {object(), true}}, agreed, horizon); !v.damaged || len(v.want) > 0 {
		t.Errorf("an owner that has nothing: %+v", v)
	}
	if v := plan([]view{{object(one), false}, {object(), true}}, agreed, horizon); v.damaged || !v.absent || !slices.Equal(v.want, []int{0}) {
		t.Errorf("an owner under quarantine that has what all others have collected: %+v", v)
	}
	// One that may have lost things vouches for nothing.
	if v := plan([]view{{object(), false}, {object(one), true}}, agreed, horizon); !slices.Equal(v.want, []int{0}) || !slices.Equal(v.from, []int{1}) {
		t.Errorf("an owner under quarantine that has lost a sibling: %+v", v)
	}
	// A delete that all have had is no difference, wherever it still lies.
	gone := object(one)
	gone.Siblings[0].Flags = causal.FlagTombstone
	if v := plan([]view{{gone, true}, {object(), true}}, agreed, horizon); len(v.want) > 0 || v.damaged {
		t.Errorf("a delete that may be collected: %+v", v)
	}
}

// TestConfirm: nothing is confirmed that was drawn after the round had begun, nothing
// from the lowest open vote on, and no expiry that one of the clocks has not passed.
func TestConfirm(t *testing.T) {
	dot := func(a, c uint64) causal.Dot { return causal.Dot{Actor: a, Counter: c} }
	states := []State{
		{Actor: 1, Drawn: 5, Seen: causal.NewContext(dot(1, 5), dot(2, 9), dot(9, 3)), Now: 100},
		{Actor: 2, Drawn: 7, Seen: causal.NewContext(dot(1, 6), dot(9, 4)), Now: 90},
	}
	second := slices.Clone(states)
	second[0].Votes = causal.Context{dot(2, 6)}
	agreed := causal.Confirmed{Seen: causal.NewContext(dot(8, 8)), Expired: 80}
	c, why := confirm(states, second, &agreed)
	want := causal.NewContext(dot(1, 5), dot(2, 6), dot(8, 8), dot(9, 4))
	if why != "" || c.Expired != 90 || !c.Seen.Equal(want) {
		t.Errorf("confirmed %+v, %q", c, why)
	}
	second[1].Votes = causal.Context{dot(1, 0)}
	if c, _ := confirm(states, second, &agreed); c.Seen.Counter(1) != 0 {
		t.Errorf("confirmed %+v though the first dot is voted for", c)
	}
	second[1].VotesUnknown = true
	if _, why := confirm(states, second, &agreed); why == "" {
		t.Error("confirmed without knowing the votes")
	}
}

// TestPlanTellsWhatIsGone: an owner that has never had a dot is told of what superseded
// it, though that is a write under way, before the dot is confirmed.
func TestPlanTellsWhatIsGone(t *testing.T) {
	old, young := causal.Dot{Actor: 1, Counter: 1}, causal.Dot{Actor: 1, Counter: 2}
	owners := []causal.Object{
		{Context: causal.NewContext(old), Siblings: []causal.Sibling{{Dot: old}}},
		{Context: causal.NewContext(young), Siblings: []causal.Sibling{{Dot: young}}},
		{},
	}
	v := plan(viewsOf(owners), &causal.Confirmed{}, causal.NewContext(old))
	if !slices.Equal(v.want, []int{2}) || !slices.Equal(v.from, []int{1}) || v.young {
		t.Errorf("%+v", v)
	}
	if after := carryOut(v, owners); !after[2].Context.Covers(old) {
		t.Errorf("the last owner has %+v", after[2])
	}
}
