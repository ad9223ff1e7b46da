package meta_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/meta/storetest"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// join adds nodes that are to join the cluster, not started yet.
func (w *world) join(names ...string) (at []int) {
	for _, name := range names {
		at = append(at, len(w.nodes))
		w.nodes = append(w.nodes, &member{name: name, store: &storetest.Mem{}, witness: &storetest.Witness{}, joins: true})
	}
	return at
}

// drive lets a node do its part for changes of the layout: what the data would take is
// done at once, unless the node is idle.
func (w *world) drive(i int) {
	m := w.nodes[i]
	if m.core == nil || !m.core.Ready() {
		return
	}
	s := m.core.Snapshot()
	if c := s.Change; c != nil && c.Stage == ring.Proposed && !m.idle {
		m.synced = max(m.synced, c.ProposedAt)
		_ = m.core.SetSynced(c.ProposedAt) // a failure shows in Fatal
	} else if c == nil && !m.idle {
		m.clean = max(m.clean, s.Version)
		_ = m.core.SetClean(s.Version) // as above
	}
	w.settle(i)
	if m.core == nil || m.step != "" || m.want != "" {
		return
	}
	if e := m.driver.Next(m.core.View(w.now)); e != nil {
		w.propose(i, *e)
	}
}

// propose starts a proposal at a node; what becomes of it is counted in steps.
func (w *world) propose(i int, e ring.Entry) {
	m := w.nodes[i]
	if err := m.core.Propose(e); err == nil {
		m.step = e.Kind.String()
	}
	w.settle(i)
}

// checkChange holds what a node shows against what must be so.
func (w *world) checkChange(m *member, s *schema.Snapshot) {
	if _, ok := s.Ring.Member(s.Self); s.Ready && !ok {
		w.t.Fatalf("%s is ready and no member", m.name)
	}
	for i := range s.Members {
		if _, named := s.Ring.Member(s.Members[i].ID); s.Ring.IsRetired(s.Members[i].ID) && !named {
			w.t.Fatalf("%s shows %s, which is retired", m.name, s.Members[i].Name)
		}
	}
	for _, j := range m.core.Joiners() {
		if _, ok := s.Member(j.ID); ok {
			w.t.Fatalf("%s shows %s as a member and as one that waits", m.name, j.Name)
		}
	}
	c := s.Change
	if c == nil || c.Stage != ring.Committed {
		return
	}
	for p := range s.Layout.Partitions() {
		for _, n := range c.Next.Nodes() {
			for _, k := range s.Classes() {
				if at := w.index(n.ID); !s.Ring.IsRetired(n.ID) && c.Gains(s.Layout, n.ID, ring.Partition(p), k.Copies) && w.nodes[at].synced < c.ProposedAt {
					w.t.Fatalf("the change of version %d is committed, and %s has not fetched partition %d of %s", c.ProposedAt, n.Name, p, k.Class)
				}
			}
		}
	}
}

// toldSynced and toldClean are the highest that others have heard of a node.
func (m *member) toldSynced(w *world, i int) ring.Version {
	return w.told(i, func(r ring.Report) ring.Version { return r.Synced })
}

func (m *member) toldClean(w *world, i int) ring.Version {
	return w.told(i, func(r ring.Report) ring.Version { return r.Clean })
}

func (w *world) told(i int, of func(ring.Report) ring.Version) (v ring.Version) {
	for j, o := range w.nodes {
		if j != i && o.core != nil {
			v = max(v, of(o.core.Snapshot().Report(w.nodes[i].id)))
		}
	}
	return v
}

// grown founds a cluster of n and lets drivers work from then on.
func grown(t testing.TB, seed uint64, n int) *world {
	w := up(t, seed, n)
	w.driving = true
	return w
}

// hurry lets all drivers work from now on, at another pace.
func (w *world) hurry(o meta.DriverOptions) {
	w.pace, w.driving = o, true
	for _, m := range w.nodes {
		m.driver = meta.NewDriver(o)
	}
}

// until runs calmly until all nodes that are up agree on something.
func (w *world) until(what string, cond func(s *schema.Snapshot) bool) {
	w.t.Helper()
	for range 60 {
		w.calm(20)
		ok := true
		for _, m := range w.nodes {
			ok = ok && (m.core == nil || cond(m.core.Snapshot()))
		}
		if ok {
			return
		}
	}
	for _, m := range w.nodes {
		if m.core != nil {
			s := m.core.Snapshot()
			w.t.Logf("%s: version %d, change %+v, ready %v, %d joiners, outsiders %v, intents %d", m.name, s.Version, s.Change, s.Ready, len(m.core.Joiners()), s.Ring.Outsiders(), len(s.Ring.Intents()))
		}
	}
	w.t.Fatalf("never: %s; steps %v", what, w.steps)
}

