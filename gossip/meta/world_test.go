package meta_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/meta/storetest"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// A cluster of cores in one goroutine: messages wait in a list and are carried,
// lost, repeated or reordered; stores fail at chosen writes; nodes crash and
// come back with what was durable.

type member struct {
	name  string
	store *storetest.Mem
	// witness lies beside it.
	witness *storetest.Witness
	damaged bool       // the store was
	core    *meta.Core // nil while down
	id      ring.NodeID
	ended   error // why it may not come back
	inc     uint64
	// acked is the highest version that this node has told anyone.
	acked ring.Version
	// version is that of the last look at it.
	version ring.Version
	// ring is what it showed then.
	ring *ring.State
	want string // the tenant it is creating
	// driver decides what it proposes of the layout, step is what it does, "" for
	// nothing.
	driver *meta.Driver
	step   string
	// joins: it is not told to found anything.
	joins bool
	// synced and clean are the highest that it ever had made durable, or tried to.
	synced, clean ring.Version
	// idle: it does not fetch what it gains.
	idle bool
	// parted: it was given up, and may have learned what nobody else has.
	parted bool
}

type parcel struct {
	from  int
	inc   uint64
	send  meta.Send
	reply bool
	body  []byte
	err   error
}

type world struct {
	t      testing.TB
	rng    *rand.Rand
	seed   *rand.ChaCha8
	nodes  []*member
	net    []parcel
	cut    map[[2]int]bool
	expect int
	// slow: only one in so many looks at a node acknowledges what it has.
	slow   int
	log    map[ring.Version][]byte // what any node ever held in a slot
	ids    map[ring.ClusterID]bool
	won    map[string][]int // who was told that it created the tenant
	lost   map[string][]int // who was told that it exists
	failed []error
	// now is the time that drivers see; driving says that there are any.
	now     time.Duration
	driving bool
	pace    meta.DriverOptions
	// mild: faults strike so seldom that things get done between them.
	mild bool
	// trim bounds the logs, and tenants is how many names there are to create.
	trim    meta.Trim
	tenants int
	// states[v] is what the log says up to v, encoded, and replayed how far that is.
	states   map[ring.Version][]byte
	replayed *ring.State
	// adopted counts the snapshots that nodes have got from others.
	adopted int
	// steps counts what drivers have brought about.
	steps map[string]int
}

func newWorld(t testing.TB, seed uint64, n, expect int) *world {
	var s [32]byte
	copy(s[:], fmt.Sprint("world ", seed))
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), seed: rand.NewChaCha8(s), expect: expect, cut: map[[2]int]bool{},
		states: map[ring.Version][]byte{}, replayed: &ring.State{}, tenants: 4, steps: map[string]int{}, pace: meta.DriverOptions{AutoApply: true, Settle: time.Second, Patience: 5 * time.Second, Stagger: 2 * time.Second},
		log: map[ring.Version][]byte{}, ids: map[ring.ClusterID]bool{}, won: map[string][]int{}, lost: map[string][]int{},
	}
	for i := range n {
		w.nodes = append(w.nodes, &member{name: fmt.Sprintf("n%d", i+1), store: &storetest.Mem{}, witness: &storetest.Witness{}})
	}
	return w
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func (w *world) boot(i int) {
	m := w.nodes[i]
	m.store.Restart()
	if m.witness == nil {
		m.witness = &storetest.Witness{}
	}
	c, err := meta.Open(meta.Options{
		Store: m.store, Witness: m.witness, Rand: w.seed, ClusterName: "test", Partitions: 8, Logger: discard(), Trim: w.trim,
		Info: meta.Info{Name: m.name, Capacity: 100, Addresses: schema.Addresses{Peer: m.name}, Software: "test"},
	})
	if errors.Is(err, meta.ErrRetired) && errors.Is(m.ended, meta.ErrRetired) {
		m.ended = err
		return
	}
	if err != nil {
		w.t.Fatalf("open %s: %v", m.name, err)
	}
	id, inc, _ := c.Identity()
	if !m.id.IsZero() && (id != m.id || inc <= m.inc) {
		w.t.Fatalf("%s came back as %s, incarnation %d, was %s, %d", m.name, id.Short(), inc, m.id.Short(), m.inc)
	}
	_, recovering := c.Recovering()
	if recovering && !m.damaged {
		w.t.Fatalf("%s takes a sound store for a damaged one", m.name)
	}
	if c.Version() < m.acked && !recovering {
		w.t.Fatalf("%s had acknowledged %d and came back with %d", m.name, m.acked, c.Version())
	}
	m.core, m.id, m.inc, m.want, m.acked, m.step = c, id, inc, "", max(m.acked, c.Version()), ""
	m.driver = meta.NewDriver(w.pace)
	if own, _ := c.Snapshot().Member(id); own.SyncedVersion < m.toldSynced(w, i) || own.CleanVersion < m.toldClean(w, i) {
		w.t.Fatalf("%s has forgotten what it reported", m.name)
	}
	if !m.joins {
		c.Expect(w.expect)
	}
	for j, o := range w.nodes {
		if j != i && o.core != nil {
			w.see(i, j)
			w.see(j, i)
		}
	}
	w.settle(i)
}

