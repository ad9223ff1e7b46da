package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
)

// tablesOf returns the tables that the manifest lists, with their levels.
func tablesOf(t testing.TB, fsys vfs.FS) (out []manifest.NewFile) {
	t.Helper()
	state, _, err := manifest.Load(fsys, "db")
	if err != nil {
		t.Fatal(err)
	}
	for level, files := range state.Version.Levels {
		for _, f := range files {
			out = append(out, manifest.NewFile{Level: level, FileMeta: f})
		}
	}
	return out
}

// compareOutside is compare without the keys in [lo, hi], of which a DB may say
// anything.
func compareOutside(db *DB, want map[string]string, lo, hi []byte) error {
	for k := range modelKeys + 11 {
		key := modelKey(k)
		if string(lo) <= key && key <= string(hi) {
			continue
		}
		v, err := db.Get(nil, []byte(key))
		w, ok := want[key]
		if ok && (err != nil || string(v) != w) || !ok && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("get %s: got %.20q, %w; want %.20q, %v", key, v, err, w, ok)
		}
	}
	it, err := db.NewIter(nil, nil)
	if err != nil {
		return err
	}
	defer it.Close()
	got := map[string]string{}
	for ok := it.First(); ok; ok = it.Next() {
		got[string(it.Key())] = string(it.Value())
	}
	inside := func(k, _ string) bool { return string(lo) <= k && k <= string(hi) }
	want = maps.Clone(want)
	maps.DeleteFunc(got, inside)
	maps.DeleteFunc(want, inside)
	if !maps.Equal(got, want) {
		return fmt.Errorf("a scan shows %d keys outside, want %d", len(got), len(want))
	}
	return it.Error()
}

