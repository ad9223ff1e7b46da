//go:build !race

// The race detector makes pools forget at random, so that allocations are not
// counted under it.

package coord

import (
	"fmt"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// instant is a replica, a transport and a clock that answer at once and allocate
// nothing by themselves.
type instant struct {
	Replica
	object []byte
}

func (n *instant) Update(_ Address, edit func(*causal.Object, func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error) {
	if _, err := edit(&causal.Object{}, func() causal.Dot { return causal.Dot{Actor: 1, Counter: 1} }); err != nil {
		return nil, err
	}
	durable(nil)
	return n.object, nil
}

func (n *instant) Read(_ Address, done func([]byte, error)) { done(n.object, nil) }

func (n *instant) Send(ring.NodeID, *Message, func(Reply, error)) {}

func (n *instant) SendAll(_ ring.NodeID, msgs []Outgoing) {
	for i := range msgs {
		r := Reply{Status: StatusOK}
		if msgs[i].Message.Op == OpDigest {
			o, err := causal.Decode(n.object)
			if err != nil {
				panic(err)
			}
			r.Digest = o.Digest()
		}
		msgs[i].Reply(r, nil)
	}
}

func (n *instant) Now() time.Time                                     { return time.Unix(1_700_000_000, 0) }
func (n *instant) AfterFunc(time.Duration, func()) (stop func() bool) { return neverFires }

func neverFires() bool { return true }

// TestItemsAllocate bounds what an operation that starts with others allocates in
// the coordinator. It is not a promise, but a reason to look when it rises.
func TestItemsAllocate(t *testing.T) {
	layout, err := ring.NewLayout(64, []ring.LayoutNode{
		{ID: ring.NodeID{1}, Name: "a", Zone: "a", Capacity: 1}, {ID: ring.NodeID{2}, Name: "b", Zone: "b", Capacity: 1}, {ID: ring.NodeID{3}, Name: "c", Zone: "c", Capacity: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	view := schema.Build(schema.Snapshot{Version: 1, Layout: layout, Ready: true, TokenKeys: []schema.TokenKey{{ID: 1}}},
		[]*schema.Tenant{{Number: 7, Name: "t", RF: 3, Policy: schema.PolicyLWW, Version: 1}})
	written := causal.Mint(&causal.Object{}, nil, causal.Sibling{Dot: causal.Dot{Actor: 1, Counter: 1}, Value: []byte("v")})
	n := &instant{object: written.Append(nil)}
	c, err := New(Options{Self: ring.NodeID{1}, View: func() *schema.Snapshot { return view }, Replica: n, Transport: n, Clock: n, CatchUp: func(ring.NodeID, ring.Version, func(error)) {}})
	if err != nil {
		t.Fatal(err)
	}
	const items = 100
	var puts, gets []Item
	for i := range items {
		puts = append(puts, Item{Put: &PutRequest{Tenant: "t", Key: fmt.Append(nil, i), Value: []byte("v")}})
		gets = append(gets, Item{Get: &GetRequest{Tenant: "t", Key: fmt.Append(nil, i)}})
	}
	for _, of := range []struct {
		name  string
		items []Item
		most  float64
	}{{"put", puts, 12.5}, {"get", gets, 18.5}} {
		answers := 0
		done := func(i int, r ItemResult) {
			if answers++; r.Err != nil {
				t.Errorf("%s %d: %v", of.name, i, r.Err)
			}
		}
		got := testing.AllocsPerRun(20, func() { c.StartAll(of.items, done) }) / items
		if answers != 21*items || got > of.most {
			t.Errorf("a %s allocates %v times, %d answers", of.name, got, answers)
		}
	}
}
