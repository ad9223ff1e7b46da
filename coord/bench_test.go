package coord_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// solo is a coordinator whose own replica has one object under every key, whose
// writes are on disk at once, and whose peers have the same and answer when
// deliver is called. What an operation costs here is the coordinator's own part.
type solo struct {
	coord   *coord.Coordinator
	object  []byte
	digest  [16]byte
	minted  uint64
	replies []func(coord.Reply, error)
	ops     []coord.Op
}

func newSolo(tb testing.TB) *solo {
	tb.Helper()
	self := ring.NodeID{1}
	var nodes []ring.LayoutNode
	var members []schema.Member
	for i := range 3 {
		id := ring.NodeID{byte(i + 1)}
		nodes = append(nodes, ring.LayoutNode{ID: id, Name: nodeName(i), Zone: nodeName(i), Capacity: 1})
		members = append(members, schema.Member{ID: id, Name: nodeName(i), Liveness: schema.Alive})
	}
	layout, err := ring.NewLayout(simPartitions, nodes)
	if err != nil {
		tb.Fatal(err)
	}
	view := schema.Build(schema.Snapshot{Version: 1, Layout: layout, Ready: true, Members: members, TokenKeys: []schema.TokenKey{{ID: 1}}},
		[]*schema.Tenant{{Number: 7, Name: simTenant, RF: 3, Policy: schema.PolicyLWW, Version: 1}})
	s := &solo{minted: 1000}
	o := causal.Object{
		Context:  causal.Context{{Actor: 1, Counter: 500}, {Actor: 2, Counter: 700}},
		Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 500}, HLC: 1, Value: make([]byte, 1024)}},
	}
	s.object, s.digest = o.Append(nil), o.Digest()
	s.coord, err = coord.New(coord.Options{
		Self: self, View: func() *schema.Snapshot { return view }, Replica: s, Transport: s, Clock: s,
		CatchUp: func(ring.NodeID, ring.Version, func(error)) { panic("nobody is behind") },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// Send implements coord.Transport.
func (s *solo) Send(_ ring.NodeID, m *coord.Message, reply func(coord.Reply, error)) {
	s.replies, s.ops = append(s.replies, reply), append(s.ops, m.Op)
}

// deliver answers what was sent.
func (s *solo) deliver() {
	for i, reply := range s.replies {
		r := coord.Reply{Status: coord.StatusOK}
		if s.ops[i] == coord.OpDigest {
			r.Digest = s.digest
		}
		reply(r, nil)
	}
	s.replies, s.ops = s.replies[:0], s.ops[:0]
}

// Now and AfterFunc implement coord.Clock.
func (s *solo) Now() time.Time { return time.Now() }

func (s *solo) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// Update and the following implement coord.Replica.
func (s *solo) Update(_ coord.Address, edit func(*causal.Object, func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error) {
	held, err := causal.Decode(s.object)
	if err != nil {
		return nil, err
	}
	o, err := edit(&held, func() causal.Dot {
		s.minted++
		return causal.Dot{Actor: 1, Counter: s.minted}
	})
	if err != nil {
		return nil, err
	}
	b := o.Append(make([]byte, 0, o.EncodedLen()))
	durable(nil)
	return b, nil
}

func (s *solo) Merge([]coord.MergeItem, func(int, []byte, error)) { panic("nobody merges") }

func (s *solo) Read(_ coord.Address, done func([]byte, error)) { done(s.object, nil) }

func (s *solo) ReadDigest(_ coord.Address, done func([16]byte, error)) { done(s.digest, nil) }

func (s *solo) Lookup(coord.Address, []byte, time.Time, func(coord.Held, error)) {
	panic("nobody looks up")
}

func (s *solo) Claim(coord.Address, []byte, *causal.Record, time.Time, func(causal.Record, error)) {
	panic("nobody claims")
}

func (s *solo) Scan(*coord.ScanRange, func(coord.ScanPiece, error)) { panic("nobody scans") }

// soloOps are the operations that are counted.
func soloOps() map[string]func(s *solo, fail func(error)) {
	key, value := []byte("bench/000000000001"), make([]byte, 1024)
	get := func(level quorum.Level) func(*solo, func(error)) {
		return func(s *solo, fail func(error)) {
			answered := false
			s.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: key, Level: level}, func(_ coord.GetResponse, err error) {
				answered = true
				if err != nil {
					fail(err)
				}
			})
			s.deliver()
			if !answered {
				fail(fmt.Errorf("no answer"))
			}
		}
	}
	return map[string]func(*solo, func(error)){
		"GetOne":    get(quorum.One),
		"GetQuorum": get(quorum.Quorum),
		"PutQuorum": func(s *solo, fail func(error)) {
			answered := false
			s.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, Value: value, Level: quorum.Quorum}, func(_ coord.WriteResponse, err error) {
				answered = true
				if err != nil {
					fail(err)
				}
			})
			s.deliver()
			if !answered {
				fail(fmt.Errorf("no answer"))
			}
		},
	}
}

// BenchmarkOperation is the coordinator's own part of an operation.
func BenchmarkOperation(b *testing.B) {
	for name, op := range soloOps() {
		b.Run(name, func(b *testing.B) {
			s := newSolo(b)
			b.ReportAllocs()
			for b.Loop() {
				op(s, func(err error) { b.Fatal(err) })
			}
		})
	}
}
