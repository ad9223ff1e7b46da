package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/engine/disk"
	"github.com/pairdb/pairdb/engine/vfs"
)

// noise is a value that does not compress, the same for the same arguments.
func noise(i, round, n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(i), uint64(round)))
	b := make([]byte, n)
	for j := 0; j+8 <= n; j += 8 {
		binary.LittleEndian.PutUint64(b[j:], rng.Uint64())
	}
	return b
}

// filler writes keys of a DB in order and remembers what was acknowledged.
type filler struct {
	t    *testing.T
	db   *DB
	size int
	has  map[int]int // key: round
	next int
}

func (f *filler) key(i int) []byte { return fmt.Appendf(nil, "key%08d", i*7919%1000003) }

// fill writes until a write is refused, which it returns.
func (f *filler) fill(round, most int) error {
	b := NewBatch()
	for range most {
		b.Reset()
		b.Set(f.key(f.next), noise(f.next, round, f.size))
		if _, err := f.db.Apply(b, WriteOptions{Sync: true}); err != nil {
			return err
		}
		f.has[f.next] = round
		f.next++
	}
	return nil
}

// check reads every key that was ever tried.
func (f *filler) check(db *DB) {
	f.t.Helper()
	for i := range f.next + 1 {
		v, err := db.Get(nil, f.key(i))
		round, ok := f.has[i]
		if ok && (err != nil || string(v) != string(noise(i, round, f.size))) || !ok && !errors.Is(err, ErrNotFound) {
			f.t.Fatalf("key %d: %d bytes, %v; acknowledged: %v", i, len(v), err, ok)
		}
	}
}

// until waits, on virtual time, until f says true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 600 {
		if f() {
			return
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
	t.Fatalf("after ten minutes not yet: %s", what)
}

// TestDigOutOfAFullDisk fills a small disk until writes are refused and then
// only deletes: reads go on, no compaction or flush ever fails for lack of
// space, and the deletes free enough to write again, round after round.
func TestDigOutOfAFullDisk(t *testing.T) {
	rounds, ways := 3, []string{"keys", "small ranges", "one range"}
	if testing.Short() {
		rounds = 1
	}
	if raceEnabled {
		rounds, ways = 1, ways[1:2] // ten times slower
	}
	for _, how := range ways {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				mem.SetLimit(16 << 20)
				db := mustOpen(t, Options{FS: mem, CacheSize: -1})
				f := &filler{t: t, db: db, size: 6000, has: map[int]int{}}
				for round := range rounds {
					err := f.fill(round, 20000)
					m := db.Metrics()
					switch {
					case errors.Is(err, ErrDiskFull):
						if m.Disk.State != disk.Full || m.Disk.Refused[disk.TooFull] == 0 {
							t.Errorf("round %d: %+v", round, m.Disk)
						}
					case errors.Is(err, ErrDiskThrottled): // too large just before
						if m.Disk.State != disk.Throttle || m.Disk.Refused[disk.Throttled] == 0 {
							t.Errorf("round %d: %+v", round, m.Disk)
						}
					default:
						t.Fatalf("round %d: %v after %d keys, want the disk to be full", round, err, f.next)
					}
					f.check(db)
					b := NewBatch()
					kept := 0
					for i := range f.next {
						if _, ok := f.has[i]; !ok {
							continue
						}
						if how != "one range" && i%4 == round {
							kept++
							continue
						}
						b.Reset()
						switch how {
						case "keys":
							b.Delete(f.key(i))
						case "small ranges":
							b.DeleteRange(f.key(i), append(f.key(i), 0))
						case "one range":
							b.DeleteRange([]byte("key"), []byte("kez"))
							clear(f.has)
						}
						until(t, "a delete is taken", func() bool {
							_, err := db.Apply(b, WriteOptions{Sync: true})
							if err != nil && !errors.Is(err, ErrDiskFull) {
								t.Fatal(err)
							}
							return err == nil
						})
						delete(f.has, i)
					}
					until(t, "there is room again", func() bool { return db.Metrics().Disk.State <= disk.Warn })
					f.check(db)
					m = db.Metrics()
					if m.JobErrors > 0 {
						t.Errorf("round %d: %d jobs failed", round, m.JobErrors)
					}
					t.Logf("round %d: %d keys kept, %d bytes free of %d, %d compactions, %d drops", round, kept, m.Disk.Free, m.Disk.Total, m.Compactions, m.Drops)
				}
				if err := db.Verify(); err != nil {
					t.Error(err)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				f.check(mustOpen(t, Options{FS: mem, CacheSize: -1}))
			})
		})
	}
}

