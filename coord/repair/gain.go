package repair

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// gainPause is how long a span that could not be fetched waits until it is tried
	// again, and gainPoll how often what has to come first is looked for.
	gainPause = 5 * time.Second
	gainPoll  = 250 * time.Millisecond
	// sideBySide times as many spans are fetched at once as are compared in rounds: most
	// of the time they wait for others and for the disk, and share its syncs. What is in
	// memory is bounded by bytes, and of spans with more than smallSpan siblings as many
	// are compared as in rounds.
	sideBySide = 4
	smallSpan  = 2048
	// maxGainNotes bounds what one pass tells of why spans could not be fetched.
	maxGainNotes = 4
)

// gains is what is known of the change that is open, and what this node gains by it.
type gains struct {
	// at is the entry that proposed the change, 0 for none.
	at ring.Version
	// known are the spans of which enough old owners have said what is confirmed, and
	// waiters what goes on once all of a partition are.
	known   map[Span]bool
	waiters map[ring.Partition][]func()
	waiting int
	// asking and running say that fibers of it are under way, synced that all is done.
	asking, running, synced bool
	began                   time.Time
	spans                   map[Span]*gain
	// load counts the spans that are fetched from a node.
	load map[ring.NodeID]int
	told map[string]bool
	// aside has the sources that did not answer lately.
	aside map[ring.NodeID]aside
}

// gain is one span that this node gains.
type gain struct {
	Transfer
	done bool
	// from is where the bulk of a tenant goes on, nil at its beginning, and bulked
	// says of which tenants it is over.
	from   map[ring.TenantNumber]*position
	bulked map[ring.TenantNumber]bool
	// avoid has the sources that failed since enough of them were there.
	avoid map[ring.NodeID]bool
}

// errChanged ends what is done for a change that is over, or has gone on.
var errChanged = errors.New("the change of the ring is over")

// gaining returns what this node gains by the change that is open, in order; nil and
// no change if it gains nothing now.
func (m *Manager) gaining(v *schema.Snapshot) (c *ring.Change, spans []Span) {
	if c = v.Change; v.Layout == nil || !v.Ready || c == nil || c.Stage != ring.Proposed {
		return nil, nil
	}
	for p := range v.Layout.Partitions() {
		spans = m.gainingOf(v, spans, ring.Partition(p))
	}
	if len(spans) == 0 {
		return nil, nil
	}
	return c, spans
}

// gainingOf appends what this node gains of a partition.
func (m *Manager) gainingOf(v *schema.Snapshot, spans []Span, p ring.Partition) []Span {
	if !v.Change.Touches(p) {
		return spans
	}
	for _, c := range v.Classes() {
		if v.Change.Gains(v.Layout, m.opts.Self, p, c.Copies) {
			spans = append(spans, Span{p, c.Class})
		}
	}
	return spans
}

// owns reports whether this node is an owner of a span in the layout that is in force.
func (m *Manager) owns(v *schema.Snapshot, span Span) bool {
	return v.Layout.IsOwner(m.opts.Self, span.Partition, v.Copies(span.Class).From)
}

// Horizon reports whether this node knows what was confirmed of a partition that it is
// about to own: until then it must not take, show or vote for anything of it, since it
// could not tell what has been superseded by deletes that were collected. If it reports
// false, then is called once, by a job: when it is known, or when that does not matter
// any more, because the change is over. It is not called if too much waits already, or
// once the node stops: whoever waits has a deadline.
func (m *Manager) Horizon(p ring.Partition, then func()) (known bool) {
	v := m.opts.View()
	if v.Change == nil || v.Layout == nil || v.Change.Stage != ring.Proposed || !v.Change.Touches(p) {
		return true
	}
	guest := false
	for _, span := range m.gainingOf(v, nil, p) {
		guest = guest || !m.owns(v, span)
	}
	if !guest {
		return true
	}
	m.mu.Lock()
	over := m.changeLocked(v.Change.ProposedAt)
	known = m.knownLocked(v, p)
	if !known {
		switch g := &m.mu.gains; {
		case m.mu.closed: // who is called would ask again at once, and again
		case g.waiting < maxHorizonWaiters:
			g.waiters[p] = append(g.waiters[p], then)
			g.waiting++
		}
	}
	m.mu.Unlock()
	m.run(over)
	if !known {
		m.askAtOnce(v.Change.ProposedAt)
	}
	return known
}

