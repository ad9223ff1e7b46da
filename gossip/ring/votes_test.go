package ring

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A small world for the votes: nodes with a durable log and register, a network
// that loses, repeats and reorders, and crashes that take the proposer.

type voter struct {
	id          NodeID
	incarnation uint64
	highest     uint64
	log         [][]byte
	reg         Register
	prop        *Proposer
}

type envelope struct {
	kind     byte // 'p' prepare, 'a' accept, 'r' register, 'l' log entry
	from, to int
	slot     Version
	ballot   Ballot
	value    []byte
	reg      Register
}

type votingWorld struct {
	t      *rapid.T
	nodes  []*voter
	voters []NodeID
	net    []envelope
	// accepted[slot][ballot] are the voters that ever accepted there.
	accepted map[Version]map[Ballot]map[int]bool
	values   map[Ballot]map[Version][]byte
	chosen   map[Version][]byte
	serial   int
}

func newVotingWorld(t *rapid.T, n, voters int) *votingWorld {
	w := &votingWorld{t: t, accepted: map[Version]map[Ballot]map[int]bool{}, values: map[Ballot]map[Version][]byte{}, chosen: map[Version][]byte{}}
	for i := range n {
		v := &voter{incarnation: 1}
		v.id[0] = byte(i + 1)
		w.nodes = append(w.nodes, v)
		if i < voters {
			w.voters = append(w.voters, v.id)
		}
	}
	return w
}

func (w *votingWorld) index(id NodeID) int { return int(id[0]) - 1 }

func (w *votingWorld) propose(i int) {
	v := w.nodes[i]
	w.serial++
	slot := Version(len(v.log) + 1)
	v.prop = NewProposer(slot, w.voters, v.id, v.incarnation, v.highest, fmt.Appendf(nil, "value %d for slot %d by %d", w.serial, slot, i))
	w.drive(i)
}

// drive sends what the proposer's phase asks for.
func (w *votingWorld) drive(i int) {
	v := w.nodes[i]
	p := v.prop
	if p == nil {
		return
	}
	v.highest = max(v.highest, p.HighestRound())
	value, _ := p.Value()
	switch p.Phase() {
	case Preparing:
		for _, id := range w.voters {
			w.net = append(w.net, envelope{kind: 'p', from: i, to: w.index(id), slot: p.Slot(), ballot: p.Ballot()})
		}
	case Accepting:
		for _, id := range w.voters {
			w.net = append(w.net, envelope{kind: 'a', from: i, to: w.index(id), slot: p.Slot(), ballot: p.Ballot(), value: value})
		}
	case Elected:
		w.learn(i, p.Slot(), value)
		v.prop = nil
		for j := range w.nodes {
			w.net = append(w.net, envelope{kind: 'l', from: i, to: j, slot: p.Slot(), value: value})
		}
	case Outbid:
	}
}

func (w *votingWorld) learn(i int, slot Version, value []byte) {
	v := w.nodes[i]
	if Version(len(v.log)) >= slot {
		if !bytes.Equal(v.log[slot-1], value) {
			w.t.Fatalf("node %d has %q in slot %d and learns %q", i, v.log[slot-1], slot, value)
		}
		return
	}
	if Version(len(v.log)) != slot-1 {
		return
	}
	if c, ok := w.chosen[slot]; !ok || !bytes.Equal(c, value) {
		w.t.Fatalf("node %d learns %q in slot %d, chosen is %q", i, value, slot, c)
	}
	v.log = append(v.log, value)
	if v.prop != nil && v.prop.Slot() <= slot {
		v.prop = nil
	}
}

func (w *votingWorld) deliver(e envelope) {
	v := w.nodes[e.to]
	switch e.kind {
	case 'p', 'a':
		var reg Register
		var err error
		if e.kind == 'p' {
			reg, err = Prepare(v.reg, Version(len(v.log)), e.slot, e.ballot)
		} else {
			reg, err = Accept(v.reg, Version(len(v.log)), e.slot, e.ballot, e.value)
		}
		switch {
		case errors.Is(err, ErrDecided):
			w.net = append(w.net, envelope{kind: 'l', from: e.to, to: e.from, slot: e.slot, value: w.at(v, e.slot)})
			return
		case errors.Is(err, ErrBehind):
			return
		case err == nil:
			if reg.Compare(v.reg) < 0 {
				w.t.Fatalf("register of %d went back", e.to)
			}
			v.reg = reg
			if e.kind == 'a' {
				w.record(e)
			}
		}
		w.net = append(w.net, envelope{kind: 'r', from: e.to, to: e.from, reg: reg})
	case 'r':
		if v.prop != nil && v.prop.OnRegister(w.nodes[e.from].id, e.reg) {
			w.drive(e.to)
		}
	case 'l':
		if e.value != nil {
			w.learn(e.to, e.slot, e.value)
		}
	}
}