// see makes the failure detector of i find j, and their owners exchange, as they
// do when a node appears.
func (w *world) see(i, j int) {
	w.nodes[i].core.SetLiveness(w.nodes[j].id, schema.Alive)
	w.nodes[i].core.Exchange(w.nodes[j].id)
	w.settle(i)
}

func (w *world) crash(i int) {
	w.nodes[i].core = nil
	for j, o := range w.nodes {
		if j != i && o.core != nil {
			o.core.SetLiveness(w.nodes[i].id, schema.Dead)
			w.settle(j)
		}
	}
}

// settle looks at a node after a step: invariants first, then what it asks for.
func (w *world) settle(i int) {
	m := w.nodes[i]
	if m.core == nil {
		return
	}
	c := m.core
	if err := c.Fatal(); err != nil {
		if !errors.Is(err, meta.ErrFailed) {
			m.ended = err
		}
		w.crash(i)
		return
	}
	s := c.Snapshot()
	if s.Version > 0 {
		w.ids[s.ClusterID] = true
		if len(w.ids) > 1 {
			w.t.Fatalf("two clusters were founded")
		}
	}
	if _, recovering := c.Recovering(); s.Version < m.acked && !recovering {
		w.t.Fatalf("the log of %s went back from %d to %d", m.name, m.acked, s.Version)
	}
	m.acked = max(m.acked, s.Version)
	w.checkLog(m)
	w.checkState(m, s)
	if w.slow == 0 || w.rng.IntN(w.slow) == 0 { // what is done under older versions is over
		if err := c.SetAcked(s.Version); err != nil {
			w.settle(i)
			return
		}
		s = c.Snapshot()
	}
	if s.Ready {
		for _, n := range s.Layout.Nodes() {
			if e, ok := s.Member(n.ID); !ok || e.Name == "" {
				w.t.Fatalf("%s is ready without %s", m.name, n.Name)
			}
		}
	}
	for _, o := range w.nodes {
		if e, ok := s.Member(o.id); ok && e.AckedVersion > o.acked {
			w.t.Fatalf("%s is said to have %d, and had at most %d", o.name, e.AckedVersion, o.acked)
		}
	}
	w.checkChange(m, s)
	if r := c.Proposal(); r != nil && m.want != "" {
		w.concluded(i, r)
	} else if r != nil && m.step != "" {
		switch {
		case r.Err == nil:
			w.steps[m.step]++
		case errors.Is(r.Err, meta.ErrVoid):
			w.steps["void"]++
		}
		c.EndProposal()
		m.step = ""
	}
	out := c.Take()
	for _, send := range out.Send {
		w.net = append(w.net, parcel{from: i, inc: m.inc, send: send})
	}
	if out.Spread {
		for j, o := range w.nodes {
			if j != i && !o.id.IsZero() && w.rng.IntN(2) == 0 {
				c.Push(o.id)
			}
		}
		for _, send := range c.Take().Send {
			w.net = append(w.net, parcel{from: i, inc: m.inc, send: send})
		}
	}
}

func (w *world) concluded(i int, r *meta.Result) {
	m := w.nodes[i]
	switch {
	case r.Err == nil:
		w.won[m.want] = append(w.won[m.want], i)
	case errors.Is(r.Err, meta.ErrTenantExists):
		w.lost[m.want] = append(w.lost[m.want], i)
	default:
		w.failed = append(w.failed, r.Err)
	}
	if len(w.won[m.want]) > 1 {
		w.t.Fatalf("tenant %s was created at %v", m.want, w.won[m.want])
	}
	m.core.EndProposal()
	m.want = ""
}

