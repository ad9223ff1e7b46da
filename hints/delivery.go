package hints

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Outcome says how an attempt to deliver ended.
type Outcome uint8

const (
	// Done: the hint is settled, for the reason that comes with it.
	Done Outcome = iota
	// Busy: the target has too much to do.
	Busy
	// Failed: it did not work. It is tried again later.
	Failed
)

// DeliveryOptions configure a Delivery. Store, Reachable and Deliver are required.
type DeliveryOptions struct {
	Store *Store
	// Reachable reports whether a target can be delivered to.
	Reachable func(ring.NodeID) bool
	// Deliver brings the target what this node holds of the hint's key, and calls
	// done exactly once, maybe before it returns: with how it ended, for Done with
	// why, and with how many bytes were sent. h is its to keep. It must not block.
	Deliver func(h Hint, done func(o Outcome, why Reason, sent int))
	// Rate bounds what is sent to one target, in bytes a second. Default 10 MiB. More
	// is done sooner and leaves less of disks and network to clients.
	Rate int64
	// Items bounds it in hints a second. Default 5000.
	Items int
	// InFlight bounds the hints under way to one target. Default 64.
	InFlight int
	Logger   *slog.Logger
}

// EnsureDefaults fills in what is not set.
func (o *DeliveryOptions) EnsureDefaults() {
	o.Rate = cmp.Or(o.Rate, 10<<20)
	o.Items = cmp.Or(o.Items, 5000)
	o.InFlight = cmp.Or(o.InFlight, 64)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate says what is missing or out of range.
func (o *DeliveryOptions) Validate() error {
	if o.Store == nil || o.Reachable == nil || o.Deliver == nil {
		return errors.New("hints: Store, Reachable and Deliver are required")
	}
	if o.Rate <= 0 || o.Items <= 0 || o.InFlight <= 0 {
		return errors.New("hints: a bound of deliveries is not positive")
	}
	return nil
}

// lookEvery is how often is looked for targets that are back.
const lookEvery = 500 * time.Millisecond

// Delivery delivers the hints of a Store: to several targets at once, to each as soon
// as it is reachable. It is safe for concurrent use. End it with Close.
type Delivery struct {
	opts   DeliveryOptions
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // one for run, and one for each courier, which run adds

	mu struct {
		sync.Mutex
		couriers map[ring.NodeID]*courier
	}
}

// StartDelivery starts to deliver.
func StartDelivery(opts DeliveryOptions) (*Delivery, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	d := &Delivery{opts: opts}
	d.mu.couriers = map[ring.NodeID]*courier{}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.wg.Go(d.run)
	return d, nil
}

// Close begins no more deliveries and returns when none is under way.
func (d *Delivery) Close() {
	d.cancel()
	d.wg.Wait()
}

// run starts a courier for each target that is reachable and has a backlog.
func (d *Delivery) run() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for _, t := range d.opts.Store.Targets() {
			d.start(t.ID)
		}
		select {
		case <-d.ctx.Done():
			return
		case <-tick.C:
		case <-d.opts.Store.Changed():
		}
	}
}

func (d *Delivery) start(id ring.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.couriers[id] != nil || !d.opts.Reachable(id) {
		return
	}
	c := newCourier(d, id)
	d.mu.couriers[id] = c
	d.wg.Go(func() {
		c.run()
		d.mu.Lock()
		delete(d.mu.couriers, id)
		d.mu.Unlock()
	})
}

// next returns at most n hints of a target behind a key, which are under way until
// removed or released, and the place to go on, nil at the end.
func (s *Store) next(id ring.NodeID, from []byte, n int) (keys []string, epoch int, next []byte) {
	if from == nil {
		from = prefixOf(id)
	}
	s.disk.reading.RLock()
	defer s.disk.reading.RUnlock()
	s.mu.Lock()
	db, epoch := s.disk.db, s.mu.epoch
	s.mu.Unlock()
	if db == nil {
		return nil, epoch, nil
	}
	next, err := scan(db, from, id, n, func(key string, _ int64) { keys = append(keys, key) })
	if err != nil {
		// The goroutine that writes finds out, too, or it was for once.
		s.opts.Logger.Warn("read hints", "err", err)
		return nil, epoch, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.mu.targets[id]
	if t == nil || epoch != s.mu.epoch {
		return nil, epoch, nil
	}
	for _, k := range keys {
		t.inFlight[k] = false
	}
	return keys, epoch, next
}

// settle takes a hint away that was delivered, or needs not be.
func (s *Store) settle(key string, epoch int, why Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.removals = append(s.mu.removals, removal{key: key, reason: why, epoch: epoch})
	s.wakeLocked()
}

// release ends an attempt that came to nothing.
func (s *Store) release(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.mu.targets[targetOf(key)]; t != nil {
		delete(t.inFlight, key)
	}
}