func (w *votingWorld) at(v *voter, slot Version) []byte {
	if Version(len(v.log)) < slot {
		return nil
	}
	return v.log[slot-1]
}

// record notes an acceptance and checks the one thing that matters: no slot ever
// gets two values accepted by majorities.
func (w *votingWorld) record(e envelope) {
	if w.accepted[e.slot] == nil {
		w.accepted[e.slot] = map[Ballot]map[int]bool{}
	}
	if w.accepted[e.slot][e.ballot] == nil {
		w.accepted[e.slot][e.ballot] = map[int]bool{}
	}
	w.accepted[e.slot][e.ballot][e.to] = true
	if len(w.accepted[e.slot][e.ballot]) < Majority(len(w.voters)) {
		return
	}
	if c, ok := w.chosen[e.slot]; ok && !bytes.Equal(c, e.value) {
		w.t.Fatalf("slot %d: %q was chosen, now %q is", e.slot, c, e.value)
	}
	w.chosen[e.slot] = e.value
}

func (w *votingWorld) step() {
	switch k := rapid.IntRange(0, 99).Draw(w.t, "action"); {
	case k < 8:
		w.propose(rapid.IntRange(0, len(w.nodes)-1).Draw(w.t, "proposer"))
	case k < 12:
		i := rapid.IntRange(0, len(w.nodes)-1).Draw(w.t, "crash")
		v := w.nodes[i]
		v.incarnation++
		v.prop, v.highest = nil, 0
	case k < 18:
		i := rapid.IntRange(0, len(w.nodes)-1).Draw(w.t, "retry")
		if p := w.nodes[i].prop; p != nil {
			p.Retry()
			w.drive(i)
		}
	case k < 22: // registers gossip: anyone may learn from them
		i := rapid.IntRange(0, len(w.nodes)-1).Draw(w.t, "learner")
		w.learnFromRegisters(i)
	case len(w.net) > 0:
		at := rapid.IntRange(0, len(w.net)-1).Draw(w.t, "message")
		e := w.net[at]
		switch fate := rapid.IntRange(0, 9).Draw(w.t, "fate"); {
		case fate == 0:
			w.net = slices.Delete(w.net, at, at+1)
		case fate == 1:
			w.deliver(e)
		default:
			w.net = slices.Delete(w.net, at, at+1)
			w.deliver(e)
		}
	}
	if len(w.net) > 60 {
		w.net = w.net[len(w.net)-60:]
	}
}

func (w *votingWorld) learnFromRegisters(i int) {
	regs := map[NodeID]Register{}
	for _, v := range w.nodes {
		regs[v.id] = v.reg
	}
	slot := Version(len(w.nodes[i].log) + 1)
	if value, ok := Chosen(regs, slot, w.voters); ok {
		w.learn(i, slot, value)
	}
}

func TestVotesAgreeUnderAnySchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := rapid.SampledFrom([]int{1, 3, 3, 5}).Draw(t, "voters")
		w := newVotingWorld(t, voters+rapid.IntRange(0, 2).Draw(t, "others"), voters)
		for range rapid.IntRange(20, 250).Draw(t, "steps") {
			w.step()
		}
		w.quiet()
	})
}

// quiet stops all faults; one proposer must then get every node to one log that
// is longer than any was.
func (w *votingWorld) quiet() {
	w.net = nil
	longest, who := -1, 0
	for i, v := range w.nodes {
		v.prop = nil
		if len(v.log) > longest {
			longest, who = len(v.log), i
		}
	}
	for i, v := range w.nodes { // the exchange of log entries
		for s := len(v.log); s < longest; s++ {
			w.learn(i, Version(s+1), w.nodes[who].log[s])
		}
	}
	w.propose(who)
	for range 10 {
		for len(w.net) > 0 {
			e := w.net[0]
			w.net = w.net[1:]
			w.deliver(e)
		}
		if p := w.nodes[who].prop; p != nil {
			p.Retry()
			w.drive(who)
		}
	}
	for i, v := range w.nodes {
		if len(v.log) != longest+1 {
			w.t.Fatalf("node %d has %d entries after the quiet, want %d", i, len(v.log), longest+1)
		}
		if !bytes.Equal(v.log[longest], w.nodes[0].log[longest]) {
			w.t.Fatalf("node %d ends differently", i)
		}
	}
}

