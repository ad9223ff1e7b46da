package meta_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func (w *world) intend(i int, in ring.Intent) {
	w.t.Helper()
	before := w.steps["intent"]
	w.propose(i, ring.Entry{Kind: ring.KindIntent, Intent: &in})
	w.calm(40)
	if w.steps["intent"] != before+1 {
		w.t.Fatalf("the intent to %s is not in the log", in.Verb)
	}
}

// A node was given up for lost and comes back before anything has begun: it stays.
func TestRemovalOfALivingNodeIsCancelled(t *testing.T) {
	w := up(t, 80, 4)
	id := w.nodes[3].id
	w.crash(3)
	w.nodes[3].ended = errors.New("its machine is off")
	w.intend(0, ring.Intent{Verb: ring.VerbRemove, Node: id})
	w.nodes[3].ended = nil
	w.boot(3)
	w.calm(40)
	w.driving = true
	w.until("the intent is cancelled", func(s *schema.Snapshot) bool { return len(s.Ring.Intents()) == 0 })
	w.rest(4)
	if s := w.nodes[0].core.Snapshot(); !layoutOf("n1", "n2", "n3", "n4")(s) || len(s.Ring.Retired()) != 0 {
		t.Error("it was removed")
	}
}

// A joiner of the open change is removed by its operator: the change is given up for
// another one, long before its time, and the joiner is none any more.
func TestRemovalEndsTheChangeThatWaits(t *testing.T) {
	w := up(t, 81, 3)
	w.pace.Patience = time.Hour
	w.hurry(w.pace)
	at := w.join("n4")[0]
	w.nodes[at].idle = true
	w.until("the change is open", func(s *schema.Snapshot) bool { return s.Change != nil })
	w.intend(0, ring.Intent{Verb: ring.VerbLeave, Node: w.nodes[2].id}) // waits: three are wanted
	w.crash(at)
	w.nodes[at].ended = errors.New("its disk is gone")
	w.intend(1, ring.Intent{Verb: ring.VerbRemove, Node: w.nodes[at].id})
	w.until("the joiner is retired", func(s *schema.Snapshot) bool {
		return layoutOf("n1", "n2", "n3")(s) && s.Ring.IsRetired(w.nodes[at].id)
	})
	if w.steps["abort"] != 1 {
		t.Errorf("it took %v", w.steps)
	}
	if s := w.nodes[0].core.Snapshot(); len(s.Ring.Intents()) != 1 || s.Ring.Intents()[0].Verb != ring.VerbLeave {
		t.Errorf("what waited is gone: %+v", s.Ring.Intents())
	}
}

// An intent that cannot be carried out any more is cancelled, and a proposal that came
// too late is void.
func TestVoidIntentIsCancelled(t *testing.T) {
	w := up(t, 82, 4)
	id := w.nodes[3].id
	w.crash(3)
	w.nodes[3].ended = errors.New("its machine is off")
	w.intend(0, ring.Intent{Verb: ring.VerbRemove, Node: id})
	w.intend(1, ring.Intent{Verb: ring.VerbWeigh, Node: id, Capacity: 7})
	w.driving = true
	w.until("both are gone", func(s *schema.Snapshot) bool {
		return len(s.Ring.Intents()) == 0 && layoutOf("n1", "n2", "n3")(s)
	})
	w.driving = false
	c := w.nodes[0].core
	for _, e := range []ring.Entry{
		{Kind: ring.KindRetire, Retire: &ring.Retire{Node: id}},
		{Kind: ring.KindIntent, Intent: &ring.Intent{Verb: ring.VerbLeave, Node: id}},
		{Kind: ring.KindCommit, Step: &ring.Step{Change: [16]byte{9}}},
	} {
		if err := c.Propose(e); err != nil {
			t.Errorf("%s: %v", e.Kind, err)
		}
		if r := c.Proposal(); r == nil || !errors.Is(r.Err, meta.ErrVoid) {
			t.Errorf("%s: %+v", e.Kind, r)
		}
		if c.EndProposal() {
			t.Errorf("%s: it is not known whether a void entry has had its effect", e.Kind)
		}
	}
}

