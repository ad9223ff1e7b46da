package causal

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawConfirmed draws what might be confirmed of the actors of a world.
func drawConfirmed(t *rapid.T, name string) Confirmed {
	var c Confirmed
	for actor := uint64(1); actor <= 4; actor++ {
		c.Seen = c.Seen.With(Dot{actor, rapid.Uint64Range(0, 6).Draw(t, name)})
	}
	c.Expired = rapid.Int64Range(0, 4).Draw(t, name+" expired")
	return c
}

// drawObject draws an object with siblings of all kinds.
func drawObject(t *rapid.T, name string) Object {
	var o Object
	for actor := uint64(1); actor <= 4; actor++ {
		o.Context = o.Context.With(Dot{actor, rapid.Uint64Range(0, 6).Draw(t, name)})
	}
	for _, d := range o.Context {
		for counter := uint64(1); counter <= d.Counter; counter++ {
			s := Sibling{Dot: Dot{d.Actor, counter}, HLC: (d.Actor*7 + counter*5) % 11}
			switch rapid.IntRange(0, 8).Draw(t, name+" sibling") {
			case 0:
				s.Flags = FlagTombstone
			case 1:
				s.Flags, s.ExpiresAt, s.Value = FlagExpiry, int64(counter), []byte("e")
			case 2:
				s.Value = []byte("v")
			default:
				continue
			}
			o.Siblings = append(o.Siblings, s)
		}
	}
	return o
}

func same(a, b *Object) bool { return a.Equal(b) }

// TestConfirmedLaws: what is confirmed is a lattice, and survives its encoding.
func TestConfirmedLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawConfirmed(t, "a"), drawConfirmed(t, "b"), drawConfirmed(t, "c")
		ab, ba := a.Join(&b), b.Join(&a)
		bc := b.Join(&c)
		left, right := ab.Join(&c), a.Join(&bc)
		again := ab.Join(&b)
		switch {
		case !ab.Equal(&ba), !left.Equal(&right), !again.Equal(&ab):
			t.Fatalf("no lattice: %v, %v, %v", a, b, c)
		case !a.Within(&ab) || !b.Within(&ab):
			t.Fatalf("%v is not above %v and %v", ab, a, b)
		case a.Within(&b) != ab.Equal(&b):
			t.Fatalf("%v is within %v, or not", a, b)
		}
		got, err := DecodeConfirmed(a.Append(nil))
		if err != nil || !got.Equal(&a) {
			t.Fatalf("%v becomes %v: %v", a, got, err)
		}
	})
}

// TestSettledLaws: settling once is settling often; to settle early changes nothing of
// what is left later; nothing that is needed goes; and the order of settling and
// joining does not matter to what is shown.
func TestSettledLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, c, d := drawObject(t, "o"), drawConfirmed(t, "c"), drawConfirmed(t, "d")
		lww := rapid.Bool().Draw(t, "lww")
		more := c.Join(&d)
		once := o.Settled(&c, lww)
		if twice := once.Settled(&c, lww); !same(&once, &twice) {
			t.Fatalf("%v settles to %v, that to %v", o, once, twice)
		}
		early, late := once.Settled(&more, lww), o.Settled(&more, lww)
		if !same(&early, &late) {
			t.Fatalf("%v settles under %v to %v, in two steps to %v", o, more, late, early)
		}
		live := 0
		for i := range o.Siblings {
			s := &o.Siblings[i]
			covered := c.Seen.Covers(s.Dot)
			if once.Has(s.Dot) {
				live++
				continue
			}
			if !covered {
				t.Fatalf("of %v, %v is lost under %v", o, s.Dot, c)
			}
			if !lww && !c.Collectable(s) {
				t.Fatalf("of %v, %v is lost under %v", o, s.Dot, c)
			}
			if once.Floor < s.HLC {
				t.Fatalf("the floor %d is below %d", once.Floor, s.HLC)
			}
		}
		if live != len(once.Siblings) {
			t.Fatalf("%v settles to %v", o, once)
		}
		if w := o.Winner(); lww && w != nil && !c.Collectable(w) && !once.Has(w.Dot) {
			t.Fatalf("of %v, the winner is lost under %v", o, c)
		}
		if lww && o.Winner() != nil && c.Collectable(o.Winner()) {
			// What it beat must not win now.
			if w := once.Winner(); w != nil && w.Dot != o.Winner().Dot {
				t.Fatalf("of %v, %v wins once %v is settled", o, w.Dot, c)
			}
		}
		if stripped := o.Transient(); !stripped && !lww && !same(&once, &o) {
			t.Fatalf("%v is not transient and settles to %v", o, once)
		}
	})
}

