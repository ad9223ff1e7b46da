package peerhealth

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// node is a Table under a clock of its own, whose peers answer or not.
type node struct {
	t    *Table
	now  time.Time
	snap *schema.Snapshot
	// silent peers do not answer; took is how long the others take.
	silent map[ring.NodeID]bool
	took   map[ring.NodeID]time.Duration
	// sent are the probes and trials that a peer got.
	sent    map[ring.NodeID]int
	changes []Change
}

func id(i int) ring.NodeID { return ring.NodeID{byte(i)} }

func newNode() *node {
	return &node{
		t: NewTable(id(1), 100*time.Millisecond), now: time.Unix(1000, 0), snap: members(schema.Alive, 1),
		silent: map[ring.NodeID]bool{}, took: map[ring.NodeID]time.Duration{}, sent: map[ring.NodeID]int{},
	}
}

// members is a view of three nodes, of which the second has this liveness.
func members(l schema.Liveness, incarnation uint64) *schema.Snapshot {
	s := schema.Snapshot{}
	for i := range 3 {
		m := schema.Member{ID: id(i + 1), Name: fmt.Sprint("n", i+1), Liveness: schema.Alive, Incarnation: 1}
		if i == 1 {
			m.Liveness, m.Incarnation = l, incarnation
		}
		s.Members = append(s.Members, m)
	}
	return schema.Build(s, nil)
}

// ask sends a read to a peer, as a coordinator would that does not need it, and has
// it answered if the peer answers.
func (n *node) ask(to ring.NodeID) {
	r := n.t.Peer(to)
	if r.Shut() {
		if !r.Probe(n.now) {
			return
		}
		n.sent[to]++
	}
	r.Sent()
	if n.silent[to] {
		return
	}
	if tell := r.Answered(); tell || n.t.Timed() {
		took := n.took[to]
		if took == 0 {
			took = 500 * time.Microsecond
		}
		if c, ok := n.t.Note(r, Read, n.now.Add(-took), n.now); ok {
			n.changes = append(n.changes, c)
		}
	}
}

func (n *node) tick(elapsed time.Duration) {
	n.now = n.now.Add(elapsed)
	changes, _ := n.t.Tick(n.now, n.snap)
	n.changes = append(n.changes, changes...)
}

// run lets time pass in ticks, with some questions to both peers in each.
func (n *node) run(d time.Duration, questions int) {
	for ; d > 0; d -= Interval {
		for range questions {
			n.ask(id(2))
			n.ask(id(3))
		}
		n.tick(Interval)
	}
}

func (n *node) state(i int) State { return n.t.Peer(id(i)).State() }

// TestOpensAndRecovers: a peer that says nothing is out of the path within a second
// where there is traffic, gets nothing but probes, and is back soon after it answers.
func TestOpensAndRecovers(t *testing.T) {
	for questions, within := range map[int]time.Duration{10: time.Second, 1: 1600 * time.Millisecond} { //seams:ordered each alone
		n := newNode()
		n.run(time.Second, questions)
		n.silent[id(2)] = true
		n.run(within, questions)
		if s := n.state(2); s < HalfOpen || n.state(3) != Closed {
			t.Errorf("with %d questions: %v of silence, and it is %v, the other %v", questions, within, s, n.state(3))
		}
		n.run(10*time.Second, questions)
		if got := n.sent[id(2)]; got < 10 || got > 21 {
			t.Errorf("with %d questions: %d probes in 10 s", questions, got)
		}
		n.silent[id(2)] = false
		n.run(ProbeInterval+Interval, questions)
		if s := n.state(2); s != Closed || n.t.Impaired() {
			t.Errorf("with %d questions: it answers, and is %v", questions, s)
		}
		if len(n.changes) != 2 {
			t.Errorf("with %d questions: the changes are %+v", questions, n.changes)
		}
	}
}

// TestSomeAnswersKeepItClosed: whatever comes back, it is not silence.
func TestSomeAnswersKeepItClosed(t *testing.T) {
	n := newNode()
	n.t.Peer(id(2)).sent.Add(1000) // never answered
	for range 100 {
		n.silent[id(2)] = true
		n.run(500*time.Millisecond, 5)
		n.silent[id(2)] = false
		n.ask(id(2))
	}
	if n.state(2) != Closed {
		t.Error("it answers now and then, and is open")
	}
	n.silent[id(2)] = true
	n.run(10*time.Second, 0)
	if n.state(2) != Closed {
		t.Error("nobody asks it, and what was lost before its last answer opened it")
	}
}

