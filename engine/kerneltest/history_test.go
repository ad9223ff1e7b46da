package kerneltest_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
)

// history is what the writers of a seed do. Each has keys of its own and does
// one batch after the other; a batch follows from seed, writer and number, so
// that the driver, which does them, and the test, which compares, need not tell
// each other.
type history struct {
	seed    uint64
	writers []*past
}

// past is one writer's keys after so many of its batches.
type past struct {
	batches int
	ops     base.SeqNum
	keys    map[string]string
}

func newHistory(seed uint64, writers int) *history {
	h := &history{seed: seed}
	for range writers {
		h.writers = append(h.writers, &past{keys: map[string]string{}})
	}
	return h
}

// mutation is one operation of a batch.
type mutation struct {
	kind     base.Kind
	key, val string // val is the end of a range delete
}

// step is one batch of a writer.
type step struct {
	ops  []mutation
	sync bool
	// chore is what the writer does once the batch is acknowledged.
	chore string
	// from and to are the range that a chore is about.
	from, to string
}

const writerKeys = 150

// posKey holds the number of the writer's batches so far; each sets it.
func posKey(w int) string { return fmt.Sprintf("w%02d/at", w) }

func writerKey(w, i int) string { return fmt.Sprintf("w%02d/key%04d", w, i) }

// content is a value that says whose it is, and of which batch. It does not
// compress well.
func content(rng *rand.Rand, key string, i, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d ", key, i)
	for b.Len() < size {
		b.WriteString(strconv.FormatUint(rng.Uint64(), 36))
	}
	return b.String()
}

// step returns batch i of writer w.
func (h *history) step(w, i int) step {
	rng := rand.New(rand.NewPCG(h.seed, uint64(w)<<40|uint64(i)))
	s := step{sync: rng.IntN(4) > 0}
	s.ops = append(s.ops, mutation{base.KindSet, posKey(w), strconv.Itoa(i + 1)})
	for range rng.IntN(8) {
		k := rng.IntN(writerKeys)
		key := writerKey(w, k)
		switch r := rng.IntN(40); {
		case r == 0: // larger than a small segment or memtable
			s.ops = append(s.ops, mutation{base.KindSet, key, content(rng, key, i, 20_000+rng.IntN(60_000))})
		case r < 28:
			s.ops = append(s.ops, mutation{base.KindSet, key, content(rng, key, i, rng.IntN(700))})
		case r < 37:
			s.ops = append(s.ops, mutation{kind: base.KindDelete, key: key})
		default:
			s.ops = append(s.ops, mutation{base.KindRangeDelete, key, writerKey(w, k+1+rng.IntN(30))})
		}
	}
	if r := rng.IntN(150); s.sync && r < 4 {
		s.chore = []string{"flush", "flush", "compact", "checkpoint"}[r]
		k := rng.IntN(writerKeys)
		s.from, s.to = writerKey(w, k), writerKey(w, k+1+rng.IntN(writerKeys))
	}
	return s
}

