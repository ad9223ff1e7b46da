package hints

import (
	"sync"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// firstInFlight is with how many a courier begins; each that is delivered lets one
	// more be under way.
	firstInFlight = 4
	// inFlightBytes bounds what is under way to one target, by what was sent of late.
	inFlightBytes = 4 << 20
	// burst is how much more than the rate may be sent at once, in time.
	burst = 100 * time.Millisecond

	// Pauses when the target has too much to do, when nothing works, and between two
	// passes when some hints are left. Each doubles.
	firstBusyPause, maxBusyPause = 100 * time.Millisecond, 5 * time.Second
	firstFailPause, maxFailPause = 500 * time.Millisecond, 5 * time.Second
	firstPassPause, maxPassPause = time.Second, 30 * time.Second
	// failsInARow is how many have to fail for a pause.
	failsInARow = 4
)

// courier delivers to one target while that is reachable and has hints. It goes over
// them in passes, each from the first to the last.
type courier struct {
	d      *Delivery
	target ring.NodeID
	// wake has room for one notice that a delivery has ended.
	wake chan struct{}

	mu struct {
		sync.Mutex
		inFlight, limit int
		// large is about what the largest of late had, in bytes.
		large int64
		// bytes and items may be sent; below 0 they are owed.
		bytes, items float64
		filled       time.Time
		// Nothing is sent before until.
		until              time.Time
		busyPause, failing time.Duration
		fails              int
		// settled and failed count those of this pass.
		settled, failed int
	}
}

func newCourier(d *Delivery, id ring.NodeID) *courier {
	c := &courier{d: d, target: id, wake: make(chan struct{}, 1)}
	c.mu.limit, c.mu.filled = min(firstInFlight, d.opts.InFlight), time.Now()
	c.mu.bytes, c.mu.items = c.most()
	return c
}

// most is how much may be sent at once.
func (c *courier) most() (bytes, items float64) {
	return float64(c.d.opts.Rate) * burst.Seconds(), max(float64(c.d.opts.Items)*burst.Seconds(), 1)
}

// run delivers until there is nothing to deliver, or nobody to deliver to. It returns
// when nothing is under way.
func (c *courier) run() {
	s := c.d.opts.Store
	var place []byte
	passPause := time.Duration(0)
	for c.d.ctx.Err() == nil && c.d.opts.Reachable(c.target) && s.count(c.target) > 0 {
		n, wait := c.room(time.Now())
		if n == 0 {
			c.sleep(wait)
			continue
		}
		keys, epoch, next := s.next(c.target, place, n)
		for _, k := range keys {
			c.deliver(k, epoch)
		}
		if place = next; place != nil {
			continue
		}
		// The end of a pass. What is settled is still to be taken away.
		c.drain()
		s.Flush()
		passPause = c.endPass(passPause)
		c.sleep(passPause)
	}
	c.drain()
	// The next courier must not find what this one has settled.
	s.Flush()
}

// endPass returns how long to wait for the next pass.
func (c *courier) endPass(last time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	failed, settled := c.mu.failed, c.mu.settled
	c.mu.failed, c.mu.settled = 0, 0
	switch {
	case failed == 0:
		return 0
	case settled > 0:
		return firstPassPause
	}
	return min(max(2*last, firstPassPause), maxPassPause)
}

// sleep waits for d, for the end of a delivery if d is 0, or for Close.
func (c *courier) sleep(d time.Duration) {
	if d == 0 {
		d = lookEvery // and then sees whether the target is still reachable
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.wake:
	case <-c.d.ctx.Done():
	}
}

// drain waits until nothing is under way. Each delivery ends by itself.
func (c *courier) drain() {
	for {
		c.mu.Lock()
		n := c.mu.inFlight
		c.mu.Unlock()
		if n == 0 {
			return
		}
		<-c.wake
	}
}

// room is how many hints may be delivered now; if none, for how long to wait, 0 for
// until one has ended.
func (c *courier) room(now time.Time) (n int, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.mu.until.Sub(now); d > 0 {
		return 0, d
	}
	passed := max(now.Sub(c.mu.filled).Seconds(), 0)
	c.mu.filled = now
	bytes, items := c.most()
	rate, each := float64(c.d.opts.Rate), float64(c.d.opts.Items)
	c.mu.bytes = min(c.mu.bytes+passed*rate, bytes)
	c.mu.items = min(c.mu.items+passed*each, items)
	switch {
	case c.mu.bytes < 0:
		return 0, time.Duration(-c.mu.bytes/rate*float64(time.Second)) + time.Millisecond
	case c.mu.items < 1:
		return 0, time.Duration((1-c.mu.items)/each*float64(time.Second)) + time.Millisecond
	}
	limit := c.mu.limit
	if c.mu.large > 0 {
		limit = min(limit, int(max(inFlightBytes/c.mu.large, 1)))
	}
	if n = min(limit-c.mu.inFlight, int(c.mu.items)); n <= 0 {
		return 0, 0
	}
	return n, 0
}

func (c *courier) deliver(key string, epoch int) {
	h, err := decodeHint([]byte(key))
	if err != nil {
		// Nothing that Add wrote.
		c.d.opts.Store.settle(key, epoch, Gone)
		return
	}
	c.mu.Lock()
	c.mu.inFlight++
	c.mu.items--
	c.mu.Unlock()
	c.d.opts.Deliver(h, func(o Outcome, why Reason, sent int) {
		if o == Done {
			c.d.opts.Store.settle(key, epoch, why)
		} else {
			c.d.opts.Store.release(key)
		}
		c.heard(o, sent)
	})
}

// heard notes how a delivery has ended.
func (c *courier) heard(o Outcome, sent int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.inFlight--
	c.mu.bytes -= float64(sent)
	c.mu.large = max(int64(sent), c.mu.large-c.mu.large/32)
	now := time.Now()
	switch o {
	case Done:
		c.mu.settled++
		c.mu.fails, c.mu.failing = 0, 0
		c.mu.limit = min(c.mu.limit+1, c.d.opts.InFlight)
		if now.After(c.mu.until) {
			c.mu.busyPause /= 2
		}
	case Busy:
		c.mu.failed++
		c.mu.limit = max(c.mu.limit/2, 1)
		if now.After(c.mu.until) { // one pause for all that were under way together
			c.mu.busyPause = min(max(2*c.mu.busyPause, firstBusyPause), maxBusyPause)
			c.mu.until = now.Add(c.mu.busyPause)
		}
	default:
		c.mu.failed++
		if c.mu.fails++; c.mu.fails >= failsInARow && now.After(c.mu.until) {
			c.mu.limit = min(firstInFlight, c.d.opts.InFlight)
			c.mu.failing = min(max(2*c.mu.failing, firstFailPause), maxFailPause)
			c.mu.until = now.Add(c.mu.failing)
		}
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
