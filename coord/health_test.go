package coord_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/gossip/ring"
)

// held is an object with one value.
func held(counter uint64, value string) *causal.Object {
	d := causal.Dot{Actor: 9, Counter: counter}
	return &causal.Object{Context: causal.NewContext(d), Siblings: []causal.Sibling{{Dot: d, HLC: counter, Value: []byte(value)}}}
}

// whole answers a question for an object, digested one for its digest.
func whole(o *causal.Object) coord.Reply {
	return coord.Reply{Status: coord.StatusOK, Body: o.Append(nil)}
}

func digested(o *causal.Object) coord.Reply {
	return coord.Reply{Status: coord.StatusOK, Digest: o.Digest()}
}

// reading is a get on a rig that has not answered, whose own replica has been asked.
type reading struct {
	r       *rig
	key     []byte
	answers []string
	hedges  int
	won     int
}

func startReading(t *testing.T) *reading {
	g := &reading{}
	g.r = newRig(t, 3, coord.Metrics{Hedge: func() { g.hedges++ }, HedgeWon: func() { g.won++ }})
	g.key = g.r.key(true)
	g.get()
	return g
}

func (g *reading) get() {
	g.r.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: g.key}, func(r coord.GetResponse, err error) {
		if err != nil {
			g.answers = append(g.answers, err.Error())
			return
		}
		g.answers = append(g.answers, string(r.Siblings[0].Value))
	})
}

// want fails unless the read has been answered so, or not at all if there is none.
func (g *reading) want(t *testing.T, when string, answers ...string) {
	t.Helper()
	if fmt.Sprint(g.answers) != fmt.Sprint(answers) {
		t.Fatalf("%s: the answers are %q, want %q", when, g.answers, answers)
	}
}

// elapse lets time pass and everything that is due happen.
func elapse(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

// TestHedgeCountsOnce: the answer of an owner that was asked because others keep a
// read waiting counts as one, and so does that of the owner it was asked for, whichever
// comes first.
func TestHedgeCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startReading(t)
		first := g.r.sends() // this node and one more are asked
		elapse(101 * time.Millisecond)
		hedge := g.r.sends()
		if len(first) != 1 || len(hedge) != 1 || hedge[0].m.Op != coord.OpRead || hedge[0].to == first[0].to {
			t.Fatalf("asked %v, then %v", first, hedge)
		}
		o := held(1, "v")
		hedge[0].reply(whole(o), nil)
		g.want(t, "one of two has answered")
		first[0].reply(digested(o), nil)
		g.want(t, "two have answered", "v")
		if g.hedges != 1 || g.won != 1 {
			t.Errorf("%d hedges, %d of them won", g.hedges, g.won)
		}
		g.r.mu.reads[0](o.Append(nil), nil)
		g.want(t, "the third has answered", "v")
	})
}

// TestHedgeAndNewerRing: what a hedge asked under the ring before does not count
// under the new one.
func TestHedgeAndNewerRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startReading(t)
		first := g.r.sends()
		elapse(101 * time.Millisecond)
		hedge := g.r.sends()
		first[0].reply(coord.Reply{Status: coord.StatusStale, Version: 2}, nil)
		g.r.learn(2)
		g.r.catchUps()[0].done(nil)
		again := g.r.sends()
		if len(again) != 1 || again[0].m.TenantVersion != 2 {
			t.Fatalf("asked again: %v", again)
		}
		o := held(1, "v")
		hedge[0].reply(whole(o), nil)
		g.r.mu.reads[0](o.Append(nil), nil) // this node's answer to the first question
		g.want(t, "two have answered under the ring before")
		g.r.mu.reads[1](o.Append(nil), nil)
		g.want(t, "one has answered under the new ring")
		again[0].reply(digested(o), nil)
		g.want(t, "two have", "v")
	})
}

