package repair

import (
	"errors"
	"log/slog"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Objects is this node's copy of the data, key by key: the part of coord.Replica
// that rounds use.
type Objects interface {
	Read(at coord.Address, done func(object []byte, err error))
	Scan(r *coord.ScanRange, done func(p coord.ScanPiece, err error))
	Merge(items []coord.MergeItem, done func(i int, uncovered []byte, err error))
}

// Options configure a Manager. Those without a default are required.
type Options struct {
	// Self is this node.
	Self ring.NodeID
	// View returns the present snapshot of the cluster, never nil.
	View    func() *schema.Snapshot
	Replica Replica
	Objects Objects
	// Transport reaches the other owners.
	Transport coord.Transport
	Clock     coord.Clock
	Scheduler coord.Scheduler
	// Healthy reports whether a node that gossip takes for alive answers. Default:
	// all do.
	Healthy func(ring.NodeID) bool
	// Quarantined reports whether this node's copy of a partition is not to be
	// relied on until it was fetched again. Default: none is.
	Quarantined func(ring.Partition) bool
	// Fetching is told that a partition under quarantine is about to be fetched, and
	// Fetched that some have all that the other owners have: they may be served again,
	// unless more of their data was lost since Fetching, which Quarantined then says.
	// Default: nothing.
	Fetching func(ring.Partition)
	Fetched  func([]ring.Partition) error
	// Synced notes durably, and makes known, that this node has fetched all that it
	// gains by the change that was proposed with that entry. Cleaned does so for that
	// under that entry this node held nothing of what it did not own. Default: nothing.
	Synced  func(ring.Version) error
	Cleaned func(ring.Version) error
	// Busy reports whether clients wait for this node more than they should: then
	// rounds pause between two steps, each time for a quarter of a second at most.
	// Default: never.
	Busy func() bool
	// Streamed is told of bytes that are moved because the ring changes, read from this
	// node's copy or about to be written to it, and returns for how long it should move
	// no more, so that clients do not wait for it. Default: it may go on at once.
	Streamed func(bytes int) time.Duration
	// Random returns a number from 0 to below 1. Rounds are spread with it, so that
	// nodes do not compare all at the same time.
	Random func() float64

	// Interval is how often a partition is compared: shorter brings back space of
	// deletes and finds what was missed sooner, longer costs less. Default 10 min.
	Interval time.Duration
	// Settle is how long writes under way may take to end at all owners. It must not
	// be less than any coordinator's WriteTimeout. Default 6 s.
	Settle time.Duration
	// Rate bounds what comparisons and repairs driven here read and send, in bytes a
	// second. Default 16 MiB.
	Rate int64
	// StreamRate bounds what this node fetches of partitions that it is about to own,
	// and hands over of those that it owns no more, in bytes a second. Default 64 MiB.
	StreamRate int64
	// Concurrency is how many partitions are compared or fetched at once. Default 8.
	Concurrency int

	// Note is told in plain words what an operator may want to know. It must not
	// block. Default: nobody is.
	Note   func(Note)
	Logger *slog.Logger
}

// Note is an event.
type Note struct {
	// Warning says that somebody should look.
	Warning bool
	Text    string
	// Details are pairs of names and values.
	Details []string
}

// EnsureDefaults fills what is not set.
func (o *Options) EnsureDefaults() {
	set(&o.Interval, 10*time.Minute)
	set(&o.Settle, 6*time.Second)
	set(&o.Rate, 16<<20)
	set(&o.StreamRate, 64<<20)
	set(&o.Concurrency, 8)
	if o.Healthy == nil {
		o.Healthy = func(ring.NodeID) bool { return true }
	}
	if o.Quarantined == nil {
		o.Quarantined = func(ring.Partition) bool { return false }
	}
	if o.Fetching == nil {
		o.Fetching = func(ring.Partition) {}
	}
	if o.Fetched == nil {
		o.Fetched = func([]ring.Partition) error { return nil }
	}
	if o.Synced == nil {
		o.Synced = func(ring.Version) error { return nil }
	}
	if o.Cleaned == nil {
		o.Cleaned = func(ring.Version) error { return nil }
	}
	if o.Busy == nil {
		o.Busy = func() bool { return false }
	}
	if o.Streamed == nil {
		o.Streamed = func(int) time.Duration { return 0 }
	}
	if o.Note == nil {
		o.Note = func(Note) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func set[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate reports everything that is wrong.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, msg string) {
		if !ok {
			errs = append(errs, errors.New("repair: "+msg))
		}
	}
	check(!o.Self.IsZero(), "Self is missing")
	check(o.View != nil, "View is missing")
	check(o.Replica != nil, "Replica is missing")
	check(o.Objects != nil, "Objects is missing")
	check(o.Transport != nil, "Transport is missing")
	check(o.Clock != nil, "Clock is missing")
	check(o.Scheduler != nil, "Scheduler is missing")
	check(o.Random != nil, "Random is missing")
	check(o.Interval > 0 && o.Settle > 0, "a duration is not positive")
	check(o.Rate > 0 && o.StreamRate > 0 && o.Concurrency > 0, "Rate, StreamRate or Concurrency is not positive")
	return errors.Join(errs...)
}