// rest lets reports that nobody waits for spread, and checks that all agree.
func (w *world) rest(n int) {
	w.t.Helper()
	w.driving = false
	w.calm(100)
	w.check(n)
	w.driving = true
}

// layoutOf says that a stable layout has exactly the nodes of these names.
func layoutOf(names ...string) func(*schema.Snapshot) bool {
	return func(s *schema.Snapshot) bool {
		if s.Layout == nil || s.Change != nil {
			return false
		}
		var got []string
		for _, n := range s.Layout.Nodes() {
			got = append(got, n.Name)
		}
		slices.Sort(got)
		return slices.Equal(got, names)
	}
}

func TestTwoJoinAtOnce(t *testing.T) {
	w := grown(t, 20, 3)
	w.join("n4", "n5")
	w.until("five nodes", layoutOf("n1", "n2", "n3", "n4", "n5"))
	w.rest(5)
	if w.steps["propose"] != 1 || w.steps["finalize"] != 1 {
		t.Errorf("it took %v", w.steps)
	}
	// The new ones vote: the log goes on with two of the old ones down.
	w.crash(0)
	w.crash(1)
	w.driving = false
	w.create(3, "late")
	w.calmOnly(200, 2, 3, 4)
	if len(w.won["late"]) != 1 {
		t.Errorf("three of five voters: %v, %v", w.won, w.failed)
	}
}

func TestLeaveThenRetire(t *testing.T) {
	w := grown(t, 21, 4)
	out := w.nodes[0].id
	w.propose(1, ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbLeave, Node: out}})
	w.until("n1 is retired", func(s *schema.Snapshot) bool {
		_, member := s.Ring.Member(out)
		return layoutOf("n2", "n3", "n4")(s) && !member && s.Ring.IsRetired(out)
	})
	if !errors.Is(w.nodes[0].ended, meta.ErrRetired) {
		t.Fatalf("the retired node: %v", w.nodes[0].ended)
	}
	if w.nodes[0].clean < 2 {
		t.Error("it was retired before it had handed over what it held")
	}
	w.rest(3)
	// It comes back and is refused, whether it knows or not, and others do not listen.
	w.boot(0)
	if w.nodes[0].core != nil || !errors.Is(w.nodes[0].ended, meta.ErrRetired) {
		t.Error("a retired node starts")
	}
	before := w.nodes[1].core.Digest()
	for _, method := range []string{meta.MethodExchange, meta.MethodFound} {
		w.nodes[2].core.Exchange(w.nodes[1].id)
		for _, s := range w.nodes[2].core.Take().Send {
			if _, err := w.nodes[1].core.HandleRequest(out, method, s.Payload); err != nil {
				t.Errorf("%s: %v", method, err)
			}
		}
	}
	if w.nodes[1].core.Digest() != before {
		t.Error("what a retired node says is taken in")
	}
}

// A node that slept through its removal is told at the first exchange, and ends.
func TestReplacedNodeEnds(t *testing.T) {
	w := up(t, 22, 3)
	lost := w.nodes[2]
	w.crash(2)
	lost.ended = errors.New("its machine is off")
	at := w.join("n4")[0]
	w.boot(at)
	for range 40 {
		w.calm(5)
		if len(w.nodes[0].core.Joiners()) == 1 {
			break
		}
	}
	w.propose(0, ring.Entry{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbReplace, Node: lost.id, By: w.nodes[at].id}})
	w.driving = true
	w.until("n4 in the place of n3", layoutOf("n1", "n2", "n4"))
	w.rest(3)
	if s := w.nodes[0].core.Snapshot(); !s.Ring.IsRetired(lost.id) {
		t.Error("the lost node is not retired")
	}
	lost.ended = nil
	w.boot(2)
	w.calm(20)
	if !errors.Is(lost.ended, meta.ErrRetired) {
		t.Errorf("the node that was replaced: %v", lost.ended)
	}
	w.boot(2) // it may not have noted that; it must not matter
	w.calm(20)
	if lost.core != nil {
		t.Error("the node that was replaced goes on")
	}
}

