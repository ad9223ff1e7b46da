package coord_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// ttlRun is a simulation of values that expire and of writes with conditions,
// under clocks up to a second off. Each key has one writer, so that what a
// condition has to say is known, but for the moments in which the clocks differ
// about whether a value has expired.
type ttlRun struct {
	*simulation
	// slowest and fastest are the least and the greatest skew of any node.
	slowest, fastest time.Duration
	keys             []*mortalKey
	kept             *keptMortals
	// expires is by value when it does, for all that were read; written are the
	// writes by value.
	expires map[string]int64
	written map[string]*mortal
}

// mortal is what a write leaves.
type mortal struct {
	index int
	value string // "" for a delete, or for nothing
	dot   causal.Dot
	// ends says that it expires, and from and to bound when, by a clock without skew
	// from the start of the run.
	ends     bool
	from, to time.Duration
	acked    bool
}

// mortalKey is a key with one writer.
type mortalKey struct {
	base string
	name string
	gen  int
	n    int
	// now is what the last acknowledged write left. version rises when a write
	// begins and when it ends; busy says that one is under way.
	now     *mortal
	version int
	busy    bool
	// token is that of the last acknowledged write, old the one before it.
	token, old []byte
}

// simInstant is an instant of virtual time as data.
func simInstant(ms int64) time.Duration { return time.UnixMilli(ms).Sub(simEpoch) }

// surelyLive reports whether no clock says by until that m has expired.
func (s *ttlRun) surelyLive(m *mortal, until time.Duration) bool {
	return m.value != "" && (!m.ends || until+s.fastest < m.from)
}

// surelyGone reports whether all clocks say from since on that m has expired.
func (s *ttlRun) surelyGone(m *mortal, since time.Duration) bool {
	return m.value == "" || m.ends && since+s.slowest >= m.to
}

func (sim *simulation) runTTL() {
	s := &ttlRun{simulation: sim, expires: map[string]int64{}, written: map[string]*mortal{}}
	rng := rand.New(rand.NewPCG(s.plan.seed, 4))
	for i, n := range s.w.nodes {
		skew := time.Duration(rng.IntN(2000)-1000) * time.Millisecond
		if n.skew = 0; s.plan.isOn("skew") {
			n.skew = skew
		}
		if i == 0 {
			s.slowest, s.fastest = n.skew, n.skew
		}
		s.slowest, s.fastest = min(s.slowest, n.skew), max(s.fastest, n.skew)
	}
	for i := range 6 {
		k := &mortalKey{base: "t" + strconv.Itoa(i)}
		if !s.starts(k.base) {
			continue
		}
		s.renew(k)
		s.keys = append(s.keys, k)
		s.nextWrite(k)
		for range 2 {
			s.nextRead(k)
		}
	}
	if s.starts(keeperKey) {
		s.startKept()
	}
	s.w.advance(s.plan.until())
	s.settle()
}

// renew goes on with a key of which nothing is known.
func (s *ttlRun) renew(k *mortalKey) {
	k.gen++
	k.name, k.now, k.token, k.old = fmt.Sprintf("%s.%d", k.base, k.gen), &mortal{}, nil, nil
}

// mortalWrite is one write, sent until its fate is known.
type mortalWrite struct {
	k    *mortalKey
	m    *mortal
	put  coord.PutRequest
	gone bool // a delete, with the fields of put
	ttl  time.Duration
	// must and mustNot say by the time of the attempt whether the condition has to
	// hold, or not to.
	must, mustNot func(began, ended time.Duration) bool
	began         time.Duration
	// open is how many attempts are under way, made whether one was acknowledged,
	// doubt whether one may have been applied.
	open        int
	made, doubt bool
}

func always(time.Duration, time.Duration) bool { return true }
func never(time.Duration, time.Duration) bool  { return false }

func (s *ttlRun) nextWrite(k *mortalKey) {
	s.w.after(s.think(k.base)*3, func() {
		if !s.ended {
			s.begin(k)
		}
	})
}

