package coord_test

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// repairRun is a simulation in which owners are kept equal, and what is deleted or has
// expired is collected, while several writers a key put, delete and put it again.
type repairRun struct {
	*simulation
	keys []*recreated
	// slowest and fastest are the least and the greatest skew of any node.
	slowest, fastest time.Duration
	// fading are the values that expire, with when the last write of one can have
	// been minted.
	fading []fading
}

type fading struct {
	*check.Fading
	latest time.Duration
	// issued is when the value was written, and ttl how long it lives.
	issued, ttl time.Duration
}

// recreated is a key.
type recreated struct {
	tenant, key     string
	writeAt, readAt []quorum.Level
	writes          int
	// read and wrote are the last answers with a token.
	read  coord.GetResponse
	wrote coord.WriteResponse
}

// repairBound is within which time after the end of all faults and writes owners are
// equal, and hold nothing that is deleted or has expired.
const repairBound = 30 * time.Second

func (sim *simulation) runRepair() {
	s := &repairRun{simulation: sim}
	s.clocks()
	w := s.w
	w.writeTimeout = simWriteTimeout
	for _, n := range w.nodes {
		// With the timeout.
		n.crash(w.rand(n.name), keepDisk)
		n.mends = true
		n.boot()
		s.saveSums(n)
	}
	for i := range 7 {
		k := &recreated{tenant: simTenant, key: "r" + strconv.Itoa(i), writeAt: atQuorum, readAt: atMost}
		if i%2 == 1 {
			k.tenant = simKeeper
		}
		switch {
		case i == 4:
			k.writeAt, k.readAt = atEvery, atEvery
		case i > 4:
			k.writeAt, k.readAt = atOne, atOne // no read mends it
		}
		if !s.starts(k.key) {
			continue
		}
		s.keys = append(s.keys, k)
		for range 2 {
			s.rewrite(k)
			s.watch(k)
		}
	}
	w.advance(s.plan.until())
	s.agreeOnTime()
	s.heal()
	s.stay()
	s.converged()
	dumps := s.dumps()
	for _, k := range s.keys {
		s.last(k)
	}
	s.verdict(dumps)
	for _, text := range w.confirmed.wrong {
		s.fail("%s", text)
	}
	for _, n := range w.nodes {
		s.sound(n)
		c := n.disk.(*storeDisk).rep.Collected()
		s.done["collected deletes"] += int(c.Tombstones)
		s.done["collected values"] += int(c.Expired)
		n.mender.end()
	}
	if w.counts["keys damaged"] > 0 {
		s.fail("rounds took %d keys for damaged", w.counts["keys damaged"])
	}
}

// clocks makes half of the seeds have clocks that are at most a second off, so that
// most of what expires does so during the run.
func (s *repairRun) clocks() {
	rng := rand.New(rand.NewPCG(s.plan.seed, 5))
	close := rng.IntN(2) == 0
	for _, n := range s.w.nodes {
		if skew := time.Duration(rng.IntN(2000)-1000) * time.Millisecond; close && s.plan.isOn("skew") {
			n.skew = skew
		}
		s.slowest, s.fastest = min(s.slowest, n.skew), max(s.fastest, n.skew)
	}
}

// agreeOnTime sets all clocks to the fastest: from now on what has expired for one has
// expired for all.
func (s *repairRun) agreeOnTime() {
	for _, n := range s.w.nodes {
		n.skew = s.fastest
	}
	for _, f := range s.fading {
		// Whoever stood still with the write before it mints it when it goes on.
		if late := s.w.standstill(f.issued); late > 0 {
			late += time.Second + f.ttl
			f.To += max(late-f.latest, 0)
			f.latest = max(late, f.latest)
		}
		f.To = min(f.To, max(s.instant(), f.latest))
	}
}

// saveSums writes the range sums down every few seconds.
func (s *repairRun) saveSums(n *simNode) {
	s.w.after(2*time.Second+s.w.jitter(s.w.rand(n.name), time.Second), func() {
		if d := n.disk.(*storeDisk); n.up && !n.paused() {
			if err := d.rep.SaveSums(d.sumsFS, simSums); err == nil {
				s.done["sums saved"]++
			}
		}
		if !s.ended {
			s.saveSums(n)
		}
	})
}

// rewrite is the next operation of one of a key's writers.
func (s *repairRun) rewrite(k *recreated) {
	s.w.after(s.think(k.key)*3, func() {
		n := s.pick(k.key)
		if s.ended {
			return
		}
		if n == nil {
			s.rewrite(k)
			return
		}
		rng := s.w.rand(k.key)
		k.writes++
		c := check.Call{Client: "writer", Kind: check.Put, Key: k.key, Level: s.draw(k.key, k.writeAt), Value: k.key + "/" + strconv.Itoa(k.writes)}
		var token []byte
		switch rng.IntN(3) {
		case 0:
			token, c.Seen = k.read.Token, k.read.Context
		case 1:
			token, c.Seen = k.wrote.Token, k.wrote.Context
		}
		var ttl time.Duration
		switch rng.IntN(5) {
		case 0, 1:
			c.Kind, c.Value = check.Delete, ""
		case 2, 3:
			ttl = time.Duration(1+rng.IntN(2000)) * time.Millisecond
			c.Fades = s.fades(ttl)
		}
		answer := s.call(n, k.tenant, c)
		answered := false
		finish := func(r coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			if err != nil {
				a := failed(err)
				s.done["failed "+string(a.Outcome)]++
				answer(a)
			} else {
				s.done["rewritten"]++
				if len(r.Token) > 0 {
					k.wrote = r
				}
				answer(check.Answer{Outcome: check.OK, Dot: r.Dot, Context: r.Context})
			}
			s.rewrite(k)
		}
		s.w.after(clientPatience, func() { finish(coord.WriteResponse{}, timedOut()) })
		if c.Kind == check.Delete {
			n.coord.StartDelete(coord.DeleteRequest{Tenant: k.tenant, Key: []byte(k.key), Level: c.Level, Token: token}, finish)
			return
		}
		p := coord.PutRequest{Tenant: k.tenant, Key: []byte(k.key), Value: []byte(c.Value), Level: c.Level, Token: token}
		if ttl > 0 {
			p.Expiry = causal.ExpiresAfter(ttl)
		}
		n.coord.StartPut(p, finish)
	})
}

