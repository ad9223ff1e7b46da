package meta

import (
	"reflect"
	"testing"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func exchanges() []*exchange {
	h := header{"test", ring.ClusterID{1}}
	lost := &LostNode{ID: ring.NodeID{2}, Name: "n2", Address: "a:1", Liveness: schema.Dead, Since: 77}
	return []*exchange{
		{header: h, version: 7, vector: []crdt.VectorItem{{ID: ring.NodeID{3}, Stamp: crdt.Stamp{Incarnation: 1, Seq: 2}}}},
		{header: header{name: "test"}, nodes: [][]byte{{1, 2}}, joins: true},
		{header: h, version: 7, outside: true, founder: ring.NodeID{9}},
		{header: h, version: 7, outside: true, founder: ring.NodeID{9}, why: "its name is taken"},
		{header: h, refused: true, lost: lost},
		{header: h, refused: true, retired: true},
		{header: h, first: 4, log: [][]byte{{5}}, votes: []vote{{ring.NodeID{3}, []byte{6}}}},
		{header: h, version: 7, part: &part{head: [headBytes]byte{1, 2}, offset: 3, piece: []byte{}}},
		{header: h, version: 7, first: 5, outside: true, founder: ring.NodeID{9}, part: &part{piece: []byte{4, 5}}},
	}
}

func TestExchangeCodec(t *testing.T) {
	for i, m := range exchanges() {
		b := m.encode()
		got, err := decodeExchange(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%d came back as %+v, %v", i, got, err)
		}
		for cut := range b {
			if _, err := decodeExchange(b[:cut]); err == nil {
				t.Errorf("%d cut at %d is accepted", i, cut)
			}
		}
	}
}

func FuzzDecodeExchange(f *testing.F) {
	for _, m := range exchanges() {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeExchange(b)
		if err != nil {
			return
		}
		again, err := decodeExchange(m.encode())
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v, %v\nwas %+v", again, err, m)
		}
	})
}
