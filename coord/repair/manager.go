package repair

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// tick is how often the manager looks at what is due.
	tick = time.Second
	// debounce is how long a span waits that is to be compared soon: more may follow.
	debounce = 2 * time.Second
	// firstBackoff is when a span that was not confirmed is tried again; each time
	// it takes twice as long, up to the interval.
	firstBackoff = 30 * time.Second
	// maxRound bounds the spans of one round.
	maxRound = 4096
)

// Manager runs rounds of the spans that this node drives, fetches partitions under
// quarantine anew, and serves the rounds of others. It is safe for concurrent use.
// Make it with New, begin with Start, end it with Close.
type Manager struct {
	opts    Options
	fibers  fibers
	service service
	figures figures
	bucket  *bucket
	stream  *bucket // of what changes of the ring move
	room    room
	large   room         // of large spans that are compared because the ring changes
	ticks   int          // of look, of which one runs at a time
	version ring.Version // that look saw last
	doubted time.Time    // when look last looked for spans in doubt

	mu struct {
		sync.Mutex
		// spans are those this node drives, and told those that another does, which
		// is to be told that they are dirty.
		spans map[Span]*schedule
		told  map[Span]bool
		// members is what was last seen of the others.
		members map[ring.NodeID]seen
		// periodic is when all spans are due next.
		periodic time.Time
		busy     bool // a round is under way
		fetching bool // a refetch is under way
		telling  bool // drivers are being told
		// votes are the spans of which votes here hold back what is confirmed, and asking
		// says that others are being asked about some.
		votes   map[Span]bool
		asking  bool
		started bool
		stop    func() bool
		runs    []*Run // the latest last
		nextRun int
		fetch   fetchState
		gains   gains
		clean   cleaning
		closed  bool
	}
}

// schedule is when a span is to be compared.
type schedule struct {
	// due is when, zero for whenever all are.
	due time.Time
	// last is when a round last began that dealt with it, and failures how many in a
	// row did not end with all owners equal.
	last     time.Time
	failures int
	first    time.Time // when this node began to drive it
	told     bool      // that it has not been repaired for long
	why      string    // it was not confirmed
}

// seen is what was last seen of a member.
type seen struct {
	alive       bool
	incarnation uint64
	// back is when it was last found to be there again, zero for never.
	back time.Time
}

// New returns a manager, or what is wrong with the options.
func New(opts Options) (*Manager, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	m := &Manager{opts: opts}
	m.fibers.clock, m.fibers.sched = opts.Clock, opts.Scheduler
	m.service.init(&m.opts, &m.fibers, m.soon, m.voted)
	m.bucket = newBucket(opts.Rate, opts.Clock.Now())
	m.stream = newBucket(opts.StreamRate, opts.Clock.Now())
	m.room.size = 8 << 20
	m.large.size = int64(m.opts.Concurrency)
	m.mu.fetch.under = -1
	m.mu.spans, m.mu.told, m.mu.votes = make(map[Span]*schedule), make(map[Span]bool), make(map[Span]bool)
	m.service.start()
	return m, nil
}

// Serve answers a peer; it is a coord.RepairHandler.
func (m *Manager) Serve(_ ring.NodeID, msg *coord.Message, reply func(coord.Reply)) {
	m.service.serve(msg, reply)
}

// Start begins to drive rounds. Peers are served before, too.
func (m *Manager) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.started {
		return
	}
	m.mu.started = true
	// This node may have missed something while it was away.
	m.mu.periodic = m.opts.Clock.Now().Add(m.jitter(min(m.opts.Interval, 10*time.Second)))
	m.armLocked()
}

// jitter returns between half of d and d.
func (m *Manager) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(m.opts.Random()*float64(d/2))
}

func (m *Manager) armLocked() {
	m.mu.stop = m.opts.Clock.AfterFunc(tick, func() { m.fibers.spawn("repair", m.look) })
}