// checkLog compares the durable log of a node with what any node ever had.
func (w *world) checkLog(m *member) {
	err := m.store.Load(func(key string, value []byte) error {
		var v uint64
		if n, _ := fmt.Sscanf(key, "log/%016x", &v); n != 1 {
			return nil
		}
		if old, ok := w.log[ring.Version(v)]; ok && !bytes.Equal(old, value) && !m.parted {
			return fmt.Errorf("slot %d has two entries", v)
		}
		if !m.parted {
			w.log[ring.Version(v)] = bytes.Clone(value)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) index(id ring.NodeID) int {
	for i, m := range w.nodes {
		if m.id == id {
			return i
		}
	}
	return -1
}

// carry takes one parcel a step further: to its receiver, or back.
func (w *world) carry(p parcel) {
	from, to := w.nodes[p.from], w.index(p.send.To)
	if p.reply {
		if from.core == nil || from.inc != p.inc {
			return
		}
		if err := from.core.HandleReply(p.send, p.body, p.err); err != nil && !meta.IsTransient(err) && from.core.Fatal() == nil {
			w.t.Fatalf("%s: %v", from.name, err)
		}
		w.settle(p.from)
		return
	}
	back := parcel{from: p.from, inc: p.inc, send: p.send, reply: true}
	if to < 0 || w.nodes[to].core == nil || w.cut[[2]int{p.from, to}] {
		back.err = errors.New("unreachable")
	} else {
		back.body, back.err = w.nodes[to].core.HandleRequest(from.id, p.send.Method, p.send.Payload)
		if errors.Is(back.err, meta.ErrFork) {
			w.t.Fatal(back.err)
		}
		if back.err != nil {
			back.err = errors.New(back.err.Error()) // no types across the network
		}
		w.settle(to)
	}
	w.net = append(w.net, back)
}

func (w *world) tick(i int) {
	if m := w.nodes[i]; m.core != nil {
		_ = m.core.Tick(1000) // a failure shows in Fatal
		w.settle(i)
		w.now += 25 * time.Millisecond / time.Duration(len(w.nodes))
		if w.driving && w.rng.IntN(4) == 0 {
			w.drive(i)
		}
	}
}

func (w *world) create(i int, name string) {
	m := w.nodes[i]
	if m.core == nil || m.want != "" || m.step != "" {
		return
	}
	m.want = name
	if err := m.core.ProposeTenant(ring.TenantCreate{Name: name, RF: 3, Policy: 1, CreatedAtMs: 5}); err != nil {
		m.want = ""
	}
	w.settle(i)
}

// faults is one step of a hostile world.
func (w *world) faults() {
	i := w.rng.IntN(len(w.nodes))
	w.now += time.Millisecond
	k := w.rng.IntN(100)
	if w.mild && (k < 3 || k >= 9 && k < 14) && w.rng.IntN(8) > 0 {
		k = 99
	}
	switch {
	case k < 3:
		if w.nodes[i].core != nil {
			w.crash(i)
		}
	case k < 9:
		if w.nodes[i].core == nil && w.nodes[i].ended == nil {
			w.boot(i)
		}
	case k < 12:
		if w.nodes[i].core != nil {
			w.nodes[i].store.FailAt(1+w.rng.IntN(3), w.rng.IntN(2) == 0)
		}
	case k < 14:
		j := w.rng.IntN(len(w.nodes))
		w.cut[[2]int{i, j}] = !w.cut[[2]int{i, j}]
	case k < 19:
		w.create(i, fmt.Sprintf("t%d", w.rng.IntN(w.tenants)))
	case k < 30:
		w.tick(i)
	case k < 34:
		if j := w.rng.IntN(len(w.nodes)); w.nodes[i].core != nil && j != i {
			w.nodes[i].core.Exchange(w.nodes[j].id)
			w.settle(i)
		}
	case len(w.net) > 0:
		at := w.rng.IntN(len(w.net))
		p := w.net[at]
		fate := w.rng.IntN(12)
		if fate != 1 {
			w.net[at] = w.net[len(w.net)-1]
			w.net = w.net[:len(w.net)-1]
		}
		if fate != 0 {
			w.carry(p)
		}
	}
	if len(w.net) > 200 {
		w.net = w.net[100:]
	}
}

// calm ends all faults and runs until nothing more happens, or too long.
func (w *world) calm(rounds int) {
	clear(w.cut)
	for i, m := range w.nodes {
		m.store.Restart()
		if m.core == nil && m.ended == nil {
			w.boot(i)
		}
	}
	for round := range rounds {
		for i, m := range w.nodes {
			w.tick(i)
			if round%10 == 0 && m.core != nil {
				for j, o := range w.nodes {
					if j != i && o.core != nil {
						w.see(i, j)
					}
				}
			}
		}
		for n := 0; len(w.net) > 0 && n < 2000; n++ {
			p := w.net[0]
			w.net = w.net[1:]
			w.carry(p)
		}
	}
}

// check demands that all nodes ended up as one ready cluster that agrees.
func (w *world) check(founded int) {
	var digest [16]byte
	n := 0
	for _, m := range w.nodes {
		if m.core == nil || !m.core.Founded() {
			continue
		}
		if !m.core.Ready() {
			w.t.Fatalf("%s is not ready: %v", m.name, m.core.Unacknowledged())
		}
		if d := m.core.Digest(); n == 0 {
			digest = d
		} else if d != digest {
			w.t.Fatalf("%s knows something else", m.name)
		}
		n++
	}
	if n != founded {
		w.t.Fatalf("%d of %d nodes belong to the cluster", n, founded)
	}
}
