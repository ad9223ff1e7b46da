package rpc

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// TestAnswersInOnePiece: an answer has all its parts, with one sibling and with
// several, and costs an allocation for itself and one for its clock.
func TestAnswersInOnePiece(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	hlc := causal.NextHLC(at, 0)
	sibling := func(n uint64) causal.Sibling {
		return causal.Sibling{Dot: causal.Dot{Actor: n, Counter: n + 1}, HLC: hlc, Value: []byte{byte(n)}}
	}
	wire := func(n uint64) *pairdbv1.Sibling {
		return &pairdbv1.Sibling{Value: []byte{byte(n)}, Dot: &pairdbv1.Dot{Actor: n, Counter: n + 1}, WrittenAt: timestamppb.New(at)}
	}
	clock := []*pairdbv1.ClockEntry{{Actor: 1, Counter: 2}, {Actor: 3, Counter: 4}}
	for n := range 3 {
		r := coord.GetResponse{Token: []byte("token"), Context: causal.Context{{Actor: 1, Counter: 2}, {Actor: 3, Counter: 4}}[:min(n, 2)]}
		want := &pairdbv1.GetResponse{Key: []byte("key"), Context: r.Token, VectorClock: clock[:min(n, 2)]}
		for i := range uint64(n) {
			r.Siblings, want.Siblings = append(r.Siblings, sibling(i)), append(want.Siblings, wire(i))
		}
		if got := getAnswer([]byte("key"), &r); !proto.Equal(got, want) {
			t.Errorf("%d siblings: %v, want %v", n, got, want)
		}
	}
	w := coord.WriteResponse{Token: []byte("t"), Dot: causal.Dot{Actor: 1, Counter: 2}, Context: causal.Context{{Actor: 1, Counter: 2}}, Acks: 2, Level: quorum.All, Duplicate: true}
	put := &pairdbv1.PutResponse{Context: w.Token, Dot: &pairdbv1.Dot{Actor: 1, Counter: 2}, VectorClock: clock[:1], Acks: 2, Consistency: pairdbv1.Consistency_CONSISTENCY_ALL, IsDuplicate: true}
	if got := putAnswer(&w); !proto.Equal(got, put) {
		t.Errorf("%v, want %v", got, put)
	}
	deleted := &pairdbv1.DeleteResponse{Context: w.Token, Dot: put.Dot, VectorClock: clock[:1], Acks: 2, Consistency: pairdbv1.Consistency_CONSISTENCY_ALL, IsDuplicate: true}
	if got := deleteAnswer(&w); !proto.Equal(got, deleted) {
		t.Errorf("%v, want %v", got, deleted)
	}
	r := coord.GetResponse{Siblings: []causal.Sibling{sibling(1)}, Context: w.Context}
	if n := testing.AllocsPerRun(100, func() { getAnswer(nil, &r) }); n > 2 {
		t.Errorf("a get: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { putAnswer(&w) }); n > 2 {
		t.Errorf("a put: %v allocations", n)
	}
}
