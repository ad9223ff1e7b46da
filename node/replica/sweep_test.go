package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip/ring"
)

// theSpan is that of the keys that spanned addresses.
var theSpan = repair.Span{Partition: 3, Class: 3}

func spanned(key string) coord.Address {
	a := at(key)
	a.Class, a.LWW = theSpan.Class, true
	a.Token = ring.Token(theSpan.Partition)<<54 | a.Token>>10 // one of that partition, of 1024
	return a
}

func lwwTenants(ring.TenantNumber) (Tenant, bool) {
	return Tenant{Class: theSpan.Class, LWW: true}, true
}

func newSweepBench(t *testing.T) *bench {
	b := newBench(t)
	b.opts.Tenant = lwwTenants
	return b
}

// write is a blind write of a sibling, on disk when it returns.
func (b *bench) write(t *testing.T, key string, s causal.Sibling) causal.Dot {
	t.Helper()
	_, err := b.Update(spanned(key), func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
		s.Dot = mint()
		s.HLC = max(s.HLC, held.Floor+1)
		return causal.Mint(held, held.Context, s), nil
	}, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.jobs.run()
	return s.Dot
}

// stored is what the engine holds at a key, nil for nothing.
func (b *bench) stored(t *testing.T, key []byte) []byte {
	t.Helper()
	v, _, err := b.db.DB.GetSeq(nil, key)
	if err != nil && !errors.Is(err, base.ErrNotFound) {
		t.Fatal(err)
	}
	return v
}

