package replica

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
)

var noon = time.UnixMilli(1_700_000_000_000)

// vote is a record that votes for a write of another node.
func vote(actor uint64, round uint32) *causal.Record {
	d := causal.Dot{Actor: actor, Counter: 1}
	return &causal.Record{
		Dot: d, HLC: 5, Context: causal.NewContext(d), Round: round,
		Payload: causal.PayloadHash(0, causal.Expiry{}, []byte("v")), Expires: noon.Add(24 * time.Hour).UnixMilli(),
	}
}

// claimed is what Claim or Lookup called back.
type claimed struct {
	calls  int
	record causal.Record
	held   coord.Held
	err    error
}

func (b *bench) claim(key, id string, r *causal.Record, now time.Time) *claimed {
	c := &claimed{}
	b.Claim(at(key), []byte(id), r, now, func(held causal.Record, err error) {
		c.calls++
		c.record, c.err = held, err
	})
	return c
}

func (b *bench) lookup(key, id string, now time.Time) *claimed {
	c := &claimed{}
	b.Lookup(at(key), []byte(id), now, func(h coord.Held, err error) {
		c.calls++
		c.held, c.err = h, err
	})
	return c
}

// applied is the item that brings the write of r with its record.
func applied(key, id string, r *causal.Record) coord.MergeItem {
	final := *r
	final.Applied = true
	it := item(key, r.Object([]byte("v")))
	it.IdempotencyKey, it.Record = []byte(id), &final
	return it
}

func TestRecordKeyIsPermanent(t *testing.T) {
	a := at("key")
	want := "0003" + "01" + "00000007" + "0102030405060708" + "a4bdf4e564564cf8bbea0d63a05165e3" + "6964"
	got := hex.EncodeToString(appendRecordKey(nil, &a, []byte("id")))
	if got != want {
		t.Error(got)
	}
	if _, ok := ParseKey(appendRecordKey(nil, &a, []byte("id"))); ok {
		t.Error("the storage key of a record is taken for that of an object")
	}
}