// TestDiskIsWatchedByItself: a disk that somebody else fills is noticed without
// a write, and so is its relief.
func TestDiskIsWatchedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		mem.SetLimit(100 << 20)
		db := mustOpen(t, Options{FS: mem, CacheSize: -1})
		ballast, err := mem.Create("ballast")
		if err != nil {
			t.Fatal(err)
		}
		noise := make([]byte, 900<<10)
		for rng, i := rand.New(rand.NewPCG(1, 1)), 0; i < len(noise); i++ {
			noise[i] = byte(rng.Uint32())
		}
		table := mustTable(t, mem, "in.sst", set("z", string(noise)))
		b := NewBatch()
		apply := func(n int) error {
			b.Reset()
			b.Set([]byte("k"), make([]byte, n))
			_, err := db.Apply(b, WriteOptions{Sync: true})
			return err
		}
		for _, step := range []struct {
			percent      int64
			state        disk.State
			small, large error
		}{
			{50, disk.OK, nil, nil},
			{82, disk.Warn, nil, nil},
			{92, disk.Throttle, nil, ErrDiskThrottled},
			{96, disk.Full, ErrDiskFull, ErrDiskFull},
			{94, disk.Full, ErrDiskFull, ErrDiskFull},
			{92, disk.Throttle, nil, ErrDiskThrottled},
			{79, disk.Warn, nil, nil},
			{50, disk.OK, nil, nil},
		} {
			u, err := mem.DiskUsage("/")
			if err != nil {
				t.Fatal(err)
			}
			size, err := ballast.Size()
			if err != nil {
				t.Fatal(err)
			}
			if err := ballast.Truncate(size + step.percent<<20 - (u.Total - u.Free)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if m := db.Metrics().Disk; m.State != step.state {
				t.Errorf("at %d %%: %v, want %v", step.percent, m.State, step.state)
			}
			if err := apply(10); !errors.Is(err, step.small) {
				t.Errorf("at %d %%, a small write: %v, want %v", step.percent, err, step.small)
			}
			if err := apply(900 << 10); !errors.Is(err, step.large) {
				t.Errorf("at %d %%, a large write: %v, want %v", step.percent, err, step.large)
			}
			if err := db.Ingest([]string{table}); !errors.Is(err, step.large) {
				t.Errorf("at %d %%, an ingest: %v, want %v", step.percent, err, step.large)
			}
			if _, err := db.Get(nil, []byte("k")); err != nil {
				t.Errorf("at %d %%: %v", step.percent, err)
			}
			b.Reset()
			b.Delete([]byte("absent"))
			if _, err := db.Apply(b, WriteOptions{Sync: true}); err != nil {
				t.Errorf("at %d %%, a delete: %v", step.percent, err)
			}
		}
		if err := apply(30 << 20); !errors.Is(err, ErrNoSpace) {
			t.Errorf("a write larger than what is left: %v", err)
		}
		if err := apply(10); err != nil {
			t.Error(err)
		}
	})
}

// TestFailedJobsAreRetriedWhenSpaceReturns runs a flush and a compaction into a
// disk without room, in the middle of a table. Nobody writes any more; when
// there is room again they are done by themselves, at once and not after the
// pause that has grown meanwhile.
func TestFailedJobsAreRetriedWhenSpaceReturns(t *testing.T) {
	for _, pool := range []string{poolFlush, poolCompact} {
		synctest.Test(t, func(t *testing.T) {
			mem := vfs.NewMem()
			neighbour, err := mem.Create("neighbour")
			if err == nil {
				err = neighbour.Truncate(1 << 20)
			}
			if err != nil {
				t.Fatal(err)
			}
			var full atomic.Bool
			var failures atomic.Int64
			fs := vfs.Inject(mem, func(o vfs.Op) error {
				if full.Load() && o.Kind == vfs.OpWrite && strings.Contains(o.Path, tableSuffix) && o.Bytes > 100 {
					failures.Add(1)
					return vfs.ShortWrite{N: o.Bytes / 2, Err: syscall.ENOSPC}
				}
				return nil
			})
			// What the disk says of itself is that it has room: as where a quota
			// or a neighbour took it.
			db := mustOpen(t, Options{FS: fs, CacheSize: -1, L0CompactionTrigger: 2, L0SlowdownTrigger: 8})
			f := &filler{t: t, db: db, size: 1000, has: map[int]int{}}
			if err := f.fill(0, 300); err != nil {
				t.Fatal(err)
			}
			if pool == poolCompact {
				if err := db.Flush(); err != nil {
					t.Fatal(err)
				}
				if err := f.fill(0, 300); err != nil {
					t.Fatal(err)
				}
			}
			armed := db.Flush
			if pool == poolCompact {
				// The compaction is due after this flush; it hits the full disk.
				armed = func() error {
					db.mu.Lock()
					db.compact.queued++ // as if one were waiting for its turn
					db.mu.Unlock()
					err := db.Flush()
					full.Store(true)
					db.mu.Lock()
					db.compact.queued--
					db.mu.Unlock()
					db.schedule()
					return err
				}
			} else {
				full.Store(true)
			}
			if err := armed(); pool == poolFlush && !errors.Is(err, ErrDiskFull) {
				t.Fatalf("flush: %v", err)
			} else if pool == poolCompact && err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			tries := failures.Load()
			if tries < 5 || tries > 15 {
				t.Errorf("%s: %d tries in five minutes", pool, tries)
			}
			f.check(db)
			// Room appears.
			full.Store(false)
			if err := neighbour.Truncate(0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			m := db.Metrics()
			if pool == poolFlush && (m.Flushes != 1 || m.ImmutableCount != 0) || pool == poolCompact && m.Compactions+m.Moves == 0 {
				t.Errorf("%s: not done after the space came back: %d flushes, %d compactions", pool, m.Flushes, m.Compactions)
			}
			f.check(db)
			if err := db.Verify(); err != nil {
				t.Error(err)
			}
		})
	}
}
