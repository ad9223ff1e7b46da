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
		runMetamorphic(t, seed)
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
	n := 0
	for ; n < runs || time.Now().Before(until); n++ {
		runMetamorphic(t, rand.Uint64())
	}
	t.Logf("%d seeds", n)
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
}

func runMetamorphic(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 4))
	mt := &meta{rng: rng, fs: vfs.NewMem(), m: newModel(), b: NewBatch()}
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
}

func (mt *meta) step() error {
	rng, db := mt.rng, mt.db
	switch r := rng.IntN(100); {
	case r < 60:
		ops := randomOps(rng)
		fillBatch(mt.b, ops)
		if _, err := db.Apply(mt.b, WriteOptions{Sync: rng.IntN(4) == 0}); err != nil {
			return err
		}
		mt.m.apply(ops)
		return nil
	case r < 66:
		key := modelKey(rng.IntN(modelKeys))
		v, at, err := db.GetSeq([]byte("x"), []byte(key))
		want, ok := mt.m.now()[key]
		if ok && (err != nil || string(v) != "x"+want || at == 0) || !ok && !errors.Is(err, ErrNotFound) || at > db.VisibleSeq() {
			return fmt.Errorf("get %s: %.20q at %d, %v; want %.20q, %v", key, v, at, err, want, ok)
		}
		return nil
	case r < 70:
		return mt.walk(db, mt.m.now())
	case r < 73 && len(mt.snaps) < 4:
		mt.snaps, mt.at = append(mt.snaps, db.Snapshot()), append(mt.at, len(mt.m.states)-1)
		return nil
	case r < 79 && len(mt.snaps) > 0:
		i := rng.IntN(len(mt.snaps))
		err := errors.Join(compare(mt.snaps[i], mt.m.states[mt.at[i]]), mt.walk(mt.snaps[i], mt.m.states[mt.at[i]]))
		if rng.IntN(2) == 0 {
			mt.snaps[i].Close()
			mt.snaps, mt.at = slices.Delete(mt.snaps, i, i+1), slices.Delete(mt.at, i, i+1)
		}
		return err
	case r < 82:
		return mt.oldIterator()
	case r < 86:
		return db.Flush()
	case r < 90:
		lo := rng.IntN(modelKeys)
		return db.Compact([]byte(modelKey(lo)), []byte(modelKey(lo+rng.IntN(20))))
	case r < 91:
		return db.Compact(nil, nil)
	case r < 93:
		return compare(db, mt.m.now())
	case r < 95:
		return db.Verify()
	case r < 97:
		return mt.checkpoint()
	default:
		return mt.reopen()
	}
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

// walk moves an iterator about at random, with bounds and with a budget.
func (mt *meta) walk(r reader, state map[string]string) error {
	rng := mt.rng
	var lower, upper []byte
	keys := slices.Sorted(maps.Keys(state))
	if rng.IntN(2) == 0 {
		lower = []byte(modelKey(rng.IntN(modelKeys)))
		keys = slices.DeleteFunc(keys, func(k string) bool { return k < string(lower) })
	}
	if rng.IntN(2) == 0 {
		upper = []byte(modelKey(rng.IntN(modelKeys)))
		keys = slices.DeleteFunc(keys, func(k string) bool { return k >= string(upper) })
	}
	it, err := r.NewIter(lower, upper)
	if err != nil {
		return err
	}
	defer it.Close()
	if err := mt.budgeted(it, keys); err != nil {
		return err
	}
	pos := -1 // index in keys; -1 and len(keys) are off either end
	for range 60 {
		seek := modelKey(rng.IntN(modelKeys))
		at, _ := slices.BinarySearch(keys, seek)
		var name string
		switch rng.IntN(8) {
		case 0:
			name, pos = "first", 0
			it.First()
		case 1:
			name, pos = "last", len(keys)-1
			it.Last()
		case 2:
			name, pos = "seekGE "+seek, at
			it.SeekGE([]byte(seek))
		case 3:
			name, pos = "seekLT "+seek, at-1
			it.SeekLT([]byte(seek))
		case 4, 5:
			if !it.Valid() {
				continue
			}
			name, pos = "next", pos+1
			it.Next()
		default:
			if !it.Valid() {
				continue
			}
			name, pos = "prev", pos-1
			it.Prev()
		}
		valid := pos >= 0 && pos < len(keys)
		if it.Error() != nil || it.Valid() != valid ||
			valid && (string(it.Key()) != keys[pos] || string(it.Value()) != state[keys[pos]]) {
			return fmt.Errorf("%s in [%s,%s): valid %v at %s, want %d of %v: %v", name, lower, upper, it.Valid(), it.Key(), pos, keys, it.Error())
		}
	}
	return it.Close()
}

// budgeted walks the iterator from one end to the other in small portions.
func (mt *meta) budgeted(it *Iterator, keys []string) error {
	back := mt.rng.IntN(2) == 0
	portion := 2 + mt.rng.IntN(5)
	var got []string
	it.SetBudget(portion)
	ok := false
	if back {
		ok = it.Last()
	} else {
		ok = it.First()
	}
	for range 10_000 {
		switch {
		case ok && back:
			got = append(got, string(it.Key()))
			ok = it.Prev()
		case ok:
			got = append(got, string(it.Key()))
			ok = it.Next()
		case errors.Is(it.Error(), ErrBudget):
			from := slices.Clone(it.ResumeKey())
			it.SetBudget(portion)
			if back {
				ok = it.SeekLT(from)
			} else {
				ok = it.SeekGE(from)
			}
		default:
			if back {
				slices.Reverse(got)
			}
			it.SetBudget(0)
			if !slices.Equal(got, keys) || it.Error() != nil {
				return fmt.Errorf("budget %d, back %v: got %v, want %v: %v", portion, back, got, keys, it.Error())
			}
			return nil
		}
	}
	return fmt.Errorf("budget %d, back %v: no end in sight, %d keys", portion, back, len(got))
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
