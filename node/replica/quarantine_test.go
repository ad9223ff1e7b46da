package replica

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestMarksSurvive: each call of Add and Remove is the last before a power cut, and
// the file then has the marks of before or of after, never others; what Add has
// returned for is in it.
func TestMarksSurvive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	mem := vfs.NewMem()
	before, after, failed := []ring.Partition(nil), []ring.Partition(nil), error(nil)
	disk := vfs.Inject(mem, func(o vfs.Op) error {
		if !o.Mutates() || failed != nil {
			return failed
		}
		for _, mode := range vfs.CrashModes() {
			m, err := OpenMarks(mem.Crash(mode, rng), "quarantine")
			if err == nil && !slices.Equal(m.List(), before) && !slices.Equal(m.List(), after) {
				err = fmt.Errorf("%v, want %v or %v", m.List(), before, after)
			}
			if err != nil {
				failed = fmt.Errorf("crash before %s, mode %s: %w", o, mode, err)
			}
		}
		return failed
	})
	m := NewMarks(disk, "quarantine")
	for i := range 40 {
		changed := m.Changed()
		var err error
		if before = m.List(); i%3 == 2 {
			p := before[rng.IntN(len(before))]
			after = slices.DeleteFunc(slices.Clone(before), func(q ring.Partition) bool { return p == q })
			m.Fetching(p)
			err = m.Remove([]ring.Partition{p})
		} else {
			list := []ring.Partition{ring.Partition(rng.IntN(ring.MaxPartitions)), ring.Partition(i)}
			after = slices.Clone(before)
			after = append(after, list...)
			slices.Sort(after)
			after = slices.Compact(after)
			_, err = m.Add(list)
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		if again, err := OpenMarks(mem.Crash(vfs.CrashDropUnsynced, rng), "quarantine"); err != nil || !slices.Equal(again.List(), after) || again.Len() != len(after) {
			t.Fatalf("after change %d: %v, want %v", i, err, after)
		}
		before = after
	}
}

// endQuarantine serves a partition again as if it had just been fetched.
func endQuarantine(s *bench, p ring.Partition) error {
	s.marks.Fetching(p)
	return s.EndQuarantine([]ring.Partition{p})
}

// TestMarksMetAgain: a mark of a partition that is being fetched stays if damage takes
// more of its data meanwhile, whenever that begins and ends.
func TestMarksMetAgain(t *testing.T) {
	m := NewMarks(vfs.NewMem(), "quarantine")
	list := []ring.Partition{3, 200}
	add := func() {
		if _, err := m.Add(list); err != nil {
			t.Fatal(err)
		}
	}
	remove := func() []ring.Partition {
		if err := m.Remove(list); err != nil {
			t.Fatal(err)
		}
		return m.List()
	}
	add()
	m.Fetching(3)
	if left := remove(); !slices.Equal(left, list[1:]) {
		t.Errorf("one of them fetched: %v are left", left)
	}
	m.Fetching(200)
	add() // more was met
	if left := remove(); !slices.Equal(left, list) {
		t.Errorf("more damage while it was fetched: %v are left", left)
	}
	release := m.Hold(list)
	m.Fetching(3)
	m.Fetching(200)
	if left := remove(); !slices.Equal(left, list) {
		t.Errorf("while data is taken out: %v are left", left)
	}
	release()
	if left := remove(); !slices.Equal(left, list) {
		t.Errorf("fetched while data was taken out: %v are left", left)
	}
	m.Fetching(3)
	m.Fetching(200)
	if left := remove(); len(left) != 0 {
		t.Errorf("fetched afterwards: %v are left", left)
	}
	again, err := OpenMarks(m.fs, "quarantine")
	if err != nil || again.Len() != 0 {
		t.Errorf("in the file: %v, %v", again.List(), err)
	}
}

// TestMarksRemovedTogether: however many partitions are served again, that is one write
// to the disk.
func TestMarksRemovedTogether(t *testing.T) {
	syncs := 0
	m := NewMarks(vfs.Inject(vfs.NewMem(), func(o vfs.Op) error {
		if o.Kind == vfs.OpSync {
			syncs++
		}
		return nil
	}), "quarantine")
	var all []ring.Partition
	for p := range ring.Partition(1024) {
		all = append(all, p)
	}
	if _, err := m.Add(all); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		m.Fetching(p)
	}
	syncs = 0
	if err := m.Remove(all); err != nil || m.Len() != 0 || syncs != 1 {
		t.Errorf("%v: %d marks are left, %d syncs", err, m.Len(), syncs)
	}
}

