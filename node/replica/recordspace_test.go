package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// timed is a bench whose records have a space with a limit and a clock.
func timed(t *testing.T, limit int64) (b *bench, now *time.Time) {
	t.Helper()
	now = new(time.Time)
	*now = noon
	b = newBench(t)
	b.Store.opts.Records = NewRecordSpace(limit, func() time.Time { return *now })
	return b, now
}

// begun is a vote that was reserved at an instant.
func begun(actor uint64, at time.Time) *causal.Record {
	r := vote(actor, 0)
	r.Expires = at.Add(coord.RecordLife).UnixMilli()
	return r
}

// sizeOf is what the record of a key takes.
func (b *bench) sizeOf(key, id string) int64 {
	a := at(key)
	k := appendRecordKey(nil, &a, []byte(id))
	v, _, err := b.db.GetSeq(nil, k)
	if err != nil {
		panic(err)
	}
	return int64(len(k) + len(v))
}

// A tenant over its limit loses its oldest records, and no other tenant does.
func TestOldestRecordsGiveWay(t *testing.T) {
	b, now := timed(t, 1<<20)
	b.claim("k", "size", begun(1, *now), *now)
	b.jobs.run()
	b.opts.Records.limit = 10 * b.sizeOf("k", "size") // room for ten
	other := at("theirs")
	other.Tenant++
	b.Claim(other, []byte("size"), begun(1, *now), *now, func(causal.Record, error) {})
	for i := range 30 {
		*now = now.Add(5 * time.Minute)
		c := b.claim("k", fmt.Sprintf("id%02d", i), begun(2, *now), *now)
		b.jobs.run()
		if c.err != nil || c.calls != 1 {
			t.Fatalf("claim %d: %d answers, %v", i, c.calls, c.err)
		}
	}
	for i := range 30 {
		c := b.lookup("k", fmt.Sprintf("id%02d", i), *now)
		b.jobs.run()
		if held := c.held.Record != nil; held != (i >= 20) {
			t.Errorf("record %d is held: %v", i, held)
		}
	}
	b.Lookup(other, []byte("size"), *now, func(h coord.Held, err error) {
		if err != nil || h.Record == nil {
			t.Errorf("another tenant's record: %v, %v", h.Record, err)
		}
	})
	held, dropped := b.opts.Records.Bytes()
	size := b.sizeOf("k", "size")
	if held < 10*size || held > 12*size || dropped < 19*size {
		t.Errorf("%d bytes held and %d dropped, with records of %d", held, dropped, size)
	}
	// What was dropped may stand for a new write.
	again := begun(7, *now)
	c := b.claim("k", "id00", again, *now)
	b.jobs.run()
	if c.err != nil || c.record.Dot != again.Dot {
		t.Errorf("the vote is %v, %v", c.record.Dot, c.err)
	}
	a := at("k")
	key := appendRecordKey(nil, &a, []byte("id01"))
	if value, _, err := b.db.GetSeq(nil, key); err != nil || !b.opts.Records.Drop(key, value) {
		t.Errorf("what was dropped stays on disk: %v", err)
	}
	// All of it has expired some day.
	*now = now.Add(25 * time.Hour)
	if held, _ := b.opts.Records.Bytes(); held != 0 {
		t.Errorf("%d bytes are held by what has expired", held)
	}
}

// Owners may be voting about young records: none is dropped, so more are refused.
func TestYoungRecordsAreRefused(t *testing.T) {
	b, now := timed(t, 1000)
	refused := 0
	for i := range 20 {
		c := b.claim("k", fmt.Sprint("id", i), begun(1, *now), *now)
		b.jobs.run()
		if e, ok := c.err.(*coord.Error); ok {
			if refused++; e.Code != errcode.ResourceExhausted || e.Outcome != errcode.NotApplied {
				t.Error(e)
			}
			continue
		}
		if refused > 0 {
			t.Errorf("record %d was taken after one was refused", i)
		}
	}
	held, dropped := b.opts.Records.Bytes()
	if refused == 0 || refused > 15 || dropped != 0 || held > 1000 {
		t.Errorf("%d refused, %d bytes held, %d dropped", refused, held, dropped)
	}
	// A vote that was kept is answered, and may become a write.
	c := b.claim("k", "id0", begun(9, *now), *now)
	b.jobs.run()
	if c.err != nil || c.record.Dot.Actor != 1 {
		t.Errorf("the vote is %v, %v", c.record.Dot, c.err)
	}
	if err := b.mergeOne(t, applied("k", "id0", &c.record)); err != nil {
		t.Error(err)
	}
	// Writes that others have agreed on are taken, and displace no vote.
	for i := range 5 {
		if err := b.mergeOne(t, applied("k", fmt.Sprint("agreed", i), begun(uint64(i+20), *now))); err != nil {
			t.Error(err)
		}
	}
	if held, dropped := b.opts.Records.Bytes(); held <= 1000 || dropped != 0 {
		t.Errorf("%d bytes held, %d dropped", held, dropped)
	}
	*now = now.Add(2 * time.Minute)
	c = b.claim("k", "late", begun(1, *now), *now)
	b.jobs.run()
	if c.err != nil {
		t.Errorf("two minutes later: %v", c.err)
	}
}

// mergeOne merges one item and waits until it is on disk.
func (b *bench) mergeOne(t *testing.T, item coord.MergeItem) error {
	t.Helper()
	got := b.merge(t, item)
	b.jobs.run()
	return got[0].err
}

// What is counted at a start is what was counted before, whether a record was
// replaced meanwhile or not.
func TestRecordsAreCountedAtTheStart(t *testing.T) {
	b, now := timed(t, 1<<30)
	for i := range 50 {
		*now = now.Add(time.Minute)
		r := begun(uint64(i+1), *now)
		key := fmt.Sprint("k", i)
		if c := b.claim(key, "id", r, *now); c.err != nil {
			t.Fatal(c.err)
		}
		if i%2 == 0 {
			if err := b.mergeOne(t, applied(key, "id", r)); err != nil {
				t.Fatal(err)
			}
		}
	}
	want, _ := b.opts.Records.Bytes()
	var sum int64
	for i := range 50 {
		sum += b.sizeOf(fmt.Sprint("k", i), "id")
	}
	if want != sum {
		t.Errorf("%d bytes were counted of %d", want, sum)
	}

	before := b.opts.Records
	b.opts.Records = NewRecordSpace(1<<30, before.now)
	count, err := b.opts.Records.Count(b.db.DB, 16)
	if err != nil {
		t.Fatal(err)
	}
	// Written before they are counted: not twice, not never.
	for i := range 10 {
		r := begun(uint64(i+2), noon.Add(time.Duration(i+2)*time.Minute))
		if err := b.mergeOne(t, applied(fmt.Sprint("k", i+1), "id", r)); err != nil {
			t.Fatal(err)
		}
		b.claim(fmt.Sprint("new", i), "id", begun(1, *now), *now)
	}
	if err := count(func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	sum = 0
	for i := range 50 {
		sum += b.sizeOf(fmt.Sprint("k", i), "id")
	}
	for i := range 10 {
		sum += b.sizeOf(fmt.Sprint("new", i), "id")
	}
	if got, _ := b.opts.Records.Bytes(); got != sum {
		t.Errorf("%d bytes were counted of %d", got, sum)
	}
}
