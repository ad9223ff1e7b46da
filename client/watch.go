package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
)

const (
	// lookEach is how often the nodes are looked at while there are calls, and
	// digestEach how often latencies are summed up.
	lookEach, digestEach = 50 * time.Millisecond, time.Second
	// restAfter is how long after the last call this goes on.
	restAfter = 2 * time.Second
	// A probe of a silent node waits for probeWait, and the next begins no sooner
	// than probePause after it.
	probeWait, probePause = time.Second, 250 * time.Millisecond
)

// lane is what the calls of one class to one node leave behind: all that a call
// pays for is here. It is safe for concurrent use.
type lane struct {
	outstanding atomic.Int64
	answers     atomic.Uint64
	troubles    atomic.Uint32
	latest      atomic.Int64
	counts      [latencyBuckets]atomic.Uint32

	// What the watcher found: the standing, whether it hesitates though it is fine,
	// whether one call may go there anyway, the median and what 99 % do not exceed (0: not known).
	standing     atomic.Uint32
	hesitates    atomic.Bool
	trial        atomic.Bool
	median, high atomic.Int64

	// These belong to the watcher.
	vigil  vigil
	recent recent
	probed bool
}

func (l *lane) is(s standing) bool { return standing(l.standing.Load()) == s }

// rank is where a node comes among those a call may go to: 0 if nothing is wrong
// with it, 2 if it is to be avoided.
func (l *lane) rank() int {
	switch {
	case !l.is(fine):
		return 2
	case l.hesitates.Load():
		return 1
	}
	return 0
}

// begin notes a call that is sent.
func (l *lane) begin() time.Time {
	l.outstanding.Add(1)
	return time.Now()
}

// ending is how a call ended.
type ending int

const (
	served   ending = iota // the node answered
	unserved               // it answered that it cannot serve
	unheard                // there was no answer
)

func (l *lane) end(began time.Time, how ending) {
	took := time.Since(began)
	if how == unheard {
		// It took at least as long, which says something if that is long.
		if median := l.median.Load(); median > 0 && int64(took) > median {
			l.counts[latencyBucket(took)].Add(1)
		}
		l.outstanding.Add(-1)
		return
	}
	l.counts[latencyBucket(took)].Add(1)
	l.latest.Store(int64(took))
	if how == unserved {
		l.troubles.Add(1)
	} else if l.troubles.Load() != 0 {
		l.troubles.Store(0)
	}
	l.answers.Add(1)
	l.outstanding.Add(-1)
}

// endingOf is how a call ended that failed with e, if it is not nil.
func endingOf(e *Error) ending {
	switch {
	case e == nil:
		return served
	case e.answered && nodeTrouble(e.Code):
		return unserved
	case e.answered:
		return served
	}
	switch e.Code {
	case errcode.Timeout, errcode.Unavailable: // or cancelled
		return unheard
	}
	return served
}

// watched takes looks by itself.
type watched interface {
	look(passed time.Duration) (busy bool)
}

// watcher looks at the nodes while there are calls, and decides which of them are
// to be avoided. It is one goroutine, begun by the first call, and one more for
// each probe.
type watcher struct {
	c       *Client
	resting atomic.Bool
	wake    chan struct{}
	begin   sync.Once
	ctx     context.Context // ends with the client
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu struct {
		sync.Mutex
		nodes []*conn
		// others are asked at each look as well, and say whether they are busy: the
		// pipelines.
		others     []watched
		othersBusy bool
	}
}

func newWatcher(c *Client) *watcher {
	w := &watcher{c: c, wake: make(chan struct{}, 1)}
	w.resting.Store(true)
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// add has a node watched, and drop ends that.
func (w *watcher) add(cn *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.nodes = append(w.mu.nodes, cn)
}

func (w *watcher) drop(cn *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.nodes = slices.DeleteFunc(w.mu.nodes, func(n *conn) bool { return n == cn })
}

// rouse has the nodes looked at from now on.
func (w *watcher) rouse() {
	w.begin.Do(func() { w.wg.Go(w.run) })
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// close ends the goroutines.
func (w *watcher) close() {
	w.begin.Do(func() {}) // none begins any more
	w.cancel()
	w.wg.Wait()
}

func (w *watcher) run() {
	for {
		select {
		case <-w.wake:
		case <-w.ctx.Done():
			return
		}
		w.resting.Store(false)
		if !w.watch() {
			return
		}
		w.resting.Store(true)
		if w.busy() {
			w.rouse() // it began just before
		}
	}
}

// watch looks until there has been nothing to see for a while; false says that
// the client was closed.
func (w *watcher) watch() bool {
	tick := time.NewTicker(lookEach)
	defer tick.Stop()
	var idle, undigested time.Duration
	for last := time.Now(); idle < restAfter; {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			return false
		}
		now := time.Now()
		passed := elapsed(last, now)
		last = now
		if undigested += passed; undigested >= digestEach {
			undigested = 0
			w.digest()
		}
		w.look(passed)
		if idle += passed; w.busy() {
			idle = 0
		}
	}
	return true
}

// elapsed is how much of the time between two looks counts: if this process did not
// run meanwhile, the nodes had no chance to be heard.
func elapsed(last, now time.Time) time.Duration { return min(now.Sub(last), 2*lookEach) }

// busy says that there are calls under way.
func (w *watcher) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cn := range w.mu.nodes {
		for i := range cn.lanes {
			if cn.lanes[i].outstanding.Load() > 0 {
				return true
			}
		}
	}
	return w.mu.othersBusy
}