// fades says when a value expires that is written now and lives for ttl after it was
// minted, by the clock of whoever mints it.
func (s *repairRun) fades(ttl time.Duration) *check.Fading {
	latest := s.instant() + clientPatience + ttl
	f := &check.Fading{From: s.w.now + ttl - time.Millisecond - (s.fastest - s.slowest), To: latest + s.fastest - s.slowest}
	s.fading = append(s.fading, fading{f, latest, s.w.now, ttl})
	return f
}

// watch is the next operation of one of a key's readers.
func (s *repairRun) watch(k *recreated) {
	s.w.after(s.think(k.key), func() {
		if s.ended {
			return
		}
		s.get(k, "reader", s.draw(k.key, k.readAt), func() { s.watch(k) })
	})
}

func (s *repairRun) get(k *recreated, client string, level quorum.Level, then func()) {
	n := s.pick(k.key)
	if n == nil {
		s.w.after(s.think(k.key), then)
		return
	}
	answer := s.call(n, k.tenant, check.Call{Client: client, Kind: check.Get, Key: k.key, Level: level})
	answered := false
	finish := func(r coord.GetResponse, err error) {
		if answered {
			return
		}
		answered = true
		if err == nil {
			k.read = r
		}
		answer(s.saw(r, err))
		then()
	}
	s.w.after(clientPatience, func() { finish(coord.GetResponse{}, timedOut()) })
	n.coord.StartGet(coord.GetRequest{Tenant: k.tenant, Key: []byte(k.key), Level: level}, finish)
}

// stay writes a value that is there for good, so that there is something to compare.
func (s *repairRun) stay() {
	done := false
	s.pick("stays").coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte("stays"), Value: []byte("here")}, func(_ coord.WriteResponse, err error) { done = err == nil })
	s.w.advance(healTime)
	if !done {
		s.fail("a healthy cluster refuses a write")
	}
}

// last reads a key when all is well again.
func (s *repairRun) last(k *recreated) {
	s.get(k, healClient, quorum.All, func() {})
	s.w.advance(healTime)
}

// converged waits until the owners are equal and have collected all there is, and fails
// if that takes too long.
func (s *repairRun) converged() {
	began := s.w.now
	for {
		dumps := s.dumps()
		found := append(check.Convergence(dumps, s.ownersOf), check.Leftovers(dumps, s.w.nodes[0].Now())...)
		switch {
		case len(found) == 0:
			s.done["converged"]++
			s.done["seconds to converge"] += int((s.w.now - began).Seconds())
			return
		case s.w.now-began >= repairBound:
			for _, v := range found {
				s.found = append(s.found, failure{v.Checker, s.w.now, v.String()})
			}
			return
		}
		s.w.advance(time.Second)
	}
}

// sound checks that a node's range sums are those of what it holds.
func (s *repairRun) sound(n *simNode) {
	for p := range s.w.layout.Partitions() {
		if differed, err := n.disk.(*storeDisk).rep.VerifySums(ring.Partition(p)); err != nil || differed > 0 {
			s.fail("%d of the sums of %s over partition %d are not those of what it holds, %v", differed, n.name, p, err)
		}
	}
}

func (s *repairRun) ownersOf(k check.Key) []string { return s.w.owners(k.Tenant, k.Key) }

// dumps are all that the nodes hold.
func (s *repairRun) dumps() []check.Dump {
	w := s.w
	names := map[ring.TenantNumber]string{}
	for _, t := range w.tenants {
		names[t.Number] = t.Name
	}
	var dumps []check.Dump
	for _, n := range w.nodes {
		if n.never() {
			continue
		}
		d := check.Dump{
			Replica: n.name, Objects: map[check.Key]causal.Object{},
			Confirmed: func(k check.Key) causal.Confirmed {
				return w.confirmed.known(n.i, spanOf(w.addressIn(k.Tenant, k.Key)))
			},
			LWW: func(k check.Key) bool { return w.lww(k.Tenant) },
		}
		for p := range w.layout.Partitions() {
			for name, o := range n.disk.(*storeDisk).objects(ring.Partition(p)) {
				number, key, _ := strings.Cut(name, "/")
				t, err := strconv.Atoi(number)
				if err != nil {
					panic(err)
				}
				d.Objects[check.Key{Tenant: names[ring.TenantNumber(t)], Key: key}] = o
			}
		}
		dumps = append(dumps, d)
	}
	return dumps
}

// TestRepairSimulation has owners that rounds keep equal while keys are written, deleted
// and written again: what is confirmed is true, nothing that is gone comes back, and in
// the end all owners hold the same and nothing is left of what was deleted or expired.
func TestRepairSimulation(t *testing.T) {
	simulate(t, kindRepair, func(total map[string]int) {
		wantSome(t, total, "rewritten", "read", "read settled", "adopted", "spans confirmed", "spans void", "rows sent", "rows received",
			"collected deletes", "collected values", "converged", "crashes", "cuts", "pauses", "sums saved", "failed indeterminate")
	})
}
