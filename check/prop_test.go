package check

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// server is a correct key: it takes one operation at a time, and never fails.
type server struct {
	lww      bool
	obj      causal.Object
	counters [3]uint64
	hlc      uint64
	records  map[string]Answer
}

func newServer(lww bool) *server { return &server{lww: lww, records: map[string]Answer{}} }

// apply runs an operation; actor mints its dot.
func (s *server) apply(c Call, actor int) Answer {
	if c.Kind == Get {
		return s.get()
	}
	if a, ok := s.records[c.IdempotencyKey]; ok {
		a.Duplicate = true
		return a
	}
	seen := c.Seen
	if s.lww && len(seen) == 0 {
		seen = s.obj.Context
	}
	s.counters[actor]++
	s.hlc++
	v := causal.Sibling{Dot: causal.Dot{Actor: uint64(actor + 1), Counter: s.counters[actor]}, HLC: s.hlc, Value: []byte(c.Value)}
	if c.Kind == Delete {
		v.Flags |= causal.FlagTombstone
	}
	s.obj = causal.Mint(&s.obj, seen, v)
	if s.lww {
		s.obj.StripLosers()
	}
	a := Answer{Outcome: OK, Dot: v.Dot, Context: s.obj.Context}
	if c.IdempotencyKey != "" {
		s.records[c.IdempotencyKey] = a
	}
	return a
}

func (s *server) get() Answer {
	a := Answer{Outcome: OK}
	w := s.obj.Winner()
	for i := range s.obj.Siblings {
		if t := &s.obj.Siblings[i]; !t.Tombstone() && (!s.lww || t == w) {
			a.Siblings = append(a.Siblings, Version{Dot: t.Dot, Value: string(t.Value)})
		}
	}
	if len(a.Siblings) > 0 {
		a.Context = s.obj.Context
	}
	return a
}

// client is where one client is with its operation.
type client struct {
	name    string
	retired bool
	id      int
	call    Call
	// applied is the answer that is under way, nil before it took effect.
	applied *Answer
	seen    causal.Context
	// retry is the write to send again; open says that an attempt at it has an
	// open fate.
	retry *Call
	open  bool
}

// scene runs clients against a server, one step of one of them at a time.
type scene struct {
	*server
	rec     *Recorder
	now     time.Duration
	clients []*client
	// late are writes that may still take effect although their client has
	// given up.
	late []Call
	// calm says that no operation fails and none overlap.
	calm bool
	// single says that only the first client writes, as a register has to be
	// written.
	single bool
	writes int
}

func newScene(lww, single, calm bool) *scene {
	s := &scene{server: newServer(lww), rec: NewRecorder(nil), single: single, calm: calm}
	for i := range 3 {
		s.clients = append(s.clients, &client{name: fmt.Sprint("c", i)})
	}
	return s
}

func (s *scene) tick() time.Duration {
	s.now++
	return s.now
}

// step lets one client call, take effect, or hear of it.
func (s *scene) step(t *rapid.T) {
	if len(s.late) > 0 && rapid.IntRange(0, 9).Draw(t, "late") == 0 {
		s.apply(s.late[0], 2)
		s.late = s.late[1:]
		return
	}
	c := s.clients[rapid.IntRange(0, len(s.clients)-1).Draw(t, "client")]
	if s.calm {
		s.begin(t, c)
		s.effect(t, c)
		s.answer(c, *c.applied)
		return
	}
	switch fate := rapid.IntRange(0, 9).Draw(t, "fate"); {
	case c.id == 0:
		s.begin(t, c)
	case c.applied == nil && fate == 0:
		s.answer(c, Answer{Outcome: NotApplied})
	case c.applied == nil && fate == 1:
		if c.call.Kind != Get {
			s.late = append(s.late, c.call)
		}
		s.answer(c, Answer{Outcome: Indeterminate})
	case c.applied == nil:
		s.effect(t, c)
	case fate == 0:
		s.answer(c, Answer{Outcome: Indeterminate})
	default:
		s.answer(c, *c.applied)
	}
}

func (s *scene) begin(t *rapid.T, c *client) {
	c.call = Call{Client: c.name, Tenant: "acme", Key: "k", LWW: s.lww, Kind: Get, Level: quorum.Quorum}
	switch {
	case c.retry != nil:
		c.call = *c.retry
	case !c.retired && (!s.single || c == s.clients[0]):
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			c.call.Kind = Delete
		case 1, 2:
			s.writes++
			c.call.Kind, c.call.Value = Put, Canary("acme", fmt.Sprint(s.writes))
			if rapid.Bool().Draw(t, "key") {
				c.call.IdempotencyKey = fmt.Sprint("i", s.writes)
			}
		}
		// The single writer of a register that keeps siblings always says what
		// it has seen.
		if c.call.Kind != Get && (rapid.Bool().Draw(t, "token") || s.single && !s.lww) {
			c.call.Seen = c.seen
		}
	}
	c.call.At, c.applied, c.retry = s.tick(), nil, nil
	c.id = s.rec.Call(c.call)
}

func (s *scene) effect(t *rapid.T, c *client) {
	a := s.apply(c.call, rapid.IntRange(0, 1).Draw(t, "actor"))
	c.applied = &a
}

