package replica

import (
	"testing"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
)

// claimOf is a vote for a write with an idempotency key of the key "k" of theSpan.
func (b *bench) claimOf(t *testing.T, id string, r *causal.Record) {
	t.Helper()
	b.Claim(spanned("k"), []byte(id), r, noon, func(_ causal.Record, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	b.jobs.run()
}

// has has the write of a record made here, with the record if it came with that.
func (b *bench) has(t *testing.T, id string, r *causal.Record, record bool) {
	t.Helper()
	it := applied("k", id, r)
	if it.Address = spanned("k"); !record {
		it.IdempotencyKey, it.Record = nil, nil
	}
	b.Merge([]coord.MergeItem{it}, func(_ int, _ []byte, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	b.jobs.run()
}

// remembers is the actor of what the record of an idempotency key is about, 0 for none,
// and whether it was made.
func (b *bench) remembers(t *testing.T, id string) (actor uint64, made bool) {
	t.Helper()
	b.Lookup(spanned("k"), []byte(id), noon, func(h coord.Held, err error) {
		if err != nil {
			t.Error(err)
		}
		if h.Record != nil {
			actor, made = h.Record.Dot.Actor, h.Record.Applied
		}
	})
	b.jobs.run()
	return actor, made
}

// outvoted gives a store a vote, and the write that was made instead without its record.
// It returns the record, as another owner has it.
func (b *bench) outvoted(t *testing.T) []repair.RecordRow {
	t.Helper()
	other := newSweepBench(t)
	other.has(t, "id", vote(9, 0), true)
	b.claimOf(t, "id", vote(5, 0))
	b.has(t, "id", vote(9, 0), false)
	rows, err := b.OpenVotes(theSpan)
	if err == nil {
		rows, err = other.Applied(theSpan, rows)
	}
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d records, %v", len(rows), err)
	}
	return rows
}

// TestOutvoted: a vote of another attempt than that which was made, at an owner that was
// brought the write with no word of idempotency keys, is open until it is told. Then what
// is above it can be adopted, and whoever asks is told which write it was, also after a
// restart.
func TestOutvoted(t *testing.T) {
	b := newSweepBench(t)
	rows := b.outvoted(t)
	c := b.all(t, vote(5, 0).Dot)
	if err := b.Adopt(theSpan, c); err == nil {
		t.Fatal("a round confirms what a vote is open for")
	}
	if err := b.Outvoted(theSpan, 0, rows); err != nil {
		t.Fatal(err)
	}
	if actor, made := b.remembers(t, "id"); actor != 9 || !made {
		t.Errorf("the record is of %d, made %v", actor, made)
	}
	again, err := New(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []*Store{b.Store, again} {
		if st, err := s.State(theSpan); err != nil || len(st.Votes) > 0 || st.VotesUnknown {
			t.Errorf("store %d has open votes: %+v, %v", i, st, err)
		}
		if rows, err := s.OpenVotes(theSpan); err != nil || len(rows) > 0 {
			t.Errorf("store %d has open votes: %v, %v", i, rows, err)
		}
		if err := s.Adopt(theSpan, c); err != nil {
			t.Errorf("store %d: %v", i, err)
		}
	}
}

// TestOutvotedByWhatIsNotHere: a record says that its write is here, so it does not come
// before that; it does if all owners have had it. Nothing but votes is replaced, and by
// nothing but writes that were made.
func TestOutvotedByWhatIsNotHere(t *testing.T) {
	other := newSweepBench(t)
	b := newSweepBench(t)
	for i, id := range []string{"missing", "confirmed", "open", "made"} {
		other.has(t, id, vote(uint64(20+i), 0), id != "open")
		if id == "open" {
			other.claimOf(t, id, vote(22, 0))
		}
		if id == "made" {
			b.has(t, id, vote(13, 0), true)
		} else {
			b.claimOf(t, id, vote(uint64(10+i), 0))
		}
	}
	other.has(t, "unheard", vote(30, 0), true)
	b.has(t, "unheard", vote(30, 0), false)
	if err := b.Adopt(theSpan, b.all(t, vote(21, 0).Dot)); err != nil {
		t.Fatal(err)
	}
	rows, _, err := other.Records(theSpan, nil, 100, true)
	if err != nil || len(rows) != 5 {
		t.Fatalf("%d records, %v", len(rows), err)
	}
	if err := b.Outvoted(theSpan, 0, rows); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]struct {
		actor uint64
		made  bool
	}{"missing": {10, false}, "confirmed": {21, true}, "open": {12, false}, "made": {13, true}, "unheard": {0, false}} {
		if actor, made := b.remembers(t, id); actor != want.actor || made != want.made {
			t.Errorf("%s is a record of %d, made %v", id, actor, made)
		}
	}
	votes, err := b.OpenVotes(theSpan)
	if err != nil || len(votes) != 2 {
		t.Errorf("open are %v, %v", votes, err)
	}
	if of, err := other.Applied(theSpan, votes); err != nil || len(of) != 1 || string(of[0].IdempotencyKey) != "missing" {
		t.Errorf("the other knows of %v, %v", of, err)
	}
	b.has(t, "missing", vote(20, 0), false)
	if err := b.Outvoted(theSpan, 0, rows); err != nil {
		t.Fatal(err)
	}
	if actor, made := b.remembers(t, "missing"); actor != 20 || !made {
		t.Errorf("what is here by now is a record of %d, made %v", actor, made)
	}
	span := theSpan
	span.Class++
	for what, list := range map[string]func() ([]repair.RecordRow, error){
		"votes":   func() ([]repair.RecordRow, error) { return b.OpenVotes(span) },
		"records": func() ([]repair.RecordRow, error) { return other.Applied(span, rows) },
	} {
		if rows, err := list(); err != nil || len(rows) > 0 {
			t.Errorf("another class has the %s %v, %v", what, rows, err)
		}
	}
}
