package coord

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

const (
	// A hedge may be made for each tenth read that is not, and hedgeBurst beside
	// that. Reads that wait for an owner that does not answer at all are free: what
	// they ask for is done by nobody else.
	hedgeShare = 100
	hedgeBurst = 20
	// The same for operations handed to a second owner because the first, which
	// got it, did not take it.
	retryShare = 100
	retryBurst = 100
	// probeTimeout bounds a probe.
	probeTimeout = time.Second
)

// health is what this node thinks of how owners answer. Package peerhealth decides;
// here its clock is, and what is done with the verdicts.
type health struct {
	c       *Coordinator
	table   *peerhealth.Table
	epoch   time.Time
	hedges  *peerhealth.Budget
	retries *peerhealth.Budget
	// ticking says that a tick is due: it is while something is awaited.
	ticking atomic.Bool
}

func (h *health) init(c *Coordinator) {
	h.c, h.epoch = c, c.opts.Clock.Now()
	h.table = peerhealth.NewTable(c.opts.Self, c.opts.HedgeDelay)
	h.hedges = peerhealth.NewBudget(hedgeShare, hedgeBurst)
	h.retries = peerhealth.NewBudget(retryShare, retryBurst)
}

// awaited is a request whose answer is awaited. It is a value, for closures to keep.
type awaited struct {
	record *peerhealth.Record
	// begun is when it was sent, since the epoch; 0 if it is not timed.
	begun time.Duration
	kind  peerhealth.Kind
}

// sent notes a request to what the record is about. heard follows, once.
func (h *health) sent(r *peerhealth.Record, k peerhealth.Kind) awaited {
	r.Sent()
	a := awaited{record: r, kind: k}
	if k != peerhealth.Write && h.table.Timed() {
		a.begun = max(h.c.opts.Clock.Now().Sub(h.epoch), 1)
	}
	if !h.ticking.Load() && h.ticking.CompareAndSwap(false, true) {
		h.table.Start()
		h.c.opts.Clock.AfterFunc(peerhealth.Interval, h.tick)
	}
	return a
}

// sentTo is sent to a peer.
func (h *health) sentTo(id ring.NodeID, k peerhealth.Kind) awaited {
	return h.sent(h.table.Peer(id), k)
}

// heard notes how a request ended: err is why no answer came. The caller holds no lock.
func (h *health) heard(a awaited, err error) {
	if err != nil {
		a.record.Failed()
		return
	}
	if tell := a.record.Answered(); !tell && a.begun == 0 {
		return
	}
	var begun time.Time
	if a.begun != 0 {
		begun = h.epoch.Add(a.begun)
	}
	if change, ok := h.table.Note(a.record, a.kind, begun, h.c.opts.Clock.Now()); ok {
		h.report(change)
	}
}

// heardDisk is heard for a write to this node's own disk. Any end of it is an answer,
// but for a replica that refuses it, or gives it up, because the disk does not answer:
// then only a write that gets there says that it does again.
func (h *health) heardDisk(a awaited, err error) {
	if err == nil || asError(err).Code != errcode.Unavailable || IsStripped(err) {
		err = nil
	}
	h.heard(a, err)
}

// tick lets the breakers look at what has come, and goes on while something is asked.
func (h *health) tick() {
	c := h.c
	if !c.enter() {
		return // what is under way ends by its deadlines
	}
	defer c.leave()
	changes, again := h.table.Tick(c.opts.Clock.Now(), c.opts.View())
	for _, change := range changes {
		h.report(change)
	}
	if !again {
		h.ticking.Store(false)
		// Something may have been sent since.
		if !h.table.Busy() || !h.ticking.CompareAndSwap(false, true) {
			return
		}
	}
	c.opts.Clock.AfterFunc(peerhealth.Interval, h.tick)
}

// report tells of a change. The caller holds no lock.
func (h *health) report(change peerhealth.Change) {
	why := change.Why
	if change.Part != peerhealth.Requests {
		why = string(change.Part) + ": " + why
	}
	h.c.opts.Metrics.PeerState(change.To)
	h.c.opts.PeerChanged(change.ID, change.From, change.To, why)
}

// PeerHealth returns what this node thinks of its own disk and reads, and of each
// peer that it has asked something.
func (c *Coordinator) PeerHealth() []peerhealth.Status { return c.health.table.All() }

// Answers reports whether a peer is taken to answer: nothing speaks against it. One that
// is not is probed, if it is time for that, since operations may have nothing to ask it.
func (c *Coordinator) Answers(id ring.NodeID) bool {
	r := c.health.table.Peer(id)
	if !r.Shut() {
		return true
	}
	if now := c.opts.Clock.Now(); r.Probe(now) && c.enter() {
		// The caller may hold a lock that whoever hears of the answer wants.
		c.opts.Clock.AfterFunc(0, func() { c.sendPing(id) })
	}
	return false
}