// maxHorizonWaiters bounds what waits for horizons.
const maxHorizonWaiters = 1 << 16

// knownLocked reports whether what is confirmed is known of all that this node gains of a
// partition, and does not own.
func (m *Manager) knownLocked(v *schema.Snapshot, p ring.Partition) bool {
	for _, span := range m.gainingOf(v, nil, p) {
		if !m.owns(v, span) && !m.mu.gains.known[span] {
			return false
		}
	}
	return true
}

// changeLocked makes what is known be about the change that was proposed at a version, 0
// for none, and returns what waits for another one in vain.
func (m *Manager) changeLocked(at ring.Version) (over []func()) {
	g := &m.mu.gains
	if g.at == at {
		return nil
	}
	over = g.allLocked()
	*g = gains{
		at: at, known: make(map[Span]bool), waiters: make(map[ring.Partition][]func()), began: m.opts.Clock.Now(),
		spans: make(map[Span]*gain), load: make(map[ring.NodeID]int), told: make(map[string]bool),
		aside: make(map[ring.NodeID]aside),
		// A fiber for another change ends when it sees that.
		asking: g.asking, running: g.running,
	}
	return over
}

// allLocked takes out all that wait.
func (g *gains) allLocked() (all []func()) {
	var parts []ring.Partition
	//seams:ordered they are sorted
	for p := range g.waiters {
		parts = append(parts, p)
	}
	slices.Sort(parts)
	for _, p := range parts {
		all = append(all, g.waiters[p]...)
	}
	g.waiters, g.waiting = make(map[ring.Partition][]func()), 0
	return all
}

// run has callbacks run by jobs, without locks.
func (m *Manager) run(all []func()) {
	for _, f := range all {
		m.opts.Scheduler.Go("repair", f)
	}
}

// lookGains begins what is to be done about the change that is open.
func (m *Manager) lookGains(v *schema.Snapshot) {
	c, spans := m.gaining(v)
	at := ring.Version(0)
	if c != nil {
		at = c.ProposedAt
	}
	m.mu.Lock()
	over := m.changeLocked(at)
	g := &m.mu.gains
	begin := c != nil && !g.running && !g.synced
	g.running = g.running || begin
	for _, span := range spans {
		m.gainLocked(span)
	}
	if c != nil {
		over = append(over, m.idleLocked(v)...)
	}
	m.mu.Unlock()
	m.run(over)
	if c == nil {
		return
	}
	m.askAtOnce(at)
	if begin && !m.fibers.spawn("gain", func(fb *fiber) { m.gainAll(fb, at) }) {
		m.mu.Lock()
		m.mu.gains.running = false
		m.mu.Unlock()
	}
}

// gainLocked returns what is known of a span that this node gains.
func (m *Manager) gainLocked(span Span) *gain {
	g := m.mu.gains.spans[span]
	if g == nil {
		g = &gain{
			Transfer: Transfer{
				Kind: TransferGain, At: m.mu.gains.at,
				Span: span, To: m.opts.Self, State: TransferWaiting,
			},
			from: make(map[ring.TenantNumber]*position), bulked: make(map[ring.TenantNumber]bool), avoid: make(map[ring.NodeID]bool),
		}
		m.mu.gains.spans[span] = g
	}
	return g
}

// anew has a span that was fetched be fetched once more.
func (g *gain) anew() {
	*g = gain{Transfer: g.Transfer, from: g.from, bulked: g.bulked, avoid: g.avoid}
	g.State = TransferWaiting
	clear(g.from)
}

// under fails unless the change that was proposed at a version still is.
func (m *Manager) under(at ring.Version) error {
	if c := m.opts.View().Change; c == nil || c.ProposedAt != at || c.Stage != ring.Proposed {
		return errChanged
	}
	return nil
}

