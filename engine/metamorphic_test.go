package engine

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// TestMetamorphic runs random operations on a DB with random options and holds
// every answer against a sorted map. PAIRDB_SEED=n runs that seed alone,
// PAIRDB_METAMORPHIC=10m goes on for that long.
func TestMetamorphic(t *testing.T) {
	if s := os.Getenv("PAIRDB_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v", runMetamorphic(t, seed))
		return
	}
	runs, until := 8, time.Time{}
	if testing.Short() {
		runs = 4
	}
	if s := os.Getenv("PAIRDB_METAMORPHIC"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		until = time.Now().Add(d)
	}
	n, all, done := 0, 0, map[string]int{}
	for ; n < runs || time.Now().Before(until); n++ {
		for k, v := range runMetamorphic(t, rand.Uint64()) {
			done[k] += v
			all += v
		}
	}
	t.Logf("%d seeds, %d operations: %v", n, all, done)
}

func randomOptions(rng *rand.Rand, fs vfs.FS) Options {
	pick := func(v ...int) int { return v[rng.IntN(len(v))] }
	o := Options{
		FS: fs, MemTableSize: int64(pick(4, 8, 64)) << 10, MaxImmutable: pick(1, 2, 3),
		BlockSize: pick(64, 256, 1024), BloomBitsPerKey: pick(-1, 2, 10), CacheSize: int64(pick(-1, 1<<10, 1<<20)),
		MaxOpenTables: pick(1, 3, 1000), Levels: pick(2, 3, 5),
		L0CompactionTrigger: pick(1, 2, 4), LBaseBytes: int64(pick(512, 4096, 1<<20)), LevelMultiplier: pick(2, 10),
		TargetFileSize: int64(pick(1, 512, 4096, 1<<20)), WALSegmentSize: int64(pick(4, 16, 1024)) << 10,
		ManifestSize: int64(pick(256, 4096)), Rand: rng.Uint64, MaxBackgroundJobs: pick(1, 2, 4),
	}
	o.L0SlowdownTrigger = o.L0CompactionTrigger + pick(1, 4)
	o.L0StopTrigger = o.L0SlowdownTrigger + pick(1, 4)
	o.Sleep = func(time.Duration) {}
	if rng.IntN(2) == 0 {
		o.Scheduler = inline{}
	}
	return o
}

type meta struct {
	rng   *rand.Rand
	fs    *vfs.MemFS
	opts  Options
	db    *DB
	m     *model
	snaps []*Snapshot
	at    []int
	iters []*Iterator
	views []map[string]string
	b     *Batch
	ckpt  int

	tables int // made for Ingest
	values Values
	done   map[string]int // operations, by kind
}

// runMetamorphic does one seed and returns how many operations of each kind.
func runMetamorphic(t *testing.T, seed uint64) map[string]int {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 4))
	mt := &meta{rng: rng, fs: vfs.NewMem(), m: newModel(), b: NewBatch(), done: map[string]int{}}
	mt.opts = randomOptions(rng, mt.fs)
	if mt.opts.Scheduler == nil {
		// Background jobs draw nonces at times of their own.
		mt.opts.Rand = nil
	}
	var err error
	if mt.db, err = Open("db", mt.opts); err != nil {
		t.Fatalf("PAIRDB_SEED=%d: open: %v", seed, err)
	}
	defer func() { mt.db.Close() }()
	for i := range 400 {
		if err := mt.step(); err != nil {
			t.Fatalf("PAIRDB_SEED=%d: step %d: %v", seed, i, err)
		}
	}
	if err := errors.Join(compare(mt.db, mt.m.now()), mt.db.Verify(), mt.reopen()); err != nil {
		t.Fatalf("PAIRDB_SEED=%d: at the end: %v", seed, err)
	}
	return mt.done
}

// step does one operation, drawn by weight.
func (mt *meta) step() error {
	rng, db := mt.rng, mt.db
	for {
		r := rng.IntN(1000)
		for _, a := range []struct {
			name   string
			weight int
			can    bool
			do     func() error
		}{
			{"apply", 520, true, mt.apply},
			{"get", 60, true, mt.get},
			{"multiget", 50, true, mt.multiGet},
			{"walk", 40, true, func() error { return mt.walk(db, mt.m.now()) }},
			{"snapshot", 30, len(mt.snaps) < 4, mt.snapshot},
			{"look at a snapshot", 60, len(mt.snaps) > 0, mt.lookBack},
			{"iterator kept", 30, true, mt.oldIterator},
			{"ingest", 30, true, mt.ingest},
			{"flush", 40, true, func() error { return db.Flush() }},
			{"compact a range", 40, true, func() error {
				lo := rng.IntN(modelKeys)
				return db.Compact([]byte(modelKey(lo)), []byte(modelKey(lo+rng.IntN(20))))
			}},
			{"compact", 10, true, func() error { return db.Compact(nil, nil) }},
			{"compare", 20, true, func() error { return compare(db, mt.m.now()) }},
			{"verify", 20, true, func() error { return db.Verify() }},
			{"checkpoint", 20, true, mt.checkpoint},
			{"reopen", 30, true, mt.reopen},
		} {
			if r -= a.weight; r < 0 && a.can {
				mt.done[a.name]++
				if err := a.do(); err != nil {
					return fmt.Errorf("%s: %w", a.name, err)
				}
				return nil
			} else if r < 0 {
				break
			}
		}
	}
}