// digest sums up the latencies.
func (w *watcher) digest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cn := range w.mu.nodes {
		for i := range cn.lanes {
			l := &cn.lanes[i]
			var counts [latencyBuckets]uint32
			some := false
			for b := range counts {
				if l.counts[b].Load() > 0 {
					counts[b] = l.counts[b].Swap(0)
					some = true
				}
			}
			if !some {
				continue // what was known stays so
			}
			l.recent.add(&counts)
			median, high := l.recent.quantiles()
			l.median.Store(int64(median))
			l.high.Store(int64(high))
		}
	}
}

// look looks at all nodes once.
func (w *watcher) look(passed time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.othersBusy = false
	for _, o := range w.mu.others {
		w.mu.othersBusy = o.look(passed) || w.mu.othersBusy
	}
	if w.c.opts.NoNodeHealth {
		return
	}
	for _, cn := range w.mu.nodes {
		w.lookAtLocked(cn, passed)
	}
}

func (w *watcher) lookAtLocked(cn *conn, passed time.Duration) {
	var vigils [classes]*vigil
	var was [classes]vigil
	var trials [classes]bool
	probed := cn.probed.Swap(false)
	for i := range cn.lanes {
		l := &cn.lanes[i]
		vigils[i], was[i] = &l.vigil, l.vigil
		l.probed = l.probed || probed
		s := signs{
			outstanding: l.outstanding.Load(), answers: l.answers.Load(), troubles: l.troubles.Load(),
			latest: time.Duration(l.latest.Load()), median: time.Duration(l.median.Load()), high: time.Duration(l.high.Load()),
			others: w.othersLocked(cn, class(i)), probed: l.probed,
		}
		trials[i] = l.vigil.look(s, passed)
		if h := l.vigil.hesitates(s); h != l.hesitates.Load() {
			l.hesitates.Store(h)
		}
	}
	together(vigils[:])
	quiet := false
	for i := range cn.lanes {
		l := &cn.lanes[i]
		if l.vigil.standing != was[i].standing || was[i].trying && !l.vigil.trying {
			l.probed = false // it has to answer again
		}
		w.publish(l, was[i].standing, trials[i])
		quiet = quiet || l.vigil.standing == silent
	}
	cn.sinceProbe += passed
	if quiet && !cn.probing.Load() && cn.sinceProbe >= probePause {
		cn.sinceProbe = 0
		cn.probing.Store(true)
		w.wg.Go(func() { w.probe(cn) })
	}
}

// publish tells the calls what was found.
func (w *watcher) publish(l *lane, before standing, trial bool) {
	after := l.vigil.standing
	if after != before {
		l.standing.Store(uint32(after))
		switch after {
		case fine:
			l.trial.Store(false)
			l.troubles.Store(0)
			if before == slow {
				l.recent = recent{} // it is not what it was
				l.median.Store(0)
				l.high.Store(0)
			}
		default:
			w.c.counters.avoided.Add(1)
		}
	}
	if trial {
		l.trial.Store(true)
	}
}

// othersLocked is the median latency of a class at the other nodes that are fine:
// of several, the middle one, or the lower one of the two in the middle.
func (w *watcher) othersLocked(cn *conn, cl class) time.Duration {
	var room [8]int64
	all := room[:0]
	for _, n := range w.mu.nodes {
		l := &n.lanes[cl]
		if m := l.median.Load(); n != cn && m > 0 && l.is(fine) {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return time.Duration(all[(len(all)-1)/2])
}

// probe asks a silent node whether it is there. Any answer says so.
func (w *watcher) probe(cn *conn) {
	ctx, cancel := context.WithTimeout(w.ctx, probeWait)
	defer cancel()
	_, err := cn.health.Check(ctx, &healthpb.HealthCheckRequest{})
	w.c.counters.probes.Add(1)
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
	default:
		cn.probed.Store(true)
	}
	cn.probing.Store(false)
}

// enlist has o asked at each look until it is delisted.
func (w *watcher) enlist(o watched) {
	w.mu.Lock()
	w.mu.others = append(w.mu.others, o)
	w.mu.Unlock()
	w.rouse()
}

func (w *watcher) delist(o watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.others = slices.DeleteFunc(w.mu.others, func(p watched) bool { return p == o })
}
