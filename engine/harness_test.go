package engine

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
)

// inline runs background jobs at once, on the goroutine that asks for them.
type inline struct{}

func (inline) Go(_ string, f func()) { f() }

// tiny returns options under which a few dozen operations pass through every
// part of the engine, on one goroutine and the same way each time.
func tiny(fs vfs.FS, seed uint64) Options {
	rng := rand.New(rand.NewPCG(seed, 1))
	return Options{
		FS: fs, MemTableSize: 4 << 10, MaxImmutable: 1, BlockSize: 256, CacheSize: -1,
		Levels: 4, L0CompactionTrigger: 2, L0SlowdownTrigger: 3, L0StopTrigger: 4,
		LBaseBytes: 1 << 10, LevelMultiplier: 2, TargetFileSize: 512,
		WALSegmentSize: 4 << 10, ManifestSize: 512,
		Rand: rng.Uint64, Scheduler: inline{},
	}
}

// op is one operation of a batch in a test's script.
type op struct {
	kind     base.Kind
	key, val string // val is the end of a range delete
}

// model is what the DB must hold. Each applied batch makes a new state; all are
// kept, so that any prefix of the history can be compared.
type model struct {
	states []map[string]string // states[i] after i batches
	last   []base.SeqNum       // last[i] is the newest sequence number then
}

func newModel() *model {
	return &model{states: []map[string]string{{}}, last: []base.SeqNum{0}}
}

func (m *model) apply(ops []op) { m.applyAs(ops, len(ops)) }

// applyAs is apply of operations that take n sequence numbers.
func (m *model) applyAs(ops []op, n int) {
	next := maps.Clone(m.states[len(m.states)-1])
	for _, o := range ops {
		switch o.kind {
		case base.KindSet:
			next[o.key] = o.val
		case base.KindDelete:
			delete(next, o.key)
		case base.KindRangeDelete:
			maps.DeleteFunc(next, func(k, _ string) bool { return o.key <= k && k < o.val })
		}
	}
	m.states = append(m.states, next)
	m.last = append(m.last, m.last[len(m.last)-1]+base.SeqNum(n))
}

// drop takes back the newest batch, which the DB refused.
func (m *model) drop() {
	m.states, m.last = m.states[:len(m.states)-1], m.last[:len(m.last)-1]
}

func (m *model) now() map[string]string { return m.states[len(m.states)-1] }

// prefix returns the number of batches up to seq, -1 if seq cuts a batch.
func (m *model) prefix(seq base.SeqNum) int {
	i, ok := slices.BinarySearch(m.last, seq)
	if !ok {
		return -1
	}
	return i
}

func (m *model) clone() *model {
	return &model{states: slices.Clone(m.states), last: slices.Clone(m.last)}
}

const modelKeys = 48

func modelKey(i int) string { return fmt.Sprintf("key%02d", i) }

func randomOps(rng *rand.Rand) []op {
	ops := make([]op, 1+rng.IntN(6)*rng.IntN(2))
	for i := range ops {
		k := rng.IntN(modelKeys)
		switch r := rng.IntN(20); {
		case r < 13:
			v := fmt.Sprintf("%x", rng.Uint64())
			ops[i] = op{base.KindSet, modelKey(k), strings.Repeat(v, rng.IntN(12))}
		case r < 18:
			ops[i] = op{kind: base.KindDelete, key: modelKey(k)}
		default:
			ops[i] = op{base.KindRangeDelete, modelKey(k), modelKey(k + 1 + rng.IntN(10))}
		}
	}
	return ops
}

func fillBatch(b *Batch, ops []op) {
	b.Reset()
	for _, o := range ops {
		switch o.kind {
		case base.KindSet:
			b.Set([]byte(o.key), []byte(o.val))
		case base.KindDelete:
			b.Delete([]byte(o.key))
		case base.KindRangeDelete:
			b.DeleteRange([]byte(o.key), []byte(o.val))
		}
	}
}

type reader interface {
	Get(dst, key []byte) ([]byte, error)
	NewIter(lower, upper []byte) (*Iterator, error)
}