// sendPing sends a peer a probe that is about no key. It is told that the sender's ring
// or tenant is not right, which is an answer. The caller holds one, which ends with it.
func (c *Coordinator) sendPing(id ring.NodeID) {
	m := Message{Op: OpDigest, Deadline: c.opts.Clock.Now().Add(probeTimeout)}
	a := c.health.sentTo(id, peerhealth.Read)
	c.opts.Transport.Send(id, &m, func(_ Reply, err error) {
		c.health.heard(a, err)
		c.leave()
	})
}

// record is that of an owner; for this node, of its reads.
func (c *Coordinator) record(u *unit, i int) *peerhealth.Record {
	if i == u.self {
		return c.health.table.Reads()
	}
	return c.health.table.Peer(u.owners[i])
}

// shut reports whether owner i is known not to answer. For this node that is the
// case when its disk does not: what is read may wait for a sync.
func (c *Coordinator) shut(u *unit, i int) bool {
	return c.record(u, i).Shut() || i == u.self && c.health.table.Disk().Shut()
}

// order appends the indices of the owners that may answer to dst: those that
// answer, then those that are slow, then those that do not, each in the order of
// unit.order.
func (c *Coordinator) order(u *unit, dst []int) []int {
	dst = u.order(dst)
	if c.health.table.Impaired() {
		slices.SortStableFunc(dst, func(i, j int) int { return c.rank(u, i) - c.rank(u, j) })
	}
	return dst
}

func (c *Coordinator) rank(u *unit, i int) int {
	switch {
	case c.shut(u, i):
		return 2
	case c.record(u, i).State() == peerhealth.Slow:
		return 1
	}
	return 0
}

// leaveOut returns a bit for each owner that is not to be sent a write: it does not
// answer, and the level can be met by the others. It is 0 if they are too few: then
// what has been minted goes to all.
func (c *Coordinator) leaveOut(u *unit, l quorum.Level) (out uint16) {
	if !c.health.table.Impaired() {
		return 0
	}
	var usable uint16
	for i := range u.owners {
		switch {
		case u.down(i):
		case i != u.self && c.shut(u, i):
			out |= 1 << i
		default:
			usable |= 1 << i
		}
	}
	if !u.written(l).Met(usable) {
		return 0
	}
	return out
}

// silent is why owner i is not asked.
func (c *Coordinator) silent(u *unit, i int) string {
	return "has not answered since " + c.record(u, i).Since().UTC().Format("15:04:05.000")
}

// subject is what owners own, for messages.
func (j *job) subject() string {
	if j.scan != nil {
		return "a partition"
	}
	return "the key"
}

// diskHangs returns why a write is to be minted elsewhere: this node's disk does not
// answer, and another owner does. nil if it is not.
func (c *Coordinator) diskHangs(j *job, u *unit) *Error {
	disk := c.health.table.Disk()
	if !disk.Shut() || j.kind.reads() || j.forwarded {
		return nil
	}
	for i := range u.owners {
		if i != u.self && u.r1>>i&1 == 1 && !u.down(i) && !c.shut(u, i) {
			return &Error{
				Code: errcode.Unavailable, Outcome: errcode.NotApplied,
				Message: "no write has got to this node's disk since " + disk.Since().UTC().Format("15:04:05.000"),
			}
		}
	}
	return nil
}

// probe asks owners that are slow or do not answer for the digest of the key, or of
// the first key in the range of a scan, if it is time for that. Whatever they answer
// is told to their records only.
func (c *Coordinator) probe(u *unit, scan *ScanRange) {
	if !c.health.table.Impaired() {
		return
	}
	now := c.opts.Clock.Now()
	for i := range u.owners {
		r := c.record(u, i)
		s := r.State()
		if s == peerhealth.Slow && !u.mints() && scan == nil {
			continue // forward.choose tries it with the operation, which it may be slow with alone
		}
		if i == u.self || u.down(i) || s == peerhealth.Closed || !r.Probe(now) {
			continue
		}
		c.hold(1)
		c.sendProbe(u, i, scan, func(error) { c.leave() })
	}
}

// sendProbe sends a probe and calls done when an answer has come, or none will.
func (c *Coordinator) sendProbe(u *unit, i int, scan *ScanRange, done func(error)) {
	m := u.message(OpDigest)
	k := peerhealth.Read
	if scan != nil {
		one := *scan
		one.Mode, one.MaxKeys, one.MaxBytes, one.Budget = ScanDigests, 1, 1, 2
		m.Op, m.Body, k = OpScan, encodeScanRange(&one), peerhealth.Scan
	}
	m.Deadline = c.opts.Clock.Now().Add(probeTimeout)
	a := c.health.sentTo(u.owners[i], k)
	c.opts.Transport.Send(u.owners[i], &m, func(_ Reply, err error) {
		c.health.heard(a, err)
		done(err)
	})
}

// mayHedge reports whether one more owner may be asked, because others keep the
// caller waiting. free says that one of those does not answer at all.
func (c *Coordinator) mayHedge(free bool) bool {
	if !free && !c.health.hedges.Take() {
		c.opts.Metrics.HedgeRefused()
		return false
	}
	c.opts.Metrics.Hedge()
	return true
}
