package coord_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// simMayfly is the name of tenants that are deleted and created again.
const simMayfly = "mayfly"

// changedTenants are those whose replication factor is changed.
var changedTenants = []string{simTenant, simKeeper, ring.DefaultTenantName, simMayfly}

// drawTenants draws when replication factors change, and when a tenant is created or
// deleted. They have a source of their own and come last, so that the numbers of the
// others stay.
func drawTenants(rng *rand.Rand, start ringStart, until time.Duration) (all []fault) {
	pace := time.Duration(500+rng.IntN(6000)) * time.Millisecond
	refactors, turns := rng.IntN(4), rng.IntN(3)
	if refactors+turns == 0 {
		return nil
	}
	for at := time.Duration(0); at < until; {
		at += time.Duration(rng.Int64N(int64(pace)))
		f := fault{at: at, kind: faultFactor, node: rng.IntN(len(changedTenants)), delay: time.Duration(1+rng.IntN(ring.MaxRF)) * time.Second}
		if rng.IntN(refactors+turns) < turns {
			f.kind = faultTenant
		}
		if start.loses {
			f.delay = max(f.delay, 3*time.Second)
		}
		if f.at < until {
			all = append(all, f)
		}
	}
	return all
}

// tenantString says what a change of tenants is.
func (f fault) tenantString() string {
	if f.kind == faultFactor {
		return fmt.Sprintf("%s is to have the replication factor %d", changedTenants[f.node], f.factor())
	}
	return simMayfly + " is created or deleted"
}

// factor is the replication factor that a change of tenants is about.
func (f fault) factor() uint8 { return uint8(f.delay / time.Second) }

// strikeTenants makes a change of tenants be wanted.
func (s *simulation) strikeTenants(f fault) {
	l := s.w.chosen
	if f.kind == faultTenant {
		l.turns = append(l.turns, f.factor())
		return
	}
	for _, t := range s.w.tenants {
		if t.Name == changedTenants[f.node] {
			s.done["factors wanted"]++
			l.factors = append(l.factors, ring.Factor{Tenant: t.Number, RF: f.factor(), AskedAtMs: 1})
		}
	}
}

// turn is the entry that creates the tenant that comes and goes, or deletes it.
func (l *simLog) turn(s *ring.State) *ring.Entry {
	rf := l.turns[0]
	l.turns = l.turns[1:]
	if t, ok := s.Tenant(simMayfly); ok {
		return &ring.Entry{Kind: ring.KindTenantDelete, Delete: &ring.TenantDelete{Number: t.Number, DeletedAtMs: 1}}
	}
	return &ring.Entry{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: simMayfly, RF: rf, Policy: uint8(schema.PolicyLWW)}}
}

// wantedFactors are the replication factors that are wanted and are other ones than those
// there are, the last one of each tenant, as a proposal has them.
func (l *simLog) wantedFactors(s *ring.State) (all []ring.Factor) {
	for _, t := range s.Tenants() {
		rf := t.RF
		for _, f := range l.factors {
			if f.Tenant == t.Number {
				rf = f.RF
			}
		}
		if rf != t.RF {
			all = append(all, ring.Factor{Tenant: t.Number, RF: rf, AskedAtMs: 1})
		}
	}
	slices.SortFunc(all, func(a, b ring.Factor) int { return int(a.Tenant) - int(b.Tenant) })
	return all
}

// mayflyName is what histories call the tenant with a number: those that had the name one
// after the other have nothing to do with each other.
func mayflyName(n ring.TenantNumber) string { return simMayfly + "#" + strconv.Itoa(int(n)) }

// mayfly is a key of tenants that come and go.
type mayfly struct {
	key    string
	writes int
}

func (s *ringRun) startMayflies() {
	for i := range 3 {
		k := &mayfly{key: "m" + strconv.Itoa(i)}
		if !s.starts(k.key) {
			continue
		}
		s.mayflies = append(s.mayflies, k)
		for range 2 {
			s.writeMayfly(k)
			s.readMayfly(k)
		}
	}
}

