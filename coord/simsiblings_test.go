package coord_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// keptKey is a key of a tenant that keeps siblings, and what its several
// writers did to it.
type keptKey struct {
	key   string
	level quorum.Level
	// blindDeletes says that some deletes have no token, and hot that most puts
	// have none.
	blindDeletes, hot bool
	writes            []*keptWrite
	byValue           map[string]*keptWrite
	// read and wrote are the last answers with a context, for some writer to
	// use.
	read  coord.GetResponse
	wrote coord.WriteResponse
	// seen is what every answer so far covers.
	seen causal.Context
}

// keptWrite is one write. Its answer says whether it happened; a read may.
type keptWrite struct {
	value string
	del   bool
	// covers is what its token covers; look says that it is a delete without.
	covers       causal.Context
	look         bool
	dot          causal.Dot // zero while nobody knows
	began, ended time.Duration
	acked        bool
	never        bool // the answer was not_applied
	// seen says that a QUORUM read has returned it.
	seen bool
	// gone is an acknowledged write that may have superseded it, if one is known.
	gone *keptWrite
}

// sure reports whether every later QUORUM read knows of the write.
func (x *keptWrite) sure() bool { return x.acked || x.seen }

// siblingsRun drives several writers and readers a key over a world with
// faults.
type siblingsRun struct {
	*simulation
	kept []*keptKey
}

// newSiblingsRun has the world and the faults of a simulation and other
// clients.
func newSiblingsRun(seed uint64) *siblingsRun {
	faulty, start := newFaultyWorld(seed)
	s := &siblingsRun{simulation: faulty}
	for i := range 5 {
		k := &keptKey{key: "s" + strconv.Itoa(i), level: quorum.Quorum, byValue: map[string]*keptWrite{}}
		switch i {
		case 2:
			k.blindDeletes = true
		case 3:
			k.hot = true
		case 4:
			k.level = quorum.One
		}
		s.kept = append(s.kept, k)
		for range 3 {
			s.change(k)
		}
		for range 2 {
			s.look(k)
		}
	}
	start()
	return s
}

// change is the next operation of one of a key's writers.
func (s *siblingsRun) change(k *keptKey) {
	s.w.after(s.think(), func() {
		n := s.pick()
		if s.ended {
			return
		}
		if n == nil {
			s.change(k)
			return
		}
		x := &keptWrite{value: k.key + "/" + strconv.Itoa(len(k.writes)), began: s.w.now, ended: 1 << 62}
		var token []byte
		die := s.w.rng.IntN(100)
		if k.hot {
			die /= 2
		}
		switch {
		case die < 40 || k.read.Token == nil:
		case die < 55 && k.wrote.Token != nil:
			token, x.covers = k.wrote.Token, k.wrote.Context
		case die < 85:
			token, x.covers = k.read.Token, k.read.Context
		default:
			x.del, token, x.covers = true, k.read.Token, k.read.Context
			if k.blindDeletes && s.w.rng.IntN(2) == 0 {
				x.look, token, x.covers = true, nil, nil
			}
		}
		k.writes = append(k.writes, x)
		k.byValue[x.value] = x
		answered := false
		finish := func(r coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			s.changed(k, x, r, err)
			if x.never {
				s.w.after(time.Second, func() { s.change(k) }) // who is refused waits
				return
			}
			s.change(k)
		}
		s.w.after(7*time.Second, func() {
			finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
		})
		if x.del {
			n.coord.StartDelete(coord.DeleteRequest{Tenant: simKeeper, Key: []byte(k.key), Level: k.level, Token: token}, finish)
		} else {
			n.coord.StartPut(coord.PutRequest{Tenant: simKeeper, Key: []byte(k.key), Value: []byte(x.value), Level: k.level, Token: token}, finish)
		}
	})
}

func (s *siblingsRun) changed(k *keptKey, x *keptWrite, r coord.WriteResponse, err error) {
	x.ended = s.w.now
	s.w.note("%s wrote %v", x.value, err)
	if err != nil {
		e := err.(*coord.Error)
		s.done["failed "+string(e.Outcome)]++
		if e.Code == errcode.PreconditionFailed {
			s.done["refused at the limit"]++
			if len(e.Token) == 0 {
				s.fail("%s: a refusal without a context: %v", x.value, err)
			}
		}
		x.never = e.Outcome == errcode.NotApplied
		return
	}
	s.done["written"]++
	s.w.note("%s %s", x.value, dotString(r.Dot))
	s.named(k, x, r.Dot)
	x.acked = true
	if (len(r.Token) == 0) != (len(r.Context) == 0) {
		s.fail("%s: the answer has a context of %v and a token of %d bytes", x.value, r.Context, len(r.Token))
	}
	if len(r.Token) == 0 {
		s.done["no context"]++
	} else {
		k.wrote = r
	}
	// A write may claim what it superseded and itself, not a value that its
	// client was never shown.
	for _, y := range k.writes {
		shown := y == x || y.del || x.look || y.dot == causal.Dot{} || !r.Context.Covers(y.dot) || x.covers.Covers(y.dot)
		if !shown && !s.superseded(k, y, x.ended) {
			s.fail("%s: the answer claims %s, which its client was not shown", x.value, y.value)
		}
	}
	if k.level == quorum.Quorum {
		k.seen = causal.JoinContext(k.seen, r.Context)
	}
}

