package hints

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Options configure a Store. Dir, Dirty and DirtyAll are required.
type Options struct {
	// Dir is the store's own folder: it is made, and deleted when it is damaged.
	Dir string
	// MaxBytes bounds what is kept for one target, in bytes of keys. Default 1 GiB.
	// More bridges a longer outage without anti-entropy, and takes disk.
	MaxBytes int64
	// Window is for how long a target may be away, and a hint wait. Default 3 h.
	// Longer bridges longer outages; after it anti-entropy has to do it all.
	Window time.Duration
	// MaxQueued bounds the hints that wait to be written. Default 8192, which is at
	// most about 10 MiB.
	MaxQueued int
	// Reachable reports whether a target is there now. Default: never.
	Reachable func(ring.NodeID) bool
	// Room reports whether the disk has room for hints. Default: always.
	Room func() bool
	// Dirty is told of each partition of which a hint was dropped, and DirtyAll, with
	// why, when nobody knows of which. They are called from the store's goroutine, at
	// most once a second for a partition, and must not block.
	Dirty    func(p ring.Partition)
	DirtyAll func(why string)
	// Notice, if set, is told what an operator may want to know; like Dirty.
	Notice func(n Notice)
	// Now is the clock; default time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

// Notice is something that happened to the hints of a target.
type Notice struct {
	Target ring.NodeID
	// Kept: the first hint is kept for the target. Emptied: there is none any more,
	// because all were delivered. Neither: Count hints were dropped for Reason.
	Kept, Emptied bool
	Reason        Reason
	Count         uint64
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<30)
	o.Window = cmp.Or(o.Window, 3*time.Hour)
	o.MaxQueued = cmp.Or(o.MaxQueued, 8192)
	if o.Reachable == nil {
		o.Reachable = func(ring.NodeID) bool { return false }
	}
	if o.Room == nil {
		o.Room = func() bool { return true }
	}
	if o.Notice == nil {
		o.Notice = func(Notice) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate says what is missing or out of range.
func (o *Options) Validate() error {
	if o.Dir == "" || o.Dirty == nil || o.DirtyAll == nil {
		return errors.New("hints: Dir, Dirty and DirtyAll are required")
	}
	if o.MaxBytes < 0 || o.Window < 0 || o.MaxQueued < 0 {
		return errors.New("hints: a bound is negative")
	}
	return nil
}

// Store keeps hints. It is safe for concurrent use. Open it with Open, end it with
// Close, which writes what waits.
type Store struct {
	opts Options
	wake chan struct{} // has room for one notice that something waits to be written
	// changed has room for one notice that there is a backlog where there was none.
	changed chan struct{}
	stop    chan struct{}
	ended   chan struct{}
	// disk is the goroutine's alone.
	disk disk

	mu struct {
		sync.Mutex
		closed bool
		// adds wait to be written, by their encoding; removals, too.
		adds     map[string]struct{}
		removals []removal
		// targets has all with a backlog, and those away of which all was dropped.
		targets map[ring.NodeID]*target
		// dirty are partitions to be reported; dropped counts since the last report.
		dirty   map[ring.Partition]struct{}
		dropped map[drop]uint64
		stats   Stats
		// flushed are told when all that waited was written.
		flushed []chan struct{}
		// epoch counts how often the store was begun anew.
		epoch int
	}
}

type drop struct {
	target ring.NodeID
	reason Reason
}

// removal takes a hint away because of a delivery.
type removal struct {
	key    string
	reason Reason
	epoch  int
}

// target is what is known of one target.
type target struct {
	backlog
	// inFlight are hints being delivered; true if another write came meanwhile.
	inFlight map[string]bool
	// away is since when the target is not reachable while there are hints for it.
	away time.Time
	// purge is where dropping its hints goes on, nil if none are to be dropped now;
	// those added before purgeBefore, in Unix milliseconds, are.
	purge       []byte
	purgeBefore int64
}

// Stats are counts since the start.
type Stats struct {
	// Stored counts hints that were added, and Coalesced those that were there
	// already.
	Stored, Coalesced uint64
	// Removed counts hints that are kept no more or never were, by Reason.
	Removed [reasonCount]uint64
	// Resets counts how often the store was begun anew.
	Resets uint64
}

// Target is what is kept for one target.
type Target struct {
	ID           ring.NodeID
	Count, Bytes int64
	// Oldest is when the oldest hint was added, to within a sixteenth of the window
	// once some were delivered.
	Oldest time.Time
}

// Open returns a Store at once; what is in Dir is there a little later. A store that
// cannot be opened is begun anew, and if that fails it drops what it is given.
func Open(opts Options) (*Store, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	s := &Store{opts: opts, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
	s.mu.adds = map[string]struct{}{}
	s.mu.targets = map[ring.NodeID]*target{}
	s.mu.dirty = map[ring.Partition]struct{}{}
	s.mu.dropped = map[drop]uint64{}
	go s.run()
	return s, nil
}

// Add keeps a hint, or drops it. It does not block, and keeps no slice of it.
func (s *Store) Add(h *Hint) {
	if len(h.Key) == 0 || len(h.Key) > maxKey || len(h.IdempotencyKey) > maxIdempotencyKey {
		return
	}
	key := string(h.appendTo(make([]byte, 0, fixedLen+len(h.Key)+len(h.IdempotencyKey))))
	s.mu.Lock()
	defer s.mu.Unlock()
	switch _, waits := s.mu.adds[key]; {
	case waits:
		s.mu.stats.Coalesced++
	case s.mu.closed || len(s.mu.adds) >= s.opts.MaxQueued:
		s.dropLocked(key, QueueFull)
	default:
		s.mu.adds[key] = struct{}{}
	}
	s.wakeLocked()
}

func (s *Store) wakeLocked() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dropLocked notes that a hint is not kept.
func (s *Store) dropLocked(key string, why Reason) {
	s.mu.stats.Removed[why]++
	s.mu.dropped[drop{targetOf(key), why}]++
	s.mu.dirty[partitionOf(key)] = struct{}{}
}

// Close writes what waits and closes the store. It is idempotent.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.mu.closed {
		s.mu.closed = true
		close(s.stop)
	}
	s.mu.Unlock()
	<-s.ended
	return s.disk.closeErr
}

// Flush returns when what was added before it is written, or dropped.
func (s *Store) Flush() {
	done := make(chan struct{})
	s.mu.Lock()
	s.mu.flushed = append(s.mu.flushed, done)
	s.wakeLocked()
	s.mu.Unlock()
	select {
	case <-done:
	case <-s.ended:
	}
}

// Changed has a value when there is a backlog for a target that had none.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Stats returns counts since the start.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.stats
}

