package repair

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// refetchPause is how long a refetch that failed, or for which too few owners are
// there, waits until it is tried again.
const refetchPause = 30 * time.Second

// fetchedEach is how long fetched partitions wait for more, so that one write to the disk
// serves all of them.
const fetchedEach = 200 * time.Millisecond

// maxFetchNotes bounds what one pass tells of partitions that it could not fetch.
const maxFetchNotes = 4

// fetchState is what is known of refetches.
type fetchState struct {
	next time.Time
	// waiting says why a partition could not be fetched, and told has what was told of
	// that after the last pass.
	waiting map[ring.Partition]string
	told    map[string]bool
	// under is the partition being fetched, -1 for none, with what has come so far for
	// all that are fetched together.
	under       int
	keys, bytes int
}

// errMetAgain keeps a partition under quarantine that lost more while it was fetched.
var errMetAgain = errors.New("more damage was met while it was fetched; it is fetched once more")

// refetchAll fetches partitions under quarantine, one after the other.
func (m *Manager) refetchAll(fb *fiber, parts []ring.Partition) {
	began := m.opts.Clock.Now()
	m.mu.Lock()
	m.mu.fetch.keys, m.mu.fetch.bytes = 0, 0
	m.mu.Unlock()
	// What was under way when these copies were set aside may count on what they said
	// then: once that is over, whatever came of it is at the others. One wait does for
	// all of them.
	open := fb.sleep(m.opts.Settle)
	fetched := 0
	failed := make(map[ring.Partition]error)
	var ready []ring.Partition // fetched, and not served yet
	served := m.opts.Clock.Now()
	serve := func() {
		if len(ready) == 0 {
			return
		}
		err := m.opts.Fetched(ready)
		for _, p := range ready {
			switch {
			case err != nil:
				failed[p] = err
			case m.opts.Quarantined(p):
				failed[p] = errMetAgain
			default:
				fetched++
				m.Dirty(p)
			}
		}
		ready, served = nil, m.opts.Clock.Now()
	}
	for _, p := range parts {
		if !open || m.fibers.isClosed() {
			break
		}
		if err := m.refetchPartition(fb, p); err != nil {
			failed[p] = err
		} else {
			ready = append(ready, p)
		}
		if m.opts.Clock.Now().Sub(served) >= fetchedEach {
			serve()
		}
	}
	serve()
	tell := m.fetchEnded(failed)
	m.mu.Lock()
	keys, bytes := m.mu.fetch.keys, m.mu.fetch.bytes
	m.mu.Unlock()
	if fetched > 0 {
		m.opts.Note(Note{
			Text:    fmt.Sprintf("%s fetched again from other owners and served again: %s, %s", countOf(fetched, "partition"), countOf(keys, "key"), sizeOf(bytes)),
			Details: []string{"took", m.opts.Clock.Now().Sub(began).Round(time.Millisecond).String(), "left", fmt.Sprint(len(failed))},
		})
	}
	for _, note := range tell {
		m.opts.Note(note)
	}
}

// fetchEnded notes which partitions could not be fetched, and returns what is to be
// told of that: for each reason that is another one than the last time, how many
// partitions wait for it.
func (m *Manager) fetchEnded(failed map[ring.Partition]error) (tell []Note) {
	why := make(map[string][]ring.Partition)
	m.mu.Lock()
	defer m.mu.Unlock()
	now, f := m.opts.Clock.Now(), &m.mu.fetch
	m.mu.fetching = false
	if f.next = now; len(failed) > 0 {
		f.next = now.Add(m.jitter(refetchPause))
	}
	f.waiting = make(map[ring.Partition]string, len(failed))
	for _, p := range slices.Sorted(maps.Keys(failed)) {
		text := failed[p].Error()
		f.waiting[p] = text
		if !errors.Is(failed[p], errClosed) {
			why[text] = append(why[text], p)
		}
	}
	told := make(map[string]bool, len(why))
	for _, text := range slices.Sorted(maps.Keys(why)) {
		told[text] = true
		if list := why[text]; !f.told[text] && len(tell) < maxFetchNotes {
			tell = append(tell, Note{
				Warning: true,
				Text:    fmt.Sprintf("%s under quarantine: %s", countOf(len(list), "partition"), text),
				Details: []string{"first_partition", fmt.Sprint(list[0])},
			})
		}
	}
	f.told = told
	return tell
}

// refetchPartition fetches all spans of one partition that are owned. It is in vain if the
// ring moves meanwhile: there may be others by then, of a tenant that has left a class that
// was yet to be fetched, say, and the whole partition is served when it returns nil.
func (m *Manager) refetchPartition(fb *fiber, p ring.Partition) (err error) {
	v := m.opts.View()
	m.mu.Lock()
	m.mu.fetch.under = int(p)
	m.mu.Unlock()
	m.opts.Fetching(p)
	for _, c := range v.Classes() {
		if span := (Span{p, c.Class}); err == nil && m.owns(v, span) {
			err = m.refetch(fb, span)
		}
	}
	if err == nil {
		err = m.gainsAnew(v, p)
	}
	if err == nil && m.opts.View().Layout.PV(p) != v.Layout.PV(p) {
		err = fmt.Errorf("while it was fetched: %w", errRing)
	}
	m.mu.Lock()
	m.mu.fetch.under = -1
	m.mu.Unlock()
	return err
}

// errToOwn keeps a partition under quarantine that this node is about to own more of: it has
// said that it has that, which may be lost, and is not served before it is fetched again.
var errToOwn = errors.New("this node is about to own more of it, and fetches that again once the change of the ring is over")

// gainsAnew has what this node gains of a damaged partition, and does not own, be fetched
// anew, or fails if it is too late for that.
func (m *Manager) gainsAnew(v *schema.Snapshot, p ring.Partition) error {
	if !v.Change.Touches(p) {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range v.Classes() {
		span := Span{p, c.Class}
		if !v.Change.Next.IsOwner(m.opts.Self, p, c.Copies.To) || m.owns(v, span) {
			continue
		}
		g := &m.mu.gains
		if v.Change.Stage == ring.Committed || g.at == v.Change.ProposedAt && g.synced {
			return errToOwn
		}
		if g.at == v.Change.ProposedAt {
			m.gainLocked(span).anew()
		}
	}
	return nil
}

// errAlone says that nobody else has a partition's data.
var errAlone = errors.New("no other node has its data, because a tenant in it has the replication factor 1 or the cluster has one node; restore it from a backup")

// refetch brings this node's copy of a span all that the other owners have. Any write
// that was acknowledged is at one of N-q+1 others at least.
func (m *Manager) refetch(fb *fiber, span Span) error {
	r := &round{m: m, view: m.opts.View(), began: m.opts.Clock.Now()}
	j := r.guest(span)
	if len(j.owners) < 2 {
		return m.alone(span)
	}
	// What is damaged here and only lost nodes have besides is given up with them.
	j.need = min(j.need, m.left(r.view, j))
	j.trust(false)
	if err := r.meet(fb, j); err != nil {
		return err
	}
	if err := m.fetchRecords(fb, j, false); err != nil {
		return err
	}
	return r.bring(fb, j, nil, &m.figures.refetched, func(keys, size int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.mu.fetch.keys += keys
		m.mu.fetch.bytes += size
	})
}

// alone is why a span without other owners cannot be fetched, nil if it has no data.
func (m *Manager) alone(span Span) error {
	tenants, err := m.service.roots(span)
	if err != nil {
		return err
	}
	if len(tenants) == 0 && !hasClass(m.opts.View(), span.Class) {
		return nil // else the keys of a tenant may have been lost altogether
	}
	return errAlone
}