// gainAll fetches all that this node gains by a change, until it has it or the change is
// over.
func (m *Manager) gainAll(fb *fiber, at ring.Version) {
	defer func() {
		m.mu.Lock()
		m.mu.gains.running = false
		m.mu.Unlock()
	}()
	var next time.Time // when those that failed are tried again
	for !m.fibers.isClosed() {
		v := m.opts.View()
		c, spans := m.gaining(v)
		if c == nil || c.ProposedAt != at {
			return
		}
		ready, left := m.ready(v, spans)
		switch {
		case left == 0 && v.Report(m.opts.Self).Acked < at:
			// What was let through as of an older version of the ring may not have ended
			// here. There may be nothing to fetch, so that this is not waited for above.
		case left == 0:
			err := m.synced(at, spans)
			if err == nil || m.under(at) != nil {
				return
			}
			m.gainNotes(map[string]int{"it could not be noted that everything is here: " + err.Error(): 1})
			next = m.opts.Clock.Now().Add(m.jitter(gainPause))
		case len(ready) > 0 && !m.opts.Clock.Now().Before(next):
			if failed := m.gainSome(fb, at, ready); len(failed) > 0 {
				m.gainNotes(failed)
				next = m.opts.Clock.Now().Add(m.jitter(gainPause))
			}
			continue
		}
		if !fb.sleep(gainPoll) {
			return
		}
	}
}

// ready returns the spans, by partition, that are still to be fetched and can be, and how
// many are left in all. What was fetched before its partition came under quarantine is
// left, too.
func (m *Manager) ready(v *schema.Snapshot, spans []Span) (parts [][]Span, left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var todo []Span
	for _, span := range spans {
		g := m.gainLocked(span)
		if g.done && m.opts.Quarantined(span.Partition) {
			g.anew()
		}
		if g.done {
			continue
		}
		left++
		if m.knownLocked(v, span.Partition) {
			todo = append(todo, span)
		}
	}
	for len(todo) > 0 {
		n := 1
		for n < len(todo) && todo[n].Partition == todo[0].Partition {
			n++
		}
		parts, todo = append(parts, todo[:n]), todo[n:]
	}
	return parts, left
}

// gainSome fetches partitions, several at once, and returns how many failed for each
// reason.
func (m *Manager) gainSome(fb *fiber, at ring.Version, parts [][]Span) map[string]int {
	errs := make([]error, len(parts))
	fb.each(len(parts), sideBySide*m.opts.Concurrency, func(fb *fiber, i int) {
		if errs[i] = m.under(at); errs[i] == nil {
			errs[i] = m.gainPartition(fb, at, parts[i])
		}
	})
	failed := make(map[string]int)
	for _, err := range errs {
		if err != nil && !errors.Is(err, errChanged) && !errors.Is(err, errClosed) {
			failed[err.Error()]++
		}
	}
	return failed
}

// gainNotes tells why spans could not be fetched, of each reason once for each change.
func (m *Manager) gainNotes(failed map[string]int) {
	var why []string
	//seams:ordered they are sorted
	for text := range failed {
		why = append(why, text)
	}
	slices.Sort(why)
	m.mu.Lock()
	told := m.mu.gains.told
	var fresh []string
	for _, text := range why {
		if !told[text] && len(fresh) < maxGainNotes && len(told) < 64 {
			told[text] = true
			fresh = append(fresh, text)
		}
	}
	m.mu.Unlock()
	for _, text := range fresh {
		m.opts.Note(Note{Warning: true, Text: fmt.Sprintf("%s that this node is to own could not be fetched yet: %s", countOf(failed[text], "partition"), text)})
	}
}

// synced says that all is here, and tells people.
func (m *Manager) synced(at ring.Version, spans []Span) error {
	if err := m.under(at); err != nil {
		return err
	}
	if err := m.opts.Synced(at); err != nil {
		return err
	}
	parts := make(map[ring.Partition]bool)
	m.mu.Lock()
	if m.mu.gains.at != at {
		m.mu.Unlock()
		return errChanged
	}
	m.mu.gains.synced = true
	took, size := m.opts.Clock.Now().Sub(m.mu.gains.began), int64(0)
	for _, span := range spans {
		parts[span.Partition] = true
		if g := m.mu.gains.spans[span]; g != nil {
			size += g.BytesDone
		}
	}
	m.mu.Unlock()
	m.opts.Note(Note{
		Text:    fmt.Sprintf("this node has all of the %s that it is to own: %s fetched in %s", countOf(len(parts), "partition"), sizeOf(int(size)), took.Round(100*time.Millisecond)),
		Details: []string{"change", fmt.Sprint(at)},
	})
	return nil
}