func (s *scene) answer(c *client, a Answer) {
	a.At = s.tick()
	s.rec.Answer(c.id, a)
	c.id = 0
	if a.Outcome == OK {
		c.seen = causal.JoinContext(c.seen, a.Context)
	}
	if c.call.Kind == Get {
		return
	}
	c.open = a.Outcome == Indeterminate || c.open && a.Outcome == NotApplied
	if c.open && c.call.IdempotencyKey != "" {
		again := c.call
		c.retry = &again
	} else if c.open {
		c.retired = true
	}
}

func (s *scene) history(t *rapid.T) History {
	h, err := s.rec.History()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (s *scene) accepted(t *rapid.T) {
	h := s.history(t)
	for _, checker := range []func(History) []Violation{Register, LostAck, Causal, MonotonicContexts, NoReappearance, Idempotency, TenantCanary} {
		for _, v := range checker(h) {
			t.Errorf("%v", v)
		}
	}
	if s.single && len(h) > 0 && len(Registers(h)) == 0 {
		for i := range h {
			if h[i].Kind == Get && h[i].ok() {
				t.Fatal("no register was looked at")
			}
		}
	}
}

// TestCorrectServerIsAccepted runs clients that overlap, whose operations fail,
// whose fate is open and who try again, against a server that is correct.
func TestCorrectServerIsAccepted(t *testing.T) {
	for _, lww := range []bool{true, false} {
		for _, single := range []bool{true, false} {
			for _, calm := range []bool{true, false} {
				t.Run(fmt.Sprintf("lww %v single %v calm %v", lww, single, calm), func(t *testing.T) {
					rapid.Check(t, func(t *rapid.T) {
						s := newScene(lww, single, calm)
						for range rapid.IntRange(0, 60).Draw(t, "steps") {
							s.step(t)
						}
						s.accepted(t)
					})
				})
			}
		}
	}
}

// TestBreaksAreFound ends a history that is right with something that is wrong.
func TestBreaksAreFound(t *testing.T) {
	ask := func(s *scene, kind Kind, value, idempotencyKey string) Call {
		return Call{
			At: s.tick(), Client: "c0", Tenant: "acme", Key: "k", LWW: s.lww, Kind: kind, Level: quorum.Quorum,
			Value: value, IdempotencyKey: idempotencyKey,
		}
	}
	end := func(s *scene, c Call, a Answer) {
		id := s.rec.Call(c)
		a.At = s.tick()
		s.rec.Answer(id, a)
	}
	read := func(s *scene) { c := ask(s, Get, "", ""); end(s, c, s.apply(c, 0)) }
	for name, b := range map[string]struct {
		spoil    func(s *scene)
		checkers []func(History) []Violation
	}{
		"an acknowledged write is lost": {func(s *scene) {
			end(s, ask(s, Put, "acme/lost", ""), Answer{Outcome: OK, Dot: causal.Dot{Actor: 9, Counter: 1}})
			read(s)
		}, []func(History) []Violation{LostAck, Register}},
		"an acknowledged write is lost and its dot covered": {func(s *scene) {
			c := ask(s, Put, "acme/lost", "")
			a := s.apply(c, 0)
			end(s, c, a)
			for i := range s.obj.Siblings {
				if v := &s.obj.Siblings[i]; v.Dot == a.Dot {
					v.Value = []byte("acme/other")
				}
			}
			read(s)
		}, []func(History) []Violation{Causal, LostAck, Register}},
		"a read returns what was overwritten": {func(s *scene) {
			c := ask(s, Put, "acme/old", "")
			end(s, c, s.apply(c, 0))
			old := s.obj
			c = ask(s, Put, "acme/new", "")
			end(s, c, s.apply(c, 1))
			s.obj = old
			read(s)
		}, []func(History) []Violation{LostAck, Register, MonotonicContexts, NoReappearance}},
		"a delete is forgotten": {func(s *scene) {
			c := ask(s, Put, "acme/old", "")
			end(s, c, s.apply(c, 0))
			old := s.obj
			c = ask(s, Delete, "", "")
			end(s, c, s.apply(c, 1))
			read(s)
			s.obj = old
			read(s)
		}, []func(History) []Violation{LostAck, Register, NoReappearance}},
		"a retry is a second write": {func(s *scene) {
			c := ask(s, Put, "acme/once", "once")
			end(s, c, s.apply(c, 0))
			delete(s.records, "once")
			c.At = s.tick()
			end(s, c, s.apply(c, 1))
			read(s)
		}, []func(History) []Violation{Idempotency}},
		"a refused write is applied": {func(s *scene) {
			c := ask(s, Put, "acme/refused", "")
			s.apply(c, 0)
			end(s, c, Answer{Outcome: NotApplied})
			read(s)
		}, []func(History) []Violation{Causal, Register}},
		"another tenant's value": {func(s *scene) {
			c := ask(s, Get, "", "")
			end(s, c, Answer{Outcome: OK, Siblings: []Version{{Dot: causal.Dot{Actor: 9, Counter: 1}, Value: "umbrella/x"}}})
		}, []func(History) []Violation{TenantCanary, Causal}},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				s := newScene(true, true, true)
				for range rapid.IntRange(0, 20).Draw(t, "steps") {
					s.step(t)
				}
				s.accepted(t)
				b.spoil(s)
				h := s.history(t)
				for i, checker := range b.checkers {
					if len(checker(h)) == 0 {
						t.Errorf("checker %d accepts %v", i, h)
					}
				}
			})
		})
	}
}