// A joiner dies for good while it is to gain: the change is given up, and another one
// takes in those that are there.
func TestDeadJoinerIsGivenUp(t *testing.T) {
	w := grown(t, 23, 3)
	at := w.join("n4", "n5")
	w.nodes[at[0]].idle = true
	w.until("the change is open", func(s *schema.Snapshot) bool { return s.Version == 0 || s.Change != nil })
	w.crash(at[0])
	w.nodes[at[0]].ended = errors.New("its disk is gone")
	w.until("n5 is in, n4 is not", layoutOf("n1", "n2", "n3", "n5"))
	if w.steps["abort"] == 0 || w.steps["propose"] < 2 {
		t.Errorf("it took %v", w.steps)
	}
}

// What an operator has aborted is not proposed again.
func TestAbortedByOperator(t *testing.T) {
	w := grown(t, 24, 3)
	at := w.join("n4")[0]
	w.nodes[at].idle = true
	w.until("the change is open", func(s *schema.Snapshot) bool { return s.Change != nil })
	c := w.nodes[1].core.Snapshot().Change
	w.propose(1, ring.Entry{Kind: ring.KindAbort, Step: &ring.Step{Change: c.ID, Reason: "not today"}})
	w.until("it is closed", func(s *schema.Snapshot) bool { return s.Change == nil && len(s.Ring.Outsiders()) == 1 })
	w.calm(200)
	w.until("it stays closed", layoutOf("n1", "n2", "n3"))
	if s := w.nodes[0].core.Snapshot(); s.Change != nil || w.steps["propose"] != 1 {
		t.Errorf("steps %v, change %+v", w.steps, s.Change)
	}
	// Its steps came too late.
	for _, k := range []ring.Kind{ring.KindCommit, ring.KindFinalize, ring.KindAbort} {
		w.propose(0, ring.Entry{Kind: k, Step: &ring.Step{Change: c.ID}})
		if r := w.steps[k.String()]; k != ring.KindAbort && r != 0 {
			t.Errorf("%s of a change that is no more", k)
		}
	}
}

// The proposer of each step dies as soon as the entry is chosen, or before; others go on.
func TestProposersDie(t *testing.T) {
	killed := 0
	for seed := range uint64(6) {
		w := grown(t, 30+seed, 4)
		w.join("n5")
		for round := 0; round < 1500 && killed < int(seed+1)*4; round++ {
			for i, m := range w.nodes {
				if m.core == nil && round%100 == 99 && m.ended == nil {
					m.store.Restart()
					w.boot(i)
				}
				w.tick(i)
				if m.core != nil && m.step != "" && w.rng.IntN(2) == 0 {
					w.crash(i)
					killed++
				}
			}
			for n := 0; len(w.net) > 0 && n < 50; n++ {
				p := w.net[0]
				w.net = w.net[1:]
				w.carry(p)
			}
		}
		w.until("five nodes", layoutOf("n1", "n2", "n3", "n4", "n5"))
		w.rest(5)
	}
	if killed < 6 {
		t.Errorf("only %d were killed", killed)
	}
}

// Any node may be the driver, and several at once: all propose without waiting for
// their turn.
func TestDriversAtOnce(t *testing.T) {
	w := up(t, 40, 3)
	w.slow = 3
	for _, i := range w.join("n4", "n5") {
		w.boot(i)
	}
	w.hurry(meta.DriverOptions{AutoApply: true, Settle: time.Second, Patience: time.Minute})
	w.until("five nodes", layoutOf("n1", "n2", "n3", "n4", "n5"))
	w.rest(5)
	if w.steps["propose"] != 1 || w.steps["void"] == 0 {
		t.Errorf("%v: nobody was second", w.steps)
	}
}

