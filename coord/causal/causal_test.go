package causal

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// history is the naive model: every write with the full set of writes it
// covered. A model object is a downward closed set of writes.
type history struct {
	covers map[Dot]map[Dot]bool // transitively
	hlc    map[Dot]uint64
}

type modelObject map[Dot]bool

// live returns the writes of m that no other write of m covers.
func (h *history) live(m modelObject) []Dot {
	var out []Dot
	for d := range m {
		covered := false
		for e := range m {
			covered = covered || h.covers[e][d]
		}
		if !covered {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, Dot.Compare)
	return out
}

// world is a set of replicas that mint and merge, with the model beside.
type world struct {
	h        history
	replicas []Object
	model    []modelObject
	counter  []uint64
	past     []Object
	pastM    []modelObject
}

func newWorld(n int) *world {
	w := &world{h: history{map[Dot]map[Dot]bool{}, map[Dot]uint64{}}}
	for range n {
		w.replicas = append(w.replicas, Object{})
		w.model = append(w.model, modelObject{})
		w.counter = append(w.counter, 0)
	}
	return w
}

func clone(m modelObject) modelObject {
	out := modelObject{}
	for d := range m {
		out[d] = true
	}
	return out
}

// write mints at replica i a write that has seen what past object k knew.
func (w *world) write(i, k int, hlc uint64, tomb bool) {
	var seen Context
	seenM := modelObject{}
	switch {
	case k == -1:
	case k == -2:
		seen, seenM = w.replicas[i].Context, w.model[i]
	default:
		seen, seenM = w.past[k].Context, w.pastM[k]
		for j := range w.past[k].Siblings {
			hlc = above(hlc, w.past[k].Siblings[j].HLC)
		}
	}
	w.counter[i]++
	d := Dot{uint64(i + 1), w.counter[i]}
	s := Sibling{Dot: d, HLC: hlc}
	if tomb {
		s.Flags = FlagTombstone
	} else {
		s.Value = []byte{byte(d.Actor), byte(d.Counter)}
	}
	w.replicas[i] = Mint(&w.replicas[i], seen, s)
	w.h.covers[d] = clone(seenM)
	for j := range w.replicas[i].Siblings {
		if w.replicas[i].Siblings[j].Dot == d {
			w.h.hlc[d] = w.replicas[i].Siblings[j].HLC
		}
	}
	m := clone(w.model[i])
	for e := range seenM {
		m[e] = true
	}
	m[d] = true
	w.model[i] = m
	w.remember(i)
}

func (w *world) remember(i int) {
	w.past = append(w.past, w.replicas[i])
	w.pastM = append(w.pastM, w.model[i])
}

func (w *world) merge(i, k int) {
	w.replicas[i] = Join(&w.replicas[i], &w.past[k])
	m := clone(w.model[i])
	for e := range w.pastM[k] {
		m[e] = true
	}
	w.model[i] = m
	w.remember(i)
}

// run draws a schedule and checks the replicas against the model throughout.
func (w *world) run(t *rapid.T) {
	for range rapid.IntRange(1, 30).Draw(t, "steps") {
		i := rapid.IntRange(0, len(w.replicas)-1).Draw(t, "replica")
		if len(w.past) > 0 && rapid.Bool().Draw(t, "merge") {
			w.merge(i, rapid.IntRange(0, len(w.past)-1).Draw(t, "from"))
		} else {
			k := rapid.IntRange(-2, len(w.past)-1).Draw(t, "seen")
			w.write(i, k, rapid.Uint64Range(0, 50).Draw(t, "hlc"), rapid.Bool().Draw(t, "tomb"))
		}
		w.check(t, i)
	}
}

func (w *world) check(t *rapid.T, i int) {
	var got []Dot
	for j := range w.replicas[i].Siblings {
		s := &w.replicas[i].Siblings[j]
		got = append(got, s.Dot)
		if !s.Tombstone() && !bytes.Equal(s.Value, []byte{byte(s.Dot.Actor), byte(s.Dot.Counter)}) {
			t.Fatalf("dot %v has the value of another", s.Dot)
		}
	}
	if want := w.h.live(w.model[i]); !slices.Equal(got, want) {
		t.Fatalf("replica %d has siblings %v, the histories say %v", i, got, want)
	}
	for d := range w.model[i] {
		if !w.replicas[i].Context.Covers(d) {
			t.Fatalf("replica %d does not cover %v", i, d)
		}
		for e := range w.h.covers[d] {
			if w.h.hlc[e] >= w.h.hlc[d] {
				t.Fatalf("%v covers %v but has no higher HLC", d, e)
			}
		}
	}
}

func TestReplicasAgreeWithHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { newWorld(rapid.IntRange(1, 4).Draw(t, "n")).run(t) })
}

func TestJoinLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		w.run(t)
		pick := func(name string) *Object { return &w.past[rapid.IntRange(0, len(w.past)-1).Draw(t, name)] }
		a, b, c := pick("a"), pick("b"), pick("c")
		ab, ba, bc := Join(a, b), Join(b, a), Join(b, c)
		same := func(law string, x, y Object) {
			if !bytes.Equal(x.Append(nil), y.Append(nil)) {
				t.Fatalf("%s:\n%+v\n%+v", law, x, y)
			}
		}
		same("commutative", ab, ba)
		same("associative", Join(&ab, c), Join(a, &bc))
		same("idempotent", Join(a, a), *a)
		same("absorbs", Join(&ab, a), ab)
		same("unit", Join(a, &Object{}), *a)
		if rapid.Bool().Draw(t, "strip") {
			a = &ab
			a.StripLosers()
		}
		for _, p := range []*Object{b, c, &bc, {}} {
			if a.Replaces(p) {
				same("replaces", Join(a, p), *a)
				same("replaces", Join(p, a), *a)
			} else if len(p.Siblings) == 0 {
				t.Fatalf("does not replace nothing: %+v", a)
			}
		}
		if w := NewContext(Dot{100, 1}); !a.IsZero() {
			if o := Mint(a, a.Context, Sibling{Dot: w[0]}); !o.Replaces(a) {
				t.Fatalf("a write that has seen all does not replace it: %+v", a)
			}
		}
		if x, y := Join(a, b), Join(b, a); x.Digest() != y.Digest() || !x.Equal(&y) {
			t.Fatal("equal objects differ in digest")
		}
		if !a.Equal(b) && a.Digest() == b.Digest() {
			t.Fatal("different objects share a digest")
		}
	})
}

func TestEncodingRoundTripsAndIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		w.run(t)
		o := w.past[len(w.past)-1]
		for i := range o.Siblings {
			s := &o.Siblings[i]
			if rapid.Bool().Draw(t, "expiry") {
				s.Flags |= FlagExpiry
				s.ExpiresAt = rapid.Int64().Draw(t, "at")
			}
			s.IdempotencyKey = rapid.SliceOfN(rapid.Byte(), 0, MaxIdempotencyKey).Draw(t, "idem")
		}
		b := o.Append(nil)
		if len(b) > o.EncodedLen() {
			t.Fatalf("%d bytes, bound %d", len(b), o.EncodedLen())
		}
		p, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Append(nil), b) || !p.Equal(&o) || p.Digest() != o.Digest() {
			t.Fatalf("round trip changed\n%+v\n%+v", o, p)
		}
		for cut := 1; cut < len(b); cut++ {
			if _, err := Decode(b[:cut]); err == nil {
				t.Fatalf("the first %d of %d bytes decode", cut, len(b))
			}
		}
	})
}

// TestSlab: objects decoded into one slab are those decoded alone, stay as they
// are while others come, and a context with one more entry spoils no neighbour.
func TestSlab(t *testing.T) {
	var slab Slab
	rapid.Check(t, func(t *rapid.T) {
		defer slab.Reset()
		w := newWorld(3)
		w.run(t)
		var got []Object
		for i := range 100 {
			b := w.past[i%len(w.past)].Append(nil)
			o, err := slab.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := slab.Decode(b[:len(b)-1]); err == nil && len(b) > 1 {
				t.Fatal("a part decodes")
			}
			got = append(got, o)
		}
		for i := range got {
			got[i].Context.With(Dot{1 << 60, 1})
		}
		for i := range got {
			if o := &w.past[i%len(w.past)]; !bytes.Equal(got[i].Append(nil), o.Append(nil)) {
				t.Fatalf("object %d:\n%+v\n%+v", i, got[i], o)
			}
		}
	})
}

func TestSlabAllocatesNothingOnceItHasGrown(t *testing.T) {
	o := Mint(&Object{}, nil, Sibling{Dot: Dot{1, 1}, Value: []byte("v")})
	b := o.Append(nil)
	var slab Slab
	if n := testing.AllocsPerRun(100, func() {
		for range 1000 {
			if _, err := slab.Decode(b); err != nil {
				t.Fatal(err)
			}
		}
		slab.Reset()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestUncoveredIsWhatAMinterMustSupersede(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		w.run(t)
		pick := func(name string) *Object { return &w.past[rapid.IntRange(0, len(w.past)-1).Draw(t, name)] }
		held, in := pick("held"), pick("incoming")
		stub, ok := Uncovered(held, in)
		if ok == in.Context.CoversAll(NewContext(dots(held)...)) {
			t.Fatalf("ok=%v", ok)
		}
		// A blind re-mint over the stub and the incoming object leaves one
		// sibling in the join with what was held, and it wins.
		s := Sibling{Dot: Dot{99, 1}}
		for i := range stub.Siblings {
			s.HLC = above(s.HLC, stub.Siblings[i].HLC)
		}
		re := Mint(in, JoinContext(in.Context, stub.Context), s)
		after := Join(held, &re)
		if len(after.Siblings) != 1 || after.Winner().Dot != s.Dot {
			t.Fatalf("after the re-mint: %+v", after)
		}
	})
}

func dots(o *Object) (out []Dot) {
	for i := range o.Siblings {
		out = append(out, o.Siblings[i].Dot)
	}
	return out
}

// TestStrippedLosersNeverWin runs two worlds side by side, one of which drops
// losers' values: the winner is the same at every step and has its value.
func TestStrippedLosersNeverWin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		w.run(t)
		var stripped Object
		var whole Object
		for range rapid.IntRange(1, 12).Draw(t, "merges") {
			p := w.past[rapid.IntRange(0, len(w.past)-1).Draw(t, "from")]
			whole = Join(&whole, &p)
			if rapid.Bool().Draw(t, "sender strips") {
				p.Siblings = slices.Clone(p.Siblings)
				p.StripLosers()
			}
			stripped = Join(&stripped, &p)
			stripped.StripLosers()
			a, b := whole.Winner(), stripped.Winner()
			if a.Dot != b.Dot || b.Flags&FlagStripped != 0 || !bytes.Equal(a.Value, b.Value) {
				t.Fatalf("winner %+v, with values dropped %+v", a, b)
			}
			if whole.Digest() != stripped.Digest() {
				t.Fatal("dropping values changed the digest")
			}
		}
	})
}