// named learns a write's dot.
func (s *siblingsRun) named(k *keptKey, x *keptWrite, d causal.Dot) {
	if x.dot != (causal.Dot{}) && x.dot != d {
		s.fail("%s has the dots %s and %s", x.value, dotString(x.dot), dotString(d))
	}
	x.dot = d
	for _, y := range k.writes {
		if y != x && y.dot == d {
			s.fail("%s and %s have the dot %s", x.value, y.value, dotString(d))
		}
	}
}

// superseded reports whether some write that began before the given time may
// have replaced x: its token covered it, or it is a delete that looked after x
// had begun.
func (s *siblingsRun) superseded(k *keptKey, x *keptWrite, by time.Duration) bool {
	if x.gone != nil && x.gone.began <= by {
		return true
	}
	for _, y := range k.writes {
		switch {
		case y == x || y.never || y.began > by:
		case y.look && y.ended > x.began, !y.look && y.covers.Covers(x.dot):
			if y.acked {
				x.gone = y
			}
			return true
		}
	}
	return false
}

// look is the next operation of one of a key's readers.
func (s *siblingsRun) look(k *keptKey) {
	s.w.after(s.think(), func() {
		n := s.pick()
		if s.ended {
			return
		}
		if n == nil {
			s.look(k)
			return
		}
		began, must, gone := s.expected(k)
		answered := false
		finish := func(r coord.GetResponse, err error) {
			if answered {
				return
			}
			answered = true
			s.looked(k, k.level, began, must, gone, r, err)
			s.look(k)
		}
		s.w.after(7*time.Second, func() { finish(coord.GetResponse{}, &coord.Error{Code: errcode.Timeout}) })
		n.coord.StartGet(coord.GetRequest{Tenant: simKeeper, Key: []byte(k.key), Level: k.level}, finish)
	})
}

// expected returns what a QUORUM read that starts now must know: values it
// returns unless they were superseded, and writes whose victims it does not.
func (s *siblingsRun) expected(k *keptKey) (seen causal.Context, must, gone []*keptWrite) {
	for _, x := range k.writes {
		if x.sure() {
			gone = append(gone, x)
			if !x.del {
				must = append(must, x)
			}
		}
	}
	return k.seen, must, gone
}

// looked checks what a read returned.
func (s *siblingsRun) looked(k *keptKey, level quorum.Level, seen causal.Context, must, gone []*keptWrite, r coord.GetResponse, err error) {
	if err != nil && err.(*coord.Error).Code != errcode.KeyNotFound {
		s.done["reads failed"]++
		return
	}
	s.done["read"]++
	if len(r.Siblings) > 1 {
		s.done["read several"]++
	}
	s.w.note("%s read %d siblings", k.key, len(r.Siblings))
	got := map[*keptWrite]bool{}
	for i := range r.Siblings {
		v := &r.Siblings[i]
		x := k.byValue[string(v.Value)]
		if x == nil || x.del {
			s.fail("%s: read %q, which nobody wrote", k.key, v.Value)
			return
		}
		if x.never {
			s.fail("%s: read %s, which was not applied", k.key, x.value)
		}
		s.named(k, x, v.Dot)
		got[x] = true
		switch {
		case i > 0 && v.Beats(&r.Siblings[0]):
			s.fail("%s: %s wins over %s, which came first", k.key, v.Value, r.Siblings[0].Value)
		case i > 1 && v.Dot.Compare(r.Siblings[i-1].Dot) <= 0:
			s.fail("%s: the siblings after the first are not in order", k.key)
		}
		if !r.Context.Covers(v.Dot) {
			s.fail("%s: the context does not cover %s", k.key, x.value)
		}
	}
	for x := range got {
		for y := range got {
			if x.covers.Covers(y.dot) {
				s.fail("%s: read %s beside %s, which had superseded it", k.key, y.value, x.value)
			}
		}
	}
	if err == nil {
		k.read = r
	}
	if level == quorum.One {
		return
	}
	if err == nil && !r.Context.CoversAll(seen) {
		s.fail("%s: a context went back from %v to %v", k.key, seen, r.Context)
	}
	for _, x := range must {
		if !got[x] && !s.superseded(k, x, s.w.now) {
			s.fail("%s: %s is gone, and nothing superseded it", k.key, x.value)
		}
	}
	for x := range got {
		for _, y := range gone {
			if y.covers.Covers(x.dot) || y.look && y.acked && x.acked && x.ended < y.began {
				s.fail("%s: read %s, which %s had superseded", k.key, x.value, y.value)
			}
		}
		x.seen = true
	}
	if err == nil {
		k.seen = causal.JoinContext(k.seen, r.Context)
	}
}