// A joiner is bound to the first cluster that it has met: it founds none, pledges to
// nobody, and takes no other's log.
func TestJoinerIsBound(t *testing.T) {
	w := up(t, 41, 2) // no drivers: it waits
	at := w.join("n3")[0]
	w.boot(at)
	w.calm(60)
	c := w.nodes[at].core
	cluster, joining := c.Joining()
	if !joining || cluster != w.nodes[0].core.ClusterID() || len(w.nodes[0].core.Joiners()) != 1 || len(w.nodes[1].core.Joiners()) != 1 {
		t.Fatalf("it joins %s, %v", cluster, joining)
	}
	w.crash(at)
	if len(w.nodes[0].core.Joiners()) != 0 {
		t.Error("a node that is gone still waits")
	}
	w.boot(at)
	c = w.nodes[at].core
	if err := c.Bootstrap(1); !errors.Is(err, meta.ErrJoining) {
		t.Errorf("bootstrap: %v", err)
	}
	c.Expect(1)
	w.calm(60)
	if c.Founded() {
		t.Error("it has founded a cluster")
	}
	// Another cluster of the same name.
	other := up(t, 42, 1)
	other.nodes[0].core.SetLiveness(w.nodes[at].id, schema.Alive)
	c.Exchange(other.nodes[0].id)
	for _, s := range c.Take().Send {
		reply, err := other.nodes[0].core.HandleRequest(w.nodes[at].id, s.Method, s.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.HandleReply(s, reply, nil); !errors.Is(err, meta.ErrJoining) {
			t.Errorf("another cluster: %v", err)
		}
	}
	if len(other.nodes[0].core.Joiners()) != 0 {
		t.Error("another cluster keeps it as a joiner")
	}
	if again, _ := c.Joining(); again != cluster {
		t.Error("it has changed its mind")
	}
}

// The founding nodes pledge to one founder; one that it left out joins its cluster, and
// no other.
func TestTooManyToFound(t *testing.T) {
	for seed := range uint64(10) {
		w := newWorld(t, 50+seed, 5, 3)
		for i := range w.nodes {
			w.boot(i)
		}
		w.driving = true
		w.until("all five", layoutOf("n1", "n2", "n3", "n4", "n5"))
		w.rest(5)
	}
}

// A cluster grows by two under lost, repeated and late messages, crashes and failing
// writes, while tenants are created.
func TestGrowUnderFaults(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 15
	}
	steps := map[string]int{}
	opened, ended := 0, 0 // before it got calm
	for seed := range seeds {
		w := grown(t, uint64(2000+seed), 3)
		w.slow, w.mild = seed%3, true
		w.hurry(meta.DriverOptions{AutoApply: true, Settle: 20 * time.Millisecond, Stagger: 200 * time.Millisecond, Patience: 100 * time.Millisecond})
		for _, i := range w.join("n4", "n5") {
			w.boot(i)
		}
		for range 4000 {
			w.faults()
		}
		if w.steps["propose"] > 0 {
			opened++
		}
		if w.steps["finalize"] > 0 {
			ended++
		}
		w.until("five nodes", layoutOf("n1", "n2", "n3", "n4", "n5"))
		w.rest(5)
		for k, n := range w.steps { //seams:ordered sums
			steps[k] += n
		}
	}
	t.Logf("%v; %d opened and %d ended under faults", steps, opened, ended)
	if opened == 0 || ended == 0 {
		t.Error("the schedules are too hostile to mean anything")
	}
}

// A joiner with every store write of it, and of a member, failing once, before and after
// it takes effect.
func TestJoinerCrashesAtEveryWrite(t *testing.T) {
	script := func(w *world, at int) {
		w.hurry(meta.DriverOptions{AutoApply: true, Settle: 100 * time.Millisecond, Stagger: 200 * time.Millisecond, Patience: time.Minute})
		if w.nodes[at].core == nil {
			w.boot(at)
		}
		w.calmOnly(120, 0, 1, 2, at)
	}
	plain := up(t, 60, 3)
	at := plain.join("n4")[0]
	script(plain, at)
	if !layoutOf("n1", "n2", "n3", "n4")(plain.nodes[0].core.Snapshot()) {
		t.Fatalf("the script is too short: %v", plain.steps)
	}
	points := 0
	for victim, m := range plain.nodes {
		for n := 1; n <= m.store.Writes; n++ {
			for _, keep := range []bool{false, true} {
				w := up(t, 60, 3)
				at := w.join("n4")[0]
				first := w.nodes[victim].store.Writes
				if victim == at {
					w.boot(at)
					first = 1
				}
				if n <= first {
					continue
				}
				w.nodes[victim].store.FailAt(n-w.nodes[victim].store.Writes, keep)
				script(w, at)
				w.until(fmt.Sprintf("four nodes though write %d of %s failed", n, m.name), layoutOf("n1", "n2", "n3", "n4"))
				w.rest(4)
				points++
			}
		}
	}
	t.Logf("%d crash points", points)
	if points < 40 {
		t.Errorf("only %d crash points", points)
	}
}

