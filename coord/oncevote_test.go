package coord

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// vote is a record that votes for the write of an actor.
func vote(actor uint64, round uint32) *causal.Record {
	d := causal.Dot{Actor: actor, Counter: 1}
	return &causal.Record{Dot: d, Context: causal.Context{d}, Round: round, Expires: 1}
}

// votesOf reads "a b1 - C": votes by letter and round, - for none, a capital
// for one that is applied.
func votesOf(text string) []*causal.Record {
	var held []*causal.Record
	for _, w := range strings.Fields(text) {
		if w == "-" {
			held = append(held, nil)
			continue
		}
		var round uint32
		if len(w) > 1 {
			round = uint32(w[1] - '0')
		}
		lower := strings.ToLower(w)
		r := vote(uint64(lower[0]), round)
		r.Applied = lower != w
		held = append(held, r)
	}
	return held
}

// plain is what a level needs of n owners while they do not change.
func plain(n, need int) quorum.Goal {
	return quorum.Goal{First: quorum.Set{Members: 1<<n - 1, Need: need}}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		held   string
		need   int
		agreed string
		next   string
	}{
		{held: "- - -", need: 2, next: "-0"},
		{held: "a - -", need: 2, next: "a0"},
		{held: "a a -", need: 2, agreed: "a"},
		{held: "b a -", need: 2, next: "a0"},
		{held: "b a b", need: 2, agreed: "b"},
		// Nobody can win this round.
		{held: "c b a", need: 2, next: "a1"},
		{held: "a a b b", need: 3, next: "a1"},
		{held: "a b b -", need: 3, next: "b0"},
		{held: "a b c d -", need: 3, next: "a1"},
		// Only the latest round counts.
		{held: "a a b1", need: 2, next: "b1"},
		{held: "a b1 b1", need: 2, agreed: "b"},
		{held: "c1 b1 a1", need: 2, next: "a2"},
		// What is applied was agreed on.
		{held: "a a B", need: 2, agreed: "b"},
		{held: "c B A", need: 2, agreed: "a"},
		{held: "a", need: 1, agreed: "a"},
		{held: "-", need: 1, next: "-0"},
	} {
		d := decide(votesOf(c.held), plain(len(strings.Fields(c.held)), c.need))
		agreed, next := "", ""
		if d.agreed != nil {
			agreed = string(rune(d.agreed.Dot.Actor))
		} else {
			next = "-"
			if d.candidate != nil {
				next = string(rune(d.candidate.Dot.Actor))
			}
			next += fmt.Sprint(d.round)
		}
		if agreed != c.agreed || next != c.next {
			t.Errorf("%q of %d: agreed %q, next %q; want %q, %q", c.held, c.need, agreed, next, c.agreed, c.next)
		}
	}
}

// TestDecideWhileOwnersChange: three old owners, and behind them three new ones.
func TestDecideWhileOwnersChange(t *testing.T) {
	both := quorum.Goal{First: quorum.Of(quorum.Quorum, 0b111), Second: quorum.Of(quorum.Quorum, 0b111000)}
	for _, c := range []struct{ held, agreed, next string }{
		{held: "- - - - - -", next: "-0"},
		{held: "- - - b - -", next: "b0"},
		{held: "a a - b - -", next: "a0"},
		{held: "a a - a a -", agreed: "a"},
		{held: "b - - a a a", next: "b0"},
		// The old ones may have agreed on b before the change, so b it is.
		{held: "b b - a a -", next: "b1"},
		{held: "b b a a a a", next: "b1"},
		// They cannot have agreed on anything.
		{held: "c b a - - -", next: "a1"},
		{held: "c b a b b b", next: "a1"},
		{held: "a a b1 - - -", next: "b1"},
		{held: "a a - - - B", agreed: "b"},
	} {
		d := decide(votesOf(c.held), both)
		agreed, next := "", ""
		if d.agreed != nil {
			agreed = string(rune(d.agreed.Dot.Actor))
		} else if next = "-"; d.candidate != nil {
			next = string(rune(d.candidate.Dot.Actor))
		}
		if d.agreed == nil {
			next += fmt.Sprint(d.round)
		}
		if agreed != c.agreed || next != c.next {
			t.Errorf("%q: agreed %q, next %q; want %q, %q", c.held, agreed, next, c.agreed, c.next)
		}
	}
}

