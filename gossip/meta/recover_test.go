package meta_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

var errDiskGone = errors.New("its disk is gone")

// lose has nodes die for good.
func (w *world) lose(at ...int) {
	for _, i := range at {
		if w.nodes[i].core != nil {
			w.crash(i)
		}
		w.nodes[i].ended = errDiskGone
	}
}

func (w *world) named(at ...int) (ids []ring.NodeID) {
	for _, i := range at {
		ids = append(ids, w.nodes[i].id)
	}
	slices.SortFunc(ids, ring.NodeID.Compare)
	return ids
}

func recovery(lost []ring.NodeID) ring.Entry {
	return ring.Entry{Kind: ring.KindRecover, Recover: &ring.Recover{Lost: lost, CreatedAtMs: 7}}
}

// recover has a node begin a recovery and gives what comes of it.
func (w *world) recover(i int, lost ...int) error {
	c := w.nodes[i].core
	if err := c.Propose(recovery(w.named(lost...))); err != nil {
		return err
	}
	w.settle(i)
	for range 40 {
		w.calm(20)
		if w.nodes[i].core == nil {
			return errors.New("it died")
		}
		if r := w.nodes[i].core.Proposal(); r != nil {
			w.nodes[i].core.EndProposal()
			return r.Err
		}
	}
	w.nodes[i].core.EndProposal()
	return errors.New("it takes too long")
}

