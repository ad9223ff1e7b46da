package ringmodel

import (
	"fmt"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

type messageKind uint8

const (
	askMint messageKind = iota
	minted
	write // a state to join: of a write, or of a read that repairs
	written
	askRead
	shown
	stale
	handOver // of somebody who does not own the unit
	handedOver
	askKnown // a gainer asks what was confirmed
	known
	askAll // ... and for all there is
	all
	askPromise
	askVote
	vote
	handHint
	hintTaken
	// A round: see round_test.go.
	askState
	state
	level
	rows
	mend
	mended
	adopt
	adopted
	release
)

func (k messageKind) String() string {
	return [...]string{
		"mint?", "minted", "write", "written", "read?", "shown", "STALE", "hand over", "handed over", "known?", "known",
		"all?", "all", "promise?", "vote?", "vote", "hint", "hint taken", "state?", "state", "level", "rows", "mend", "mended",
		"adopt", "adopted", "release",
	}[k]
}

type message struct {
	kind     messageKind
	from, to int
	hold     int // it does not arrive before this step
	knows    int // the log, at the sender
	u        int
	pv       ring.Version
	object   causal.Object

	op       *operation
	attempt  int
	written  int // the write that was minted
	dot      causal.Dot
	found    bool // what a read writes back is not to be replaced at the receiver
	before   bool // what is shown is older than the version of the partition
	hint     *hint
	changes  int // of a unit that is handed over
	at       ring.Version
	knowing  knowledge
	slot     ring.Version
	ballot   ring.Ballot
	value    []byte
	register ring.Register

	round   int
	class   ring.Class
	members mask // units of the class
	actor   uint64
	drawn   uint64
	seen    causal.Context
	objects [units]causal.Object
}

// send puts a message on its way, or loses it.
func (w *world) send(m *message) {
	m.knows = w.nodes[m.from].known
	if !w.healing {
		if m.from != m.to && w.percent(w.prof.loss) {
			return
		}
		if w.percent(w.prof.slow) {
			m.hold = w.step + 20 + w.n(w.prof.slowFor)
		}
	}
	if len(w.msgs) < 400 {
		w.msgs = append(w.msgs, m)
	}
}

// deliverOne has some message arrive.
func (w *world) deliverOne() {
	for try := 0; try < 4 && len(w.msgs) > 0; try++ {
		i := w.n(len(w.msgs))
		m := w.msgs[i]
		to := w.nodes[m.to]
		if m.hold > w.step || to.up && to.asleepUntil > w.step {
			continue // it waits in a buffer
		}
		w.msgs[i] = w.msgs[len(w.msgs)-1]
		w.msgs = w.msgs[:len(w.msgs)-1]
		if !to.up || !w.linked(m.from, m.to) {
			continue
		}
		w.deliver(m)
		if !w.healing && w.n(25) == 0 && len(w.msgs) < 400 && m.kind != askMint { // it comes twice
			again := *m
			again.hold = w.step + w.n(w.prof.slowFor+1)
			w.msgs = append(w.msgs, &again)
		}
		return
	}
}

// answer makes the answer to a message.
func answer(m *message, kind messageKind) *message {
	return &message{
		kind: kind, from: m.to, to: m.from, u: m.u, pv: m.pv, op: m.op, attempt: m.attempt, hint: m.hint,
		changes: m.changes, at: m.at, round: m.round, class: m.class,
	}
}

func (w *world) deliver(m *message) {
	if w.log != nil && m.kind != vote {
		op := ""
		if m.op != nil {
			op = fmt.Sprintf(" op%d", m.op.id)
		}
		w.trace("  %v n%d->n%d u%d pv %d%s", m.kind, m.from, m.to, m.u, m.pv, op)
	}
	n := w.nodes[m.to]
	switch m.kind {
	case askMint:
		w.onMint(n, m)
	case write:
		w.onWrite(n, m)
	case askRead:
		w.onRead(n, m)
	case handOver:
		w.onHandOver(n, m)
	case handedOver:
		w.onHandedOver(n, m)
	case handHint:
		w.onHint(n, m)
	case hintTaken:
		w.dropHint(n, m.hint)
	case askKnown, askAll:
		w.onGainer(n, m)
	case known:
		w.onKnown(n, m)
	case all:
		w.onAll(n, m)
	case askPromise, askVote:
		w.onBallot(n, m)
	case vote:
		w.onVote(n, m)
	case askState, level, mend, adopt, release:
		w.onRound(n, m)
	case state, rows, mended, adopted:
		w.onRoundAnswer(n, m)
	case minted, written, shown, stale:
		w.onAnswer(n, m)
	}
}
