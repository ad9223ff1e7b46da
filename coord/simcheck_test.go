package coord_test

import (
	"slices"
	"strconv"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/schema"
)

// instant is the present time, and later than all that was recorded, so that
// what happens one after the other has times that say so.
func (s *simulation) instant() time.Duration {
	s.last = max(s.last+1, s.w.now)
	return s.last
}

// call records that an operation on a key of a tenant is sent, and returns what
// records its answer.
func (s *simulation) call(n *simNode, tenant string, c check.Call) func(check.Answer) {
	c.At, c.Node, c.Tenant, c.LWW = s.instant(), n.name, tenant, s.w.lww(tenant)
	c.Partition = strconv.Itoa(int(s.w.addressIn(tenant, c.Key).Partition))
	id := s.rec.Call(c)
	return func(a check.Answer) {
		a.At = s.instant()
		if c.Kind == check.Get {
			if a.Settled = s.w.confirmed.all[spanOf(s.w.addressIn(tenant, c.Key))].Seen; len(a.Settled) > 0 {
				s.done["read settled"]++
			}
		}
		s.rec.Answer(id, a)
		s.w.note("#%d %s", id, a.Outcome)
		if s.w.log != nil {
			s.w.log((&check.Op{ID: id, Call: c, Answer: &a}).String())
		}
	}
}

// failed is the answer that is an error.
func failed(err error) check.Answer {
	e := err.(*coord.Error)
	return check.Answer{Outcome: check.Outcome(e.Outcome), Code: string(e.Code)}
}

// saw is the answer to a read.
func (s *simulation) saw(r coord.GetResponse, err error) check.Answer {
	switch {
	case err == nil:
		s.done["read"]++
		return check.Answer{Outcome: check.OK, Context: r.Context, Siblings: versions(r.Siblings)}
	case err.(*coord.Error).Code == errcode.KeyNotFound:
		s.done["read"]++
		return check.Answer{Outcome: check.OK}
	}
	s.done["reads failed"]++
	a := failed(err)
	a.Outcome = check.Indeterminate
	return a
}

// versions are the siblings that still have what they wrote.
func versions(siblings []causal.Sibling) []check.Version {
	var out []check.Version
	for i := range siblings {
		if t := &siblings[i]; t.Flags&causal.FlagStripped == 0 {
			out = append(out, check.Version{Dot: t.Dot, Value: string(t.Value), Tombstone: t.Tombstone()})
		}
	}
	return out
}

// The client that reads when all is well again, and the one that looks into
// every owner's copy.
const (
	healClient = "heal"
	dumpClient = "dump"
)

// healTime is how long a healthy cluster may take for an operation.
const healTime = 4 * time.Second

// heal ends all faults and lets everything in flight end; then what was written
// with idempotency keys is sent once more.
func (s *simulation) heal() {
	s.calm()
	s.w.advance(20 * time.Second)
	s.retry()
}

// calm ends all faults.
func (s *simulation) calm() {
	w := s.w
	s.ended = true
	w.net = network{delay: time.Millisecond, cut: map[[2]int]bool{}, slow: map[int]time.Duration{}}
	for _, n := range w.nodes {
		if !n.up && !n.never() {
			n.boot()
		}
		n.believed = map[int]schema.Liveness{}
		n.stopped, n.syncing = 0, 0
		if n.up {
			n.look()
		}
	}
}

// retry sends once more what was written with idempotency keys.
func (s *simulation) retry() {
	for _, o := range s.once {
		s.healOnce(o)
	}
	if s.shared != nil {
		s.healShared(s.shared)
	}
}

// readAll reads every key from all owners, as a client does, and then from each
// alone. It returns what the nodes hold of the keys they own.
func (s *simulation) readAll(tenant string) []check.Dump {
	w := s.w
	dumps := make([]check.Dump, len(w.nodes))
	for i, n := range w.nodes {
		dumps[i] = check.Dump{Replica: n.name, Objects: map[check.Key]causal.Object{}}
	}
	for _, key := range s.names {
		if !s.plan.hasKey(key) {
			continue
		}
		n := w.nodes[w.rand(key).IntN(len(w.nodes))]
		answer := s.call(n, tenant, check.Call{Client: healClient, Kind: check.Get, Key: key, Level: quorum.All})
		n.coord.StartGet(coord.GetRequest{Tenant: tenant, Key: []byte(key), Level: quorum.All}, func(r coord.GetResponse, err error) {
			s.shown[key] = len(r.Siblings)
			answer(s.saw(r, err))
		})
		w.advance(healTime)
		for _, name := range w.owners(tenant, key) {
			n := w.node(name)
			o := n.disk.object(w.addressIn(tenant, key))
			dumps[n.i].Objects[check.Key{Tenant: tenant, Key: key}] = o
			s.call(n, tenant, check.Call{Client: dumpClient, Kind: check.Get, Key: key, Level: quorum.One})(
				check.Answer{Outcome: check.OK, Context: o.Context, Siblings: versions(o.Siblings)})
		}
	}
	return dumps
}