// The first vote of a round stays; nothing is said before it is on disk.
func TestClaims(t *testing.T) {
	b := newBench(t)
	first := b.claim("k", "id", vote(9, 0), noon)
	second := b.claim("k", "id", vote(8, 0), noon)
	look := b.lookup("k", "id", noon)
	if first.calls+second.calls+look.calls != 0 {
		t.Fatal("answered before the sync")
	}
	if b.db.applies != 1 {
		t.Errorf("%d batches", b.db.applies)
	}
	b.jobs.run()
	for name, c := range map[string]*claimed{"first": first, "second": second} {
		if c.calls != 1 || c.err != nil || !reflect.DeepEqual(c.record, *vote(9, 0)) {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if look.calls != 1 || look.held.Record == nil || look.held.Record.Dot.Actor != 9 {
		t.Errorf("lookup: %+v", look)
	}

	later := b.claim("k", "id", vote(8, 2), noon)
	earlier := b.claim("k", "id", vote(7, 1), noon)
	// Other keys, and other idempotency keys, are others.
	other, key := b.claim("k", "id2", vote(6, 0), noon), b.claim("k2", "id", vote(5, 0), noon)
	b.jobs.run()
	for i, c := range []*claimed{later, earlier, other, key} {
		if want := []uint64{8, 8, 6, 5}[i]; c.record.Dot.Actor != want {
			t.Errorf("claim %d: %+v", i, c)
		}
	}
	if c := b.lookup("k3", "id", noon); c.calls != 1 || c.held.Record != nil || c.err != nil {
		t.Errorf("nothing: %+v", c)
	}
}

func TestExpiredRecordsAreAbsent(t *testing.T) {
	b := newBench(t)
	b.merge(t, applied("k", "id", vote(9, 4)))
	b.jobs.run()
	end := noon.Add(24 * time.Hour)
	if c := b.lookup("k", "id", end.Add(-time.Millisecond)); c.held.Record == nil || !c.held.Record.Applied {
		t.Errorf("before: %+v", c)
	}
	if c := b.lookup("k", "id", end); c.held.Record != nil || c.held.HLC != 5 || !c.held.Context.Covers(causal.Dot{Actor: 9, Counter: 1}) {
		t.Errorf("after: %+v", c)
	}
	if c := b.claim("k", "id", vote(8, 0), end.Add(-time.Millisecond)); c.record.Dot.Actor != 9 {
		t.Errorf("claimed before: %+v", c)
	}
	fresh := vote(8, 0)
	fresh.Expires++
	c := b.claim("k", "id", fresh, end)
	b.jobs.run()
	if c.record.Dot.Actor != 8 {
		t.Errorf("claimed after: %+v", c)
	}
	wantCode(t, b.claim("k", "id2", vote(8, 0), end).err, errcode.Unavailable, errcode.NotApplied)
}

// A write and its record are one batch; it replaces whatever vote there was, and
// does nothing the second time.
func TestMergeWithRecord(t *testing.T) {
	b := newBench(t)
	b.claim("k", "id", vote(8, 7), noon)
	b.put(t, "k", "before")
	b.jobs.run()
	applies := b.db.applies
	got := b.merge(t, applied("k", "id", vote(9, 0)), item("other", foreign(9, 2, 1, "v")))
	if got[0].calls != 0 {
		t.Fatal("acknowledged before the sync")
	}
	b.jobs.run()
	if b.db.applies != applies+1 || got[0].calls != 1 || got[0].err != nil || len(got[0].uncovered.Siblings) != 1 {
		t.Fatalf("%d batches, %+v", b.db.applies-applies, got[0])
	}
	c := b.lookup("k", "id", noon)
	if r := c.held.Record; r == nil || !r.Applied || r.Dot.Actor != 9 || c.held.HLC != 5 || len(c.held.Context) != 2 {
		t.Fatalf("%+v", c.held)
	}
	again := b.merge(t, applied("k", "id", vote(9, 0)))
	if b.db.applies != applies+1 || again[0].calls != 1 || again[0].err != nil {
		t.Errorf("%d batches, %+v", b.db.applies-applies, again[0])
	}
	// The object is newer, the record missing: only that is written.
	newer := foreign(3, 1, 9, "newer")
	r := vote(2, 0)
	over := causal.Mint(&newer, causal.JoinContext(newer.Context, r.Context), causal.Sibling{Dot: causal.Dot{Actor: 3, Counter: 2}, HLC: 10, Value: []byte("over")})
	b.merge(t, item("late", over))
	b.merge(t, applied("late", "id", r))
	b.jobs.run()
	b.Read(at("late"), func(body []byte, _ error) {
		if o := decode(t, body); len(o.Siblings) != 1 || string(o.Siblings[0].Value) != "over" {
			t.Errorf("a retry harmed what came after it: %+v", o)
		}
	})
	if c := b.lookup("late", "id", noon); c.held.Record == nil || !c.held.Record.Applied {
		t.Errorf("%+v", c.held)
	}
}

func TestRecordsThatDoNotFit(t *testing.T) {
	b := newBench(t)
	wrong := applied("k", "id", vote(9, 0))
	another := foreign(1, 1, 1, "v")
	wrong.Object = another.Append(nil)
	open := applied("k", "id", vote(9, 0))
	open.Record = vote(9, 0)
	for i, m := range b.merge(t, wrong, open) {
		wantCode(t, m.err, errcode.InvalidArgument, errcode.NotApplied)
		if m.calls != 1 {
			t.Errorf("item %d: %d answers", i, m.calls)
		}
	}
	// Damage is not overwritten.
	a := at("k")
	batch := engine.NewBatch()
	batch.Set(appendRecordKey(nil, &a, []byte("id")), []byte("nonsense"))
	if _, err := b.db.Apply(batch, engine.WriteOptions{Sync: true}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, b.lookup("k", "id", noon).err, errcode.CorruptedData, errcode.NotApplied)
	wantCode(t, b.claim("k", "id", vote(1, 0), noon).err, errcode.CorruptedData, errcode.NotApplied)
	good := b.merge(t, applied("k", "id", vote(9, 0)), applied("k", "id2", vote(9, 0)), applied("k3", "id", vote(9, 0)))
	b.jobs.run()
	wantCode(t, good[0].err, errcode.CorruptedData, errcode.NotApplied)
	if good[2].err != nil || good[2].calls != 1 {
		t.Errorf("the neighbour of a damaged record: %+v", good[2])
	}
}

func TestFailedSyncHasNoVotes(t *testing.T) {
	b := newBench(t)
	b.jobs.run()
	b.fail = true
	c, l := b.claim("k", "id", vote(9, 0), noon), b.lookup("k", "id", noon)
	b.jobs.run()
	wantCode(t, c.err, errcode.CommitLogFailed, errcode.Indeterminate)
	wantCode(t, l.err, errcode.CommitLogFailed, errcode.Indeterminate)
	if c.record.Dot.Actor != 0 || l.held.Record != nil {
		t.Errorf("%+v %+v", c, l)
	}
	wantCode(t, b.claim("k", "id2", vote(9, 0), noon).err, errcode.CommitLogFailed, errcode.NotApplied)
	b.db.getErr = errors.New("odd")
	wantCode(t, b.lookup("k", "id", noon).err, errcode.Internal, errcode.NotApplied)
}

// Compactions drop records that are over, and nothing else.
func TestExpiredRecordsAreDropped(t *testing.T) {
	later := func() time.Time { return noon.Add(24*time.Hour + time.Minute) }
	space := NewRecordSpace(1<<20, later)
	db, err := engine.Open("data", engine.Options{FS: vfs.NewMem(), CompactionFilter: space.Drop})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := New(Options{Engine: db, Actor: actor, Scheduler: &goroutines{}, Records: space, Sums: newSums()})
	if err != nil {
		t.Fatal(err)
	}
	merge := func(items ...coord.MergeItem) {
		t.Helper()
		var wg sync.WaitGroup
		wg.Add(len(items))
		s.Merge(items, func(_ int, _ []byte, err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		})
		wg.Wait()
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	var items []coord.MergeItem
	for i := range 10 {
		r := vote(uint64(i+1), 0)
		if i%2 == 1 {
			r.Expires += time.Hour.Milliseconds()
		}
		items = append(items, applied(fmt.Sprint("k", i), "id", r))
	}
	merge(items...)
	// Another table, so that there is something to merge.
	merge(applied("k0", "another", vote(99, 0)), applied("k9", "another", vote(99, 0)))
	count := func() (objects, records int) {
		for i := range 10 {
			a := at(fmt.Sprint("k", i))
			if _, _, err := db.GetSeq(nil, appendKey(nil, &a)); err == nil {
				objects++
			}
			if _, _, err := db.GetSeq(nil, appendRecordKey(nil, &a, []byte("id"))); err == nil {
				records++
			}
		}
		return objects, records
	}
	if err := db.Compact(nil, nil); err != nil {
		t.Fatal(err)
	}
	if objects, records := count(); objects != 10 || records != 5 {
		t.Errorf("%d objects and %d records, want 10 and 5", objects, records)
	}
}