// The log of a node that joined is lost: it is fetched again, over the changes in it.
func TestJoinedNodeRecovers(t *testing.T) {
	w := grown(t, 70, 3)
	at := w.join("n4")[0]
	w.until("four nodes", layoutOf("n1", "n2", "n3", "n4"))
	w.driving = false
	w.create(0, "after")
	w.calm(100)
	m := w.nodes[at]
	version := m.core.Version()
	w.crash(at)
	m.damaged = true
	if err := m.store.Write([]meta.Record{{Key: "log/0000000000000003"}}); err != nil {
		t.Fatal(err)
	}
	w.boot(at)
	if m.core.Ready() || m.core.Snapshot().Ready {
		t.Error("it serves without its log")
	}
	w.calm(60)
	m.damaged = false
	w.rest(4)
	if m.core.Version() < version {
		t.Errorf("it has %d of %d entries", m.core.Version(), version)
	}
	w.crash(at)
	w.boot(at)
	w.calm(10)
	w.rest(4)
}

// What binds a joiner is in the witness, too; what a node has reported it finds out
// again.
func TestDamagedRecordsOfJoiners(t *testing.T) {
	w := up(t, 72, 2)
	at := w.join("n3")[0]
	w.boot(at)
	w.calm(60)
	m := w.nodes[at]
	want, _ := m.core.Joining()
	for _, r := range []meta.Record{{Key: "joining"}, {Key: "joining", Value: []byte{1, 2}}} {
		w.crash(at)
		if err := m.store.Write([]meta.Record{r}); err != nil {
			t.Fatal(err)
		}
		w.boot(at)
		if got, joining := m.core.Joining(); !joining || got != want || want.IsZero() {
			t.Errorf("bound to %s, was to %s", got, want)
		}
		if err := m.core.Bootstrap(1); !errors.Is(err, meta.ErrJoining) {
			t.Errorf("it founds another cluster: %v", err)
		}
	}
	w.driving = true
	w.until("three nodes", layoutOf("n1", "n2", "n3"))
	w.calm(40)
	w.rest(3)
	w.driving = false
	w.crash(0)
	w.crash(1)
	w.crash(at)
	if m.synced == 0 || m.clean == 0 {
		t.Fatal("it has reported nothing")
	}
	if err := m.store.Write([]meta.Record{{Key: "report", Value: []byte{1}}, {Key: "joining", Value: []byte{1}}}); err != nil {
		t.Fatal(err)
	}
	w.boot(at)
	s := m.core.Snapshot()
	if own, _ := s.Member(m.id); !s.Ready || own.SyncedVersion != 0 || own.CleanVersion != 0 || own.AckedVersion != s.Version {
		t.Errorf("ready %v, reports %+v", s.Ready, own)
	}
}

// A driver alone, over time.
func TestDriverWaits(t *testing.T) {
	w := up(t, 71, 3)
	at := w.join("n4")[0]
	w.boot(at)
	w.calm(60)
	order := []int{0, 1, 2}
	slices.SortFunc(order, func(a, b int) int { return w.nodes[a].id.Compare(w.nodes[b].id) })
	first, second := w.nodes[order[0]].core, w.nodes[order[1]].core
	o := meta.DriverOptions{AutoApply: true, Settle: 5 * time.Second, Patience: time.Minute, Stagger: 3 * time.Second}
	one, two := meta.NewDriver(o), meta.NewDriver(o)
	for _, c := range []struct {
		at               time.Duration
		first, second    bool
		manual, withdraw bool
	}{{at: 0}, {at: 4 * time.Second}, {at: 5 * time.Second, first: true}, {at: 7 * time.Second, first: true}, {at: 8 * time.Second, first: true, second: true}} {
		if got := one.Next(first.View(c.at)) != nil; got != c.first {
			t.Errorf("the first one at %s: %v", c.at, got)
		}
		if got := two.Next(second.View(c.at)) != nil; got != c.second {
			t.Errorf("the second one at %s: %v", c.at, got)
		}
	}
	o.AutoApply = false
	three := meta.NewDriver(o)
	for _, at := range []time.Duration{0, time.Minute} {
		if e := three.Next(first.View(at)); e != nil {
			t.Errorf("without AutoApply: %s", e.Kind)
		}
	}
	o.AutoApply = true
	first.SetWithdrawn(w.nodes[order[0]].id, true)
	four := meta.NewDriver(o)
	for at, want := range []bool{4: false, 5: false, 10: false, 11: true} { // behind the two others
		if got := four.Next(first.View(time.Duration(at)*time.Second)) != nil; got != want {
			t.Errorf("one that has withdrawn, at %d s: %v", at, got)
		}
	}
}