func TestContext(t *testing.T) {
	c := NewContext(Dot{5, 2}, Dot{1, 7}, Dot{5, 9}, Dot{3, 0})
	if want := (Context{{1, 7}, {5, 9}}); !c.Equal(want) {
		t.Fatalf("got %v", c)
	}
	for d, want := range map[Dot]bool{{1, 7}: true, {1, 8}: false, {5, 1}: true, {2, 1}: false} {
		if c.Covers(d) != want {
			t.Errorf("covers %v: %v", d, !want)
		}
	}
	if !c.CoversAll(Context{{5, 3}}) || c.CoversAll(Context{{4, 1}}) {
		t.Error("CoversAll")
	}
}

func TestHLC(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	if got, want := NextHLC(now, 0), uint64(1_700_000_000_000)<<16; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	ahead := HLCAt(now.Add(10 * time.Minute))
	if got := NextHLC(now, ahead); got != ahead+1 {
		t.Errorf("behind a peer: got %d, want %d", got, ahead+1)
	}
	if NextHLC(now, math.MaxUint64) != math.MaxUint64 || HLCAt(time.Unix(-1, 0)) != 0 {
		t.Error("ends of the range")
	}
	s := Sibling{HLC: NextHLC(now, 0)}
	if !s.WrittenAt().Equal(now) {
		t.Errorf("written at %v", s.WrittenAt())
	}
}

func TestLive(t *testing.T) {
	now := time.UnixMilli(1000)
	for _, c := range []struct {
		s    Sibling
		want bool
	}{
		{Sibling{}, true},
		{Sibling{Flags: FlagTombstone}, false},
		{Sibling{Flags: FlagStripped}, false},
		{Sibling{Flags: FlagExpiry, ExpiresAt: 1000}, false},
		{Sibling{Flags: FlagExpiry, ExpiresAt: 1001}, true},
		{Sibling{ExpiresAt: 1}, true},
	} {
		if c.s.Live(now) != c.want {
			t.Errorf("%+v: live %v", c.s, !c.want)
		}
	}
}

// TestFormatIsPermanent pins the bytes of format 1.
func TestFormatIsPermanent(t *testing.T) {
	o := Object{
		Context: Context{{1, 300}, {2, 1}},
		Siblings: []Sibling{
			{Dot: Dot{1, 300}, HLC: 0x0102, Flags: FlagJSON | FlagExpiry, ExpiresAt: 7, IdempotencyKey: []byte("k"), Value: []byte("{}")},
			{Dot: Dot{2, 1}, HLC: 3, Flags: FlagTombstone, Past: Context{{1, 299}, {2, 1}}},
		},
	}
	want := []byte{
		1, 2,
		0, 0, 0, 0, 0, 0, 0, 1, 0xac, 2,
		0, 0, 0, 0, 0, 0, 0, 2, 1,
		2,
		0, 0xac, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0b1110, 0, 0, 0, 0, 0, 0, 0, 7, 1, 'k', 2, '{', '}',
		1, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0b100001, 2, 0, 0xab, 2, 1, 1, 0,
	}
	if got := o.Append(nil); !bytes.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
}

func FuzzDecode(f *testing.F) {
	o := Object{Context: Context{{1, 3}, {9, 1}}, Siblings: []Sibling{
		{Dot: Dot{1, 2}, HLC: 5, Value: []byte("v")},
		{Dot: Dot{9, 1}, HLC: 6, Flags: FlagTombstone | FlagExpiry, ExpiresAt: 3, IdempotencyKey: []byte("id"), Past: Context{{1, 1}, {9, 1}}},
	}}
	f.Add(o.Append(nil))
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{2, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Decode(b)
		if err != nil {
			return
		}
		if len(b) > 0 && !bytes.Equal(o.Append(nil), b) {
			t.Fatalf("%x decodes but is not canonical", b)
		}
		twice := Join(&o, &o)
		if !twice.Equal(&o) {
			t.Fatal("join with itself")
		}
	})
}
