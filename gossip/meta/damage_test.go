package meta_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/meta/storetest"
	"github.com/pairdb/pairdb/gossip/ring"
)

// reopen starts the node i of a world again, on what is left of its store.
func (w *world) reopen(i int, s *storetest.Mem, data bool) (*meta.Core, error) {
	s.Restart()
	return meta.Open(meta.Options{
		Store: s, Witness: w.nodes[i].witness, HasData: data, Rand: w.seed, ClusterName: "test", Partitions: 8,
		Logger: discard(), Trim: w.trim, Info: meta.Info{Name: w.nodes[i].name, Capacity: 100},
	})
}

// TestAnyRecordLost takes each record of a founded node's store away, and flips each
// of its bytes in turn. The node is refused, with its name, or it knows what it has
// lost, or it has lost nothing that counts; it is never a new one, and never serves
// or votes with a log or a promise that it has forgotten.
func TestAnyRecordLost(t *testing.T) {
	for name, w := range map[string]*world{"a whole log": up(t, 31, 3), "a snapshot and a tail": trimmed(t, 34, 3)} {
		t.Run(name, func(t *testing.T) { anyRecordLost(t, w) })
	}
}

func anyRecordLost(t *testing.T, w *world) {
	w.create(0, "shop")
	w.calm(400)
	const at = 1
	sound := w.nodes[at]
	id, inc, _ := sound.core.Identity()
	want := sound.core.Snapshot()
	counts := map[string]int{}
	try := func(what string, s *storetest.Mem) {
		t.Helper()
		witness := *sound.witness
		defer func() { *sound.witness = witness }()
		c, err := w.reopen(at, s, true)
		var lost *meta.LostError
		switch {
		case errors.As(err, &lost):
			if lost.Node == nil || lost.Node.Node != id || !strings.Contains(err.Error(), id.String()) || !strings.Contains(err.Error(), "n2") {
				t.Errorf("%s: the lost node is not named: %v", what, err)
			}
			counts["refused"]++
			return
		case err != nil:
			if !errors.Is(err, meta.ErrCorrupt) && !errors.Is(err, meta.ErrNewerFormat) && !errors.Is(err, meta.ErrOtherCluster) {
				t.Errorf("%s: %v", what, err)
			}
			counts["refused otherwise"]++
			return
		}
		now, incarnation, _ := c.Identity()
		if now != id || incarnation <= inc {
			t.Fatalf("%s: it is node %s in life %d, was %s in %d", what, now, incarnation, id, inc)
		}
		if _, recovering := c.Recovering(); recovering {
			counts["recovers"]++
			if c.Snapshot().Ready || c.Founded() {
				t.Errorf("%s: it serves without its log", what)
			}
			if err := c.Bootstrap(1); err != nil || c.Founded() {
				t.Errorf("%s: it has founded another cluster: %v", what, err)
			}
			return
		}
		counts["sound"]++
		got := c.Snapshot()
		if got.Version != want.Version || got.ClusterID != want.ClusterID {
			t.Errorf("%s: version %d of %s, want %d of %s", what, got.Version, got.ClusterID, want.Version, want.ClusterID)
		}
		if _, ok := got.Tenant("shop"); !ok {
			t.Errorf("%s: a tenant is gone and nothing said", what)
		}
	}
	for _, key := range sound.store.Keys() {
		s := sound.store.Clone()
		s.Lose(key)
		try("without "+key, s)
		for i := range 40 {
			s := sound.store.Clone()
			s.Flip(key, 11*i)
			try(fmt.Sprintf("%s with byte %d flipped", key, 11*i), s)
		}
	}
	for _, kind := range []string{"refused", "recovers", "sound"} {
		if counts[kind] == 0 {
			t.Errorf("no damage was %s: %v", kind, counts)
		}
	}
	t.Logf("%v", counts)
}

// TestStoreGone: without any record there is no new node where there was one, be it
// that data is there or only the witness.
func TestStoreGone(t *testing.T) {
	w := up(t, 32, 3)
	var lost *meta.LostError
	if _, err := w.reopen(0, &storetest.Mem{}, false); !errors.As(err, &lost) || lost.Node == nil {
		t.Errorf("with the witness alone: %v", err)
	}
	w.nodes[0].witness.Bytes = nil
	if _, err := w.reopen(0, &storetest.Mem{}, true); !errors.As(err, &lost) || lost.Node != nil {
		t.Errorf("with data alone: %v", err)
	}
	if c, err := w.reopen(0, &storetest.Mem{}, false); err != nil || c.Founded() {
		t.Errorf("with neither it is a new node: %v", err)
	}
}

// TestWitnessDamaged: the witness alone is no reason to refuse a store that is sound.
func TestWitnessDamaged(t *testing.T) {
	w := up(t, 33, 3)
	sound := slices.Clone(w.nodes[0].witness.Bytes)
	for i := range sound {
		w.nodes[0].witness.Bytes = slices.Clone(sound)
		w.nodes[0].witness.Bytes[i] ^= 1
		c, err := w.reopen(0, w.nodes[0].store.Clone(), true)
		if err != nil && !errors.Is(err, meta.ErrNewerFormat) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if err == nil && c.Version() != w.nodes[0].core.Version() {
			t.Fatalf("byte %d: version %d", i, c.Version())
		}
	}
}

