package rpc

import (
	"math"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// TestExpiryAndConditionsArrive: what a client says of a write reaches the
// coordinator, and what cannot be meant arrives as that.
func TestExpiryAndConditionsArrive(t *testing.T) {
	f := &fakeCoordinator{}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	_, conn := clientOf(t, opts)
	kv := pairdbv1.NewKVClient(conn)
	ctx := testContext(t)
	unclear := causal.Expiry{Kind: causal.ExpiryUnclear}
	for name, c := range map[string]struct {
		req  *pairdbv1.PutRequest
		want coord.PutRequest
	}{
		"ttl":          {&pairdbv1.PutRequest{Ttl: durationpb.New(90 * time.Second)}, coord.PutRequest{Expiry: causal.ExpiresAfter(90 * time.Second)}},
		"no ttl":       {&pairdbv1.PutRequest{Ttl: durationpb.New(0)}, coord.PutRequest{Expiry: causal.Expiry{Kind: causal.ExpiryAfter}}},
		"too long":     {&pairdbv1.PutRequest{Ttl: &durationpb.Duration{Seconds: 315_576_000_000}}, coord.PutRequest{Expiry: causal.ExpiresAfter(math.MaxInt64)}},
		"expires at":   {&pairdbv1.PutRequest{ExpiresAt: timestamppb.New(time.UnixMilli(7))}, coord.PutRequest{Expiry: causal.ExpiresAt(time.UnixMilli(7))}},
		"both":         {&pairdbv1.PutRequest{Ttl: durationpb.New(time.Second), ExpiresAt: timestamppb.New(time.UnixMilli(7))}, coord.PutRequest{Expiry: unclear}},
		"no duration":  {&pairdbv1.PutRequest{Ttl: &durationpb.Duration{Seconds: 1, Nanos: -1}}, coord.PutRequest{Expiry: unclear}},
		"no timestamp": {&pairdbv1.PutRequest{ExpiresAt: &timestamppb.Timestamp{Seconds: math.MaxInt64}}, coord.PutRequest{Expiry: unclear}},
		"if absent":    {&pairdbv1.PutRequest{IfAbsent: true}, coord.PutRequest{IfAbsent: true}},
		"if match":     {&pairdbv1.PutRequest{IfMatch: []byte("seen")}, coord.PutRequest{IfMatch: []byte("seen")}},
	} {
		c.req.Key, c.want.Key = []byte("k"), []byte("k")
		c.want.Tenant, c.want.Level = "default", quorum.Quorum
		if _, err := kv.Put(ctx, c.req); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.put.Deadline = time.Time{}
		if !reflect.DeepEqual(f.put, c.want) {
			t.Errorf("%s: asked %+v", name, f.put)
		}
	}
	if _, err := kv.Delete(ctx, &pairdbv1.DeleteRequest{Key: []byte("k"), IfMatch: []byte("seen")}); err != nil || string(f.del.IfMatch) != "seen" {
		t.Errorf("delete asked %+v, %v", f.del, err)
	}
}