// compare holds everything a reader says against want.
func compare(r reader, want map[string]string) (err error) {
	keys := slices.Sorted(maps.Keys(want))
	it, err := r.NewIter(nil, nil)
	if err != nil {
		return err
	}
	defer it.Close()
	defer func() {
		// A failed read says what is wrong better than what it led to.
		if err != nil && it.Error() != nil {
			err = fmt.Errorf("%w: %w", err, it.Error())
		}
	}()
	i := 0
	for ok := it.First(); ok; ok = it.Next() {
		if i >= len(keys) || string(it.Key()) != keys[i] || string(it.Value()) != want[keys[i]] {
			return fmt.Errorf("forward %d: got %s=%.20q, want %v", i, it.Key(), it.Value(), keys[min(i, len(keys)):])
		}
		i++
	}
	if it.Error() != nil || i != len(keys) {
		return fmt.Errorf("forward: ended at %d of %d: %v", i, len(keys), it.Error())
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		i--
		if i < 0 || string(it.Key()) != keys[i] || string(it.Value()) != want[keys[i]] {
			return fmt.Errorf("back %d: got %s=%.20q", i, it.Key(), it.Value())
		}
	}
	if it.Error() != nil || i != 0 {
		return fmt.Errorf("back: ended at %d: %v", i, it.Error())
	}
	for k := range modelKeys + 11 {
		key := modelKey(k)
		v, err := r.Get(nil, []byte(key))
		w, ok := want[key]
		if ok && (err != nil || string(v) != w) || !ok && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("get %s: got %.20q; want %.20q, %v: %w", key, v, w, ok, err)
		}
	}
	return it.Close()
}

// checkDir makes sure that dir holds what the DB needs and nothing else.
func checkDir(db *DB) error {
	want := map[string]bool{lockName: true, "CURRENT": true, walDir: true, manifest.Name(db.manifest.Num()): true}
	for _, level := range db.version.levels {
		for _, t := range level {
			want[tableName(t.Num)] = true
		}
	}
	names, err := db.fs.List(db.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !want[name] {
			return fmt.Errorf("orphan %s", name)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		return fmt.Errorf("missing %v", want)
	}
	logs, err := db.fs.List(db.dir + "/" + walDir)
	if err != nil {
		return err
	}
	var segs []string
	for _, n := range db.segs {
		segs = append(segs, fmt.Sprintf("%06d.wal", n))
	}
	for _, name := range logs {
		if !strings.HasSuffix(name, ".free") && !slices.Contains(segs, name) {
			return fmt.Errorf("orphan log %s, segments are %v", name, segs)
		}
	}
	return nil
}

// checkDB opens the DB in fs and makes sure that it holds the model's state
// after some number of batches in [lo, hi], and nothing else. It returns the
// number. The DB is written to, closed and opened again.
func checkDB(fs vfs.FS, m *model, lo, hi int) (int, error) {
	db, err := Open("db", tiny(fs, 7))
	if err != nil {
		return 0, fmt.Errorf("reopen: %w", err)
	}
	defer db.Close()
	n := m.prefix(db.VisibleSeq())
	if n < lo || n > hi {
		return n, fmt.Errorf("recovered to %d, which is %d batches; acknowledged %d, issued %d", db.VisibleSeq(), n, lo, hi)
	}
	if db.DurableSeq() != db.VisibleSeq() {
		return n, fmt.Errorf("durable %d, visible %d after open", db.DurableSeq(), db.VisibleSeq())
	}
	check := func(db *DB, want map[string]string) error {
		if err := compare(db, want); err != nil {
			return err
		}
		if err := checkDir(db); err != nil {
			return err
		}
		return db.Verify()
	}
	if err := check(db, m.states[n]); err != nil {
		return n, fmt.Errorf("after open at %d: %w", n, err)
	}
	after := &model{states: slices.Clone(m.states[:n+1]), last: slices.Clone(m.last[:n+1])}
	b := NewBatch()
	for i := range 3 {
		ops := []op{{base.KindSet, modelKey(i * 7), "after"}, {kind: base.KindDelete, key: modelKey(i*7 + 1)}}
		after.apply(ops)
		fillBatch(b, ops)
		if _, err := db.Apply(b, WriteOptions{Sync: true}); err != nil {
			return n, fmt.Errorf("write after open: %w", err)
		}
	}
	if err := db.Close(); err != nil {
		return n, fmt.Errorf("close: %w", err)
	}
	again, err := Open("db", tiny(fs, 8))
	if err != nil {
		return n, fmt.Errorf("second reopen: %w", err)
	}
	defer again.Close()
	if err := check(again, after.now()); err != nil {
		return n, fmt.Errorf("after second open: %w", err)
	}
	return n, again.Close()
}