// writeMayfly is the next write of a key, in the tenant that a node knows by the name.
func (s *ringRun) writeMayfly(k *mayfly) {
	s.w.after(s.think(k.key)*3, func() {
		n := s.pick(k.key)
		if s.ended {
			return
		}
		var t *schema.Tenant
		ok := false
		if n != nil {
			t, ok = n.view.Tenant(simMayfly)
		}
		if !ok {
			s.writeMayfly(k)
			return
		}
		k.writes++
		value := fmt.Sprintf("%d/%s/%d", t.Number, k.key, k.writes)
		c := check.Call{Client: "writer", Kind: check.Put, Key: k.key, Level: s.draw(k.key, atQuorum), Value: value}
		if s.w.rand(k.key).IntN(5) == 0 {
			c.Kind, c.Value = check.Delete, ""
		}
		answer, answered := s.call(n, mayflyName(t.Number), c), false
		finish := func(r coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			if err != nil {
				s.endedBy(err)
				answer(failed(err))
			} else {
				s.done["written to mayflies"]++
				answer(check.Answer{Outcome: check.OK, Dot: r.Dot, Context: r.Context})
			}
			s.writeMayfly(k)
		}
		s.w.after(clientPatience, func() { finish(coord.WriteResponse{}, timedOut()) })
		if c.Kind == check.Delete {
			n.coord.StartDelete(coord.DeleteRequest{Tenant: simMayfly, Key: []byte(k.key), Level: c.Level}, finish)
			return
		}
		n.coord.StartPut(coord.PutRequest{Tenant: simMayfly, Key: []byte(k.key), Value: []byte(value), Level: c.Level}, finish)
	})
}

// endedBy counts operations that ended because their tenant was deleted.
func (s *ringRun) endedBy(err error) {
	if err.(*coord.Error).Code == errcode.TenantNotFound {
		s.done["tenant not found"]++
	}
}

func (s *ringRun) readMayfly(k *mayfly) {
	s.w.after(s.think(k.key), func() {
		if s.ended {
			return
		}
		s.lookAtMayfly(k, "reader", func() { s.readMayfly(k) })
	})
}

// lookAtMayfly reads a key, and sees that it shows nothing of any tenant but the one that
// the node knew by the name, or that came later if it knew none.
func (s *ringRun) lookAtMayfly(k *mayfly, client string, then func()) {
	n := s.pick(k.key)
	if n == nil {
		s.w.after(s.think(k.key), then)
		return
	}
	level := s.draw(k.key, atMost)
	above, exact := n.state().LastTenant(), false
	answer := func(check.Answer) {}
	if t, ok := n.view.Tenant(simMayfly); ok {
		above, exact = t.Number, true
		answer = s.call(n, mayflyName(t.Number), check.Call{Client: client, Kind: check.Get, Key: k.key, Level: level})
	}
	answered := false
	finish := func(r coord.GetResponse, err error) {
		if answered {
			return
		}
		answered = true
		if err != nil {
			s.endedBy(err)
		}
		for i := range r.Siblings {
			text, _, _ := strings.Cut(string(r.Siblings[i].Value), "/")
			number, bad := strconv.Atoi(text)
			if of := ring.TenantNumber(number); bad != nil || exact && of != above || !exact && of <= above {
				s.fail("%s shows %q of %s, and knew of the tenant %d", n.name, r.Siblings[i].Value, k.key, above)
			}
		}
		answer(s.saw(r, err))
		then()
	}
	s.w.after(clientPatience, func() { finish(coord.GetResponse{}, timedOut()) })
	n.coord.StartGet(coord.GetRequest{Tenant: simMayfly, Key: []byte(k.key), Level: level}, finish)
}

// lastMayflies reads the keys when all is well again.
func (s *ringRun) lastMayflies() {
	for _, k := range s.mayflies {
		s.lookAtMayfly(k, healClient, func() {})
		s.w.advance(healTime)
	}
}

// forget makes the store let go of tenants that the node knows to have been deleted: of
// what is written from now on at once, and of what there is when there is time.
func (n *simNode) forget() {
	rep, deleted := n.disk.(*storeDisk).rep, false
	for t := ring.TenantNumber(1); t <= n.state().LastTenant(); t++ {
		deleted = deleted || n.view.Deleted(t)
	}
	if !deleted {
		return
	}
	rep.Forget()
	here, err := rep.TenantsHere(func() bool { return false })
	if err != nil {
		panic(err)
	}
	for _, t := range here {
		if n.view.Deleted(t) && !n.dropping[t] {
			n.w.counts["tenants dropped"]++
			n.dropping[t] = true
			n.dropTenant(t)
		}
	}
}

// dropTenant drops all there is of a tenant.
func (n *simNode) dropTenant(t ring.TenantNumber) {
	n.Go("drop", func() {
		if _, err := n.disk.(*storeDisk).rep.DropTenant(t, func() bool { return false }); err != nil {
			n.w.note("%s cannot drop tenant %d: %v", n.name, t, err)
			n.later(time.Second, func() { n.dropTenant(t) })
		}
	})
}

// noneLeft fails if a node holds anything of tenants that were deleted.
func (s *ringRun) noneLeft(n *simNode) {
	for p := range s.w.layout.Partitions() {
		for key := range n.disk.(*storeDisk).objects(ring.Partition(p)) { //seams:ordered it only fails
			if _, ok := n.view.TenantByNumber(keyTenant(key)); !ok {
				s.fail("%s holds %s of partition %d, of a tenant that was deleted", n.name, key, p)
			}
		}
	}
}
