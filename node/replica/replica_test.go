package replica

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica/sums"
)

const actor = 0xa1

// queue is a scheduler whose jobs run when the test says so.
type queue struct{ jobs []func() }

func (q *queue) Go(_ string, f func()) { q.jobs = append(q.jobs, f) }

// run runs all jobs, those that they start included.
func (q *queue) run() {
	for len(q.jobs) > 0 {
		f := q.jobs[0]
		q.jobs = q.jobs[1:]
		f()
	}
}

// watched is an engine that counts and can be told to fail.
type watched struct {
	*engine.DB
	applies  int
	applyErr error
	getErr   error
	// beforeGet, if set, is called by reads before all else.
	beforeGet func()
	// hangs and reads are what Hangs says.
	hangs, reads bool
	// duringWait, if set, is called when somebody waits for a sync.
	duringWait func()
}

func (w *watched) WaitDurable(seq base.SeqNum) error {
	if f := w.duringWait; f != nil {
		f()
	}
	return w.DB.WaitDurable(seq)
}

func (w *watched) Hangs() (writes, reads bool) { return w.hangs, w.reads }

func (w *watched) Apply(b *engine.Batch, o engine.WriteOptions) (engine.Commit, error) {
	if w.applyErr != nil {
		return engine.Commit{}, w.applyErr
	}
	w.applies++
	return w.DB.Apply(b, o)
}

func (w *watched) GetSeq(dst, key []byte) ([]byte, base.SeqNum, error) {
	if w.beforeGet != nil {
		w.beforeGet()
	}
	if w.getErr != nil {
		return dst, 0, w.getErr
	}
	return w.DB.GetSeq(dst, key)
}

// bench is a store over a real engine on a memory file system.
type bench struct {
	*Store
	db    *watched
	jobs  *queue
	syncs int
	fail  bool
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{jobs: &queue{}}
	fsys := vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			b.syncs++
			if b.fail {
				return errors.New("broken disk")
			}
		}
		return nil
	})
	db, err := engine.Open("data", engine.Options{FS: fsys, Scheduler: b.jobs, CacheSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil && !b.fail {
			t.Error(err)
		}
	})
	b.db = &watched{DB: db}
	b.Store, err = New(Options{Engine: b.db, Actor: actor, Scheduler: b.jobs, Records: NewRecordSpace(1<<30, func() time.Time { return noon }), Sums: newSums()})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newSums returns sums of 1024 partitions.
func newSums() *sums.Sums { return sums.New(func() int { return 1024 }) }

func at(key string) coord.Address {
	return coord.Address{Partition: 3, Tenant: 7, Token: 0x0102030405060708, Key: []byte(key)}
}

// put is a blind write; it returns what was called back, in order.
func (b *bench) put(t *testing.T, key, value string) (object []byte, synced *[]error) {
	t.Helper()
	synced = new([]error)
	object, err := b.Update(at(key), blind(value), func(err error) { *synced = append(*synced, err) })
	if err != nil {
		t.Fatal(err)
	}
	return object, synced
}

func blind(value string) func(*causal.Object, func() causal.Dot) (causal.Object, error) {
	return func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
		return causal.Mint(held, held.Context, causal.Sibling{Dot: mint(), HLC: 1, Value: []byte(value)}), nil
	}
}