// TestSettledIsOfSiblings: of two objects with the same siblings the same stay,
// whatever their contexts.
func TestSettledIsOfSiblings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, c := drawObject(t, "o"), drawConfirmed(t, "c")
		lww := rapid.Bool().Draw(t, "lww")
		p := Object{Context: JoinContext(o.Context, c.Seen), Siblings: o.Siblings}
		a, b := o.Remaining(&c, lww), p.Remaining(&c, lww)
		a.Context, b.Context = nil, nil
		if !same(&a, &b) {
			t.Fatalf("%v and %v are left with %v and %v", o, p, a, b)
		}
	})
}

// TestJoinUnderLaws: without anything confirmed it is Join; what c does not cover stays;
// it is idempotent; and what is shown of it does not depend on whether what is held was
// settled before.
func TestJoinUnderLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(1, 4).Draw(t, "n"))
		w.run(t)
		pick := func(name string) *Object { return &w.past[rapid.IntRange(0, len(w.past)-1).Draw(t, name)] }
		if len(w.past) == 0 {
			return
		}
		held, came := pick("held"), pick("came")
		lww := rapid.Bool().Draw(t, "lww")
		var none Confirmed
		plain, stripped := JoinUnder(held, came, &none, lww)
		if want := Join(held, came); stripped || !same(&plain, &want) {
			t.Fatalf("%v joined with %v is %v, not %v", held, came, plain, want)
		}
		var c Confirmed
		for _, d := range held.Context { // what the owner knows, its copy has had
			if k := rapid.Uint64Range(0, d.Counter).Draw(t, "confirmed"); k > 0 {
				c.Seen = c.Seen.With(Dot{d.Actor, k})
			}
		}
		c.Expired = 3
		full, _ := JoinUnder(held, came, &c, lww)
		again, _ := JoinUnder(&full, came, &c, lww)
		if !same(&full, &again) {
			t.Fatalf("%v joined with %v again is %v", full, came, again)
		}
		for i := range came.Siblings {
			s := &came.Siblings[i]
			beaten := lww && slices.ContainsFunc(came.Siblings, func(w Sibling) bool { return c.Seen.Covers(w.Dot) && !held.Has(w.Dot) && w.Beats(s) })
			if !c.Seen.Covers(s.Dot) && !held.Context.Covers(s.Dot) && !full.Has(s.Dot) && !beaten {
				t.Fatalf("%v of %v is lost under %v", s.Dot, came, c)
			}
		}
		if lww {
			return // there settling what is held is forgetting what may hide what comes
		}
		early := held.Settled(&c, lww)
		collected, _ := JoinUnder(&early, came, &c, lww)
		a, b := full.Settled(&c, lww), collected.Settled(&c, lww)
		for i := range a.Siblings {
			if !b.Has(a.Siblings[i].Dot) {
				t.Fatalf("%v joined with %v under %v: %v, and %v if it was settled before", held, came, c, a, b)
			}
		}
		if len(a.Siblings) != len(b.Siblings) {
			t.Fatalf("%v joined with %v under %v: %v, and %v if it was settled before", held, came, c, a, b)
		}
	})
}

// TestLoserGoesWithItsWinner: an owner that has collected the delete w is sent, by one
// that has not, w together with the write u that lost to it. It takes neither, or it
// would show u, which nobody else does; and whoever sent them learns that both are gone.
func TestLoserGoesWithItsWinner(t *testing.T) {
	w, u, v := Dot{1, 5}, Dot{2, 7}, Dot{3, 1}
	c := Confirmed{Seen: NewContext(w)}
	sent := Object{Context: NewContext(w, u, v), Siblings: []Sibling{
		{Dot: w, HLC: 9, Flags: FlagTombstone}, {Dot: u, HLC: 3, Flags: FlagStripped}, {Dot: v, HLC: 12},
	}}
	var nothing Object
	got, stripped := JoinUnder(&nothing, &sent, &c, true)
	if !stripped || len(got.Siblings) != 1 || got.Siblings[0].Dot != v || !got.Context.Covers(u) {
		t.Errorf("it holds %v, stripped %v", got, stripped)
	}
	if back := Join(&sent, &got); len(back.Siblings) != 1 || back.Siblings[0].Dot != v {
		t.Errorf("the sender goes on to hold %v", back)
	}
	if got, _ = JoinUnder(&nothing, &sent, &c, false); len(got.Siblings) != 2 {
		t.Errorf("where all values stay it holds %v", got)
	}
	// It may still have a context that covers w, if that is not all confirmed.
	collected := Object{Context: NewContext(w, Dot{2, 6})}
	if got, _ = JoinUnder(&collected, &sent, &c, true); len(got.Siblings) != 1 || got.Siblings[0].Dot != v || !got.Context.Covers(u) {
		t.Errorf("with a context it holds %v", got)
	}
}

