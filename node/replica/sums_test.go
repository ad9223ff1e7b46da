package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica/sums"
)

const sumParts = 4

// sumBench is a store whose engine may crash and start again.
type sumBench struct {
	*Store
	fs    *vfs.MemFS
	db    *engine.DB
	jobs  *queue
	life  uint64
	calls int
	// size is that of memtables and log segments, in bytes.
	size int64
	// breaks is the number of the call from which on the disk does not work, 0: it
	// always does.
	breaks int
}

var errDisk = errors.New("broken disk")

func newSumBench(t require) *sumBench {
	return newSizedBench(t, 64<<10)
}

func newSizedBench(t require, size int64) *sumBench {
	b := &sumBench{fs: vfs.NewMem(), size: size}
	b.open(t)
	return b
}

// require is what tests of both kinds have.
type require interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func (b *sumBench) disk() vfs.FS {
	return vfs.Inject(b.fs, func(op vfs.Op) error {
		if !op.Mutates() {
			return nil
		}
		if b.calls++; b.breaks > 0 && b.calls >= b.breaks {
			return errDisk
		}
		return nil
	})
}

func (b *sumBench) open(t require) {
	t.Helper()
	b.calls, b.breaks = 0, 0
	b.life++
	of := sums.New(func() int { return sumParts })
	fsys := b.disk()
	since, err := of.Load(fsys, "data/sums")
	if err != nil {
		t.Fatal(err)
	}
	b.jobs = &queue{}
	b.db, err = engine.Open("data", engine.Options{
		FS: fsys, Scheduler: b.jobs, CacheSize: 1 << 20, MemTableSize: b.size, WALSegmentSize: b.size,
		TargetFileSize: 8 << 10, LBaseBytes: 16 << 10, L0CompactionTrigger: 2,
		OnRecovered: func(key []byte, seq base.SeqNum) { Recovered(of, key, seq) }, KeepDeletesAfter: since,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Store, err = New(Options{
		Engine: b.db, Actor: b.life, Scheduler: b.jobs, Sums: of,
		Records: NewRecordSpace(1<<30, func() time.Time { return noon }),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// crash starts again with what a power cut leaves.
func (b *sumBench) crash(t require, mode vfs.CrashMode, rng *rand.Rand) {
	t.Helper()
	b.fs = b.fs.Crash(mode, rng)
	_ = b.db.Close() // of a disk that nobody sees again
	b.open(t)
}

// settle does all that there is to do in the background.
func (b *sumBench) settle(t require) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = b.StepSums(); err != nil {
			t.Fatal(err)
		}
	}
}

func sumAddress(i int) coord.Address {
	a := coord.Address{Tenant: ring.TenantNumber(1 + i%2), Key: fmt.Append(nil, "key", i)}
	a.Token = ring.KeyToken(a.Tenant, a.Key)
	a.Partition = ring.Partition(a.Token >> 62)
	return a
}

// act does something to some of the keys 0 to keys-1.
func (b *sumBench) act(t require, rng *rand.Rand, keys int) {
	t.Helper()
	address := sumAddress(rng.IntN(keys))
	switch n := rng.IntN(20); {
	case n < 8:
		_, err := b.Update(address, func(held *causal.Object, dot func() causal.Dot) (causal.Object, error) {
			s := causal.Sibling{Dot: dot(), Value: make([]byte, rng.IntN(200))}
			if rng.IntN(3) == 0 {
				s.Flags, s.Value = causal.FlagTombstone, nil
			}
			seen := held.Context
			if rng.IntN(3) == 0 {
				seen = nil
			}
			return causal.Mint(held, seen, s), nil
		}, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
	case n < 15:
		var items []coord.MergeItem
		for range 1 + rng.IntN(5) {
			address := sumAddress(rng.IntN(keys))
			if rng.IntN(3) == 0 && len(items) > 0 {
				address = items[0].Address
			}
			var o causal.Object
			for range 1 + rng.IntN(2) {
				s := causal.Sibling{Dot: causal.Dot{Actor: 1<<40 + uint64(rng.IntN(3)), Counter: 1 + uint64(rng.IntN(1000))}, Value: []byte("merged")}
				if rng.IntN(2) == 0 {
					o = causal.Mint(&o, o.Context, s)
				} else {
					o = causal.Mint(&o, nil, s)
				}
			}
			items = append(items, coord.MergeItem{Address: address, Object: o.Append(nil), LastWriteWins: rng.IntN(2) == 0})
		}
		b.Merge(items, func(_ int, _ []byte, err error) {})
	case n < 17:
		b.collect(t, address)
	case n < 18:
		if err := b.db.Flush(); err != nil {
			t.Fatal(err)
		}
	default:
		b.jobs.run()
	}
}

// collect takes a key away, as a sweep does.
func (b *sumBench) collect(t require, at coord.Address) {
	t.Helper()
	w := b.scratch()
	defer b.putBack(w)
	w.key = appendKey(w.key, &at)
	h, err := b.Store.load(w)
	if err != nil {
		t.Fatal(err)
	}
	batch := engine.NewBatch()
	batch.Delete(w.key)
	pass := b.opts.Sums.Enter(0)
	defer pass.Leave()
	seq, err := b.apply(batch, true)
	b.count(w.key, &h.object, &causal.Object{}, seq, err)
	if err != nil {
		t.Fatal(err)
	}
}

// stored returns what is stored, leaf by leaf at a depth.
func (b *sumBench) stored(t require, bits int) map[repair.Range]repair.Sum {
	t.Helper()
	it, err := b.db.NewIter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[repair.Range]repair.Sum{}
	for ok := it.First(); ok; ok = it.Next() {
		k, ok := ParseKey(it.Key())
		if !ok {
			continue
		}
		o, err := causal.Decode(it.Value())
		if err != nil {
			t.Fatal(err)
		}
		size := uint64(1) << (62 - bits)
		r := repair.Range{Partition: k.Partition, Tenant: k.Tenant, First: ring.Token(uint64(k.Token) &^ (size - 1))}
		r.Last = r.First + ring.Token(size-1)
		s := out[r]
		sums.Object(&s, k.Key, &o)
		out[r] = s
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// check holds the sums against what is stored.
func (b *sumBench) check(t require) {
	t.Helper()
	const bits = 4
	want := b.stored(t, bits)
	for p := range ring.Partition(sumParts) {
		tenants := b.Tenants(p)
		for tenant := range ring.TenantNumber(4) {
			r := repair.Range{Partition: p, Tenant: tenant, First: ring.Token(uint64(p) << 62), Last: ring.Token(uint64(p+1)<<62 - 1)}
			got, err := b.Sums(r, bits)
			if err != nil {
				t.Fatal(err)
			}
			all, err := b.Sums(r, 0)
			if err != nil || all[0] != sums.Total(got) {
				t.Fatalf("partition %d, tenant %d: %v is not %v in all, %v", p, tenant, got, all, err)
			}
			for i := range got {
				part := r
				part.First = r.First + ring.Token(uint64(i)<<(62-bits))
				part.Last = part.First + 1<<(62-bits) - 1
				if got[i] != want[part] {
					t.Fatalf("partition %d, tenant %d, part %d: %v, want %v", p, tenant, i, got[i], want[part])
				}
				seen, err := b.Seen(p)
				if err != nil {
					t.Fatal(err)
				}
				if got[i].Count > 0 && (!slices.Contains(tenants, tenant) || len(seen) == 0) {
					t.Fatalf("partition %d has data of %d, it tells of %v, has seen %v", p, tenant, tenants, seen)
				}
			}
		}
	}
	if b.db.DurableSeq() < b.db.VisibleSeq() && len(want) > 0 {
		// Every key is in some sum that was told, and was synced first.
		t.Fatalf("sums of %d were told, %d is on disk", b.db.VisibleSeq(), b.db.DurableSeq())
	}
}

// TestSumsAreThoseOfWhatIsStored: over writes, merges and sweeps, background work,
// flushes, compactions, files and crashes of every kind.
func TestSumsAreThoseOfWhatIsStored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		keys := rapid.SampledFrom([]int{5, 60, 400}).Draw(t, "keys")
		b := newSumBench(t)
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			for range rapid.IntRange(0, 80).Draw(t, "acts") {
				b.act(t, rng, keys)
			}
			switch rapid.IntRange(0, 6).Draw(t, "then") {
			case 0:
				b.settle(t)
			case 1:
				if err := b.SaveSums(b.disk(), "data/sums"); err != nil {
					t.Fatal(err)
				}
			case 2:
				b.breaks = b.calls + rapid.IntRange(1, 12).Draw(t, "call")
				if err := b.SaveSums(b.disk(), "data/sums"); err != nil && !errors.Is(err, errDisk) {
					t.Fatal(err)
				}
				b.crash(t, rapid.SampledFrom(vfs.CrashModes()).Draw(t, "mode"), rng)
			case 3:
				b.crash(t, rapid.SampledFrom(vfs.CrashModes()).Draw(t, "mode"), rng)
			case 4:
				b.settle(t)
				if err := errors.Join(b.db.Flush(), b.SaveSums(b.disk(), "data/sums"), b.db.Close()); err != nil {
					t.Fatal(err)
				}
				empty := b.db.VisibleSeq() == 0
				b.open(t)
				b.Tenants(0)
				if st := b.opts.Sums.Stats(); !empty && st.Dirty+st.Unknown > 0 {
					t.Fatalf("%d leaves and %d partitions are not known after an orderly stop", st.Dirty, st.Unknown)
				}
			case 5:
				for p := range ring.Partition(sumParts) {
					if n, err := b.VerifySums(p); n != 0 || err != nil {
						t.Fatalf("%d leaves differed, %v", n, err)
					}
				}
			default:
				b.check(t)
			}
		}
		b.check(t)
		_ = b.db.Close() // nothing more is asked of it
	})
}

// TestCrashAtEveryCallOfACheckpoint: whatever call of the writing of a file is the
// last one, the next start knows what is stored.
func TestCrashAtEveryCallOfACheckpoint(t *testing.T) {
	for call := 1; ; call++ {
		whole := false
		for _, mode := range vfs.CrashModes() {
			rng := rand.New(rand.NewPCG(uint64(call), uint64(mode)))
			b := newSumBench(t)
			for range 60 {
				b.act(t, rng, 40)
			}
			if err := b.SaveSums(b.disk(), "data/sums"); err != nil {
				t.Fatal(err)
			}
			for range 60 {
				b.act(t, rng, 40)
			}
			b.breaks = b.calls + call
			err := b.SaveSums(b.disk(), "data/sums")
			whole = b.calls < b.breaks
			if whole != (err == nil) {
				t.Fatalf("call %d: %v", call, err)
			}
			b.crash(t, mode, rng)
			b.check(t)
			if err := b.db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if whole {
			if call < 8 {
				t.Errorf("a file was written by %d calls", call)
			}
			return
		}
	}
}

// TestWriteThatFailedIsDoubted: it may be there all the same.
func TestWriteThatFailedIsDoubted(t *testing.T) {
	b := newSizedBench(t, 1<<20)
	defer func() { _ = b.db.Close() }() // it is read-only
	b.check(t)
	b.breaks = b.calls + 1
	var err error
	for i := 0; err == nil && i < 50; i++ { // nobody waits, so that they gather
		_, err = b.Update(sumAddress(1), func(held *causal.Object, dot func() causal.Dot) (causal.Object, error) {
			return causal.Mint(held, held.Context, causal.Sibling{Dot: dot(), Value: make([]byte, 20<<10)}), nil
		}, func(error) {})
	}
	if e, ok := errors.AsType[*coord.Error](err); !ok || e.Outcome != errcode.Indeterminate {
		t.Fatalf("the write ended with %v", err)
	}
	if st := b.opts.Sums.Stats(); st.Dirty != 1 {
		t.Errorf("%d leaves are dirty", st.Dirty)
	}
	a := sumAddress(1)
	r := repair.Range{Partition: a.Partition, Tenant: a.Tenant, First: ring.Token(uint64(a.Partition) << 62), Last: ring.Token(uint64(a.Partition+1)<<62 - 1)}
	if s, err := b.Sums(r, 0); err == nil {
		t.Errorf("sums %v of what is not on disk", s)
	}
	if err := b.SaveSums(b.disk(), "data/sums"); err == nil {
		t.Error("a file was written of what is not on disk")
	}
}

// TestFileOfDataThatWasSetBack: a file that knows of writes that the engine does not
// have is of no use.
func TestFileOfDataThatWasSetBack(t *testing.T) {
	b := newSumBench(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		b.act(t, rng, 10)
	}
	if err := b.db.WaitDurable(b.db.VisibleSeq()); err != nil {
		t.Fatal(err)
	}
	old := b.fs.Crash(vfs.CrashKeepAll, nil)
	for range 30 {
		b.act(t, rng, 10)
	}
	if err := b.SaveSums(b.disk(), "data/sums"); err != nil {
		t.Fatal(err)
	}
	file := readAll(t, b.fs)
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := old.Create("data/sums")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b.fs = old
	b.open(t)
	b.check(t)
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, fsys vfs.FS) []byte {
	t.Helper()
	f, err := fsys.Open("data/sums")
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// failingEngine cannot say which keys are new.
type failingEngine struct{ Engine }

func (failingEngine) KeysSince(base.SeqNum, func([]byte), func(start, end []byte), func() bool) error {
	return base.Corruptf("table", 0, "damage")
}

// TestUnknownKeysSince: where what is newer than the file cannot be told, the file
// is not believed.
func TestUnknownKeysSince(t *testing.T) {
	b := newSumBench(t)
	rng := rand.New(rand.NewPCG(2, 1))
	for range 30 {
		b.act(t, rng, 10)
	}
	if err := b.SaveSums(b.disk(), "data/sums"); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		b.act(t, rng, 10)
	}
	if err := errors.Join(b.db.Flush(), b.db.Close()); err != nil {
		t.Fatal(err)
	}
	b.open(t)
	b.opts.Engine = failingEngine{b.db}
	b.check(t)
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
}