// owners returns the names of the nodes that own a key.
func (w *world) owners(tenant, key string) []string {
	var names []string
	at := w.addressIn(tenant, key)
	for _, id := range w.ownersOf(at.Partition, w.tenant(tenant).RF) {
		names = append(names, nodeName(int(id[0])-1))
	}
	return names
}

func (s *simulation) history() check.History {
	h, err := s.rec.History()
	if err != nil {
		s.fail("the history makes no sense: %v", err)
	}
	return h
}

// verdict checks everything that the clients saw and the owners hold.
func (s *simulation) verdict(dumps []check.Dump) {
	h := s.history()
	found := check.Convergence(dumps, func(k check.Key) []string { return s.w.owners(k.Tenant, k.Key) })
	found = append(found, check.Availability(h, func(o *check.Op) time.Duration {
		if o.Client == healClient {
			return healTime
		}
		return 0
	})...)
	for _, checker := range []func(check.History) []check.Violation{
		check.Register, check.LostAck, check.Causal, check.MonotonicContexts, check.NoReappearance, check.Idempotency,
	} {
		found = append(found, checker(h)...)
	}
	for _, v := range found {
		f := failure{v.Checker, 0, v.String()}
		for i := range v.Ops {
			if a := v.Ops[i].Answer; a != nil {
				f.at = max(f.at, a.At)
			}
		}
		s.found = append(s.found, f)
	}
	s.oneDot(h)
	// Those that should be are registers, or nobody would look at them.
	registers := check.Registers(h)
	for _, k := range s.keys {
		should := !k.goes && !slices.Contains(k.writeAt, quorum.One)
		if is := slices.Contains(registers, check.Key{Tenant: simTenant, Key: k.key}); is != should {
			s.fail("%s is checked as a register: %v", k.key, is)
		}
	}
}

// oneDot checks that what is never minted twice is not: each value of a write
// with an idempotency key, or of a tenant that keeps siblings, has one dot,
// whoever sees it and whenever.
func (s *simulation) oneDot(h check.History) {
	type name struct {
		check.Key
		value string
	}
	once, dots := map[name]bool{}, map[name]causal.Dot{}
	for i := range h {
		if o := &h[i]; o.Kind == check.Put && (o.IdempotencyKey != "" || !o.LWW) {
			once[name{check.Key{Tenant: o.Tenant, Key: o.Call.Key}, o.Value}] = true
		}
	}
	for i := range h {
		o := &h[i]
		if o.Answer == nil || o.Answer.Outcome != check.OK {
			continue
		}
		all := o.Answer.Siblings
		if o.Kind == check.Put {
			all = []check.Version{{Dot: o.Answer.Dot, Value: o.Value}}
		}
		for _, v := range all {
			n := name{check.Key{Tenant: o.Tenant, Key: o.Call.Key}, v.Value}
			if v.Tombstone || !once[n] {
				continue
			}
			if old, ok := dots[n]; ok && old != v.Dot {
				s.fail("%q was made twice, as %s and as %s", v.Value, s.w.dotString(old), s.w.dotString(v.Dot))
			}
			dots[n] = v.Dot
		}
	}
}

// dotsNameOne checks that no two writes of a partition have the same dot.
func (s *simulation) dotsNameOne() {
	type name struct {
		partition string
		dot       causal.Dot
	}
	type write struct {
		tenant, key, value string
		tombstone          bool
	}
	names := map[name]write{}
	note := func(o *check.Op, v check.Version) {
		at, w := name{o.Partition, v.Dot}, write{o.Tenant, o.Call.Key, v.Value, v.Tombstone}
		if old, ok := names[at]; ok && old != w {
			s.fail("the dot %s is that of %v and of %v", s.w.dotString(v.Dot), old, w)
		}
		names[at] = w
	}
	h := s.history()
	for i := range h {
		o := &h[i]
		if o.Answer == nil || o.Answer.Outcome != check.OK {
			continue
		}
		if o.Kind != check.Get {
			note(o, check.Version{Dot: o.Answer.Dot, Value: o.Value, Tombstone: o.Kind == check.Delete})
		}
		for _, v := range o.Answer.Siblings {
			note(o, v)
		}
	}
	s.done["dots"] += len(names)
}