func (mt *meta) apply() error {
	ops := randomOps(mt.rng)
	for _, o := range ops {
		if o.kind == base.KindRangeDelete {
			mt.done["range delete"]++
		}
	}
	fillBatch(mt.b, ops)
	if _, err := mt.db.Apply(mt.b, WriteOptions{Sync: mt.rng.IntN(4) == 0}); err != nil {
		return err
	}
	mt.m.apply(ops)
	return nil
}

func (mt *meta) get() error {
	key := modelKey(mt.rng.IntN(modelKeys))
	v, at, err := mt.db.GetSeq([]byte("x"), []byte(key))
	want, ok := mt.m.now()[key]
	if ok && (err != nil || string(v) != "x"+want || at == 0) || !ok && !errors.Is(err, ErrNotFound) || at > mt.db.VisibleSeq() {
		return fmt.Errorf("%s: %.20q at %d, %v; want %.20q, %v", key, v, at, err, want, ok)
	}
	return nil
}

// multiGet asks the DB and the snapshots for keys at random.
func (mt *meta) multiGet() error {
	keys := make([]string, mt.rng.IntN(60))
	for i := range keys {
		keys[i] = modelKey(mt.rng.IntN(modelKeys + 5))
	}
	if err := multiCompare(mt.db, &mt.values, keys, mt.m.now()); err != nil {
		return err
	}
	for i, s := range mt.snaps {
		if err := multiCompare(s, &mt.values, keys, mt.m.states[mt.at[i]]); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	return nil
}

func (mt *meta) snapshot() error {
	mt.snaps, mt.at = append(mt.snaps, mt.db.Snapshot()), append(mt.at, len(mt.m.states)-1)
	return nil
}

// lookBack compares a snapshot and perhaps gives it back.
func (mt *meta) lookBack() error {
	i := mt.rng.IntN(len(mt.snaps))
	err := errors.Join(compare(mt.snaps[i], mt.m.states[mt.at[i]]), mt.walk(mt.snaps[i], mt.m.states[mt.at[i]]))
	if mt.rng.IntN(2) == 0 {
		mt.snaps[i].Close()
		mt.snaps, mt.at = slices.Delete(mt.snaps, i, i+1), slices.Delete(mt.at, i, i+1)
	}
	return err
}

// ingest takes in tables; sometimes they are refused for an overlap first.
func (mt *meta) ingest() error {
	paths, ops, err := randomTables(mt.fs, mt.rng, &mt.tables)
	if err != nil {
		return err
	}
	if mt.rng.IntN(4) == 0 {
		if err := mt.db.Ingest(append(paths, paths[0])); !errors.Is(err, ErrIngestOverlap) {
			return fmt.Errorf("one table twice: %w", err)
		}
	}
	if err := mt.db.Ingest(paths); err != nil {
		return err
	}
	mt.m.applyAs(ops, 1)
	return removeAll(mt.fs, paths)
}

// oldIterator opens an iterator and leaves it, or looks at one left before:
// it must not have noticed what was written since.
func (mt *meta) oldIterator() error {
	if len(mt.iters) < 3 {
		it, err := mt.db.NewIter(nil, nil)
		if err != nil {
			return err
		}
		mt.iters, mt.views = append(mt.iters, it), append(mt.views, mt.m.now())
		return nil
	}
	it, view := mt.iters[0], mt.views[0]
	mt.iters, mt.views = mt.iters[1:], mt.views[1:]
	got := map[string]string{}
	for ok := it.First(); ok; ok = it.Next() {
		got[string(it.Key())] = string(it.Value())
	}
	if err := it.Close(); err != nil {
		return err
	}
	if !maps.Equal(got, view) {
		return fmt.Errorf("old iterator saw %d keys, want %d", len(got), len(view))
	}
	return nil
}

// checkpoint takes one and opens it beside the DB.
func (mt *meta) checkpoint() error {
	dir := fmt.Sprintf("ckpt%d", mt.ckpt)
	mt.ckpt++
	if err := mt.db.Checkpoint(dir); err != nil {
		return err
	}
	if err := mt.db.Checkpoint(dir); err == nil {
		return errors.New("second checkpoint into one directory did not fail")
	}
	opts := mt.opts
	opts.Scheduler = inline{} // so that nothing changes while the files are counted
	db, err := Open(dir, opts)
	if err != nil {
		return err
	}
	err = errors.Join(compare(db, mt.m.now()), db.Verify(), checkDir(db), db.Close())
	return errors.Join(err, mt.fs.RemoveAll(dir))
}

func (mt *meta) reopen() error {
	for _, sn := range mt.snaps {
		sn.Close()
	}
	for _, it := range mt.iters {
		it.Close()
	}
	mt.snaps, mt.at, mt.iters, mt.views = nil, nil, nil, nil
	if err := mt.db.Close(); err != nil {
		return err
	}
	if err := mt.db.Close(); err != nil {
		return fmt.Errorf("second close: %w", err)
	}
	if n := mt.db.cache.Stats().InUse; n != 0 {
		return fmt.Errorf("somebody holds on to %d bytes of cached blocks", n)
	}
	levels := mt.opts.Levels
	rnd, sched := mt.opts.Rand, mt.opts.Scheduler
	mt.opts = randomOptions(mt.rng, mt.fs)
	mt.opts.Levels, mt.opts.Rand, mt.opts.Scheduler = levels, rnd, sched
	var err error
	if mt.db, err = Open("db", mt.opts); err != nil {
		return err
	}
	return compare(mt.db, mt.m.now())
}