// begin draws a write and sends it.
func (s *ttlRun) begin(k *mortalKey) {
	rng, was := s.w.rand(k.base), k.now
	k.n++
	w := &mortalWrite{k: k, m: &mortal{index: k.n}, must: always, mustNot: never, began: s.w.now}
	w.put = coord.PutRequest{Tenant: simTenant, Key: []byte(k.name)}
	live := func(_, ended time.Duration) bool { return s.surelyLive(was, ended) }
	gone := func(began, _ time.Duration) bool { return s.surelyGone(was, began) }
	kind := rng.IntN(10)
	switch {
	case kind < 4:
		w.put.IfAbsent = true
		w.must, w.mustNot = gone, live
	case kind == 4 && len(k.token) > 0:
		w.put.IfMatch = k.token
	case kind == 5 && len(k.old) > 0:
		w.put.IfMatch = k.old
		w.must, w.mustNot = never, always
	case kind == 6 && was.value != "":
		w.put.IfDot = was.dot
		w.must, w.mustNot = live, gone
	case kind == 7:
		w.gone = true
		if len(k.token) > 0 && rng.IntN(2) == 0 {
			w.put.IfMatch = k.token
		}
	}
	if !w.gone {
		w.m.value = fmt.Sprintf("%s/%d", k.name, k.n)
		w.put.Value = []byte(w.m.value)
		s.written[w.m.value] = w.m
		if rng.IntN(5) > 0 {
			w.ttl = time.Duration(1+rng.IntN(3000)) * time.Millisecond
			w.put.Expiry = causal.ExpiresAfter(w.ttl)
		}
	}
	if rng.IntN(3) == 0 {
		w.put.IdempotencyKey = fmt.Appendf(nil, "%d", k.n)
	}
	k.busy = true
	k.version++
	s.attempts(w)
}

// attempts sends a write once, or, with an idempotency key, maybe twice at once.
func (s *ttlRun) attempts(w *mortalWrite) {
	w.open = 1 // the doubt of an earlier attempt stays, whatever this one is refused for
	if len(w.put.IdempotencyKey) > 0 {
		w.open += s.w.rand(w.k.base).IntN(2)
	}
	for range w.open {
		s.send(w, func(r coord.WriteResponse, err error, began time.Duration) { s.heard(w, &r, err, began) })
	}
}

// send makes one attempt through some node.
func (s *ttlRun) send(w *mortalWrite, then func(r coord.WriteResponse, err error, began time.Duration)) {
	n := s.pick(w.k.base)
	if n == nil {
		s.w.after(s.think(w.k.base), func() { s.send(w, then) })
		return
	}
	began, answered := s.w.now, false
	finish := func(r coord.WriteResponse, err error) {
		if !answered {
			answered = true
			s.w.note("%s %q absent=%v match=%d dot=%v id=%q: %s, %v", w.k.name, w.m.value, w.put.IfAbsent, len(w.put.IfMatch), w.put.IfDot, w.put.IdempotencyKey, s.w.dotString(r.Dot), err)
			then(r, err, began)
		}
	}
	s.w.after(clientPatience, func() {
		finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
	})
	if p := w.put; w.gone {
		n.coord.StartDelete(coord.DeleteRequest{Tenant: p.Tenant, Key: p.Key, IfMatch: p.IfMatch, IfDot: p.IfDot, IdempotencyKey: p.IdempotencyKey}, finish)
	} else {
		n.coord.StartPut(p, finish)
	}
}

// heard judges the answer to an attempt, and goes on after the last.
func (s *ttlRun) heard(w *mortalWrite, r *coord.WriteResponse, err error, began time.Duration) {
	k, now := w.k, s.w.now
	w.open--
	if err == nil {
		if w.mustNot(began, now) && !r.Duplicate {
			s.fail("%s: write %d was made, though its condition did not hold: now %+v", k.name, w.m.index, *k.now)
		}
		if w.made && r.Dot != w.m.dot {
			s.fail("%s: write %d was made twice, as %s and %s", k.name, w.m.index, s.w.dotString(w.m.dot), s.w.dotString(r.Dot))
		}
		if !w.made {
			w.made = true
			s.acked(w, r)
		}
	} else if e := err.(*coord.Error); e.Code == errcode.PreconditionFailed {
		s.done["refused"]++
		if w.must(began, now) || e.Outcome != errcode.NotApplied || len(e.Token) == 0 && k.now.index > 0 {
			s.fail("%s: write %d, begun at %v: %v, %s with %d bytes; now %+v", k.name, w.m.index, began, e, e.Outcome, len(e.Token), *k.now)
		}
	} else if e.Outcome == errcode.Indeterminate {
		w.doubt = true
	} else {
		s.done["not applied"]++
	}
	if w.open > 0 {
		return
	}
	if !w.made && w.doubt {
		switch keyed := len(w.put.IdempotencyKey) > 0; {
		case s.ended:
			return // the key stays busy: nobody knows
		case keyed:
			s.done["sent again"]++
			s.w.after(s.think(k.base), func() { s.attempts(w) })
			return
		default:
			s.done["in doubt"]++
			s.renew(k)
		}
	} else if !w.made {
		w.m.value = "" // nobody will ever read it
	}
	k.busy = false
	k.version++
	if !s.ended {
		s.nextWrite(k)
	}
}