// TestVotesAgreeOnOneWrite lets attempts that see some of the owners, at any
// time and in any order, ask for votes as decide says. Whoever finds an
// agreement finds the same one, and when everybody can be reached there is one.
func TestVotesAgreeOnOneWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "owners")
		need := n/2 + 1
		owners := make([]*causal.Record, n)
		// seen is what each attempt knows, which may be long out of date.
		attempts := rapid.IntRange(1, 4).Draw(t, "attempts")
		seen := make([][]*causal.Record, attempts)
		for a := range seen {
			seen[a] = make([]*causal.Record, n)
		}
		var agreed *causal.Record
		note := func(r *causal.Record) {
			if agreed != nil && agreed.Dot != r.Dot {
				t.Fatalf("agreed on %v and on %v", agreed.Dot, r.Dot)
			}
			agreed = r
		}
		// step lets attempt a ask owner i for what it then wants.
		step := func(a, i int) {
			d := decide(seen[a], plain(n, need))
			if d.agreed != nil {
				note(d.agreed)
				if rapid.Bool().Draw(t, "apply") {
					r := *d.agreed
					r.Applied = true
					if owners[i] == nil || owners[i].Yields(&r) {
						owners[i] = &r
					}
				}
				return
			}
			r := vote(uint64(attempts-a), d.round)
			if d.candidate != nil {
				copied := *d.candidate
				copied.Round = d.round
				r = &copied
			}
			if owners[i] == nil || owners[i].GivesWay(r) {
				owners[i] = r
			}
			seen[a][i] = owners[i]
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			a, i := rapid.IntRange(0, attempts-1).Draw(t, "attempt"), rapid.IntRange(0, n-1).Draw(t, "owner")
			if rapid.Bool().Draw(t, "look") {
				seen[a][i] = owners[i]
			} else {
				step(a, i)
			}
		}
		for i := range n {
			seen[0][i] = owners[i]
		}
		for range 3 {
			for i := range n {
				step(0, i)
			}
		}
		if d := decide(seen[0], plain(n, need)); d.agreed == nil {
			t.Fatalf("no agreement among %d owners that can all be reached", n)
		}
	})
}

// TestVotesAgreeWhileOwnersChange: the owners change from one set to another in the
// middle. An attempt begins anew then, and asks both; what was voted for stays. Whoever
// finds an agreement, before or after, finds the same one.
func TestVotesAgreeWhileOwnersChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "owners")
		draw := func(name string) uint16 {
			return uint16(rapid.IntRange(1, 1<<n-1).Draw(t, name))
		}
		old, next := draw("old"), draw("next")
		before := quorum.Goal{First: quorum.Of(quorum.Quorum, old)}
		both := quorum.Goal{First: quorum.Of(quorum.Quorum, old), Second: quorum.Of(quorum.Quorum, next)}
		owners := make([]*causal.Record, n)
		attempts := rapid.IntRange(1, 4).Draw(t, "attempts")
		seen := make([][]*causal.Record, attempts)
		goals := make([]quorum.Goal, attempts)
		for a := range seen {
			seen[a], goals[a] = make([]*causal.Record, n), before
		}
		var agreed *causal.Record
		note := func(r *causal.Record) {
			if agreed != nil && agreed.Dot != r.Dot {
				t.Fatalf("agreed on %v and on %v", agreed.Dot, r.Dot)
			}
			agreed = r
		}
		step := func(a, i int) {
			if (goals[a].First.Members|goals[a].Second.Members)>>i&1 == 0 {
				return
			}
			d := decide(seen[a], goals[a])
			if d.agreed != nil {
				note(d.agreed)
				return
			}
			r := vote(uint64(attempts-a), d.round)
			if d.candidate != nil {
				copied := *d.candidate
				copied.Round = d.round
				r = &copied
			}
			if owners[i] == nil || owners[i].GivesWay(r) {
				owners[i] = r
			}
			seen[a][i] = owners[i]
		}
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			a, i := rapid.IntRange(0, attempts-1).Draw(t, "attempt"), rapid.IntRange(0, n-1).Draw(t, "owner")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				if goals[a] == before {
					seen[a], goals[a] = make([]*causal.Record, n), both
				}
			case 1, 2:
				if (goals[a].First.Members|goals[a].Second.Members)>>i&1 == 1 {
					seen[a][i] = owners[i]
				}
			default:
				step(a, i)
			}
		}
		goals[0] = both
		for range 3 {
			for i := range n {
				if (old|next)>>i&1 == 1 {
					seen[0][i] = owners[i]
				} else {
					seen[0][i] = nil
				}
			}
			for i := range n {
				step(0, i)
			}
		}
		if d := decide(seen[0], both); d.agreed == nil {
			t.Fatalf("no agreement among %b and %b, who can all be reached", old, next)
		}
	})
}

func TestForeign(t *testing.T) {
	a, b := vote(1, 0), vote(2, 0)
	b.Payload[3] = 1
	if foreign([]*causal.Record{nil, a}, a.Payload) || !foreign([]*causal.Record{a, nil, b}, a.Payload) {
		t.Error("payloads")
	}
}

func TestReservedClocks(t *testing.T) {
	var c clocks
	c.raise(5, 10)
	c.raise(5, 7)
	if c.highest(5) != 10 || c.highest(6) != 0 || c.highest(5+1024) != 10 {
		t.Errorf("%d %d %d", c.highest(5), c.highest(6), c.highest(5+1024))
	}
}