// TestUnreachable: requests that fail at once open a breaker too, and an idle peer is
// not judged.
func TestUnreachable(t *testing.T) {
	n := newNode()
	r := n.t.Peer(id(2))
	for range 20 {
		r.Sent()
		r.Failed()
		n.tick(Interval)
	}
	if n.state(2) != Open {
		t.Errorf("a second of refusals, and it is %v", n.state(2))
	}
	r = n.t.Peer(id(3))
	for range 5 {
		r.Sent()
		r.Failed()
		n.tick(Interval)
		n.tick(10 * time.Second)
		n.run(2*time.Second, 0)
	}
	if n.state(3) != Closed {
		t.Error("five refusals in a minute opened it")
	}
}

// TestAnswerDuringTick: an answer that comes after a tick has looked at what came, and
// before the breaker opens, is told nobody; if it was the last one that was awaited,
// nothing else would close the breaker of a disk.
func TestAnswerDuringTick(t *testing.T) {
	n := newNode()
	r := n.t.Disk()
	r.Sent()
	for range int(silentFew/Interval) - 1 {
		r.tick(n.now, Interval, false)
	}
	c := r.counts()
	if r.Answered() {
		t.Fatal("the breaker is open too early")
	}
	change, ok := r.tickWith(c, n.now, Interval, false)
	if s := r.State(); s != Closed || ok || n.t.Impaired() {
		t.Errorf("all that was awaited has come; the state is %v, the change %v", s, change)
	}
}

// TestTicksEnd: ticks go on while something is asked, and one longer, so that refusals
// with long pauses between them do not add up.
func TestTicksEnd(t *testing.T) {
	n := newNode()
	r := n.t.Peer(id(2))
	for range 50 {
		r.Sent()
		r.Failed()
		n.t.Start()
		ticks := 0
		for again := true; again && ticks < 10; ticks++ {
			n.now = n.now.Add(Interval)
			_, again = n.t.Tick(n.now, n.snap)
		}
		if ticks != 2 || n.t.Busy() {
			t.Fatalf("%d ticks after a refusal", ticks)
		}
	}
	if n.state(2) != Closed {
		t.Errorf("it is %v", n.state(2))
	}
	r.Sent()
	for range 5 {
		if _, again := n.t.Tick(n.now, n.snap); !again {
			t.Fatal("an answer is awaited, and the ticks end")
		}
	}
}

// TestOwnPause: a node that was stopped finds all that it awaits overdue, and blames
// nobody, whatever order things come in when it goes on.
func TestOwnPause(t *testing.T) {
	for _, pause := range []time.Duration{600 * time.Millisecond, 3 * time.Second, time.Hour} {
		n := newNode()
		n.run(time.Second, 10)
		for _, peer := range []int{2, 3} {
			r := n.t.Peer(id(peer))
			for range 100 {
				r.Sent()
			}
		}
		n.tick(pause)
		// The deadlines of half of them are over, before anything was read.
		for _, peer := range []int{2, 3} {
			for range 50 {
				n.t.Peer(id(peer)).Failed()
			}
		}
		for range 19 {
			n.tick(Interval)
		}
		if n.state(2) != Closed || n.state(3) != Closed {
			t.Errorf("after %v: %v and %v", pause, n.state(2), n.state(3))
		}
		// A peer that goes on saying nothing is found all the same.
		n.run(2*time.Second, 10)
		n.silent[id(2)] = true
		n.run(time.Second, 10)
		if n.state(2) == Closed || n.state(3) != Closed {
			t.Errorf("after %v and silence: %v and %v", pause, n.state(2), n.state(3))
		}
	}
}