// accepted says whether a node's register has an entry of a kind that is not in its log.
func (w *world) accepted(i int, k ring.Kind) (found bool) {
	if err := w.nodes[i].store.Load(func(key string, value []byte) error {
		if key != "vote" {
			return nil
		}
		r, err := ring.DecodeRegister(value[1:])
		if err != nil || r.Slot <= w.nodes[i].core.Version() || len(r.AcceptedBytes) == 0 {
			return err
		}
		e, err := ring.DecodeEntry(r.AcceptedBytes)
		found = err == nil && e.Kind == k
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return found
}

// Two of three voters are lost: the third goes on with the log, takes them out of the
// layout, and new ones join. The lost are none any more, should they come back.
func TestRecover(t *testing.T) {
	w := grown(t, 90, 3)
	w.create(0, "before")
	w.calm(100)
	w.lose(1, 2)
	w.create(0, "frozen")
	w.calm(200)
	if len(w.won["before"]) != 1 || len(w.won["frozen"]) != 0 || len(w.failed) != 1 {
		t.Fatalf("won %v, failed %v", w.won, w.failed)
	}
	if err := w.recover(0, 1); !errors.Is(err, ring.ErrVotersLeft) {
		t.Errorf("one of three is lost: %v", err)
	}
	if err := w.recover(0, 0, 1); !errors.Is(err, ring.ErrNodeAlive) {
		t.Errorf("itself: %v", err)
	}
	w.nodes[0].core.SetLiveness(w.nodes[2].id, schema.Suspect)
	if err := w.recover(0, 1, 2); !errors.Is(err, ring.ErrNodeAlive) || !strings.Contains(err.Error(), "n3") {
		t.Errorf("a lost one answers: %v", err)
	}
	w.nodes[0].core.SetLiveness(w.nodes[2].id, schema.Dead)
	if err := w.recover(0, 1, 2); err != nil {
		t.Fatal(err)
	}
	w.until("one node", layoutOf("n1"))
	w.create(0, "after")
	w.calm(100)
	if len(w.won["after"]) != 1 {
		t.Fatalf("the log does not go on: %v", w.failed)
	}
	w.join("n4", "n5")
	w.until("three nodes", layoutOf("n1", "n4", "n5"))
	for _, i := range []int{1, 2} {
		w.nodes[i].ended = nil
		w.boot(i)
	}
	w.calm(200)
	for _, i := range []int{1, 2} {
		if !errors.Is(w.nodes[i].ended, meta.ErrRetired) {
			t.Errorf("%s came back: %v", w.nodes[i].name, w.nodes[i].ended)
		}
	}
	w.rest(3)
}

// The lost had chosen an entry that no survivor knows. It is given up with them: when they
// come back they are refused before anything of theirs is looked at, even if the log of
// the others has been cut behind that entry.
func TestRecoverPartsFromTheLost(t *testing.T) {
	for name, trim := range map[string]meta.Trim{"kept": {}, "trimmed": tiny} {
		t.Run(name, func(t *testing.T) {
			w := up(t, 91, 3)
			w.reboot(trim)
			v := w.nodes[0].core.Version()
			for _, i := range []int{1, 2} {
				w.cut[[2]int{0, i}], w.cut[[2]int{i, 0}] = true, true
			}
			w.create(1, "unseen")
			w.calmOnly(200, 1, 2)
			if len(w.won["unseen"]) != 1 || w.nodes[0].core.Version() != v {
				t.Fatalf("won %v, n1 at %d", w.won, w.nodes[0].core.Version())
			}
			w.net = nil
			w.lose(1, 2)
			w.nodes[1].parted, w.nodes[2].parted = true, true
			w.forget(v + 1)
			if err := w.recover(0, 1, 2); err != nil {
				t.Fatal(err)
			}
			w.driving = true
			w.until("one node", layoutOf("n1"))
			w.createAll("new", 4)
			if trimmed := w.nodes[0].core.Log().Base > v; trimmed != (trim.Entries > 0) {
				t.Fatalf("the log begins after %d, the recovery is %d", w.nodes[0].core.Log().Base, v+1)
			}
			for _, i := range []int{1, 2} {
				w.nodes[i].ended = nil
				w.boot(i)
			}
			w.calm(200)
			for _, i := range []int{1, 2} {
				if !errors.Is(w.nodes[i].ended, meta.ErrRetired) {
					t.Errorf("%s came back: %v", w.nodes[i].name, w.nodes[i].ended)
				}
			}
			if _, ok := w.nodes[0].core.Snapshot().Ring.Tenant("unseen"); ok {
				t.Error("what only the lost knew was merged")
			}
			w.rest(1)
		})
	}
}

// All that are left have to agree, and each looks for itself.
func TestRecoverTakesAllThatAreLeft(t *testing.T) {
	w := grown(t, 92, 5)
	w.lose(1, 2, 3, 4)
	var e *meta.UnreachableError
	if err := w.recover(0, 1, 2, 3); !errors.As(err, &e) || !e.Recovery || !strings.Contains(e.Error(), "n5") {
		t.Fatalf("one that is not named is away: %v", err)
	}
	w.nodes[4].ended = nil
	w.boot(4)
	w.cut[[2]int{0, 2}], w.cut[[2]int{2, 0}] = true, true // n1 does not see it, n5 does
	w.nodes[4].core.SetLiveness(w.nodes[2].id, schema.Alive)
	if err := w.recover(0, 1, 2, 3); !errors.As(err, &e) || !strings.Contains(e.Error(), "n3") {
		t.Fatalf("one of the lost answers another: %v", err)
	}
	w.nodes[4].core.SetLiveness(w.nodes[2].id, schema.Dead)
	if err := w.recover(0, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	w.until("two nodes", layoutOf("n1", "n5"))
	w.rest(2)
}

// One that is left and whose vote is damaged can never agree. It says that it has to be
// named as lost, too, and then the others go on.
func TestRecoverWithoutADamagedVote(t *testing.T) {
	w := grown(t, 97, 5)
	w.lose(2, 3, 4)
	w.create(0, "frozen") // n2 makes a promise that nobody goes on with
	w.calm(200)
	w.crash(1)
	w.nodes[1].store.Lose("vote")
	for range 2 { // a restart does not help
		w.boot(1)
		w.calm(100)
		var e *meta.UnreachableError
		if err := w.recover(0, 2, 3, 4); !errors.As(err, &e) || !strings.Contains(e.Error(), "node "+w.nodes[1].id.Short()+" abstains") || !strings.Contains(e.Error(), "name it as lost, too") {
			t.Fatalf("a survivor without its vote: %v", err)
		}
		w.crash(1)
	}
	w.lose(1)
	if err := w.recover(0, 1, 2, 3, 4); err != nil {
		t.Fatal(err)
	}
	w.until("one node", layoutOf("n1"))
	w.rest(1)
}

// What a survivor has accepted may have been chosen by the lost: it comes first.
func TestRecoverAdoptsWhatWasAccepted(t *testing.T) {
	w := up(t, 93, 5)
	w.net = nil
	w.create(2, "half")
	for n := 0; !w.accepted(1, ring.KindTenantCreate); n++ {
		if len(w.net) == 0 || n > 5000 {
			t.Fatal("nothing was accepted")
		}
		p := w.net[0]
		if w.net = w.net[1:]; !p.reply && p.send.Method == meta.MethodAccept && p.send.To != w.nodes[1].id {
			continue
		}
		w.carry(p)
	}
	w.net = nil
	w.lose(2, 3, 4)
	if err := w.recover(0, 2, 3, 4); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1} {
		s := w.nodes[i].core.Snapshot().Ring
		if _, ok := s.Tenant("half"); !ok || len(s.Lost()) != 3 {
			t.Errorf("%s: tenant %t, lost %d", w.nodes[i].name, ok, len(s.Lost()))
		}
	}
	w.driving = true
	w.until("two nodes", layoutOf("n1", "n2"))
	w.rest(2)
}

// Who began a recovery dies once another has accepted it. That one hears the lost no
// more, and its own recovery brings the same entry about.
func TestRecoverIsTakenOver(t *testing.T) {
	w := up(t, 94, 5)
	w.net = nil
	w.lose(2, 3, 4)
	if err := w.nodes[0].core.Propose(recovery(w.named(2, 3, 4))); err != nil {
		t.Fatal(err)
	}
	w.settle(0)
	for n := 0; !w.accepted(1, ring.KindRecover); n++ {
		if len(w.net) == 0 || n > 5000 {
			t.Fatal("nothing was accepted")
		}
		p := w.net[0]
		w.net = w.net[1:]
		w.carry(p)
	}
	w.net = nil
	w.crash(0)
	w.nodes[0].ended = errors.New("its machine is off")
	hears := func() bool {
		s, _ := w.nodes[0].core.PullFrom(w.nodes[1].id)
		_, err := w.nodes[1].core.HandleRequest(w.nodes[2].id, s.Method, s.Payload)
		return err == nil
	}
	w.nodes[0].ended = nil
	w.boot(0)
	if hears() {
		t.Error("it hears one that is being given up")
	}
	w.crash(1)
	w.boot(1)
	if hears() {
		t.Error("it hears one that is being given up after a start")
	}
	w.crash(1)
	w.nodes[1].damaged = true
	w.nodes[1].store.Lose("log/0000000000000001")
	w.boot(1)
	if _, lacks := w.nodes[1].core.Recovering(); !lacks || hears() {
		t.Errorf("it hears one that is being given up while it fetches its log: %t", lacks)
	}
	w.calm(40)
	if _, lacks := w.nodes[1].core.Recovering(); lacks || hears() {
		t.Errorf("it hears one that is being given up once it has its log again: %t", !lacks)
	}
	if err := w.recover(1, 2, 3, 4); err != nil && !errors.Is(err, meta.ErrVoid) && !errors.Is(err, ring.ErrVotersLeft) {
		t.Fatal(err)
	}
	w.driving = true
	w.until("two nodes", layoutOf("n1", "n2"))
	w.rest(2)
}

// A node is given up while the layout changes, in the stages in which that waits for it.
func TestGiveUpEndsWaiting(t *testing.T) {
	w := up(t, 95, 4)
	at := w.join("n5")[0]
	w.nodes[at].idle = true
	w.hurry(w.pace)
	w.until("the change is open", func(s *schema.Snapshot) bool { return s.Change != nil })
	w.lose(3)
	w.intend(0, ring.Intent{Verb: ring.VerbGiveUp, Node: w.nodes[3].id})
	w.nodes[at].idle = false
	w.until("it is taken out", layoutOf("n1", "n2", "n3", "n5"))
	if w.steps["abort"] != 1 {
		t.Errorf("it took %v", w.steps)
	}
	w.nodes[3].ended = nil
	w.boot(3)
	w.calm(100)
	if !errors.Is(w.nodes[3].ended, meta.ErrRetired) {
		t.Errorf("it came back: %v", w.nodes[3].ended)
	}
	w.rest(4)
}

// Whatever happens before and meanwhile, survivors that recover again and again come to
// agree, and go on.
func TestRecoverUnderFaults(t *testing.T) {
	recovered := 0
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := grown(t, 1000+seed, 3+int(seed%3))
			if seed%2 == 1 {
				w.reboot(tiny)
			}
			w.mild = true
			n := len(w.nodes)
			w.join("x1", "x2")
			for range 1500 {
				w.faults()
			}
			// Of the voters that the one with the longest log knows, a majority dies. Whoever
			// never became a member dies, too.
			w.calm(40)
			var s *ring.State
			for _, m := range w.nodes {
				if m.core != nil && m.core.Founded() && (s == nil || m.core.Version() > s.Version()) {
					s = m.core.Snapshot().Ring
				}
			}
			var lost []int
			for k, id := range s.Voters() {
				if k < ring.Majority(len(s.Voters())) {
					lost = append(lost, w.index(id))
				}
			}
			if _, err := s.Recovery(w.named(lost...)); err != nil {
				return // nobody is left: the case is not this one
			}
			w.lose(lost...)
			dead := w.named(lost...)
			done := func() bool {
				know, all := 0, 0
				for _, m := range w.nodes {
					if m.core != nil && m.core.Founded() {
						all++
						if m.core.Snapshot().Ring.IsRetired(dead[0]) {
							know++
						}
					}
				}
				return know > 0 && know == all
			}
			for round := 0; !done(); round++ {
				if round > 300 {
					t.Fatalf("no recovery in sight; %d nodes, lost %v", n, lost)
				}
				if i := w.rng.IntN(len(w.nodes)); w.nodes[i].core != nil && w.nodes[i].step == "" && w.nodes[i].want == "" && w.nodes[i].core.IsMember(w.nodes[i].id) {
					w.propose(i, recovery(dead))
				}
				for range 60 {
					w.faults()
				}
				if round%10 == 9 {
					w.calm(40)
				}
			}
			recovered++
			clear(w.cut)
			w.until("the lost are taken out", func(s *schema.Snapshot) bool {
				return s.Layout != nil && s.Change == nil && len(s.Ring.Lost()) == 0
			})
		})
	}
	if recovered < 15 {
		t.Errorf("%d recoveries", recovered)
	}
}
