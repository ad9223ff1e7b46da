package hints

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// maxBatch and maxBatchBytes bound a transaction, far below what Badger takes.
	maxBatch      = 256
	maxBatchBytes = 256 << 10
	// purgeBatch is how many hints are looked at in a row to drop old ones.
	purgeBatch = 256
	// reopenEvery is the pause between attempts to open a store that failed.
	reopenEvery = 10 * time.Second
)

// disk is the store's goroutine: what it does with the files.
type disk struct {
	s  *Store
	db *badger.DB // under s.mu for others; nil if the store cannot be written
	// folder is where it is; number counts the stores there were.
	folder string
	number int
	// retry is when to try to open it again.
	retry    time.Time
	closeErr error
	// reading is held shared while others than the goroutine use db.
	reading sync.RWMutex
}

// open opens the store, or begins it anew.
func (d *disk) open() {
	db, folder, fresh, err := openDir(d.s.opts.Dir, d.s.opts.Logger)
	d.use(db, folder, fresh, err)
}

// use takes a store that was opened, or not.
func (d *disk) use(db *badger.DB, folder, fresh string, err error) {
	s := d.s
	loaded := map[ring.NodeID]*target{}
	if err == nil {
		if n, err := strconv.Atoi(filepath.Base(folder)); err == nil {
			d.number = max(d.number, n)
		}
		err = loadBacklogs(db, func(k []byte, b backlog) {
			if b.count > 0 {
				loaded[targetOf(string(k))] = &target{backlog: b, inFlight: map[string]bool{}}
			}
		})
		if err != nil {
			// Not what was written: begin anew.
			s.opts.Logger.Warn("the store of hints is damaged", "err", errors.Join(err, closeBadger(db)))
			fresh = "the store of hints is damaged"
			clear(loaded)
			d.number++
			db, folder, err = beginAnew(s.opts.Dir, d.number, s.opts.Logger)
		}
	}
	if err != nil {
		s.opts.Logger.Warn("hints cannot be kept; anti-entropy does their work", "err", err)
		db, fresh = nil, "the store of hints cannot be opened: "+err.Error()
		d.retry = s.opts.Now().Add(reopenEvery)
	}
	s.mu.Lock()
	first := s.mu.epoch == 0
	d.db, d.folder = db, folder
	s.mu.epoch++
	for id, t := range s.mu.targets { // away is still known
		if l := loaded[id]; l != nil {
			l.away = t.away
		}
	}
	s.mu.targets = loaded
	if !first {
		s.mu.stats.Resets++
	}
	s.mu.Unlock()
	if fresh != "" {
		s.opts.DirtyAll(fresh)
	}
	if len(loaded) > 0 {
		s.notifyChanged()
	}
}

func (s *Store) notifyChanged() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// begin anew after a failure.
func (d *disk) reset(why error) {
	s := d.s
	s.opts.Logger.Warn("the store of hints is begun anew", "err", why)
	d.detach()
	d.number++
	db, folder, err := beginAnew(s.opts.Dir, d.number, s.opts.Logger)
	d.use(db, folder, "the store of hints failed: "+why.Error(), err)
}

// detach closes the database, which nobody uses from then on.
func (d *disk) detach() {
	d.s.mu.Lock()
	db := d.db
	d.db = nil
	d.s.mu.Unlock()
	if db == nil {
		return
	}
	// Whoever still reads has it.
	d.reading.Lock()
	defer d.reading.Unlock()
	if err := closeBadger(db); err != nil {
		d.s.opts.Logger.Warn("close the store of hints", "err", err)
		d.closeErr = err
	}
}

func (d *disk) close() {
	open := d.db != nil
	d.closeErr = nil
	d.detach()
	if open && d.closeErr == nil {
		d.closeErr = seal(d.folder)
	}
}

// tick looks after what time brings: targets that stay away, hints that grow old, a
// store that went away.
func (d *disk) tick() {
	s := d.s
	now := s.opts.Now()
	switch {
	case d.db == nil && !now.Before(d.retry):
		d.open()
	case d.db != nil && !there(d.folder):
		d.reset(errors.New("its files were taken away"))
	}
	s.mu.Lock()
	ids := make([]ring.NodeID, 0, len(s.mu.targets))
	for id := range s.mu.targets {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		reachable := s.opts.Reachable(id)
		s.mu.Lock()
		s.age(id, reachable, now)
		s.mu.Unlock()
	}
}

