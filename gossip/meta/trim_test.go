package meta_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/meta/storetest"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// tiny keeps two entries, and moves a snapshot in many pieces.
var tiny = meta.Trim{Entries: 1, Piece: 100}

// checkState holds what a node shows, and what it keeps, against all entries that there
// ever were, wherever its own log begins.
func (w *world) checkState(m *member, s *schema.Snapshot) {
	if s.Ring == m.ring || m.parted {
		return // states are immutable
	}
	m.ring = s.Ring
	for {
		b, ok := w.log[w.replayed.Version()+1]
		if !ok {
			break
		}
		e, err := ring.DecodeEntry(b)
		if err == nil {
			w.replayed, err = w.replayed.Next(e)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		w.states[e.Version] = ring.AppendState(nil, w.replayed)
	}
	if s.Version > 0 && !bytes.Equal(ring.AppendState(nil, s.Ring), w.states[s.Version]) {
		w.t.Fatalf("%s does not say what the log says up to entry %d", m.name, s.Version)
	}
	l := m.core.Log()
	if l.Base > m.version {
		w.adopted++ // its own log was not that long
	}
	m.version = s.Version
	if l.Base+ring.Version(l.Entries) != s.Version || (l.Base > 0) != (l.SnapshotBytes > 0) {
		w.t.Fatalf("%s at version %d has a log of %+v", m.name, s.Version, l)
	}
	if w.trim.Entries > 0 && l.Entries >= 3*w.trim.Entries {
		w.t.Fatalf("%s keeps %d entries", m.name, l.Entries)
	}
}

// forget has it that an entry was never made, and none after it.
func (w *world) forget(v ring.Version) {
	for ; w.log[v] != nil; v++ {
		delete(w.log, v)
		delete(w.states, v)
	}
	w.replayed = &ring.State{}
}

// trimmed founds a cluster of n with tiny logs, and lets it forget its first entries.
func trimmed(t testing.TB, seed uint64, n int) *world {
	t.Helper()
	w := newWorld(t, seed, n, n)
	w.trim = tiny
	for i := range w.nodes {
		w.boot(i)
	}
	w.calm(30)
	w.createAll("old", 5)
	w.calm(100)
	w.check(n)
	return w
}

// reboot starts all nodes anew, with logs cut like that.
func (w *world) reboot(trim meta.Trim) {
	w.trim = trim
	for i := range w.nodes {
		w.crash(i)
		w.boot(i)
	}
	w.calm(100)
}

// createAll creates tenants one after the other, by the first node.
func (w *world) createAll(prefix string, n int) {
	w.t.Helper()
	for i := range n {
		name := fmt.Sprintf("%s-%d", prefix, i)
		w.create(0, name)
		for range 40 {
			if w.nodes[0].want == "" {
				break
			}
			for i := range w.nodes {
				w.tick(i)
			}
			for len(w.net) > 0 {
				p := w.net[0]
				w.net = w.net[1:]
				w.carry(p)
			}
		}
		if len(w.won[name]) != 1 {
			w.t.Fatalf("%s: created at %v, failed %v", name, w.won[name], w.failed)
		}
	}
	w.calmOnly(40, 0)
}

// logKeys are the entries in a store, lowest first.
func logKeys(s *storetest.Mem) (keys []string) {
	for _, k := range s.Keys() {
		if strings.HasPrefix(k, "log/") {
			keys = append(keys, k)
		}
	}
	return keys
}

func TestLogIsTrimmed(t *testing.T) {
	w := trimmed(t, 90, 3)
	for _, m := range w.nodes {
		l := m.core.Log()
		keys := logKeys(m.store)
		if l.Base != 4 || l.Entries != 2 || len(keys) != 2 || keys[0] != "log/0000000000000005" {
			t.Errorf("%s: %+v, and in the store %v", m.name, l, keys)
		}
	}
	for i, m := range w.nodes {
		before, founder := m.core.Digest(), m.core.Snapshot().Ring.Founder()
		w.crash(i)
		w.boot(i)
		if l := m.core.Log(); l.Base != 4 || m.core.Version() != 6 || m.core.Snapshot().Ring.Founder() != founder || founder.IsZero() || !m.core.Ready() {
			t.Errorf("%s after a restart: %+v, version %d", m.name, l, m.core.Version())
		}
		w.calm(20)
		if m.core.Digest() == before {
			t.Error("its incarnation is the same")
		}
	}
	w.check(3)
}

// A voter that slept through more entries than are kept gets the snapshot, and votes.
func TestSleeperCatchesUp(t *testing.T) {
	w := trimmed(t, 91, 3)
	w.crash(2)
	w.createAll("new", 9)
	asleep := w.nodes[2]
	if l := w.nodes[0].core.Log(); l.Base <= asleep.acked {
		t.Fatalf("the others keep all that it lacks: %+v", l)
	}
	w.boot(2)
	w.calm(100)
	w.check(3)
	if v := asleep.core.Version(); v != 15 {
		t.Errorf("it has version %d", v)
	}
	w.crash(0)
	w.create(1, "late")
	w.calmOnly(200, 1, 2)
	if len(w.won["late"]) != 1 {
		t.Errorf("it does not vote: %v", w.failed)
	}
	w.boot(0)
	w.calm(100)
	w.check(3)
}

// A node joins a cluster that has no first entry any more, and founds nothing.
func TestJoinerGetsTheSnapshot(t *testing.T) {
	w := trimmed(t, 92, 3)
	w.driving = true
	at := w.join("n4", "n5")
	w.until("five nodes", layoutOf("n1", "n2", "n3", "n4", "n5"))
	w.rest(5)
	w.crash(at[0])
	w.driving = false
	w.createAll("new", 5)
	w.boot(at[0])
	w.calm(100)
	w.check(5)
	if _, joining := w.nodes[at[0]].core.Joining(); joining {
		t.Error("it still waits")
	}
}

// What a node proposed was decided in entries that it never sees: nobody knows how.
func TestProposalInSkippedEntries(t *testing.T) {
	w := trimmed(t, 93, 3)
	w.create(0, "mine")
	for range 30 { // until a voter has accepted it, of which nobody hears
		i := 0
		for i < len(w.net) && (w.net[i].reply && w.net[i].send.Method == meta.MethodAccept || !w.net[i].reply && w.net[i].send.Method == meta.MethodExchange) {
			i++
		}
		if i == len(w.net) {
			break
		}
		p := w.net[i]
		w.net = append(w.net[:i:i], w.net[i+1:]...)
		w.carry(p)
	}
	w.net = nil
	if w.nodes[0].want == "" {
		t.Fatal("it is over already")
	}
	awake := w.nodes[0].core
	for i := 1; i < 3; i++ {
		w.nodes[i].core.SetLiveness(w.nodes[0].id, schema.Dead)
		w.cut[[2]int{0, i}], w.cut[[2]int{i, 0}] = true, true
	}
	for i := range 6 {
		name := fmt.Sprintf("other-%d", i)
		w.create(1, name)
		w.calmOnly(100, 1, 2)
		if len(w.won[name]) != 1 {
			t.Fatalf("%s: %v", name, w.failed)
		}
	}
	clear(w.cut)
	w.net = nil
	awake.Exchange(w.nodes[1].id)
	w.settle(0)
	for len(w.net) > 0 && w.nodes[0].want != "" {
		p := w.net[0]
		w.net = w.net[1:]
		w.carry(p)
	}
	if len(w.failed) != 1 || !errors.Is(w.failed[0], meta.ErrSkipped) {
		t.Errorf("won %v, lost %v, failed %v", w.won["mine"], w.lost["mine"], w.failed)
	}
	w.calm(100)
	w.check(3)
}

// Whatever write fails of a node that trims, sleeps and catches up, before or after it
// takes effect: it comes back with the entries or with the snapshot.
func TestCrashAtEveryWriteOfTrimming(t *testing.T) {
	script := func(w *world) {
		for i := range 4 {
			w.create(i%2, fmt.Sprintf("a%d", i))
			w.calmOnly(60, 0, 1, 2)
		}
		if w.nodes[2].core != nil {
			w.crash(2)
		}
		for i := range 5 {
			w.create(i%2, fmt.Sprintf("b%d", i))
			w.calmOnly(60, 0, 1)
		}
		w.boot(2)
		w.calmOnly(30, 0, 1, 2)
	}
	start := func() *world {
		w := newWorld(t, 94, 3, 3)
		w.trim = tiny
		for i := range w.nodes {
			w.boot(i)
		}
		w.calm(30)
		return w
	}
	plain := start()
	var first, last [3]int
	for i, m := range plain.nodes {
		first[i] = m.store.Writes
	}
	script(plain)
	for i, m := range plain.nodes {
		last[i] = m.store.Writes
	}
	plain.calm(30)
	plain.check(3)
	points := 0
	for victim := range plain.nodes {
		for n := 1; n <= last[victim]-first[victim]; n++ {
			if testing.Short() && n%3 != 0 {
				continue
			}
			for _, keep := range []bool{false, true} {
				w := start()
				w.nodes[victim].store.FailAt(n, keep)
				script(w)
				w.calm(100)
				w.check(3)
				points++
			}
		}
	}
	t.Logf("%d crash points", points)
	if points < 40 {
		t.Errorf("only %d crash points", points)
	}
}

// Logs of two entries under lost, repeated and late messages, crashes, failing writes and
// nodes that are cut off, while a cluster grows.
func TestTrimmingUnderFaults(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 15
	}
	adopted, created := 0, 0
	for seed := range seeds {
		w := newWorld(t, uint64(3000+seed), 3, 3)
		w.trim, w.tenants = meta.Trim{Entries: 1 + seed%3, Piece: 100 + 500*(seed%2)}, 30
		for i := range w.nodes {
			w.boot(i)
		}
		w.calm(30)
		w.slow, w.mild = seed%3, seed%4 > 0
		w.hurry(meta.DriverOptions{AutoApply: true, Settle: 20 * time.Millisecond, Stagger: 200 * time.Millisecond, Patience: 100 * time.Millisecond})
		for _, i := range w.join("n4") {
			w.boot(i)
		}
		for range 3000 {
			w.faults()
		}
		w.until("four nodes", layoutOf("n1", "n2", "n3", "n4"))
		w.rest(4)
		created += len(w.won)
		adopted += w.adopted
	}
	t.Logf("%d tenants, %d snapshots of others", created, adopted)
	if created == 0 || adopted < seeds/2 {
		t.Error("the schedules mean little")
	}
}

// A node that waits to join takes no snapshot that, with the entries behind it, does not
// make it a member.
func TestJoinerTakesNoLogThatDoesNotNameIt(t *testing.T) {
	w := trimmed(t, 95, 2)
	w.trim.Piece = 0
	for i := range w.nodes {
		w.crash(i)
		w.boot(i)
	}
	w.calm(40)
	at := w.join("n3")[0]
	w.boot(at)
	w.calm(20)
	c := w.nodes[at].core
	if _, joining := c.Joining(); !joining {
		t.Fatal("it does not wait")
	}
	ask, _ := c.PullFrom(w.nodes[0].id)
	reply, err := w.nodes[0].core.HandleRequest(w.nodes[1].id, ask.Method, ask.Payload) // as if it were another
	if err != nil {
		t.Fatal(err)
	}
	if err := c.HandleReply(ask, reply, nil); err == nil || c.Founded() || c.Log().Base != 0 {
		t.Errorf("it has a log of %+v, %v", c.Log(), err)
	}
}