func (s step) fill(b *engine.Batch) {
	b.Reset()
	for _, o := range s.ops {
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

// advance brings writer w to its state after n batches.
func (h *history) advance(w, n int) {
	p := h.writers[w]
	for ; p.batches < n; p.batches++ {
		for _, o := range h.step(w, p.batches).ops {
			p.ops++
			switch o.kind {
			case base.KindSet:
				p.keys[o.key] = o.val
			case base.KindDelete:
				delete(p.keys, o.key)
			case base.KindRangeDelete:
				maps.DeleteFunc(p.keys, func(k, _ string) bool { return o.key <= k && k < o.val })
			}
		}
	}
}

// latest returns how many batches a writer may have begun of whose first acked
// are acknowledged: up to the first that had to be synced.
func (h *history) latest(w, acked int) int {
	for !h.step(w, acked).sync {
		acked++
	}
	return acked + 1
}

// positions returns the number of batches of each writer.
func (h *history) positions() []int {
	var at []int
	for _, p := range h.writers {
		at = append(at, p.batches)
	}
	return at
}

// position returns how many batches of writer w db holds, by its own account.
func position(db *engine.DB, w int) (int, error) {
	v, err := db.Get(nil, []byte(posKey(w)))
	if errors.Is(err, engine.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("position of writer %d: %w", w, err)
	}
	at, err := strconv.Atoi(string(v))
	if err != nil {
		return 0, fmt.Errorf("position of writer %d: %w", w, err)
	}
	return at, nil
}

// compare makes sure that db holds, of each writer, all of its first acked
// batches, of those begun since some first ones, each whole, and nothing else. It
// brings the history there. reached is acked, or more if the writer went on.
func (h *history) compare(db *engine.DB, acked, reached []int) error {
	var ops base.SeqNum
	for w, p := range h.writers {
		at, err := position(db, w)
		if err != nil {
			return err
		}
		if low, high := acked[w], h.latest(w, reached[w]); at < low || at > high {
			return fmt.Errorf("writer %d: has %d batches, acknowledged were %d, begun at most %d", w, at, low, high)
		}
		h.advance(w, at)
		if err := h.compareWriter(db, w); err != nil {
			return fmt.Errorf("writer %d after %d batches: %w", w, at, err)
		}
		ops += p.ops
	}
	// Each operation has a number of its own, so nothing else was done.
	if seq := db.VisibleSeq(); seq != ops {
		return fmt.Errorf("sequence number is %d after %d operations", seq, ops)
	}
	return nil
}

// compareWriter holds the keys of one writer against the history, read in both
// directions and one by one.
func (h *history) compareWriter(db *engine.DB, w int) (err error) {
	want := h.writers[w].keys
	keys := slices.Sorted(maps.Keys(want))
	it, err := db.NewIter(fmt.Appendf(nil, "w%02d/", w), fmt.Appendf(nil, "w%02d0", w))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	i := 0
	for ok := it.First(); ok; ok = it.Next() {
		if i == len(keys) || string(it.Key()) != keys[i] || string(it.Value()) != want[keys[i]] {
			return fmt.Errorf("forward %d: got %s = %.40q, want %.3q", i, it.Key(), it.Value(), keys[min(i, len(keys)):])
		}
		i++
	}
	if it.Error() != nil || i != len(keys) {
		return fmt.Errorf("forward: ended at %d of %d: %w", i, len(keys), it.Error())
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		if i--; i < 0 || string(it.Key()) != keys[i] || string(it.Value()) != want[keys[i]] {
			return fmt.Errorf("back %d: got %s = %.40q", i, it.Key(), it.Value())
		}
	}
	if it.Error() != nil || i != 0 {
		return fmt.Errorf("back: ended at %d: %w", i, it.Error())
	}
	for k := range writerKeys + 32 {
		key := writerKey(w, k)
		v, err := db.Get(nil, []byte(key))
		if val, ok := want[key]; ok && (err != nil || string(v) != val) || !ok && !errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("get %s: got %.40q; want %.40q, %v: %w", key, v, val, ok, err)
		}
	}
	return nil
}

// options are small, so that everything happens often, and follow from the seed.
func options(seed uint64) engine.Options {
	rng := rand.New(rand.NewPCG(seed, 1))
	trigger := 1 + rng.IntN(4)
	return engine.Options{
		Logger:       slog.New(slog.DiscardHandler),
		MemTableSize: 16 << (10 + rng.IntN(4)), MaxImmutable: 1 + rng.IntN(3),
		BlockSize: 256 << rng.IntN(5), CacheSize: 1 << 20, MaxOpenTables: 100,
		Levels: 4, L0CompactionTrigger: trigger, L0SlowdownTrigger: trigger + 2 + rng.IntN(8), L0StopTrigger: trigger + 12,
		LBaseBytes: 16 << (10 + rng.IntN(3)), LevelMultiplier: 2 + rng.IntN(4), TargetFileSize: 4 << (10 + rng.IntN(4)),
		MaxBackgroundJobs: 1 + rng.IntN(3),
		WALSegmentSize:    8 << (10 + rng.IntN(5)), ManifestSize: 1 << (10 + rng.IntN(4)),
	}
}