func (b *bench) shown(t *testing.T, key string) (o causal.Object) {
	t.Helper()
	b.Read(spanned(key), func(object []byte, err error) {
		if err == nil {
			o, err = causal.Decode(object)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	b.jobs.run()
	return o
}

func (b *bench) mergeAt(t *testing.T, a coord.Address, o causal.Object) (uncovered []byte, err error) {
	t.Helper()
	b.Merge([]coord.MergeItem{{Address: a, Object: o.Append(nil), LastWriteWins: a.LWW}}, func(_ int, u []byte, e error) { uncovered, err = u, e })
	b.jobs.run()
	return uncovered, err
}

func (b *bench) all(t *testing.T, seen ...causal.Dot) *causal.Confirmed {
	t.Helper()
	return &causal.Confirmed{Seen: causal.NewContext(seen...), Expired: noon.UnixMilli()}
}

func (b *bench) adopt(t *testing.T, c *causal.Confirmed) {
	t.Helper()
	if err := b.Adopt(theSpan, c); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) releaseAll(t *testing.T, c *causal.Confirmed) {
	t.Helper()
	if err := b.Release(theSpan, c); err != nil {
		t.Fatal(err)
	}
	b.jobs.run()
}

func entryOf(a coord.Address) []byte { return indexKey(nil, appendKey(nil, &a)) }

// TestCollect: a delete is hidden once it is adopted, there until it is released, and
// then gone with its entry in the index; a value that expires goes in the same way, one
// that does not stays.
func TestCollect(t *testing.T) {
	b := newSweepBench(t)
	b.write(t, "dead", causal.Sibling{HLC: 1, Value: []byte("v")})
	b.write(t, "dead", causal.Sibling{HLC: 2, Flags: causal.FlagTombstone})
	b.write(t, "old", causal.Sibling{HLC: 3, Flags: causal.FlagExpiry, ExpiresAt: noon.UnixMilli(), Value: []byte("v")})
	b.write(t, "later", causal.Sibling{HLC: 4, Flags: causal.FlagExpiry, ExpiresAt: noon.UnixMilli() + 1, Value: []byte("v")})
	last := b.write(t, "live", causal.Sibling{HLC: 5, Value: []byte("v")})
	for key, indexed := range map[string]bool{"dead": true, "old": true, "later": true, "live": false} {
		if got := b.stored(t, entryOf(spanned(key))) != nil; got != indexed {
			t.Errorf("%s is in the index: %v", key, got)
		}
	}
	c := b.all(t, last)
	b.adopt(t, c)
	for key, there := range map[string]bool{"dead": false, "old": false, "later": true, "live": true} {
		o := b.shown(t, key)
		if !o.IsZero() != there {
			t.Errorf("once it is adopted, %s is shown as %v", key, o)
		}
		a := spanned(key)
		if b.stored(t, appendKey(nil, &a)) == nil {
			t.Errorf("once it is adopted, %s is gone", key)
		}
	}
	b.releaseAll(t, c)
	for key, there := range map[string]bool{"dead": false, "old": false, "later": true, "live": true} {
		a := spanned(key)
		if got := b.stored(t, appendKey(nil, &a)) != nil; got != there {
			t.Errorf("once it is released, %s is stored: %v", key, got)
		}
		if got := b.stored(t, entryOf(a)) != nil; got != (key == "later") {
			t.Errorf("once it is released, %s is in the index: %v", key, got)
		}
	}
	if got, want := b.Collected(), (Collected{Tombstones: 1, Expired: 1, Sweeps: 1}); got != want {
		t.Errorf("collected %+v, not %+v", got, want)
	}
	if st, err := b.State(theSpan); err != nil || st.Sweeping || !st.Released.Equal(c) || !st.Confirmed.Equal(c) || st.Drawn != 5 {
		t.Errorf("the state is %+v: %v", st, err)
	}
}

// TestUncollected: a span counts from when something is adopted until that is collected,
// also while it is being changed.
func TestUncollected(t *testing.T) {
	b := newSweepBench(t)
	want := func(what string, n int) {
		t.Helper()
		if got := b.Uncollected(); got != n {
			t.Errorf("%s: %d spans are not collected, want %d", what, got, n)
		}
	}
	last := b.write(t, "dead", causal.Sibling{HLC: 1, Flags: causal.FlagTombstone})
	want("nothing is confirmed", 0)
	c := b.all(t, last)
	b.adopt(t, c)
	want("it is adopted", 1)
	if err := b.Release(theSpan, c); err != nil {
		t.Fatal(err)
	}
	want("it is released, and its sweep is due", 1)
	b.jobs.run()
	want("it is collected", 0)
	sp := b.partition(theSpan.Partition).span(theSpan.Class)
	sp.mu.Lock()
	want("it is being changed", 1)
	sp.mu.Unlock()
	want("that is over", 0)
}

// TestStripped: what came late is left out of what is written and is no
// acknowledgement; a write that an idempotency key stands for is done by then.
func TestStripped(t *testing.T) {
	for _, collected := range []bool{false, true} {
		b := newSweepBench(t)
		first := b.write(t, "k", causal.Sibling{HLC: 1, Value: []byte("v")})
		dead := b.write(t, "k", causal.Sibling{HLC: 2, Flags: causal.FlagTombstone})
		c := b.all(t, dead)
		b.adopt(t, c)
		if collected {
			b.releaseAll(t, c)
		}
		old := causal.Object{Context: causal.NewContext(first), Siblings: []causal.Sibling{{Dot: first, HLC: 1, Value: []byte("v")}}}
		_, err := b.mergeAt(t, spanned("k"), old)
		if collected != coord.IsStripped(err) || err != nil && !collected {
			t.Errorf("collected %v: the old value is answered with %v", collected, err)
		}
		if o := b.shown(t, "k"); !o.IsZero() {
			t.Errorf("collected %v: after the old value came, %v is shown", collected, o)
		}
		// The rest of what brings something old counts.
		fresh := causal.Dot{Actor: 9, Counter: 1}
		mixed := causal.Object{
			Context:  causal.NewContext(first, fresh),
			Siblings: []causal.Sibling{{Dot: fresh, HLC: 3, Value: []byte("new")}, {Dot: first, HLC: 1, Flags: causal.FlagStripped}},
		}
		_, err = b.mergeAt(t, spanned("k"), mixed)
		if collected != coord.IsStripped(err) || err != nil && !collected {
			t.Errorf("collected %v: a mixed object is answered with %v", collected, err)
		}
		if o := b.shown(t, "k"); len(o.Siblings) != 1 || string(o.Siblings[0].Value) != "new" {
			t.Errorf("collected %v: of a mixed object, %v is shown", collected, o)
		}
	}
}

// TestFound: what a read found and is about to return is refused by an owner that has had
// and does not hold it, whether what superseded it is shown, hidden or collected; what
// only holds less or the same is not.
func TestFound(t *testing.T) {
	const shown, hidden, collected = 0, 1, 2
	for stage := shown; stage <= collected; stage++ {
		b := newSweepBench(t)
		first := b.write(t, "k", causal.Sibling{HLC: 1, Value: []byte("v")})
		live := b.shown(t, "k")
		dead := b.write(t, "k", causal.Sibling{HLC: 2, Flags: causal.FlagTombstone})
		kept := b.write(t, "kept", causal.Sibling{HLC: 1, Value: []byte("v")})
		if stage >= hidden {
			b.adopt(t, b.all(t, dead, kept))
		}
		if stage == collected {
			b.releaseAll(t, b.all(t, dead, kept))
		}
		fresh := causal.Dot{Actor: 9, Counter: 1}
		beside := causal.Object{
			Context:  causal.NewContext(first, fresh),
			Siblings: []causal.Sibling{{Dot: fresh, HLC: 3, Value: []byte("new")}, {Dot: first, HLC: 1, Flags: causal.FlagStripped}},
		}
		for _, c := range []struct {
			what    string
			key     string
			object  causal.Object
			found   bool
			refused bool
		}{
			{"the value, by no read", "k", live, false, stage == collected},
			{"the value", "k", live, true, true},
			{"it and a new one", "k", beside, true, true},
			{"a value that is held", "kept", b.shown(t, "kept"), true, false},
			{"a new value", "other", causal.Object{Context: causal.NewContext(fresh), Siblings: beside.Siblings[:1]}, true, false},
			{"no value", "k", causal.Object{Context: causal.NewContext(first)}, true, false},
		} {
			var err error
			b.Merge([]coord.MergeItem{{Address: spanned(c.key), Object: c.object.Append(nil), LastWriteWins: true, Found: c.found}},
				func(_ int, _ []byte, e error) { err = e })
			b.jobs.run()
			if c.refused != coord.IsStripped(err) || err != nil && !c.refused {
				t.Errorf("stage %d: %s is answered with %v", stage, c.what, err)
			}
		}
		if o := b.shown(t, "k"); o.Winner() == nil || o.Winner().Dot != fresh || o.Has(first) {
			t.Errorf("stage %d: %v is shown", stage, o)
		}
	}
}

// TestStrippedRecord: the apply of a write that was made, deleted and collected is
// acknowledged and changes nothing but the record.
func TestStrippedRecord(t *testing.T) {
	b := newSweepBench(t)
	dot := causal.Dot{Actor: 9, Counter: 4}
	b.adopt(t, b.all(t, dot))
	r := causal.Record{Dot: dot, HLC: 1, Context: causal.NewContext(dot), Expires: noon.Add(time.Hour).UnixMilli(), Applied: true}
	o := r.Object([]byte("v"))
	var err error
	b.Merge([]coord.MergeItem{{
		Address: spanned("k"), Object: o.Append(nil), LastWriteWins: true, IdempotencyKey: []byte("id"), Record: &r,
	}}, func(_ int, _ []byte, e error) { err = e })
	b.jobs.run()
	if err != nil {
		t.Errorf("the apply is answered with %v", err)
	}
	if o := b.shown(t, "k"); !o.IsZero() {
		t.Errorf("the write came back as %v", o)
	}
	a := spanned("k")
	if b.stored(t, appendRecordKey(nil, &a, []byte("id"))) == nil {
		t.Error("the record was not kept")
	}
	// A vote that begins only now would be for a write that is never made.
	late := causal.Record{Dot: dot, HLC: 1, Context: causal.NewContext(dot), Expires: noon.Add(time.Hour).UnixMilli()}
	b.Claim(spanned("k"), []byte("other"), &late, noon, func(_ causal.Record, e error) { err = e })
	b.jobs.run()
	if err == nil {
		t.Error("a vote was taken for a write that all owners are said to have had")
	}
}

// TestForgottenClock: a write to a key of which nothing is left has a clock above that
// of the delete that was collected, also after a restart, and beats it where it is
// still held, value and all.
func TestForgottenClock(t *testing.T) {
	a, slow := newSweepBench(t), newSweepBench(t)
	dead := a.write(t, "k", causal.Sibling{HLC: 1000, Flags: causal.FlagTombstone})
	tomb := a.shown(t, "k")
	if _, err := slow.mergeAt(t, spanned("k"), tomb); err != nil {
		t.Fatal(err)
	}
	c := a.all(t, dead)
	a.adopt(t, c)
	slow.adopt(t, c)
	a.releaseAll(t, c)
	a.write(t, "other", causal.Sibling{HLC: 1, Value: []byte("v")})
	if o := a.shown(t, "other"); o.Siblings[0].HLC <= 1000 {
		t.Errorf("a write after the delete was collected has the clock %d", o.Siblings[0].HLC)
	}
	opts := a.opts
	opts.Actor++ // dots are never used again
	again, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	a.Store = again
	a.write(t, "k", causal.Sibling{HLC: 1, Value: []byte("new")})
	o := a.shown(t, "k")
	if o.Siblings[0].HLC <= 1000 {
		t.Errorf("the new write has the clock %d", o.Siblings[0].HLC)
	}
	if uncovered, err := slow.mergeAt(t, spanned("k"), o); err != nil || len(uncovered) > 0 {
		t.Errorf("the new write is answered with %x, %v", uncovered, err)
	}
	if o := slow.shown(t, "k"); len(o.Siblings) != 1 || string(o.Siblings[0].Value) != "new" {
		t.Errorf("beside the delete, %v is shown", o)
	}
}

// TestAdoptIsDurable: what is adopted is on disk when that is said, and whoever has read
// what was known before is done.
func TestAdoptIsDurable(t *testing.T) {
	b := newSweepBench(t)
	c := b.all(t, causal.Dot{Actor: 5, Counter: 5})
	sp := b.partition(theSpan.Partition).span(theSpan.Class)
	b.db.duringWait = func() {
		if sp.confirmed.Load() != nil {
			t.Error("what is not on disk was published")
		}
	}
	var returned atomic.Bool
	done := make(chan error, 1)
	_, err := b.Update(spanned("k"), func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
		go func() {
			err := b.Adopt(theSpan, c)
			returned.Store(true)
			done <- err
		}()
		for sp.confirmed.Load() == nil {
			runtime.Gosched()
		}
		for range 1000 {
			runtime.Gosched()
		}
		if returned.Load() {
			t.Error("it was adopted while a write that does not know it was under way")
		}
		return causal.Mint(held, held.Context, causal.Sibling{Dot: mint(), HLC: 1, Value: []byte("v")}), nil
	}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.db.duringWait = nil
	b.jobs.run()
}

// TestAdoptedAfterRestart: what is known of a span is on disk.
func TestAdoptedAfterRestart(t *testing.T) {
	b := newSweepBench(t)
	dead := b.write(t, "k", causal.Sibling{HLC: 1, Flags: causal.FlagTombstone})
	c := b.all(t, dead)
	b.adopt(t, c)
	if err := b.Release(theSpan, c); err != nil { // and nothing runs
		t.Fatal(err)
	}
	again, err := New(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.Store = again
	st, err := b.State(theSpan)
	if err != nil || !st.Confirmed.Equal(c) || !st.Released.Equal(c) || !st.Sweeping {
		t.Errorf("after a restart the state is %+v: %v", st, err)
	}
	b.jobs.run()
	a := spanned("k")
	if b.stored(t, appendKey(nil, &a)) != nil {
		t.Error("what was released before the restart was not collected after it")
	}
	b.db.applyErr = errors.New("no")
	if err := b.Adopt(theSpan, b.all(t, causal.Dot{Actor: 5, Counter: 5})); err == nil {
		t.Error("what could not be written was adopted")
	}
}

// TestRefetch: what another owner holds replaces what is older here, and nothing of it
// is left out because of what is adopted here.
func TestRefetch(t *testing.T) {
	b := newSweepBench(t)
	x, y := causal.Dot{Actor: 8, Counter: 1}, causal.Dot{Actor: 9, Counter: 1}
	c := b.all(t, x, y)
	if _, err := b.mergeAt(t, spanned("stale"), causal.Object{Context: causal.NewContext(x), Siblings: []causal.Sibling{{Dot: x, HLC: 1, Value: []byte("x")}}}); err != nil {
		t.Fatal(err)
	}
	b.adopt(t, c)
	theirs := causal.Object{Context: causal.NewContext(y), Siblings: []causal.Sibling{{Dot: y, HLC: 2, Value: []byte("y")}}}
	for _, key := range []string{"stale", "lost"} {
		var err error
		b.Merge([]coord.MergeItem{{Address: spanned(key), Object: theirs.Append(nil), LastWriteWins: true, Refetch: c}}, func(_ int, _ []byte, e error) { err = e })
		b.jobs.run()
		if o := b.shown(t, key); err != nil || len(o.Siblings) != 1 || string(o.Siblings[0].Value) != "y" {
			t.Errorf("%s is then %v: %v", key, o, err)
		}
	}
}

// TestOpenVotes: votes hold back what may be confirmed until their write is made,
// also those from before a restart; what they hold back is not adopted.
func TestOpenVotes(t *testing.T) {
	b := newSweepBench(t)
	dot := causal.Dot{Actor: 9, Counter: 4}
	vote := causal.Record{Dot: dot, HLC: 1, Context: causal.NewContext(dot), Expires: noon.Add(time.Hour).UnixMilli()}
	votes := func(what string, want causal.Context) {
		t.Helper()
		st, err := b.State(theSpan)
		if err != nil || st.VotesUnknown || !st.Votes.Equal(want) {
			t.Errorf("%s the votes are %v, unknown %v: %v", what, st.Votes, st.VotesUnknown, err)
		}
	}
	votes("at first", nil)
	b.Claim(spanned("k"), []byte("id"), &vote, noon, func(_ causal.Record, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	b.jobs.run()
	below := causal.Context{{Actor: 9, Counter: 3}}
	votes("with a vote", below)
	again, err := New(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.Store = again
	votes("after a restart", below)
	if err := b.Adopt(theSpan, b.all(t, dot)); err == nil {
		t.Error("what a vote holds back was adopted")
	}
	b.adopt(t, b.all(t, below...))
	// The object came in another way, without the record.
	o := vote.Object([]byte("v"))
	if _, err := b.mergeAt(t, spanned("k"), o); err != nil {
		t.Fatal(err)
	}
	votes("once the object covers it", nil)
	b.adopt(t, b.all(t, dot))
}

// TestVotesForWhatIsCovered: a later mint of the same actor covers a dot that was reserved
// and not written, so that the dot is confirmed beside its vote. Where the object covers
// it, votes for it are taken all the same, and the write, once agreed on, changes nothing;
// where it does not, the write could be neither shown nor superseded, and they are not.
func TestVotesForWhatIsCovered(t *testing.T) {
	b := newSweepBench(t)
	dot, later := causal.Dot{Actor: 9, Counter: 4}, causal.Dot{Actor: 9, Counter: 5}
	r := causal.Record{Dot: dot, HLC: 1, Context: causal.NewContext(dot), Expires: noon.Add(time.Hour).UnixMilli()}
	claim := func(key, id string) (held causal.Record, err error) {
		b.Claim(spanned(key), []byte(id), &r, noon, func(h causal.Record, e error) { held, err = h, e })
		b.jobs.run()
		return held, err
	}
	if _, err := claim("k", "before"); err != nil {
		t.Fatal(err)
	}
	over := causal.Object{Context: causal.NewContext(later), Siblings: []causal.Sibling{{Dot: later, HLC: 2, Value: []byte("over")}}}
	if _, err := b.mergeAt(t, spanned("k"), over); err != nil {
		t.Fatal(err)
	}
	b.adopt(t, b.all(t, later))
	if held, err := claim("k", "after"); err != nil || held.Dot != dot {
		t.Errorf("a vote for what the object covers is answered with %+v: %v", held, err)
	}
	if _, err := claim("other", "after"); err == nil {
		t.Error("a vote was taken for a write that is nowhere and that nothing covers")
	}
	for _, id := range []string{"before", "after"} {
		final, o := r, r.Object([]byte("v"))
		final.Applied = true
		var err error
		b.Merge([]coord.MergeItem{{
			Address: spanned("k"), Object: o.Append(nil), LastWriteWins: true, IdempotencyKey: []byte(id), Record: &final,
		}}, func(_ int, _ []byte, e error) { err = e })
		b.jobs.run()
		if o := b.shown(t, "k"); err != nil || !o.Equal(&over) {
			t.Errorf("%s: the key has %v: %v", id, o, err)
		}
	}
}

// TestTooManyVotes: beyond the bound the votes are read again, so none is forgotten.
func TestTooManyVotes(t *testing.T) {
	b := newSweepBench(t)
	if _, err := b.State(theSpan); err != nil {
		t.Fatal(err)
	}
	v := &b.partition(theSpan.Partition).votes
	for i := range maxVotes + 1 {
		v.add(binary.BigEndian.AppendUint32(nil, uint32(i)), nil)
	}
	if open, known := v.list(); known || len(open) > maxVotes {
		t.Errorf("%d votes are remembered, all of them %v", len(open), known)
	}
	dot := causal.Dot{Actor: 9, Counter: 4}
	vote := causal.Record{Dot: dot, HLC: 1, Context: causal.NewContext(dot), Expires: noon.Add(time.Hour).UnixMilli()}
	b.Claim(spanned("k"), []byte("id"), &vote, noon, func(causal.Record, error) {})
	b.jobs.run()
	if st, err := b.State(theSpan); err != nil || st.VotesUnknown || len(st.Votes) != 1 {
		t.Errorf("the state is %+v: %v", st, err)
	}
}

// TestRows: rows come in order, in pieces, settled, without values, and on disk.
func TestRows(t *testing.T) {
	b := newSweepBench(t)
	b.write(t, "b", causal.Sibling{HLC: 1, Flags: causal.FlagTombstone})
	b.write(t, "a", causal.Sibling{HLC: 1, Value: []byte("value")})
	last := b.write(t, "c", causal.Sibling{HLC: 1, Value: []byte("value")})
	b.adopt(t, b.all(t, last))
	a := spanned("")
	r := repair.Range{Partition: a.Partition, Tenant: a.Tenant, First: a.Token, Last: a.Token}
	var after *repair.Row
	for _, want := range []string{"a", "c"} {
		rows, more, err := b.Rows(r, after, 1)
		if err != nil || len(rows) != 1 || string(rows[0].Key) != want || more != (want == "a") || rows[0].Token != a.Token {
			t.Fatalf("instead of %s came %v, more %v: %v", want, rows, more, err)
		}
		if s := rows[0].Object.Siblings; len(s) != 1 || s[0].Value != nil || rows[0].Size == 0 {
			t.Errorf("the row is %+v", rows[0])
		}
		after = &rows[0]
	}
	if rows, more, err := b.Rows(r, after, 1); len(rows) > 0 || more || err != nil {
		t.Errorf("behind the last row are %v, more %v: %v", rows, more, err)
	}
}

// TestSpanRecord: what is stored of a span decodes to itself, and other bytes do not.
func TestSpanRecord(t *testing.T) {
	c := &causal.Confirmed{Seen: causal.NewContext(causal.Dot{Actor: 1, Counter: 2}), Expired: 3}
	r := &causal.Confirmed{Expired: 2}
	b := appendSpan(nil, 7, c, r)
	floor, gotC, gotR, err := decodeSpan(b)
	if err != nil || floor != 7 || !gotC.Equal(c) || !gotR.Equal(r) {
		t.Errorf("decoded %d, %v, %v: %v", floor, gotC, gotR, err)
	}
	for n := range len(b) {
		if _, _, _, err := decodeSpan(b[:n]); err == nil {
			t.Errorf("%d of %d bytes decode", n, len(b))
		}
	}
	if _, _, _, err := decodeSpan(append(bytes.Clone(b), 0)); err == nil {
		t.Error("a byte too many decodes")
	}
}

// TestSweepOfLargeValues: what a sweep holds in memory and keeps writers from is
// bounded in bytes, however large the objects are that the index names.
func TestSweepOfLargeValues(t *testing.T) {
	b := newSweepBench(t)
	const keys = 3 * sweepBytes >> 20
	var last causal.Dot
	for i := range keys {
		last = b.write(t, string(rune('a'+i)), causal.Sibling{HLC: uint64(i + 1), Flags: causal.FlagExpiry, ExpiresAt: noon.UnixMilli(), Value: make([]byte, 1<<20)})
	}
	c := b.all(t, last)
	b.adopt(t, c)
	before := b.db.applies
	b.releaseAll(t, c)
	if n := b.db.applies - before - 1; n != 3 { // but for what is released
		t.Errorf("%d MiB were collected in %d batches, not in 3", keys, n)
	}
	if got := b.Collected().Expired; got != keys {
		t.Errorf("%d of %d values were collected", got, keys)
	}
}
