package causal

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestSawIsSound: whoever is said not to have seen a write has not, however copies met.
func TestSawIsSound(t *testing.T) {
	unseen := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		w.run(t)
		objects := []Object{{}}
		for range rapid.IntRange(1, 12).Draw(t, "joins") {
			a := &objects[rapid.IntRange(0, len(objects)-1).Draw(t, "a")]
			b := &w.past[rapid.IntRange(0, len(w.past)-1).Draw(t, "b")]
			if rapid.Bool().Draw(t, "two joins") {
				b = &objects[rapid.IntRange(0, len(objects)-1).Draw(t, "b")]
			}
			o := Join(a, b)
			o.StripLosers(a, nil, b)
			decoded, err := Decode(o.Append(nil))
			if err != nil || !bytes.Equal(decoded.Append(nil), o.Append(nil)) {
				t.Fatalf("%+v is decoded as %+v: %v", o, decoded, err)
			}
			for i := range decoded.Siblings {
				s := &decoded.Siblings[i]
				for d := range w.h.covers[s.Dot] {
					if !decoded.Saw(s, d) {
						t.Fatalf("%v has seen %v, and %+v denies it", s.Dot, d, decoded)
					}
				}
				if s.Past != nil {
					unseen++
				}
			}
			objects = append(objects, decoded)
		}
	})
	if unseen == 0 {
		t.Error("nobody was ever said not to have seen a write")
	}
}

// TestSaw: a delete whose clock is ahead was there when b, which another write has
// superseded since, was not. It has seen all there was when it was made; and what a
// later join does not know any more is kept.
func TestSaw(t *testing.T) {
	a, b, c, old := Dot{1, 1}, Dot{2, 1}, Dot{3, 1}, Dot{4, 1}
	first := Object{Context: NewContext(a, old), Siblings: []Sibling{{Dot: a, HLC: 9, Flags: FlagTombstone}}}
	second := Object{Context: NewContext(b, c, old), Siblings: []Sibling{{Dot: c, HLC: 5, Value: []byte("v")}}}
	o := Join(&first, &second)
	o.StripLosers(&first, &second)
	for range 2 {
		if w := o.Winner(); w.Dot != a || o.Saw(w, b) || o.Saw(w, c) || !o.Saw(w, old) || !o.Saw(w, a) {
			t.Fatalf("of %+v it is not known what the winner has seen", o)
		}
		if s := &o.Siblings[1]; s.Past != nil {
			t.Errorf("of a loser %v is kept", s.Past)
		}
		told, ok := Uncovered(&o, &Object{Context: NewContext(b), Siblings: []Sibling{{Dot: b}}})
		if w := told.Winner(); !ok || told.Saw(w, b) {
			t.Errorf("a minter is told %+v", told)
		}
		// Neither side has the two alone any more.
		o2 := Join(&o, &o)
		o2.StripLosers(&o, &o)
		o = o2
	}
}

// TestPastIsRefused: what is no proper part of the context with the sibling's dot in it
// is no spelling of anything.
func TestPastIsRefused(t *testing.T) {
	whole := Context{{1, 5}, {2, 5}}
	for _, c := range []struct {
		past Context
		ok   bool
	}{
		{Context{{1, 5}}, true},
		{Context{{1, 5}, {2, 4}}, true},
		{Context{{1, 5}, {2, 5}}, false}, // all of it
		{Context{{1, 4}, {2, 5}}, false}, // not the dot
		{Context{{1, 6}}, false},         // more than the context
		{Context{{1, 5}, {1, 5}}, false}, // twice
		{Context{{2, 5}}, false},         // not the dot
		{Context{{1, 5}, {2, 0}}, false}, // nothing of an actor
		{Context{{1, 5}, {2, 1}, {2, 2}}, false},
	} {
		o := Object{Context: whole, Siblings: []Sibling{{Dot: Dot{1, 5}, Past: c.past}}}
		if _, err := Decode(o.Append(nil)); (err == nil) != c.ok {
			t.Errorf("a past of %v within %v: %v", c.past, whole, err)
		}
	}
}