// TestMarksAreChecked: a mark that is not on disk holds all the same, one that
// cannot be taken away from the disk stays, and no damaged file passes for another.
func TestMarksAreChecked(t *testing.T) {
	mem := vfs.NewMem()
	var refuse error
	disk := vfs.Inject(mem, func(o vfs.Op) error {
		if o.Mutates() {
			return refuse
		}
		return nil
	})
	m := NewMarks(disk, "quarantine")
	refuse = errors.New("no")
	if fresh, err := m.Add([]ring.Partition{7}); !errors.Is(err, refuse) || fresh != 1 || !m.Has(7) {
		t.Errorf("add: %d, %v; marked: %t", fresh, err, m.Has(7))
	}
	refuse = nil
	if fresh, err := m.Add([]ring.Partition{7}); err != nil || fresh != 0 {
		t.Errorf("add again: %d, %v", fresh, err)
	}
	m.Fetching(7)
	refuse = errors.New("no")
	if err := m.Remove([]ring.Partition{7}); !errors.Is(err, refuse) || !m.Has(7) {
		t.Errorf("remove: %v; marked: %t", err, m.Has(7))
	}
	if _, err := m.Add([]ring.Partition{ring.MaxPartitions}); err == nil {
		t.Error("a partition that cannot be is marked")
	}
	refuse = nil
	f, err := mem.Open("quarantine")
	if err != nil {
		t.Fatal(err)
	}
	sound := make([]byte, marksSize)
	if _, err := f.ReadAt(sound, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < marksSize; i += 7 {
		b := bytes.Clone(sound)
		b[i] ^= 16
		if err := WriteFile(mem, "quarantine", b); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenMarks(mem, "quarantine"); !errors.Is(err, base.ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	if err := WriteFile(mem, "quarantine", sound[:9]); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMarks(mem, "quarantine"); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("cut: %v", err)
	}
}

// outcomes asks everything there is to ask about a key and returns the errors.
func (b *bench) outcomes(t *testing.T, key string) map[string]error {
	t.Helper()
	out := map[string]error{}
	a := at(key)
	b.Read(a, func(_ []byte, err error) { out["read"] = err })
	b.ReadDigest(a, func(_ [16]byte, err error) { out["digest"] = err })
	_, out["update"] = b.Update(a, blind("new"), func(error) {})
	b.Merge([]coord.MergeItem{item(key, foreign(0xb2, 1, 1, "theirs"))}, func(_ int, _ []byte, err error) { out["merge"] = err })
	r := everything(a.Partition, a.Tenant)
	b.Scan(&r, func(_ coord.ScanPiece, err error) { out["scan"] = err })
	now := time.UnixMilli(1_000)
	b.Lookup(a, []byte("id"), now, func(_ coord.Held, err error) { out["lookup"] = err })
	b.Claim(a, []byte("id"), vote(0xb2, 1), now, func(_ causal.Record, err error) { out["claim"] = err })
	b.jobs.run()
	if len(out) != 7 {
		t.Fatalf("answered were %v", out)
	}
	return out
}

// TestQuarantinedIsRefused: of a partition under quarantine nothing is read, minted,
// voted for or merged, others are served, and after the release all is as before.
func TestQuarantinedIsRefused(t *testing.T) {
	b := newBench(t)
	b.marks = NewMarks(vfs.NewMem(), "quarantine")
	b.put(t, "k", "v")
	b.jobs.run()
	applies := b.db.applies
	p := at("k").Partition
	if err := b.Quarantine([]ring.Partition{p}); err != nil {
		t.Fatal(err)
	}
	for what, err := range b.outcomes(t, "k") {
		var e *coord.Error
		if !errors.As(err, &e) || e.Code != errcode.Unavailable || e.Outcome != errcode.NotApplied || e.Message != quarantinedText {
			t.Errorf("%s: %v", what, err)
		}
	}
	if b.db.applies != applies {
		t.Error("something was written")
	}
	if got := b.Quarantined(); !slices.Equal(got, []ring.Partition{p}) {
		t.Errorf("under quarantine are %v", got)
	}
	if err := b.Quarantine([]ring.Partition{p + 1}); err != nil {
		t.Fatal(err)
	}
	if err := endQuarantine(b, p); err != nil {
		t.Fatal(err)
	}
	for what, err := range b.outcomes(t, "k") {
		if err != nil {
			t.Errorf("after the release: %s: %v", what, err)
		}
	}
}

// TestMarkedAfterTheCheck: what damage has taken out of the engine between the look
// at the marks and the read is not shown: the marks are looked at after the read.
func TestMarkedAfterTheCheck(t *testing.T) {
	b := newBench(t)
	b.marks = NewMarks(vfs.NewMem(), "quarantine")
	b.put(t, "k", "v")
	b.jobs.run()
	b.db.beforeGet = func() {
		// The damaged table is marked and gone just before the engine answers.
		if err := b.Quarantine([]ring.Partition{at("k").Partition}); err != nil {
			t.Error(err)
		}
		b.db.getErr = base.ErrNotFound
	}
	b.Read(at("k"), func(object []byte, err error) {
		wantCode(t, err, errcode.Unavailable, errcode.NotApplied)
	})
	if _, err := b.Update(at("k"), blind("new"), func(error) {}); err == nil {
		t.Error("a dot was minted over what is not there")
	}
	b.jobs.run()
}

// TestDamageIsTold: whoever meets damage gets an error, and the owner of the store
// is told of the partition; a value that does not decode can be removed.
func TestDamageIsTold(t *testing.T) {
	b := newBench(t)
	var met []Damage
	b.opts.Damaged = func(d Damage) { met = append(met, d) }
	a := at("k")
	key := appendKey(nil, &a)
	bad := new(engine.Batch)
	bad.Set(key, []byte("no object"))
	if _, err := b.db.Apply(bad, engine.WriteOptions{Sync: true}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Update(a, blind("new"), func(error) {})
	wantCode(t, err, errcode.CorruptedData, errcode.NotApplied)
	if len(met) != 1 || met[0].Partition != a.Partition || !bytes.Equal(met[0].Key, key) || met[0].Err == nil {
		t.Fatalf("told %+v", met)
	}
	if v, err := b.RemoveUndecodable(key); err != nil || string(v) != "no object" {
		t.Errorf("removed %q: %v", v, err)
	}
	b.put(t, "k", "v")
	b.jobs.run()
	if v, err := b.RemoveUndecodable(key); err != nil || v != nil {
		t.Errorf("removed what decodes, %q: %v", v, err)
	}
	met = nil
	b.db.getErr = base.Corruptf("db/000001.sst", 7, "checksum")
	b.Read(a, func(_ []byte, err error) { wantCode(t, err, errcode.ChecksumFailed, errcode.NotApplied) })
	if len(met) != 1 || met[0].Partition != a.Partition || met[0].Key != nil || !errors.Is(met[0].Err, base.ErrCorrupt) {
		t.Errorf("told %+v", met)
	}
}

// TestMarkedWithinAFrame: a partition is marked between two items of one key. The
// first was joined to what is sound and is acknowledged, so it has been written.
func TestMarkedWithinAFrame(t *testing.T) {
	b := newBench(t)
	b.marks = NewMarks(vfs.NewMem(), "quarantine")
	first := foreign(0xb1, 1, 1, "first")
	reads := 0
	b.db.beforeGet = func() {
		// The first item's object, then the second one's record.
		if reads++; reads == 2 {
			if err := b.Quarantine([]ring.Partition{at("k").Partition}); err != nil {
				t.Error(err)
			}
		}
	}
	r := vote(0xb2, 1)
	got := make([]error, 2)
	b.Merge([]coord.MergeItem{item("k", first), applied("k", "id", r)}, func(i int, _ []byte, err error) { got[i] = err })
	b.jobs.run()
	if got[0] != nil {
		t.Errorf("the first: %v", got[0])
	}
	wantCode(t, got[1], errcode.Unavailable, errcode.NotApplied)
	b.db.beforeGet = nil
	if err := endQuarantine(b, at("k").Partition); err != nil {
		t.Fatal(err)
	}
	b.Read(at("k"), func(object []byte, err error) {
		if o := decode(t, object); err != nil || len(o.Siblings) != 1 || string(o.Siblings[0].Value) != "first" {
			t.Errorf("held is %v: %v", o, err)
		}
	})
}

// TestEndOfQuarantineWritesWhatWasLost: entries of the index that damage took are there
// again, so that deletes are collected, and so is what is confirmed, for the next start.
func TestEndOfQuarantineWritesWhatWasLost(t *testing.T) {
	b := newSweepBench(t)
	b.marks = NewMarks(vfs.NewMem(), "quarantine")
	b.write(t, "gone", causal.Sibling{HLC: 100, Flags: causal.FlagTombstone})
	c := b.all(t, b.write(t, "live", causal.Sibling{HLC: 101, Value: []byte("v")}))
	b.adopt(t, c)
	if err := b.Quarantine([]ring.Partition{theSpan.Partition}); err != nil {
		t.Fatal(err)
	}
	entry, record := entryOf(spanned("gone")), spanKey(theSpan)
	lost := new(engine.Batch)
	lost.Delete(entry)
	lost.Delete(record)
	if _, err := b.db.Apply(lost, engine.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := endQuarantine(b, theSpan.Partition); err != nil {
		t.Fatal(err)
	}
	if b.stored(t, entry) == nil || b.stored(t, entryOf(spanned("live"))) != nil {
		t.Error("the index does not name what it has to")
	}
	floor, confirmed, _, err := decodeSpan(b.stored(t, record))
	if err != nil || !confirmed.Equal(c) || floor < causal.NextHLC(noon, 0) {
		t.Errorf("stored of the span are %x, %v: %v", floor, confirmed, err)
	}
	b.releaseAll(t, c)
	if got := b.Collected().Tombstones; got != 1 {
		t.Errorf("%d deletes were collected", got)
	}
}