// noteDamage is a caller of the engine that notes durably what it is told, in a
// file for each table.
func noteDamage(fsys vfs.FS, list []Damage) error {
	if err := fsys.MkdirAll("notes"); err != nil {
		return err
	}
	for _, d := range list {
		f, err := fsys.Create(fmt.Sprintf("notes/%d", d.File))
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return errors.Join(fsys.SyncDir("notes"), fsys.SyncDir("."))
}

// A table that is missing or cut fails Open, unless the caller wants to go on
// without: then it is told, all other keys are as they were, what is left of the
// file is kept, and the next Open finds nothing wrong.
func TestSalvage(t *testing.T) {
	mem := vfs.NewMem()
	s := newScript(mem, 1)
	if err := s.run(90); err != nil {
		t.Fatal(err)
	}
	want := s.model.now()
	rng := rand.New(rand.NewPCG(1, 1))
	for i, f := range tablesOf(t, mem) {
		disk := mem.Crash(vfs.CrashKeepAll, rng)
		name := "db/" + tableName(f.Num)
		left := ""
		if i%2 == 0 {
			if err := disk.Remove(name); err != nil {
				t.Fatal(err)
			}
		} else {
			b, err := readWhole(disk, name)
			if err != nil {
				t.Fatal(err)
			}
			left = string(b[:len(b)/2])
			if err := writeWhole(disk, name, []byte(left)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open("db", tiny(disk, 3)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("table %d: open says %v", f.Num, err)
		}
		opts := tiny(disk, 3)
		refused := errors.New("no")
		opts.Salvage = func([]Damage) error { return refused }
		if _, err := Open("db", opts); !errors.Is(err, refused) {
			t.Fatalf("table %d: open says %v", f.Num, err)
		}
		if got := len(tablesOf(t, disk)); got != len(tablesOf(t, mem)) {
			t.Fatalf("a refused salvage left %d tables listed", got)
		}
		var told []Damage
		opts.Salvage = func(d []Damage) error { told = append(told, d...); return nil }
		db, err := Open("db", opts)
		if err != nil {
			t.Fatalf("table %d: %v", f.Num, err)
		}
		if len(told) != 1 || told[0].File != f.Num || told[0].Level != f.Level || !errors.Is(told[0].Err, ErrCorrupt) ||
			string(told[0].Smallest) != string(f.Smallest.UserKey) || string(told[0].Largest) != string(f.Largest.UserKey) {
			t.Errorf("table %d: told %+v", f.Num, told)
		}
		if err := errors.Join(compareOutside(db, want, f.Smallest.UserKey, f.Largest.UserKey), db.Verify()); err != nil {
			t.Errorf("table %d: %v", f.Num, err)
		}
		if n := db.Metrics().Quarantined; n != 1 {
			t.Errorf("%d tables are counted", n)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if kept, err := readWhole(disk, "db/quarantine/"+tableName(f.Num)); left != "" && string(kept) != left {
			t.Errorf("table %d: what is left of it was not kept: %v", f.Num, err)
		}
		if _, err := disk.Stat(name); err == nil {
			t.Errorf("table %d is still in its place", f.Num)
		}
		if db, err = Open("db", tiny(disk, 4)); err != nil {
			t.Fatalf("table %d: the next open: %v", f.Num, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyDir(context.Background(), disk, "db", VerifyOptions{})
		if err != nil || len(r.Damage)+len(r.Orphans) > 0 {
			t.Errorf("table %d: the directory has %v, %v: %v", f.Num, r.Damage, r.Orphans, err)
		}
	}
}

// flipped is a DB whose tables are each one block of values that no codec changes,
// and one of which has a bit flipped in the middle of its data.
func flipped(t *testing.T, opts Options, disk *vfs.MemFS) (*DB, Damage) {
	t.Helper()
	db, err := Open("db", opts)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		b := NewBatch()
		for i := range 20 {
			b.Set([]byte(modelKey(i)), noise(i, round, 150))
		}
		if _, err := db.Apply(b, WriteOptions{Sync: true}); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	f := tablesOf(t, disk)[0]
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	name := "db/" + tableName(f.Num)
	raw, err := readWhole(disk, name)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/3] ^= 4
	if err := errors.Join(writeWhole(disk, name, raw), disk.SyncDir("db")); err != nil {
		t.Fatal(err)
	}
	if db, err = Open("db", opts); err != nil {
		t.Fatal(err)
	}
	return db, damageOf(f.Level, f.FileMeta, nil)
}

// A compaction that meets damage writes nothing, says what it met, and is not tried
// again until the table is quarantined. Then the others are compacted.
func TestCompactionMeetsDamage(t *testing.T) {
	disk := vfs.NewMem()
	opts := tiny(disk, 1)
	opts.MemTableSize, opts.TargetFileSize, opts.LBaseBytes, opts.L0CompactionTrigger = 64<<10, 64<<10, 1<<20, 10
	opts.L0SlowdownTrigger, opts.L0StopTrigger = 20, 30
	var mu sync.Mutex
	var met []Damage
	opts.Events.Damaged = func(d Damage) {
		mu.Lock()
		defer mu.Unlock()
		met = append(met, d)
	}
	db, want := flipped(t, opts, disk)
	defer db.Close()
	before := tablesOf(t, disk)
	for range 3 {
		if err := db.Compact(nil, nil); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("compact: %v", err)
		}
	}
	if len(met) != 1 || met[0].File != want.File || string(met[0].Largest) != string(want.Largest) || !errors.Is(met[0].Err, ErrCorrupt) {
		t.Fatalf("told %+v, want %+v once", met, want)
	}
	if after := tablesOf(t, disk); !slices.EqualFunc(before, after, func(a, b manifest.NewFile) bool { return a.Num == b.Num }) {
		t.Errorf("tables %v became %v", before, after)
	}
	if d, ok := db.DamageOf(met[0].Err); !ok || d.File != want.File {
		t.Errorf("the damage of the error is %+v, %t", d, ok)
	}
	it, err := db.NewIter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Quarantine(want.File); err != nil {
		t.Fatal(err)
	}
	if _, ok := db.DamageOf(met[0].Err); ok {
		t.Error("the table is quarantined and still known")
	}
	for ok := it.First(); ok; ok = it.Next() {
	}
	if !errors.Is(it.Error(), ErrCorrupt) {
		t.Errorf("an iterator of before says %v", it.Error())
	}
	_ = it.Close() // says the same
	if err := errors.Join(db.Compact(nil, nil), db.Verify()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// The newest table is gone, so that what the round before wrote shows.
	if v, err := db.Get(nil, []byte(modelKey(3))); err != nil || string(v) != string(noise(3, 1, 150)) {
		t.Errorf("get: %v", err)
	}
}

// Writers who wait for level 0 are refused when a damaged table holds it up: they
// neither wait nor spin.
func TestWritersDoNotWaitForDamage(t *testing.T) {
	disk := vfs.NewMem()
	opts := tiny(disk, 1)
	opts.MemTableSize, opts.TargetFileSize, opts.LBaseBytes = 64<<10, 64<<10, 1<<20
	opts.L0CompactionTrigger, opts.L0SlowdownTrigger, opts.L0StopTrigger = 10, 11, 12
	db, want := flipped(t, opts, disk)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	// What lies under the damaged table goes down; what comes over it is too uneven
	// to be merged with one another.
	opts.L0CompactionTrigger, opts.L0SlowdownTrigger, opts.L0StopTrigger = 2, 3, 4
	opts.Sleep = func(time.Duration) {}
	db, err := Open("db", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b := NewBatch()
	for _, size := range []int{20_000, 100, 100} {
		b.Reset()
		b.Set([]byte(modelKey(1)), noise(1, 9, size))
		b.Set([]byte(modelKey(19)), nil)
		if _, err := db.Apply(b, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Apply(b, WriteOptions{}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("with %d tables over one another: %v", db.version.depth, err)
	}
	if err := db.Quarantine(want.File); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Apply(b, WriteOptions{Sync: true}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A verification tells of each damaged or missing table at once, may quarantine it
// on the spot, asks before each read, and ends when it is told to.
func TestVerifyPacedAndQuarantining(t *testing.T) {
	disk := vfs.NewMem()
	opts := tiny(disk, 1)
	opts.MemTableSize, opts.TargetFileSize, opts.LBaseBytes, opts.L0CompactionTrigger = 64<<10, 64<<10, 1<<20, 10
	opts.L0SlowdownTrigger, opts.L0StopTrigger = 20, 30
	db, want := flipped(t, opts, disk)
	defer db.Close()
	tables := tablesOf(t, disk)
	gone := tables[len(tables)-1].Num
	if err := disk.Remove("db/" + tableName(gone)); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if r, err := db.VerifyWith(t.Context(), VerifyOptions{Pace: func(int) error { return stop }}); !errors.Is(err, stop) || len(r.Damage) > 0 {
		t.Errorf("stopped: %v, %v", err, r.Damage)
	}
	var found []uint64
	read := 0
	r, err := db.VerifyWith(t.Context(), VerifyOptions{
		Pace: func(n int) error { read += n; return nil },
		Damaged: func(d Damage) {
			found = append(found, d.File)
			if err := db.Quarantine(d.File); err != nil {
				t.Error(err)
			}
		},
	})
	if err != nil || !slices.Equal(found, []uint64{want.File, gone}) || len(r.Damage) == 0 {
		t.Errorf("found %v, %v: %v", found, r.Damage, err)
	}
	if int64(read) < r.TableBytes/2 {
		t.Errorf("asked for %d bytes of %d", read, r.TableBytes)
	}
	if err := db.Verify(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A manifest that is damaged under a running DB is found and written anew from what is
// in memory. Whatever call is the last before a power cut, the disk then has the old
// one, damaged, or the new one, whole.
func TestRewriteManifest(t *testing.T) {
	for _, what := range []string{"manifest", "CURRENT", "nothing"} {
		mem := vfs.NewMem()
		s := newScript(mem, 1)
		if err := errors.Join(s.run(60), s.open()); err != nil {
			t.Fatal(err)
		}
		want := s.model.now()
		name := "db/" + manifest.Name(s.db.manifest.Num())
		if what == "CURRENT" {
			name = "db/CURRENT"
		}
		raw, err := readWhole(mem, name)
		if err != nil {
			t.Fatal(err)
		}
		if what != "nothing" {
			raw[len(raw)/2] ^= 1
			if what == "manifest" {
				raw[40] ^= 1
			}
			if err := errors.Join(writeWhole(mem, name, raw), mem.SyncDir("db")); err != nil {
				t.Fatal(err)
			}
		}
		r, err := s.db.VerifyWith(t.Context(), VerifyOptions{})
		if err != nil || r.ManifestDamaged != (what != "nothing") {
			t.Fatalf("%s: damaged: %t, %v: %v", what, r.ManifestDamaged, r.Damage, err)
		}
		if err := errors.Join(s.db.RewriteManifest(), s.db.Verify(), compare(s.db, want)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := mem.Stat("db/quarantine"); err != nil {
			t.Errorf("%s: nothing is kept: %v", what, err)
		}
		rng := rand.New(rand.NewPCG(1, 1))
		left := mem.Crash(vfs.CrashDropUnsynced, rng)
		db, err := Open("db", tiny(left, 3))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := errors.Join(compare(db, want), db.Verify(), db.Close(), s.close()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Tables are quarantined while others read, write and compact.
func TestQuarantineConcurrently(t *testing.T) {
	opts := tiny(vfs.NewMem(), 1)
	opts.Scheduler, opts.MaxBackgroundJobs, opts.Rand = nil, 2, nil
	db, err := Open("db", opts)
	if err != nil {
		t.Fatal(err)
	}
	var writers, wg sync.WaitGroup
	for g := range 3 {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(9, uint64(g)))
			b := NewBatch()
			for range 2000 {
				b.Reset()
				b.Set([]byte(modelKey(rng.IntN(modelKeys))), []byte(strings.Repeat("v", rng.IntN(100))))
				if _, err := db.Apply(b, WriteOptions{}); err != nil {
					t.Error(err)
					return
				}
				it, err := db.NewIter(nil, nil)
				if err != nil {
					t.Error(err)
					return
				}
				for ok := it.First(); ok; ok = it.Next() {
				}
				if err := it.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := 0
	var writing atomic.Bool
	writing.Store(true)
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(9, 9))
		for writing.Load() || done == 0 {
			if rng.IntN(4) == 0 {
				if err := db.Compact(nil, nil); err != nil {
					t.Error(err)
				}
			}
			rs := db.acquireState()
			var nums []uint64
			for _, files := range rs.v.Version.Levels {
				for _, f := range files {
					nums = append(nums, f.Num)
				}
			}
			rs.release()
			if len(nums) == 0 {
				continue
			}
			runtime.Gosched()
			switch err := db.Quarantine(nums[rng.IntN(len(nums))]); {
			case err == nil:
				done++
			case !errors.Is(err, ErrNoTable):
				t.Error(err)
			}
		}
	})
	writers.Wait()
	writing.Store(false)
	wg.Wait()
	t.Logf("%d tables were quarantined", done)
	if err := errors.Join(db.Verify(), db.Close()); err != nil {
		t.Error(err)
	}
}