// TestKeepingSiblingsIsRefused: a reserved dot is covered by later mints, which
// a tenant that keeps siblings could not bear.
func TestKeepingSiblingsIsRefused(t *testing.T) {
	var got *Error
	j := &job{request: request{kind: KindPut, idempotencyKey: []byte("id")}, answer: func(_ result, e *Error) { got = e }}
	startOnce(j, &unit{tenant: &schema.Tenant{Policy: schema.PolicySiblings}, owners: make([]ring.NodeID, 3)})
	if got == nil || got.Code != errcode.InvalidArgument || got.Outcome != errcode.NotApplied {
		t.Errorf("%+v", got)
	}
}

// stopped is a clock that stands still.
type stopped struct{ Clock }

func (stopped) Now() time.Time { return time.UnixMilli(1000) }

// TestReservedWriteIsAboveAllItCovers: with a token too, a dot makes the context
// cover what its node minted before.
func TestReservedWriteIsAboveAllItCovers(t *testing.T) {
	high, higher := causal.HLCAt(time.UnixMilli(5000)), causal.HLCAt(time.UnixMilli(9000))
	mine, theirs := causal.Dot{Actor: 1, Counter: 4}, causal.Dot{Actor: 2, Counter: 7}
	held := causal.Object{Context: causal.NewContext(mine, theirs), Siblings: []causal.Sibling{{Dot: mine, HLC: high}, {Dot: theirs, HLC: higher}}}
	seen := causal.NewContext(causal.Dot{Actor: 3, Counter: 1})
	next := causal.Dot{Actor: 1, Counter: 5}
	for name, c := range map[string]struct {
		token []byte
		above uint64
		want  causal.Context
	}{
		"blind": {nil, higher, causal.NewContext(next, theirs, seen[0])},
		"token": {[]byte("t"), high, causal.NewContext(next, seen[0])},
	} {
		o := &once{job: &job{request: request{token: c.token}, c: &Coordinator{opts: Options{Clock: stopped{}}}}}
		r := o.record(&unit{}, &held, seen, 0, next)
		if r.Dot != next || r.HLC != c.above+1 || !r.Context.Equal(c.want) || r.Live(time.UnixMilli(1000).Add(RecordLife)) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if len(seen) != 1 || held.Context.Counter(1) != 4 {
		t.Error("a context of another was changed")
	}
}

func claims() []*causal.Record {
	final := vote(9, 3)
	final.Applied, final.Flags, final.Expires = true, causal.FlagTombstone, time.Now().UnixMilli()
	return []*causal.Record{vote(1, 0), vote(2, 7), final}
}

func TestClaimsAndLookupsRoundTrip(t *testing.T) {
	for _, r := range claims() {
		b := appendClaim(nil, []byte("id"), r)
		if len(b) > claimLen([]byte("id"), r) {
			t.Errorf("%d bytes, bound %d", len(b), claimLen([]byte("id"), r))
		}
		key, got, rest, err := decodeClaim(append(slices.Clone(b), "object"...))
		if err != nil || string(key) != "id" || !reflect.DeepEqual(got, *r) || string(rest) != "object" {
			t.Errorf("%q %+v %q, %v", key, got, rest, err)
		}
		for cut := range b {
			if _, _, _, err := decodeClaim(b[:cut]); err == nil {
				t.Errorf("the first %d of %d bytes decode", cut, len(b))
			}
		}
	}
	if _, _, _, err := decodeClaim(appendClaim(nil, nil, vote(1, 0))); err == nil {
		t.Error("a claim without a key decodes")
	}
	for _, h := range []Held{{}, {Context: causal.Context{{Actor: 1, Counter: 2}}, HLC: 7}, {Record: claims()[2]}} {
		b := encodeHeld(&h)
		got, err := decodeHeld(b)
		if err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%+v came back as %+v, %v", h, got, err)
		}
		for cut := range b {
			if _, err := decodeHeld(b[:cut]); err == nil {
				t.Errorf("the first %d of %d bytes decode", cut, len(b))
			}
		}
	}
}

func FuzzClaims(f *testing.F) {
	for _, r := range claims() {
		f.Add(appendClaim(nil, []byte("id"), r))
		f.Add(encodeHeld(&Held{Context: r.Context, HLC: 3, Record: r}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, r, rest, err := decodeClaim(b); err == nil {
			key2, r2, rest2, err := decodeClaim(append(appendClaim(nil, key, &r), rest...))
			if err != nil || !bytes.Equal(key, key2) || !reflect.DeepEqual(r, r2) || !bytes.Equal(rest, rest2) {
				t.Fatalf("claim %+v, again %+v, %v", r, r2, err)
			}
		}
		if h, err := decodeHeld(b); err == nil {
			if again, err := decodeHeld(encodeHeld(&h)); err != nil || !reflect.DeepEqual(again, h) {
				t.Fatalf("%+v, again %+v, %v", h, again, err)
			}
		}
	})
}