func TestVoterRefusals(t *testing.T) {
	low, high := Ballot{Round: 1, Incarnation: 1}, Ballot{Round: 2, Incarnation: 1}
	r, err := Prepare(Register{}, 4, 5, high)
	if err != nil || r.Slot != 5 || r.Promised != high {
		t.Fatalf("Prepare: %+v, %v", r, err)
	}
	if got, err := Accept(r, 4, 5, low, []byte("x")); !errors.Is(err, ErrOutbid) || got.Promised != high || !got.Accepted.IsZero() {
		t.Errorf("Accept below the promise: %+v, %v", got, err)
	}
	if got, err := Prepare(r, 4, 5, low); !errors.Is(err, ErrOutbid) || got.Compare(r) != 0 {
		t.Errorf("Prepare below the promise: %+v, %v", got, err)
	}
	if _, err := Prepare(r, 4, 6, high); !errors.Is(err, ErrBehind) {
		t.Errorf("Prepare beyond the log: %v", err)
	}
	if _, err := Accept(r, 5, 5, high, []byte("x")); !errors.Is(err, ErrDecided) {
		t.Errorf("Accept of a known slot: %v", err)
	}
	r, err = Accept(r, 4, 5, high, []byte("x"))
	if err != nil || string(r.AcceptedBytes) != "x" {
		t.Fatalf("Accept: %+v, %v", r, err)
	}
	next, err := Prepare(r, 5, 6, low)
	if err != nil || next.Slot != 6 || !next.Accepted.IsZero() || next.AcceptedBytes != nil {
		t.Errorf("the next slot starts clean: %+v, %v", next, err)
	}
}

func TestChosenCountsVotersOnly(t *testing.T) {
	ids := []NodeID{{1}, {2}, {3}}
	b := Ballot{Round: 1}
	reg := Register{Slot: 2, Promised: b, Accepted: b, AcceptedBytes: []byte("x")}
	regs := map[NodeID]Register{{1}: reg, {9}: reg, {8}: reg}
	if _, ok := Chosen(regs, 2, ids); ok {
		t.Error("votes of others were counted")
	}
	regs[ids[2]] = reg
	if v, ok := Chosen(regs, 2, ids); !ok || string(v) != "x" {
		t.Errorf("two of three: %q, %v", v, ok)
	}
	if _, ok := Chosen(regs, 3, ids); ok {
		t.Error("votes of another slot were counted")
	}
	other := reg
	other.Accepted.Round, other.Promised.Round = 2, 2
	regs[ids[2]] = other
	if _, ok := Chosen(regs, 2, ids); ok {
		t.Error("votes of two ballots were added up")
	}
}

func TestRegisterCodec(t *testing.T) {
	b := Ballot{Round: 7, Node: NodeID{1, 2}, Incarnation: 3}
	for _, r := range []Register{{}, {Slot: 9, Promised: b}, {Slot: 9, Promised: b, Accepted: b, AcceptedBytes: []byte("entry")}} {
		enc := AppendRegister(nil, r)
		got, err := DecodeRegister(enc)
		if err != nil || got.Compare(r) != 0 || !bytes.Equal(got.AcceptedBytes, r.AcceptedBytes) {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
		for i := range enc {
			if _, err := DecodeRegister(enc[:i]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("cut at %d: %v", i, err)
			}
		}
		enc[0]++
		if _, err := DecodeRegister(enc); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("newer: %v", err)
		}
	}
}

func FuzzDecodeRegister(f *testing.F) {
	b := Ballot{Round: 7, Node: NodeID{1, 2}, Incarnation: 3}
	f.Add(AppendRegister(nil, Register{Slot: 9, Promised: b, Accepted: b, AcceptedBytes: []byte("entry")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeRegister(b); err == nil && !bytes.Equal(AppendRegister(nil, r), b) {
			t.Fatal("two encodings of one register")
		}
	})
}