// TestLogIsFetchedAgain: a node that lacks its log, or the end of it, gets it from the
// others, byte for byte, and then is what it was.
func TestLogIsFetchedAgain(t *testing.T) {
	for _, from := range []int{1, 2, 3} {
		w := up(t, uint64(40+from), 3)
		w.create(0, "shop")
		w.calm(400)
		w.create(2, "bank")
		w.calm(400)
		m := w.nodes[1]
		w.crash(1)
		m.damaged = true
		before := len(w.log)
		for _, key := range m.store.Keys() {
			var v int
			if n, _ := fmt.Sscanf(key, "log/%016x", &v); n == 1 && v >= from {
				m.store.Lose(key)
			}
		}
		w.boot(1)
		if _, recovering := m.core.Recovering(); !recovering || m.core.Snapshot().Ready {
			t.Fatalf("from %d: it does not know that it lacks its log", from)
		}
		w.calm(100)
		if _, recovering := m.core.Recovering(); recovering || !m.core.Snapshot().Ready || int(m.core.Version()) != before {
			t.Fatalf("from %d: version %d of %d, ready %v", from, m.core.Version(), before, m.core.Snapshot().Ready)
		}
		w.create(1, "late")
		w.calm(400)
		if len(w.won["late"]) != 1 {
			t.Errorf("from %d: it cannot create a tenant: %v", from, w.failed)
		}
		w.check(3)
	}
}

// TestTrimmedLogIsFetchedAgain: a node that lacks its snapshot, a piece of it or an entry
// behind it gets what there is from the others, be it that they have all of its log still
// or nothing of it, and holds it against what it had.
func TestTrimmedLogIsFetchedAgain(t *testing.T) {
	for _, lost := range []string{"base", "base/0000", "base/0003", "log/0000000000000005", "log/0000000000000006"} {
		for _, later := range []int{0, 1, 9} {
			w := trimmed(t, 47, 3)
			m := w.nodes[1]
			w.crash(1)
			w.createAll("later", later)
			m.damaged = true
			m.store.Lose(lost)
			w.boot(1)
			if upTo, recovering := m.core.Recovering(); !recovering || upTo != 6 || m.core.Snapshot().Ready || m.core.Log().Base != 0 {
				t.Fatalf("without %s: recovering %v up to %d", lost, recovering, upTo)
			}
			w.calm(100)
			if _, recovering := m.core.Recovering(); recovering || !m.core.Snapshot().Ready || int(m.core.Version()) != 6+later {
				t.Fatalf("without %s: version %d, ready %v", lost, m.core.Version(), m.core.Snapshot().Ready)
			}
			w.create(1, "late")
			w.calm(300)
			if len(w.won["late"]) != 1 {
				t.Errorf("without %s it cannot create a tenant: %v", lost, w.failed)
			}
			w.check(3)
			m.damaged = false
			w.crash(1)
			w.boot(1)
			w.calm(100)
			w.check(3)
		}
	}
}

// A node whose log was not that of the others ends, also if they have but a snapshot.
func TestTrimmedLogOfAnother(t *testing.T) {
	for _, later := range []int{0, 1, 2} { // the tail has the entry, or the snapshot ends with it
		w := trimmed(t, 48, 3)
		m := w.nodes[1]
		w.crash(1)
		w.createAll("later", later)
		known, err := meta.DecodeWitness(m.witness.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		known.Log++
		if m.witness.Bytes, err = meta.AppendWitness(nil, known); err != nil {
			t.Fatal(err)
		}
		m.damaged = true
		m.store.Lose("base")
		w.boot(1)
		w.calm(40)
		if !errors.Is(m.ended, meta.ErrFork) {
			t.Errorf("%d entries later it goes on: %v", later, m.ended)
		}
	}
}

// TestForgottenVotesAreNotCast: a voter that has lost its register votes in no slot
// that it may have voted in before, over restarts, and again in those after.
func TestForgottenVotesAreNotCast(t *testing.T) {
	w := up(t, 50, 3)
	w.create(0, "shop")
	w.calm(400)
	voter := w.nodes[1]
	// A promise in the next slot, that nobody goes on with.
	slot := voter.core.Version() + 1
	high := ring.Ballot{Round: 1000, Node: w.nodes[2].id, Incarnation: 9}
	vote := func() (string, bool) {
		t.Helper()
		b := ring.Ballot{Round: 5, Node: w.nodes[0].id, Incarnation: 9}
		voted, err := voter.core.PrepareForTest(slot, b)
		return fmt.Sprint(err), voted
	}
	if _, err := voter.core.PrepareForTest(slot, high); err != nil {
		t.Fatal(err)
	}
	if _, voted := vote(); voted {
		t.Fatal("a sound voter breaks its promise")
	}
	w.crash(1)
	voter.store.Lose("vote")
	for range 3 {
		w.boot(1)
		if why, voted := vote(); voted || !strings.Contains(why, "abstains") {
			t.Fatalf("a voter that has lost its register votes in slot %d: %s", slot, why)
		}
		w.crash(1)
	}
	w.boot(1)
	w.calm(200)
	w.create(0, "next") // by the other two
	w.calm(400)
	if len(w.won["next"]) != 1 || voter.core.Version() != slot {
		t.Fatalf("without it nothing is decided: %v, version %d", w.failed, voter.core.Version())
	}
	slot++
	if why, voted := vote(); !voted {
		t.Errorf("it does not vote in a slot that is new: %s", why)
	}
	w.calm(200)
	w.check(3)
}