func decode(t *testing.T, b []byte) causal.Object {
	t.Helper()
	o, err := causal.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantCode(t *testing.T, err error, code errcode.Code, o errcode.Outcome) {
	t.Helper()
	var e *coord.Error
	if !errors.As(err, &e) || e.Code != code || e.Outcome != o {
		t.Errorf("got %v, want %s %s", err, code, o)
	}
}

// foreign is an object another node minted.
func foreign(actor, counter, hlc uint64, value string) causal.Object {
	return causal.Mint(&causal.Object{}, nil, causal.Sibling{Dot: causal.Dot{Actor: actor, Counter: counter}, HLC: hlc, Value: []byte(value)})
}

func item(key string, o causal.Object) coord.MergeItem {
	return coord.MergeItem{Address: at(key), Object: o.Append(nil), LastWriteWins: true}
}

// merged is what Merge called back for one item.
type merged struct {
	calls     int
	uncovered causal.Object
	err       error
}

func (b *bench) merge(t *testing.T, items ...coord.MergeItem) []merged {
	got := make([]merged, len(items))
	b.Merge(items, func(i int, uncovered []byte, err error) {
		got[i] = merged{got[i].calls + 1, decode(t, uncovered), err}
	})
	return got
}

func TestStorageKeyIsPermanent(t *testing.T) {
	a := at("key")
	if got := hex.EncodeToString(appendKey(nil, &a)); got != "0003"+"00"+"00000007"+"0102030405060708"+"6b6579" {
		t.Error(got)
	}
}

// What is stored can be taken apart again; whatever else there is cannot.
func TestParseKey(t *testing.T) {
	a := at("key")
	a.Token = ring.KeyToken(a.Tenant, a.Key)
	key := appendKey(nil, &a)
	got, ok := ParseKey(key)
	if !ok || got.Partition != a.Partition || got.Tenant != a.Tenant || got.Token != a.Token || string(got.Key) != "key" {
		t.Errorf("%+v, %t", got, ok)
	}
	start, end := PartitionRange(a.Partition, a.Partition)
	if bytes.Compare(start, key) > 0 || bytes.Compare(key, end) >= 0 || len(end) != 2 {
		t.Errorf("%x is not from %x to %x", key, start, end)
	}
	for i := range key {
		bad := bytes.Clone(key)
		bad[i] ^= 1
		if _, ok := ParseKey(bad); ok && i >= 2 { // the partition stands by itself
			t.Errorf("accepted with byte %d changed", i)
		}
		if _, ok := ParseKey(key[:i]); ok {
			t.Errorf("accepted cut to %d", i)
		}
	}
}

func TestCountersStartAtOnePerPartition(t *testing.T) {
	b := newBench(t)
	var dots []causal.Dot
	for _, p := range []ring.Partition{1, 1, 2, 1} {
		a := at("k")
		a.Partition = p
		_, err := b.Update(a, func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
			d := mint()
			dots = append(dots, d)
			return causal.Mint(held, held.Context, causal.Sibling{Dot: d}), nil
		}, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(dots); got != fmt.Sprint([]causal.Dot{{Actor: actor, Counter: 1}, {Actor: actor, Counter: 2}, {Actor: actor, Counter: 1}, {Actor: actor, Counter: 3}}) {
		t.Error(got)
	}
	b.jobs.run()
}

func TestNothingIsShownBeforeItIsOnDisk(t *testing.T) {
	b := newBench(t)
	object, synced := b.put(t, "k", "v1")
	var reads []string
	read := func() {
		b.Read(at("k"), func(o []byte, err error) { reads = append(reads, fmt.Sprintf("%x %v", o, err)) })
		b.ReadDigest(at("k"), func(d [16]byte, err error) { reads = append(reads, fmt.Sprintf("%x %v", d, err)) })
	}
	read()
	again := b.merge(t, item("k", decode(t, object)))
	if len(*synced) != 0 || len(reads) != 0 || again[0].calls != 0 {
		t.Fatalf("before the sync: acked %v, read %v, merged %+v", *synced, reads, again)
	}
	if b.db.applies != 1 {
		t.Errorf("%d engine batches; merging what is held writes nothing", b.db.applies)
	}
	b.jobs.run()
	o := decode(t, object)
	want := []string{fmt.Sprintf("%x <nil>", object), fmt.Sprintf("%x <nil>", o.Digest())}
	if len(*synced) != 1 || (*synced)[0] != nil || fmt.Sprint(reads) != fmt.Sprint(want) || again[0].calls != 1 || again[0].err != nil {
		t.Fatalf("after the sync: acked %v, read %v, merged %+v", *synced, reads, again)
	}
	// On disk, a read answers at once; an absent key does so always.
	read()
	b.Read(at("absent"), func(o []byte, err error) { reads = append(reads, fmt.Sprintf("%x %v", o, err)) })
	if len(reads) != 5 || reads[4] != " <nil>" {
		t.Fatalf("%v", reads)
	}
}

func TestWritesOfAllSourcesShareOneSync(t *testing.T) {
	b := newBench(t)
	b.jobs.run()
	before := b.syncs
	var all []*[]error
	for i := range 50 {
		_, synced := b.put(t, fmt.Sprint("own", i), "v")
		all = append(all, synced)
	}
	var items []coord.MergeItem
	for i := range 50 {
		items = append(items, item(fmt.Sprint("sent", i), foreign(9, uint64(i+1), 1, "v")))
	}
	applies := b.db.applies
	got := b.merge(t, items...)
	if n := b.db.applies - applies; n != 1 {
		t.Errorf("a frame took %d engine batches", n)
	}
	if len(b.jobs.jobs) != 1 {
		t.Errorf("%d jobs wait for the disk", len(b.jobs.jobs))
	}
	b.jobs.run()
	if n := b.syncs - before; n != 1 {
		t.Errorf("100 writes took %d syncs", n)
	}
	for i := range 50 {
		if len(*all[i]) != 1 || got[i].calls != 1 || got[i].err != nil {
			t.Fatalf("write %d: %v, merge %+v", i, *all[i], got[i])
		}
	}
}

func TestFailedSyncAcknowledgesNothing(t *testing.T) {
	b := newBench(t)
	_, first := b.put(t, "old", "v")
	b.jobs.run()
	_, synced := b.put(t, "k", "v")
	got := b.merge(t, item("m", foreign(9, 1, 1, "v")))
	var read error
	b.Read(at("k"), func(o []byte, err error) {
		if o != nil {
			t.Error("a read got what is not on disk")
		}
		read = err
	})
	b.fail = true
	b.jobs.run()
	if len(*first) != 1 || (*first)[0] != nil {
		t.Errorf("before the failure: %v", *first)
	}
	if len(*synced) != 1 {
		t.Fatalf("%d answers", len(*synced))
	}
	wantCode(t, (*synced)[0], errcode.CommitLogFailed, errcode.Indeterminate)
	wantCode(t, got[0].err, errcode.CommitLogFailed, errcode.Indeterminate)
	wantCode(t, read, errcode.CommitLogFailed, errcode.Indeterminate)

	// Nothing is taken from now on; what is on disk can be read.
	_, err := b.Update(at("k2"), blind("v"), func(error) { t.Error("called back") })
	wantCode(t, err, errcode.CommitLogFailed, errcode.NotApplied)
	wantCode(t, b.merge(t, item("m2", foreign(9, 2, 1, "v")))[0].err, errcode.CommitLogFailed, errcode.NotApplied)
	b.Read(at("old"), func(o []byte, err error) {
		if err != nil || len(o) == 0 {
			t.Errorf("old data: %v", err)
		}
	})
}

func TestMergeReportsWhatIsNotCovered(t *testing.T) {
	b := newBench(t)
	b.put(t, "k", "mine")
	got := b.merge(t, item("k", foreign(9, 1, 5, "theirs")))
	b.jobs.run()
	u := got[0].uncovered
	if len(u.Siblings) != 1 || u.Siblings[0].Dot != (causal.Dot{Actor: actor, Counter: 1}) || u.Siblings[0].HLC != 1 || len(u.Siblings[0].Value) != 0 {
		t.Fatalf("%+v", u)
	}
	b.Read(at("k"), func(body []byte, err error) {
		o := decode(t, body)
		if err != nil || len(o.Siblings) != 2 || string(o.Winner().Value) != "theirs" || o.Siblings[1].Flags&causal.FlagStripped == 0 {
			t.Errorf("%+v, %v", o, err)
		}
	})
	// With the policy siblings nothing is dropped.
	b.put(t, "s", "mine")
	keep := item("s", foreign(9, 2, 5, "theirs"))
	keep.LastWriteWins = false
	b.merge(t, keep)
	b.jobs.run()
	b.Read(at("s"), func(body []byte, _ error) {
		if o := decode(t, body); len(o.Siblings) != 2 || string(o.Siblings[1].Value) != "mine" {
			t.Errorf("%+v", o)
		}
	})
}

func TestItemsOfOneKeyInOneFrame(t *testing.T) {
	b := newBench(t)
	o1 := foreign(9, 1, 1, "one")
	o2 := causal.Mint(&o1, o1.Context, causal.Sibling{Dot: causal.Dot{Actor: 9, Counter: 2}, HLC: 2, Value: []byte("two")})
	bad := item("k", o1)
	bad.Object = []byte{77}
	got := b.merge(t, item("k", o1), bad, item("k", o2), item("other", o1), item("k", o1), item("k", foreign(8, 1, 9, "aside")))
	b.jobs.run()
	if b.db.applies != 1 {
		t.Errorf("%d engine batches", b.db.applies)
	}
	for i, m := range got {
		if m.calls != 1 {
			t.Fatalf("item %d was answered %d times", i, m.calls)
		}
		if i == 1 {
			wantCode(t, m.err, errcode.InvalidArgument, errcode.NotApplied)
		} else if m.err != nil {
			t.Errorf("item %d: %v", i, m.err)
		}
	}
	if len(got[4].uncovered.Siblings) != 1 || len(got[5].uncovered.Siblings) != 1 || len(got[2].uncovered.Siblings) != 0 {
		t.Errorf("%+v", got)
	}
	b.Read(at("k"), func(body []byte, _ error) {
		o := decode(t, body)
		if len(o.Siblings) != 2 || string(o.Winner().Value) != "aside" || o.Context.Counter(9) != 2 {
			t.Errorf("%+v", o)
		}
	})
}

func TestErrorsHaveCodes(t *testing.T) {
	b := newBench(t)
	for err, want := range map[error]errcode.Code{
		base.ErrDiskFull:                       errcode.DiskFull,
		base.ErrDiskThrottled:                  errcode.DiskThrottled,
		base.ErrNoSpace:                        errcode.InsufficientSpace,
		base.ErrReadOnly:                       errcode.CommitLogFailed,
		base.ErrClosed:                         errcode.Unavailable,
		base.Corruptf("f", 1, "bits"):          errcode.ChecksumFailed,
		errors.New("something nobody expects"): errcode.Internal,
	} {
		b.db.applyErr = fmt.Errorf("apply: %w", err)
		_, got := b.Update(at("k"), blind("v"), func(error) { t.Error("called back") })
		wantCode(t, got, want, errcode.NotApplied)
		wantCode(t, b.merge(t, item("k", foreign(9, 1, 1, "v")))[0].err, want, errcode.NotApplied)
	}
	b.db.applyErr = nil
	for err, want := range map[error]errcode.Code{
		base.ErrClosed:                errcode.Unavailable,
		base.Corruptf("f", 1, "bits"): errcode.ChecksumFailed,
		errors.New("odd"):             errcode.Internal,
	} {
		b.db.getErr = err
		_, got := b.Update(at("k"), blind("v"), func(error) {})
		wantCode(t, got, want, errcode.NotApplied)
		wantCode(t, b.merge(t, item("k", foreign(9, 1, 1, "v")))[0].err, want, errcode.NotApplied)
		b.Read(at("k"), func(_ []byte, err error) { wantCode(t, err, want, errcode.NotApplied) })
		b.ReadDigest(at("k"), func(_ [16]byte, err error) { wantCode(t, err, want, errcode.NotApplied) })
	}
	b.db.getErr = nil

	// An object that does not decode is damage, and is not overwritten.
	a := at("damaged")
	batch := engine.NewBatch()
	batch.Set(appendKey(nil, &a), []byte("nonsense"))
	if _, err := b.db.Apply(batch, engine.WriteOptions{Sync: true}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Update(a, blind("v"), func(error) {})
	wantCode(t, err, errcode.CorruptedData, errcode.NotApplied)
	good := b.merge(t, item("damaged", foreign(9, 1, 1, "v")), item("sound", foreign(9, 2, 1, "v")), item("damaged", foreign(9, 3, 1, "v")))
	b.jobs.run()
	wantCode(t, good[0].err, errcode.CorruptedData, errcode.NotApplied)
	wantCode(t, good[2].err, errcode.CorruptedData, errcode.NotApplied)
	if good[1].err != nil || good[1].calls != 1 {
		t.Errorf("the neighbour of a damaged key: %+v", good[1])
	}

	a.Partition = 1 << 15
	if _, err := b.Update(a, blind("v"), func(error) {}); err == nil {
		t.Error("a partition out of range was taken")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no option is required")
	}
	refused := errors.New("no")
	if _, err := b.Update(at("k"), func(*causal.Object, func() causal.Dot) (causal.Object, error) {
		return causal.Object{}, refused
	}, func(error) { t.Error("called back") }); !errors.Is(err, refused) {
		t.Errorf("edit's error came back as %v", err)
	}
}

func TestLargestValue(t *testing.T) {
	b := newBench(t)
	v := string(bytes.Repeat([]byte("x"), coord.MaxValueSize))
	object, _ := b.put(t, "k", v)
	b.jobs.run()
	b.Read(at("k"), func(got []byte, err error) {
		if err != nil || !bytes.Equal(got, object) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// goroutines is the scheduler of a process.
type goroutines struct{ wg sync.WaitGroup }

func (g *goroutines) Go(_ string, f func()) { g.wg.Go(f) }

// TestHotKeysUnderConcurrency lets writers and frames of peers meet on few
// keys. Every acknowledged write is covered in the end, and no dot was given
// twice.
func TestHotKeysUnderConcurrency(t *testing.T) {
	db, err := engine.Open("data", engine.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	jobs := &goroutines{}
	s, err := New(Options{Engine: db, Actor: actor, Scheduler: jobs, Records: NewRecordSpace(1<<30, func() time.Time { return noon }), Sums: newSums()})
	if err != nil {
		t.Fatal(err)
	}
	const writers, writes, hot = 8, 100, 5
	var mu sync.Mutex
	acked := map[string]causal.Context{}
	dots := map[causal.Dot]bool{}
	var wg, answers sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range writes {
				answers.Add(1)
				key := fmt.Sprint("k", (w+i)%hot)
				var d causal.Dot
				_, err := s.Update(at(key), func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
					d = mint()
					return causal.Mint(held, held.Context, causal.Sibling{Dot: d}), nil
				}, func(err error) {
					defer answers.Done()
					mu.Lock()
					defer mu.Unlock()
					if err != nil || dots[d] {
						t.Errorf("%v: twice %v, %v", d, dots[d], err)
					}
					dots[d] = true
					acked[key] = acked[key].With(d)
				})
				if err != nil {
					t.Error(err)
				}
				var frame []coord.MergeItem
				for k := range hot {
					frame = append(frame, item(fmt.Sprint("k", (k*3+w)%hot), foreign(uint64(w+1), uint64(i+1), 1, "v")))
				}
				answers.Add(len(frame))
				s.Merge(frame, func(k int, _ []byte, err error) {
					defer answers.Done()
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					key := string(frame[k].Key)
					acked[key] = acked[key].With(causal.Dot{Actor: uint64(w + 1), Counter: uint64(i + 1)})
				})
			}
		})
	}
	wg.Wait()
	answers.Wait()
	jobs.wg.Wait()
	for key, seen := range acked {
		s.Read(at(key), func(b []byte, err error) {
			if o := decode(t, b); err != nil || !o.Context.CoversAll(seen) {
				t.Errorf("%s has %v, acknowledged were %v, %v", key, o.Context, seen, err)
			}
		})
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
