package coord_test

import (
	"strconv"
	"testing"
	"time"

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

// call records that an operation is sent, and returns what records its answer.
func (s *simulation) call(n *simNode, k *register, c check.Call) func(check.Answer) {
	c.At, c.Node, c.Tenant, c.LWW, c.Key = s.instant(), n.name, simTenant, true, k.key
	c.Partition = strconv.Itoa(int(s.w.address(k.key).Partition))
	id := s.rec.Call(c)
	return func(a check.Answer) {
		a.At = s.instant()
		s.rec.Answer(id, a)
		o := check.Op{ID: id, Call: c, Answer: &a}
		s.w.note("%s", &o)
	}
}

// failed is the answer that is an error.
func failed(err error) check.Answer {
	e := err.(*coord.Error)
	return check.Answer{Outcome: check.Outcome(e.Outcome), Code: string(e.Code)}
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

// heal ends all faults, lets everything in flight end, and reads every key from
// all owners. It returns what every node then holds of the keys it owns.
func (s *simulation) heal() []check.Dump {
	w := s.w
	s.ended = true
	w.net = network{delay: time.Millisecond, cut: map[[2]int]bool{}, slow: map[int]time.Duration{}}
	for _, n := range w.nodes {
		if !n.up {
			n.boot()
		}
		n.believed = map[int]schema.Liveness{}
		n.look()
	}
	w.advance(20 * time.Second)
	for _, o := range s.once {
		s.healOnce(o)
	}
	if s.shared != nil {
		s.healShared(s.shared)
	}
	dumps := make([]check.Dump, len(w.nodes))
	for i, n := range w.nodes {
		dumps[i] = check.Dump{Replica: n.name, Objects: map[check.Key]causal.Object{}}
	}
	for _, k := range s.keys {
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		answer := s.call(n, k, check.Call{Client: healClient, Kind: check.Get, Level: quorum.All})
		n.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(k.key), Level: quorum.All}, func(r coord.GetResponse, err error) {
			answer(s.saw(r, err))
		})
		w.advance(4 * time.Second)
		for _, name := range w.owners(k.key) {
			n := w.node(name)
			o := n.disk.object(w.address(k.key))
			dumps[n.i].Objects[check.Key{Tenant: simTenant, Key: k.key}] = o
			s.call(n, k, check.Call{Client: dumpClient, Kind: check.Get, Level: quorum.One})(
				check.Answer{Outcome: check.OK, Context: o.Context, Siblings: versions(o.Siblings)})
		}
	}
	return dumps
}

// owners returns the names of the nodes that own a key.
func (w *world) owners(key string) []string {
	var names []string
	for _, id := range w.layout.Owners(nil, w.address(key).Partition, 3) {
		names = append(names, nodeName(int(id[0])-1))
	}
	return names
}

// verdict checks everything that the clients saw and the owners hold.
func (s *simulation) verdict(t *testing.T, seed uint64, dumps []check.Dump) {
	t.Helper()
	h, err := s.rec.History()
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	found := check.Convergence(dumps, func(k check.Key) []string { return s.w.owners(k.Key) })
	found = append(found, check.Availability(h, func(o *check.Op) time.Duration {
		if o.Client == healClient {
			return 4 * time.Second
		}
		return 0
	})...)
	for _, checker := range []func(check.History) []check.Violation{
		check.Register, check.LostAck, check.Causal, check.MonotonicContexts, check.NoReappearance, check.Idempotency,
	} {
		found = append(found, checker(h)...)
	}
	s.oneDot(h)
	for _, f := range s.fails {
		t.Errorf("seed %d: %s", seed, f)
	}
	for _, v := range found {
		t.Errorf("seed %d: %v", seed, v)
	}
	// All but the one key at ONE are registers, or nobody would look at them.
	if n := len(check.Registers(h)); n != len(s.keys)-1 {
		t.Errorf("seed %d: %d of %d keys were checked as registers", seed, n, len(s.keys))
	}
}