// Two nodes of one name that wait: all members keep the same one, and the other is told
// why it waits for nothing. A member's name is refused.
func TestTwinsWait(t *testing.T) {
	w := up(t, 83, 3)
	at := w.join("n4", "n4", "n2")
	for _, i := range at {
		w.boot(i)
	}
	w.calm(100)
	keep := w.nodes[at[0]].id
	if other := w.nodes[at[1]].id; other.Compare(keep) < 0 {
		keep = other
	}
	for _, m := range w.nodes[:3] {
		if j := m.core.Joiners(); len(j) != 1 || j[0].ID != keep {
			t.Errorf("%s has %+v waiting", m.name, j)
		}
	}
	late := at[1]
	if w.nodes[late].id == keep {
		late = at[0]
	}
	for _, i := range at[:2] {
		if why := w.nodes[i].core.KeptOut(); (why == "") != (i != late) || i == late && (!strings.Contains(why, keep.Short()) || !strings.Contains(why, "--name")) {
			t.Errorf("%s, kept %v, was told %q", w.nodes[i].id.Short(), i != late, why)
		}
	}
	// With another name it waits, and knows it.
	w.crash(late)
	w.nodes[late].name = "n5"
	w.boot(late)
	w.calm(100)
	if why, j := w.nodes[late].core.KeptOut(), w.nodes[0].core.Joiners(); why != "" || len(j) != 2 {
		t.Errorf("with another name: %q, waiting %+v", why, j)
	}
	var taken *meta.PlaceTakenError
	if err := w.nodes[at[2]].ended; !errors.As(err, &taken) || taken.Lost.ID != w.nodes[1].id {
		t.Errorf("the one with a member's name: %v", err)
	}
	w.check(3)
}

// Tenants are created at every node while a change goes through all its steps: neither
// waits for the other to stop.
func TestCreatesAndChangesSideBySide(t *testing.T) {
	w := grown(t, 84, 3)
	w.join("n4", "n5")
	n := 0
	for round := range 400 {
		if round%3 == 0 {
			w.create(round%len(w.nodes), "t"+string(rune('a'+n%26))+string(rune('a'+n/26)))
			n++
		}
		w.calm(3)
		if layoutOf("n1", "n2", "n3", "n4", "n5")(w.nodes[0].core.Snapshot()) {
			break
		}
	}
	if s := w.nodes[0].core.Snapshot(); !layoutOf("n1", "n2", "n3", "n4", "n5")(s) {
		t.Errorf("the change has starved: %v at version %d", w.steps, s.Version)
	}
	if len(w.won) < 3 {
		t.Errorf("the creates have starved: %v", w.won)
	}
}

// All members have withdrawn, since their disks are full: they take in the nodes that
// were started to help them, one after the other as ever.
func TestWithdrawnMembersGrow(t *testing.T) {
	w := up(t, 72, 3)
	w.boot(w.join("n4")[0])
	w.calm(60)
	for _, m := range w.nodes[:3] {
		for _, o := range w.nodes[:3] {
			m.core.SetWithdrawn(o.id, true)
		}
	}
	w.driving = true
	w.until("the joiner is in", layoutOf("n1", "n2", "n3", "n4"))
	if w.steps["void"] > 2 {
		t.Errorf("they get into each other's way: %v", w.steps)
	}
}

// A node that comes and goes all the time puts off what others want, but not for ever.
func TestFlappingJoinerDoesNotStarveOthers(t *testing.T) {
	w := up(t, 73, 3)
	w.intend(0, ring.Intent{Verb: ring.VerbWeigh, Node: w.nodes[1].id, Capacity: 300})
	low := slices.MinFunc(w.nodes, func(a, b *member) int { return a.id.Compare(b.id) })
	d := meta.NewDriver(meta.DriverOptions{AutoApply: true, Settle: 5 * time.Second, Patience: time.Minute})
	for at := time.Duration(0); at < 2*time.Minute; at += time.Second {
		v := low.core.View(at)
		if at/time.Second%4 == 0 {
			v.Wanting = []ring.LayoutNode{{ID: ring.NodeID{7}, Name: "flaps", Capacity: 100}}
		}
		if e := d.Next(v); e != nil {
			if at < 30*time.Second {
				t.Errorf("it has not settled after %s", at)
			}
			return
		}
	}
	t.Error("what was asked for never begins")
}