// age decides which hints of a target are too old. The lock is held.
func (s *Store) age(id ring.NodeID, reachable bool, now time.Time) {
	t := s.mu.targets[id]
	if t == nil {
		return
	}
	switch {
	case reachable:
		t.away = time.Time{}
		if t.count == 0 {
			delete(s.mu.targets, id)
			return
		}
	case t.away.IsZero():
		t.away = now
		if o := t.oldest(); !o.IsZero() && o.Before(now) {
			t.away = o
		}
	}
	before := now.Add(-s.opts.Window)
	if t.overdue(now, s.opts.Window) {
		before = now.Add(time.Millisecond)
	}
	if t.purge == nil && t.count > 0 && t.oldest().Before(before) {
		t.purge, t.purgeBefore = prefixOf(id), before.UnixMilli()
		s.wakeLocked()
	}
}

// overdue reports whether the target is away for longer than hints are kept.
func (t *target) overdue(now time.Time, window time.Duration) bool {
	return !t.away.IsZero() && now.Sub(t.away) > window
}

// write writes all that waits, a batch at a time, and drops a part of what is too old.
func (d *disk) write() {
	s := d.s
	for {
		s.mu.Lock()
		adds, removals, flushed := s.mu.adds, s.mu.removals, s.mu.flushed
		s.mu.flushed = nil
		if len(adds) > 0 {
			s.mu.adds = map[string]struct{}{}
		}
		s.mu.removals = nil
		epoch := s.mu.epoch
		s.mu.Unlock()
		keys := make([]string, 0, len(adds))
		for k := range adds {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for len(removals) > 0 || len(keys) > 0 {
			b := batch{d: d, epoch: epoch}
			removals, keys = b.take(removals, keys)
			if err := b.commit(); err != nil {
				b.dropAll(Broken)
				d.reset(err)
			}
		}
		for _, f := range flushed {
			close(f)
		}
		again := d.purge()
		s.mu.Lock()
		again = again || len(s.mu.adds) > 0 || len(s.mu.removals) > 0 || len(s.mu.flushed) > 0
		s.mu.Unlock()
		if !again {
			return
		}
	}
}

// purge drops some of the hints that are too old, and reports whether there may be
// more.
func (d *disk) purge() (more bool) {
	s := d.s
	s.mu.Lock()
	db, epoch := d.db, s.mu.epoch
	var from []byte
	var before int64
	for _, t := range s.mu.targets {
		if t.purge != nil {
			from, before = t.purge, t.purgeBefore
			break
		}
	}
	s.mu.Unlock()
	if from == nil || db == nil {
		return false
	}
	b := batch{d: d, epoch: epoch}
	next, err := scan(db, from, targetOf(string(from)), purgeBatch, func(key string, ms int64) {
		if ms < before {
			b.removals = append(b.removals, removal{key: key, reason: Window, epoch: epoch})
		}
	})
	if err == nil {
		err = b.commit()
	}
	if err != nil {
		d.reset(err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.mu.targets[targetOf(string(from))]; t != nil {
		t.purge = next
	}
	return true
}

// scan visits at most n hints of a target from a key on, and returns the key behind
// the last one, nil if there are no more.
func scan(db *badger.DB, from []byte, id ring.NodeID, n int, visit func(key string, ms int64)) (next []byte, err error) {
	err = db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{PrefetchValues: true, PrefetchSize: min(n, 100), Prefix: prefixOf(id)})
		defer it.Close()
		for it.Seek(from); it.Valid(); it.Next() {
			key := string(it.Item().Key())
			if n--; n < 0 {
				next = []byte(key)
				return nil
			}
			if err := it.Item().Value(func(v []byte) error {
				if len(v) != 8 {
					return errHint
				}
				visit(key, int64(binary.BigEndian.Uint64(v)))
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return next, err
}