// Targets returns the targets that there are hints for, in order of their ids.
func (s *Store) Targets() []Target {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Target, 0, len(s.mu.targets))
	for id, t := range s.mu.targets {
		if t.count > 0 {
			all = append(all, Target{id, t.count, t.bytes, t.oldest()})
		}
	}
	slices.SortFunc(all, func(a, b Target) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return all
}

// count is how many hints there are for a target.
func (s *Store) count(id ring.NodeID) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.mu.targets[id]; t != nil {
		return t.count
	}
	return 0
}

// run is the goroutine that alone writes to the disk.
func (s *Store) run() {
	defer close(s.ended)
	s.disk.s = s
	s.disk.open()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-s.wake:
		case <-second.C:
			s.disk.tick()
			s.report()
		case <-s.stop:
			s.disk.write()
			s.report()
			s.disk.close()
			return
		}
		s.disk.write()
	}
}

// report tells of what was dropped.
func (s *Store) report() {
	s.mu.Lock()
	dirty, dropped := s.mu.dirty, s.mu.dropped
	if len(dirty) > 0 {
		s.mu.dirty = map[ring.Partition]struct{}{}
	}
	if len(dropped) > 0 {
		s.mu.dropped = map[drop]uint64{}
	}
	s.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(dirty)) {
		s.opts.Dirty(p)
	}
	for d, n := range dropped {
		s.opts.Notice(Notice{Target: d.target, Reason: d.reason, Count: n})
	}
}