// healAndCompare ends all faults, reads every key from all owners and compares
// their copies with each other and with the answer.
func (s *siblingsRun) healAndCompare() {
	w := s.w
	s.heal() // it has no keys of its own here
	for _, k := range s.kept {
		seen, must, gone := s.expected(k)
		answers := 0
		var shown int
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		n.coord.StartGet(coord.GetRequest{Tenant: simKeeper, Key: []byte(k.key), Level: quorum.All}, func(r coord.GetResponse, err error) {
			answers++
			if err != nil && err.(*coord.Error).Code != errcode.KeyNotFound {
				s.fail("%s: a healthy cluster refuses to read: %v", k.key, err)
			}
			shown = len(r.Siblings)
			s.looked(k, quorum.All, seen, must, gone, r, err)
		})
		w.advance(4 * time.Second)
		if answers != 1 {
			s.fail("%s: %d answers", k.key, answers)
		}
		s.compare(k, shown)
	}
}

// compare holds the owners' copies against each other.
func (s *siblingsRun) compare(k *keptKey, shown int) {
	at := s.w.addressIn(simKeeper, k.key)
	var first causal.Object
	for i, id := range s.w.layout.Owners(make([]ring.NodeID, 0, 3), at.Partition, 3) {
		o := s.w.nodes[id[0]-1].disk.object(at)
		live := 0
		for j := range o.Siblings {
			if v := &o.Siblings[j]; v.Live(time.Time{}) {
				live++
			} else if !v.Tombstone() {
				s.fail("%s: the value of %s was dropped", k.key, dotString(v.Dot))
			}
		}
		if i == 0 {
			first = o
		} else if !o.Equal(&first) {
			s.fail("%s: owners differ: %s and %s", k.key, objectString(first), objectString(o))
		}
		if live != shown {
			s.fail("%s: the read showed %d of %d values", k.key, shown, live)
		}
	}
}

func runSiblingsSeed(t *testing.T, seed uint64, log bool) (uint64, *siblingsRun) {
	t.Helper()
	s := newSiblingsRun(seed)
	if log {
		s.w.log = t.Logf
	}
	s.w.advance(10 * time.Second)
	s.healAndCompare()
	for _, f := range s.fails {
		t.Errorf("seed %d: %s", seed, f)
	}
	return s.w.trace.Sum64(), s
}

// TestSiblingsSimulation has several writers to a key, some with what they
// read and some blind: what a read returns is concurrent, nothing goes away but
// for a write that was shown it, and in the end all owners hold the same.
func TestSiblingsSimulation(t *testing.T) {
	if *simSeed != 0 {
		runSiblingsSeed(t, *simSeed, true)
		return
	}
	total := map[string]int{}
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
		_, s := runSiblingsSeed(t, seed, false)
		for _, m := range []map[string]int{s.done, s.w.counts} {
			for name, n := range m {
				total[name] += n
			}
		}
		if t.Failed() {
			t.Fatalf("run again with -sim.seed=%d -v", seed)
		}
	}
	t.Logf("%d seeds: %v", *simSeeds, total)
	if total["remints"] > 0 {
		t.Errorf("%d writes were minted again", total["remints"])
	}
	if *simSeeds < 20 {
		return // too few to be sure of every kind of fault
	}
	for _, must := range []string{
		"written", "read several", "no context", "crashes", "cuts", "read repairs", "forwards", "conflicts",
		"failed indeterminate", "refused at the limit", "many siblings",
	} {
		if total[must] == 0 {
			t.Errorf("no simulation had any %s", must)
		}
	}
}

func TestSiblingsSimulationRepeats(t *testing.T) {
	for seed := range uint64(min(4, *simSeeds)) {
		a, _ := runSiblingsSeed(t, seed+1, false)
		b, _ := runSiblingsSeed(t, seed+1, false)
		if a != b {
			t.Errorf("seed %d has the traces %x and %x", seed+1, a, b)
		}
	}
}