// acked notes what a write has left, and now and then sends it once more.
func (s *ttlRun) acked(w *mortalWrite, r *coord.WriteResponse) {
	k, m := w.k, w.m
	s.done["mortal"]++
	m.dot, m.acked = r.Dot, true
	if w.ttl > 0 {
		// Milliseconds are cut off.
		m.ends, m.from, m.to = true, w.began+s.slowest+w.ttl-time.Millisecond, s.w.now+s.fastest+w.ttl
	}
	k.now, k.old, k.token = m, k.token, r.Token
	if len(w.put.IdempotencyKey) == 0 || s.w.rand(k.base).IntN(2) == 0 {
		return
	}
	s.w.after(time.Duration(s.w.rand(k.base).IntN(3000))*time.Millisecond, func() {
		if s.ended {
			return
		}
		s.send(w, func(r coord.WriteResponse, err error, _ time.Duration) {
			switch {
			case err == nil && (r.Dot != m.dot || !r.Duplicate):
				s.fail("%s: write %d was made twice, as %s and %s", k.name, m.index, s.w.dotString(m.dot), s.w.dotString(r.Dot))
			case err == nil:
				s.done["late"]++
			case err.(*coord.Error).Code == errcode.PreconditionFailed || err.(*coord.Error).Code == errcode.IdempotencyKeyConflict:
				s.fail("%s: the retry of write %d: %v", k.name, m.index, err)
			}
		})
	})
}

// settle ends all faults, reads every key, and compares what its owners hold, before
// and after the last value has expired.
func (s *ttlRun) settle() {
	s.heal()
	for range 2 {
		for _, k := range s.keys {
			s.get(k, quorum.All, func(err error) {
				if err != nil {
					s.fail("%s: %v", k.name, err)
				}
			})
			s.w.advance(4 * time.Second)
			s.same(simTenant, k.name)
		}
		s.w.advance(5 * time.Second)
	}
	s.w.nodes[0].coord.StartGet(coord.GetRequest{Tenant: simKeeper, Key: []byte(keeperKey), Level: quorum.All}, func(_ coord.GetResponse, err error) {
		if e, ok := err.(*coord.Error); !ok || e.Code != errcode.KeyNotFound {
			s.fail("%s: everything has expired, but %v", keeperKey, err)
		}
	})
	s.w.advance(4 * time.Second)
	s.same(simKeeper, keeperKey)
}

// same fails unless all owners of a key hold the same bytes, expired or not.
func (s *ttlRun) same(tenant, key string) {
	at := s.w.addressIn(tenant, key)
	var first []byte
	for i, id := range s.w.layout.Owners(nil, at.Partition, 3) {
		o := s.w.nodes[id[0]-1].disk.object(at)
		b := o.Append(nil)
		if i == 0 {
			first = b
		} else if !bytes.Equal(first, b) {
			s.fail("%s: owner %d holds %s, unlike the first", key, i, s.w.objectString(o))
		}
	}
}

// TestTTLSimulation has values that expire and writes with conditions.
func TestTTLSimulation(t *testing.T) {
	simulate(t, kindTTL, func(total map[string]int) {
		wantSome(t, total, "mortal", "refused", "expired", "looked", "beside", "late", "sent again", "in doubt", "duplicates", "crashes", "cuts", "read repairs", "forwards")
	})
}