// Close ends what is under way and returns when that is over, or with ctx's error. Only
// calls of the replica are waited for.
func (m *Manager) Close(ctx context.Context) error {
	// In this order: what waits to be served finds that nothing is begun any more.
	idle := m.fibers.close()
	m.service.close()
	m.mu.Lock()
	m.mu.closed = true
	m.mu.gains.allLocked()
	if m.mu.stop != nil {
		m.mu.stop()
	}
	m.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Overdue spans are looked for each so many ticks.
const overdueEach = 30

// Dirty says that the owners of a partition may differ: it is compared soon, by
// whichever of them drives.
func (m *Manager) Dirty(p ring.Partition) {
	v := m.opts.View()
	for _, span := range m.spansOf(v) {
		if span.Partition == p {
			m.soon(span)
		}
	}
}

// soon notes that a span is to be compared.
func (m *Manager) soon(span Span) {
	drives := m.driver(m.opts.View(), span) == m.opts.Self
	m.mu.Lock()
	defer m.mu.Unlock()
	if !drives {
		m.mu.told[span] = true // one that exists: there is an end to them
		return
	}
	m.dueLocked(span, m.opts.Clock.Now().Add(debounce))
}

func (m *Manager) dueLocked(span Span, at time.Time) {
	s := m.mu.spans[span]
	if s == nil {
		s = &schedule{first: m.opts.Clock.Now()}
		m.mu.spans[span] = s
	}
	if s.due.IsZero() || at.Before(s.due) {
		s.due = at
	}
}

// spansOf returns the spans that this node owns, in order.
func (m *Manager) spansOf(v *schema.Snapshot) (all []Span) {
	if v.Layout == nil || !v.Ready {
		return nil
	}
	for p := range v.Layout.Partitions() {
		for _, c := range v.Classes() {
			if v.Layout.IsOwner(m.opts.Self, ring.Partition(p), c.Copies.From) {
				all = append(all, Span{ring.Partition(p), c.Class})
			}
		}
	}
	return all
}

// healthy reports whether a node may take part in rounds.
func (m *Manager) healthy(v *schema.Snapshot, id ring.NodeID) bool {
	return id == m.opts.Self || v.Alive(id) && m.opts.Healthy(id)
}

// driver returns the owner of a span that drives its rounds: of those that are there
// the one with the lowest id. Two owners may disagree; that costs work only.
func (m *Manager) driver(v *schema.Snapshot, span Span) (id ring.NodeID) {
	if v.Layout == nil {
		return id
	}
	var room [ring.MaxRF]ring.NodeID
	for _, owner := range v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From) {
		if m.healthy(v, owner) && (id.IsZero() || owner.Compare(id) < 0) {
			id = owner
		}
	}
	return id
}