// TestHedgesGoOnUnderANewerRing: a read that had asked all owners begins anew under a
// newer ring, and is hedged there, too.
func TestHedgesGoOnUnderANewerRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startReading(t)
		first := g.r.sends()
		elapse(301 * time.Millisecond)
		hedge := g.r.sends()
		if len(first) != 1 || len(hedge) != 1 {
			t.Fatalf("asked %d and then %d owners", len(first), len(hedge))
		}
		hedge[0].reply(coord.Reply{Status: coord.StatusStale, Version: 2}, nil)
		g.r.learn(2)
		g.r.catchUps()[0].done(nil)
		o := held(1, "v")
		g.r.mu.reads[1](o.Append(nil), nil)
		elapse(201 * time.Millisecond)
		again := g.r.sends()
		if len(again) != 2 {
			t.Fatalf("under the newer ring %d owners were asked", len(again))
		}
		again[1].reply(whole(o), nil)
		g.want(t, "one of them does not answer, and the hedge does", "v")
		first[0].reply(coord.Reply{}, errors.New("too late"))
		again[0].reply(coord.Reply{}, errors.New("too late"))
		g.r.mu.reads[0](nil, errors.New("too late"))
	})
}

// TestHedgeDuringFetch: the owner that is asked again, for its whole object, goes
// silent; the hedge takes its place, and its late answer is none too many.
func TestHedgeDuringFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startReading(t)
		first := g.r.sends()
		mine, other := held(1, "old"), held(2, "new")
		g.r.mu.reads[0](mine.Append(nil), nil)
		first[0].reply(digested(other), nil)
		fetch := g.r.sends()
		if len(fetch) != 1 || fetch[0].to != first[0].to || fetch[0].m.Op != coord.OpRead {
			t.Fatalf("it fetches %v", fetch)
		}
		elapse(101 * time.Millisecond)
		hedge := g.r.sends()
		if len(hedge) != 1 || hedge[0].to == first[0].to {
			t.Fatalf("the hedge asks %v", hedge)
		}
		hedge[0].reply(whole(mine), nil)
		g.want(t, "two agree", "old")
		fetch[0].reply(whole(other), nil)
		g.want(t, "the third has answered", "old")
	})
}

// writer is a rig that puts.
type writer struct {
	*rig
	key     []byte
	durable []func(error)
	lock    sync.Mutex
	answers []error
}

func newWriter(t *testing.T, stats coord.Metrics) *writer {
	w := &writer{rig: newRig(t, 3, stats)}
	w.key = w.rig.key(true)
	w.onUpdate = func(_ []byte, durable func(error)) { w.durable = append(w.durable, durable) }
	return w
}

func (w *writer) put() {
	w.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: w.key, Value: []byte("v")}, func(_ coord.WriteResponse, err error) {
		w.lock.Lock()
		w.answers = append(w.answers, err)
		w.lock.Unlock()
	})
}

// got returns the answers so far.
func (w *writer) got() []error {
	w.lock.Lock()
	defer w.lock.Unlock()
	return slices.Clone(w.answers)
}

// forget forgets them.
func (w *writer) forget() {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.answers = nil
}

// state is what the coordinator thinks of a part of a node.
func (w *writer) state(id ring.NodeID, p peerhealth.Part) peerhealth.State {
	for _, s := range w.coord.PeerHealth() {
		if s.ID == id && s.Part == p {
			return s.State
		}
	}
	return peerhealth.Closed
}