// TestLoserStaysBesideALiveWinner: the owner holds x, which superseded w. It is sent w,
// which is confirmed, and s, which lost to w and is under way to it. If it let go of s its
// minter would be told that x had superseded s.
func TestLoserStaysBesideALiveWinner(t *testing.T) {
	s, x, w := Dot{1, 1}, Dot{2, 1}, Dot{3, 1}
	held := Object{Context: NewContext(w, x), Siblings: []Sibling{{Dot: x, HLC: 20}}}
	came := Object{Context: NewContext(w, s), Siblings: []Sibling{{Dot: s, HLC: 5, Flags: FlagStripped}, {Dot: w, HLC: 10}}}
	c := Confirmed{Seen: NewContext(w)}
	got, _ := JoinUnder(&held, &came, &c, true)
	got.StripLosersUnder(&c, &held, &came)
	if len(got.Siblings) != 2 || !got.Has(s) || got.Saw(got.Winner(), s) {
		t.Errorf("it holds %+v", got)
	}
}

// TestContextsStay: an owner that lacks the write y shows x, which y superseded. The
// entry that says so is covered by what is confirmed, as x is, and must not go.
func TestContextsStay(t *testing.T) {
	x, y := Dot{1, 5}, Dot{2, 7}
	c := Confirmed{Seen: NewContext(x)}
	ahead := Object{Context: NewContext(x, y), Siblings: []Sibling{{Dot: y, HLC: 2}}}
	behind := Object{Context: NewContext(x), Siblings: []Sibling{{Dot: x, HLC: 1}}}
	a, b := ahead.Settled(&c, false), behind.Settled(&c, false)
	if both := Join(&a, &b); len(both.Siblings) != 1 || both.Siblings[0].Dot != y {
		t.Errorf("together they show %v", both)
	}
}

// TestShadow: a delete that all owners have stays as long as it hides a value that they
// may not have, and hides it everywhere; then both go.
func TestShadow(t *testing.T) {
	dead, hidden := Dot{1, 1}, Dot{2, 1}
	o := Object{Context: NewContext(dead, hidden), Siblings: []Sibling{{Dot: dead, HLC: 9, Flags: FlagTombstone}, {Dot: hidden, HLC: 1, Value: []byte("v")}}}
	c := Confirmed{Seen: NewContext(dead)}
	if left := o.Settled(&c, true); !same(&left, &o) {
		t.Errorf("while the delete is needed, %v is left", left)
	}
	if left := o.Settled(&c, false); len(left.Siblings) != 1 || left.Siblings[0].Dot != hidden {
		t.Errorf("where all values stay, %v is left", left)
	}
	c.Seen = c.Seen.With(hidden)
	if left := o.Settled(&c, true); !left.IsZero() {
		t.Errorf("once all owners have both, %v is left", left)
	}
	// A write that has a clock above the delete's is shown, with its value.
	o.Siblings[1].HLC = 10
	o.StripLosersUnder(&Confirmed{Seen: NewContext(dead)})
	if left := o.Settled(&Confirmed{Seen: NewContext(dead)}, true); len(left.Siblings) != 1 || string(left.Siblings[0].Value) != "v" {
		t.Errorf("of a later write, %v is left", left)
	}
}

// TestJoinFetched: all that another owner holds takes the place of what it had
// superseded, and of nothing else.
func TestJoinFetched(t *testing.T) {
	x, y, z := Dot{1, 1}, Dot{2, 1}, Dot{3, 1}
	held := Object{Context: NewContext(x, z), Siblings: []Sibling{{Dot: x}, {Dot: z}}}
	came := Object{Context: NewContext(y), Siblings: []Sibling{{Dot: y}}}
	got := JoinFetched(&held, &came, &Confirmed{Seen: NewContext(x, y)})
	if len(got.Siblings) != 2 || !got.Has(y) || !got.Has(z) || got.Has(x) {
		t.Errorf("the join is %v", got)
	}
}

func FuzzDecodeConfirmed(f *testing.F) {
	full := Confirmed{Seen: NewContext(Dot{1, 2}, Dot{3, 4}), Expired: 5}
	f.Add(full.Append(nil))
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeConfirmed(b)
		if err != nil || len(b) == 0 {
			return
		}
		if again := c.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%x decodes to %v, which is %x", b, c, again)
		}
	})
}

// TestSuperseded: exactly what an owner has had, by its context or by what is confirmed,
// and does not hold is superseded there; and what it would leave out of a join is.
func TestSuperseded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		held, came, c := drawObject(t, "held"), drawObject(t, "came"), drawConfirmed(t, "confirmed")
		want := false
		for i := range came.Siblings {
			d := came.Siblings[i].Dot
			want = want || !held.Has(d) && JoinContext(held.Context, c.Seen).Covers(d)
		}
		if got := held.Superseded(&came, &c); got != want {
			t.Fatalf("%v under %v, for one that holds %v: %v", came, c, held, got)
		}
		joined, stripped := JoinUnder(&held, &came, &c, false)
		missing := false
		for i := range came.Siblings {
			missing = missing || !joined.Has(came.Siblings[i].Dot)
		}
		if got := held.Superseded(&came, &c); got != missing || stripped && !got {
			t.Fatalf("the join of %v and %v under %v is %v, stripped %v; superseded %v", held, came, c, joined, stripped, got)
		}
	})
}