// look begins what is due.
func (m *Manager) look(*fiber) {
	v, now := m.opts.View(), m.opts.Clock.Now()
	m.lookGains(v)
	m.lookForeign(v)
	m.lookVotes()
	if v.Version != m.version {
		m.version = v.Version
		m.forget(v, now)
	}
	back := m.returned(v)
	m.mu.Lock()
	all, telling := now.After(m.mu.periodic), m.mu.telling
	m.mu.Unlock()
	var due []Span
	var fetch []ring.Partition
	var room [ring.MaxRF]ring.NodeID
	tell := make(map[ring.NodeID][]Span)
	for _, span := range m.spansOf(v) {
		if m.opts.Quarantined(span.Partition) {
			if n := len(fetch); n == 0 || fetch[n-1] != span.Partition {
				fetch = append(fetch, span.Partition)
			}
			m.mu.Lock()
			m.leftLocked(span, now)
			m.mu.Unlock()
			continue
		}
		driver := m.driver(v, span)
		m.mu.Lock()
		if driver != m.opts.Self {
			if m.mu.spans[span] != nil {
				delete(m.mu.spans, span)
				m.leftLocked(span, now)
			}
			if m.mu.told[span] && !telling {
				delete(m.mu.told, span)
				tell[driver] = append(tell[driver], span)
			}
			m.mu.Unlock()
			continue
		}
		if m.mu.told[span] || m.mu.spans[span] == nil {
			delete(m.mu.told, span)
			m.dueLocked(span, now.Add(debounce))
		}
		for _, owner := range v.Layout.Owners(room[:0], span.Partition, v.Copies(span.Class).From) {
			if back[owner] {
				m.dueLocked(span, now.Add(debounce))
			}
		}
		if v.Change.Touches(span.Partition) {
			// Nothing could be confirmed. Once the change is over, with whoever owns it
			// then; if that is who owns it now, there is no more reason to than before.
			if all || m.moves(v, span) {
				m.dueLocked(span, now)
			}
			m.mu.Unlock()
			continue
		}
		if s := m.mu.spans[span]; !s.due.IsZero() && !now.Before(s.due) || all {
			due = append(due, span)
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	due = due[:min(len(due), maxRound)]
	begin := len(due) > 0 && !m.mu.busy
	if begin {
		m.mu.busy = true
		if all {
			m.mu.periodic = now.Add(m.opts.Interval*3/4 + m.jitter(m.opts.Interval/2))
		}
		for _, span := range due {
			s := m.mu.spans[span]
			s.due, s.last = time.Time{}, now
		}
	}
	refetch := len(fetch) > 0 && !m.mu.fetching && !now.Before(m.mu.fetch.next)
	m.mu.fetching = m.mu.fetching || refetch
	m.mu.telling = telling || len(tell) > 0
	m.mu.Unlock()
	if begin && !m.fibers.spawn("round", func(fb *fiber) { m.drive(fb, v, due) }) {
		return
	}
	if refetch && !m.fibers.spawn("refetch", func(fb *fiber) { m.refetchAll(fb, fetch) }) {
		return
	}
	if m.ticks++; m.ticks%overdueEach == 0 {
		m.overdue(v, now)
	}
	if m.ticks%doubtEach == 0 {
		m.doubt(v, now)
	}
	if len(tell) > 0 && !m.fibers.spawn("repair", func(fb *fiber) { m.tell(fb, v, tell) }) {
		return
	}
	m.mu.Lock()
	m.armLocked()
	m.mu.Unlock()
}

// moves reports whether the open change gives a span other owners.
func (m *Manager) moves(v *schema.Snapshot, span Span) bool {
	var room [ring.MaxOwners]ring.NodeID
	return v.Sets(room[:0], span.Partition, v.Copies(span.Class)).Stage != ring.Stable
}

// forget lets go of spans that this node owns no more, and of classes that have no
// tenants any more.
func (m *Manager) forget(v *schema.Snapshot, now time.Time) {
	m.service.forget(v)
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := func(span Span) bool { return v.Layout == nil || !m.owns(v, span) || !hasClass(v, span.Class) }
	//seams:ordered each is let go of by itself
	for span := range m.mu.spans {
		if gone(span) {
			delete(m.mu.spans, span)
			m.leftLocked(span, now)
		}
	}
	//seams:ordered each is let go of by itself
	for span := range m.mu.told {
		if gone(span) {
			delete(m.mu.told, span)
		}
	}
}

// hasClass reports whether there are tenants of a class.
func hasClass(v *schema.Snapshot, class ring.Class) bool {
	_, ok := slices.BinarySearchFunc(v.Classes(), class, func(c schema.ClassCopies, class ring.Class) int { return cmp.Compare(c.Class, class) })
	return ok
}

// tell tells the drivers of spans that those are dirty. One that does not answer takes
// long, for which nothing else may wait.
func (m *Manager) tell(fb *fiber, v *schema.Snapshot, tell map[ring.NodeID][]Span) {
	defer func() {
		m.mu.Lock()
		m.mu.telling = false
		m.mu.Unlock()
	}()
	var drivers []ring.NodeID
	//seams:ordered they are sorted
	for id := range tell {
		drivers = append(drivers, id)
	}
	slices.SortFunc(drivers, ring.NodeID.Compare)
	for _, id := range drivers {
		var items []spanItem
		for _, span := range tell[id] {
			items = append(items, spanItem{Span: span, pv: v.Layout.PV(span.Partition)})
		}
		for i, a := range m.askMany(fb, nil, id, kindDirty, items) {
			if a.why != "" {
				m.soon(items[i].Span) // to whoever drives then
			}
		}
	}
}

// returned returns the nodes that are back since the last look, and notes what is
// seen of all.
func (m *Manager) returned(v *schema.Snapshot) map[ring.NodeID]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.mu.members
	m.mu.members = make(map[ring.NodeID]seen, len(v.Members))
	back := make(map[ring.NodeID]bool)
	for i := range v.Members {
		e := &v.Members[i]
		old := before[e.ID]
		now := seen{m.healthy(v, e.ID), e.Incarnation, old.back}
		if isBack(before, e, now.alive) {
			back[e.ID], now.back = true, m.opts.Clock.Now()
		}
		m.mu.members[e.ID] = now
	}
	return back
}

// isBack says that a member that is there was not, or was in another life, when the others
// were looked at before.
func isBack(before map[ring.NodeID]seen, e *schema.Member, alive bool) bool {
	old, ok := before[e.ID]
	return ok && alive && (!old.alive || old.incarnation != e.Incarnation)
}

// drive runs one round and notes what came of it.
func (m *Manager) drive(fb *fiber, v *schema.Snapshot, due []Span) {
	began := m.opts.Clock.Now()
	r := &round{m: m, view: v, began: began}
	for _, span := range due {
		r.add(span)
	}
	r.run(fb)
	now := m.opts.Clock.Now()
	m.figures.change(func(f *Figures) { f.Rounds++ })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.busy = false
	for _, j := range r.jobs {
		s := m.mu.spans[j.Span]
		if s == nil {
			s = &schedule{first: began}
			m.mu.spans[j.Span] = s
		}
		s.why = j.why
		if j.end == endConfirmed {
			s.failures, s.told = 0, false
		} else {
			back := min(firstBackoff<<min(s.failures, 8), m.opts.Interval)
			s.failures++
			m.dueLocked(j.Span, now.Add(m.jitter(back)))
		}
		m.doneLocked(j, began, now)
	}
}

func (span Span) String() string {
	return fmt.Sprintf("partition %d of %s", span.Partition, span.Class.Tenants())
}