// TestRefusedAtOnce: when the level needs owners that have not answered for a second,
// a write is refused, nothing is minted, and the error says who and since when. A few
// ask first whether they answer by now; once they do all go on.
func TestRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(t, coord.Metrics{})
		w.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
		for range 5 {
			w.put()
		}
		elapse(time.Second)
		silent := w.sends()
		minted := w.mu.minted
		for range 20 {
			w.put()
		}
		if len(w.got()) < 20-peerhealth.Trials {
			t.Errorf("%d of 20 writes were refused at once", len(w.got()))
		}
		elapse(peerhealth.TrialTime)
		if len(w.got()) != 20 || w.mu.minted != minted {
			t.Fatalf("%d of 20 writes were refused, and %d minted", len(w.got()), w.mu.minted-minted)
		}
		for _, err := range w.got() {
			var e *coord.Error
			if !errors.As(err, &e) || e.Code != errcode.QuorumNotReached || e.Outcome != errcode.NotApplied ||
				len(e.Causes) != 2 || !strings.Contains(e.Causes[0].Reason, "has not answered since ") {
				t.Fatalf("refused with %v", err)
			}
		}
		elapse(peerhealth.TrialInterval)
		silent = append(silent, w.sends()...)
		w.put()
		w.forget()
		tried := w.sends()
		if len(tried) != 2 || tried[0].m.Op != coord.OpDigest {
			t.Fatalf("tried with %v", tried)
		}
		tried[0].reply(coord.Reply{Status: coord.StatusOK}, nil)
		for range 20 {
			w.put()
		}
		for _, s := range w.sends() {
			s.reply(coord.Reply{Status: coord.StatusOK}, nil)
		}
		for _, err := range w.got() {
			if err != nil {
				t.Errorf("one of them answers, and a write failed: %v", err)
			}
		}
		if len(w.got()) != 21 {
			t.Errorf("%d of 21 writes were answered", len(w.got()))
		}
		for _, s := range append(silent, tried[1]) {
			s.reply(coord.Reply{}, errors.New("lost"))
		}
	})
}

// TestLeftOut: a write is not sent to an owner that does not answer, if the others can
// meet the level; it is sent probes, and writes again once it has answered one.
func TestLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(t, coord.Metrics{})
		w.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
		silent := ring.NodeID{3}
		got, probes := 0, 0
		answers := false
		w.onSend = func(s sentMessage) {
			if s.to == silent && s.m.Op == coord.OpDigest {
				probes++
			} else if s.to == silent {
				got++
			}
			if s.to != silent || answers {
				go s.reply(coord.Reply{Status: coord.StatusOK}, nil)
			}
		}
		for range 40 {
			w.put()
			elapse(25 * time.Millisecond)
		}
		if s := w.state(silent, peerhealth.Requests); s < peerhealth.HalfOpen {
			t.Fatalf("a second of silence, and it is %v", s)
		}
		got, probes = 0, 0
		for range 200 {
			w.put()
			elapse(25 * time.Millisecond)
		}
		if got > 0 || probes < 5 || probes > 11 {
			t.Errorf("in 5 s it was sent %d writes and %d probes", got, probes)
		}
		answers = true
		for range 21 {
			w.put()
			elapse(25 * time.Millisecond)
		}
		if got == 0 {
			t.Error("it answers, and is sent no writes")
		}
		for _, err := range w.got() {
			if err != nil {
				t.Errorf("a write failed: %v", err)
			}
		}
	})
}

// TestWhoAsksWhetherOneAnswersFindsOut: a peer that is taken not to answer is probed when
// somebody wants to know, though no operation asks it anything.
func TestWhoAsksWhetherOneAnswersFindsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(t, coord.Metrics{})
		w.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
		silent := ring.NodeID{3}
		probes := 0
		answers := false
		w.onSend = func(s sentMessage) {
			if s.to == silent && answers {
				probes++
			}
			if s.to != silent || answers {
				go s.reply(coord.Reply{Status: coord.StatusStale}, nil)
			} else {
				go s.reply(coord.Reply{}, errors.New("lost"))
			}
		}
		for range 40 {
			w.put()
			elapse(25 * time.Millisecond)
		}
		if w.coord.Answers(silent) {
			t.Fatal("a second of silence, and it answers")
		}
		elapse(time.Minute) // in which nobody asks anything
		for range 100 {
			if w.coord.Answers(silent) {
				t.Fatal("it is not there, and answers")
			}
		}
		elapse(time.Minute)
		answers = true
		for range 100 {
			w.coord.Answers(silent)
		}
		elapse(time.Millisecond)
		if !w.coord.Answers(silent) || probes != 1 {
			t.Errorf("it is there; it answers: %t, after %d probes", w.coord.Answers(silent), probes)
		}
		elapse(time.Minute)
	})
}