// TestFailureDetector: suspicion halves the patience, a new start and a refuted death
// end a verdict, and who is no member is forgotten.
func TestFailureDetector(t *testing.T) {
	n := newNode()
	n.run(time.Second, 10)
	n.snap = members(schema.Suspect, 1)
	n.silent[id(2)] = true
	n.run(450*time.Millisecond, 10)
	if n.state(2) != Open {
		t.Errorf("suspect and silent, it is %v", n.state(2))
	}
	n.snap = members(schema.Alive, 2)
	n.tick(Interval)
	if n.state(2) != Closed {
		t.Errorf("started again, it is %v", n.state(2))
	}
	n.run(2*time.Second, 10)
	n.snap = members(schema.Dead, 2)
	n.tick(Interval)
	n.snap = members(schema.Alive, 2)
	n.tick(Interval)
	if n.state(2) != Closed {
		t.Errorf("alive after all, it is %v", n.state(2))
	}
	n.run(2*time.Second, 10)
	if n.state(2) == Closed {
		t.Error("it is alive and silent, and not open")
	}
	n.snap = members(schema.Left, 2)
	n.tick(Interval)
	if len(n.t.peers.Load().all) != 1 || n.t.Impaired() {
		t.Errorf("it has left, and %d peers are known", len(n.t.peers.Load().all))
	}
}

// TestTrials: what cannot do without a peer that does not answer is let through, a
// few times in each interval and no more.
func TestTrials(t *testing.T) {
	n := newNode()
	n.silent[id(2)] = true
	n.run(time.Second, 10)
	r, passed := n.t.Peer(id(2)), 0
	for range 20 {
		for range 100 {
			if r.Trial(n.now) {
				r.Sent()
				passed++
			}
		}
		n.tick(Interval)
	}
	if most := Trials * int(time.Second/TrialInterval+1); passed > most || passed < most/2 {
		t.Errorf("%d got through in a second, at most %d should", passed, most)
	}
}

// TestAlwaysRecovers: whatever has happened, of peers that answer none stays open
// or slow, as long as anything is asked; and then nothing keeps an operation out.
func TestAlwaysRecovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNode()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			peer := id(2 + rapid.IntRange(0, 1).Draw(t, "peer"))
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0:
				n.silent[peer] = !n.silent[peer]
			case 1:
				n.took[peer] = time.Duration(rapid.IntRange(0, 1000).Draw(t, "ms")) * time.Millisecond
			case 2:
				n.tick(time.Duration(rapid.IntRange(0, 100_000).Draw(t, "elapsed")) * time.Millisecond)
			case 3:
				n.snap = members(schema.Liveness(rapid.IntRange(0, 4).Draw(t, "liveness")), uint64(rapid.IntRange(1, 3).Draw(t, "incarnation")))
			case 4:
				for range 20 {
					r := n.t.Peer(peer)
					r.Sent()
					r.Failed()
				}
			case 5:
				n.t.Peer(peer).Trial(n.now)
			default:
				n.run(time.Duration(rapid.IntRange(50, 5000).Draw(t, "ms"))*time.Millisecond, rapid.IntRange(0, 10).Draw(t, "questions"))
			}
		}
		n.silent, n.took = map[ring.NodeID]bool{}, map[ring.NodeID]time.Duration{}
		n.snap = members(schema.Alive, 9)
		n.run(3*time.Second, 10)
		for _, s := range n.t.All() {
			if s.State >= HalfOpen {
				t.Fatalf("%x answers, and is %v", s.ID[0], s.State)
			}
		}
		// What was learned of another time is forgotten, too, by and by.
		n.run(30*time.Second, 10)
		for _, s := range n.t.All() {
			if s.State != Closed || s.Part == Requests && s.ReadWait > 10*time.Millisecond {
				t.Fatalf("%x answers, and is %v, after %v", s.ID[0], s.State, s.ReadWait)
			}
		}
		if n.t.Impaired() {
			t.Fatal("all are closed, and it is impaired")
		}
	})
}

// TestHotPathAllocatesNothing: what every request does to the table.
func TestHotPathAllocatesNothing(t *testing.T) {
	n := newNode()
	n.run(2*time.Second, 10)
	if got := testing.AllocsPerRun(1000, func() {
		r := n.t.Peer(id(2))
		r.Sent()
		n.t.Timed()
		n.t.Impaired()
		if r.Answered() {
			t.Fatal("it is open")
		}
		n.t.Note(r, Read, n.now, n.now.Add(time.Millisecond))
		r.Wait(Read)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkRequest(b *testing.B) {
	n := newNode()
	n.run(2*time.Second, 10)
	b.ReportAllocs()
	for b.Loop() {
		r := n.t.Peer(id(2))
		r.Sent()
		n.t.Timed()
		n.t.Impaired()
		r.Answered()
	}
}
