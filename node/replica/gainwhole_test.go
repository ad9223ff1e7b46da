package replica_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
)

// do runs an operation until it has answered.
func do[R any](g *growing, start func(done func(R, error))) (R, error) {
	g.t.Helper()
	type answer struct {
		r   R
		err error
	}
	c := make(chan answer, 1)
	start(func(r R, err error) { c <- answer{r, err} })
	select {
	case a := <-c:
		return a.r, a.err
	case <-time.After(time.Minute):
		g.t.Fatal("there is no answer")
		panic("unreachable")
	}
}

// put writes a value beside what is there, at all owners.
func (g *growing) put(key, value string) causal.Dot {
	g.t.Helper()
	r, err := do(g, func(done func(coord.WriteResponse, error)) {
		g.coords[0].StartPut(coord.PutRequest{Tenant: "all", Key: []byte(key), Value: []byte(value), Level: quorum.All}, done)
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return r.Dot
}

// values are what a read finds that asks all owners, sorted.
func (g *growing) values(i int, key string) (all []string) {
	g.t.Helper()
	r, err := do(g, func(done func(coord.GetResponse, error)) {
		g.coords[i].StartGet(coord.GetRequest{Tenant: "all", Key: []byte(key), Level: quorum.All}, done)
	})
	if e, ok := errors.AsType[*coord.Error](err); err != nil && (!ok || e.Code != errcode.KeyNotFound) {
		g.t.Fatal(err)
	}
	for _, s := range r.Siblings {
		all = append(all, string(s.Value))
	}
	slices.Sort(all)
	return all
}

// held is what a node shows of a key.
func (g *growing) held(i int, at coord.Address) causal.Object {
	g.t.Helper()
	b, err := do(g, func(done func([]byte, error)) { g.stores[i].Read(at, done) })
	if err != nil {
		g.t.Fatal(err)
	}
	o, err := causal.Decode(b)
	if err != nil {
		g.t.Fatal(err)
	}
	return o
}

// hint brings an object to the fourth node, as a node does that wrote it down long ago.
func (g *growing) hint(at coord.Address, o causal.Object) coord.Reply {
	g.t.Helper()
	m := &coord.Message{
		Op: coord.OpMerge, Partition: at.Partition, PV: g.log.Layout().PV(at.Partition), Tenant: at.Tenant, TenantVersion: 1,
		Token: at.Token, Key: at.Key, Body: o.Append(nil),
	}
	r, err := do(g, func(done func(coord.Reply, error)) { node{g.owners, g.members[0].ID}.Send(g.members[3].ID, m, done) })
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// TestWriteBesideAConfirmedOne: a value is confirmed, and another one is deleted and the
// delete collected. Then a node gains both, knows what was confirmed, and has fetched
// nothing. What is written beside the value reaches it, and what was deleted comes late.
// No read ever shows that, both values are at all owners in the end, and what was
// deleted at none.
func TestWriteBesideAConfirmedOne(t *testing.T) {
	g := newGrowing(t)
	// Three keys in one partition that the fourth node is about to own.
	var keys []string
	var at []coord.Address
	for i := 0; len(keys) < 3; i++ {
		key := fmt.Sprint("key", i)
		tok := ring.KeyToken(siblingTenant, []byte(key))
		p := g.wide.Layout.PartitionOf(tok)
		if g.wide.Layout.IsOwner(g.members[3].ID, p, 3) && (len(at) == 0 || at[0].Partition == p) {
			keys = append(keys, key)
			at = append(at, coord.Address{Partition: p, Tenant: siblingTenant, Token: tok, Key: []byte(key), Class: 3})
		}
	}
	pair, dead, later := keys[0], keys[1], keys[2]
	var seen causal.Context
	first := g.put(pair, "v")
	old := map[string]causal.Object{}
	for i, key := range []string{dead, later} {
		g.put(key, "old")
		old[key] = g.held(0, at[i+1])
		r, err := do(g, func(done func(coord.WriteResponse, error)) {
			g.coords[0].StartDelete(coord.DeleteRequest{Tenant: "all", Key: []byte(key), Level: quorum.All}, done)
		})
		if err != nil {
			t.Fatal(err)
		}
		seen = seen.With(r.Dot)
	}
	c := &causal.Confirmed{Seen: seen, Expired: 1}
	if !c.Seen.Covers(first) {
		t.Fatal("the value is not confirmed")
	}
	span := repair.Span{Partition: at[0].Partition, Class: 3}
	for _, s := range g.stores[:3] {
		if err := errors.Join(s.Adopt(span, c), s.Release(span, c)); err != nil {
			t.Fatal(err)
		}
	}
	g.propose()
	_, _, floor, err := g.stores[0].Known(span)
	if err == nil {
		err = g.stores[3].Inherit(span, 0, c, c, floor)
	}
	if err != nil {
		t.Fatal(err)
	}
	g.put(pair, "w")
	if r := g.hint(at[1], old[dead]); r.Status != coord.StatusOK {
		t.Errorf("the hint is answered with %v", r.Status)
	}
	if o := g.held(3, at[1]); len(o.Siblings) != 1 {
		t.Fatalf("it has left out what it could not judge, and holds %v", o)
	}
	check := func(when string, through int) {
		t.Helper()
		if v := g.values(through, pair); !slices.Equal(v, []string{"v", "w"}) {
			t.Errorf("%s: the values are %q", when, v)
		}
		if v := g.values(through, dead); len(v) > 0 {
			t.Errorf("%s: %q is shown, which was deleted", when, v)
		}
	}
	check("before it has fetched", 0)
	for _, m := range g.rounds {
		m.Start()
	}
	g.until("synced", func() bool { return g.said.report(g.members[3].ID).Synced == g.log.Version() })
	if o := g.held(3, at[1]); len(o.Siblings) > 0 {
		t.Errorf("it has all, and holds %v, which was deleted", o)
	}
	if r := g.hint(at[2], old[later]); !r.Stripped() {
		t.Errorf("once it has all, a hint is answered with %v", r.Status)
	}
	check("before the commit", 0)
	g.finish()
	check("in the end", 3)
	for i, m := range g.members {
		if !g.log.Layout().IsOwner(m.ID, span.Partition, 3) {
			continue
		}
		if o := g.held(i, at[0]); len(o.Siblings) != 2 {
			t.Errorf("node %d holds %v", i, o)
		}
		for k := range at[1:] {
			if o := g.held(i, at[1+k]); len(o.Siblings) > 0 {
				t.Errorf("node %d holds %v, which was deleted", i, o)
			}
		}
	}
}
