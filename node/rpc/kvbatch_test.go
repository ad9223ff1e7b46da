package rpc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// kvOf serves f to clients.
func kvOf(t *testing.T, f *fakeCoordinator) (*Server, pairdbv1.KVClient) {
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	s, conn := clientOf(t, opts)
	return s, pairdbv1.NewKVClient(conn)
}

func putItem(r *pairdbv1.PutRequest) *pairdbv1.BatchItem {
	return &pairdbv1.BatchItem{Write: &pairdbv1.BatchItem_Put{Put: r}}
}

func deleteItem(r *pairdbv1.DeleteRequest) *pairdbv1.BatchItem {
	return &pairdbv1.BatchItem{Write: &pairdbv1.BatchItem_Delete{Delete: r}}
}

// failing fails what is about the key "bad", not saying what became of it.
func failing(e coord.Error) func(*coord.Item) error {
	return func(it *coord.Item) error {
		var key []byte
		switch {
		case it.Put != nil:
			key = it.Put.Key
		case it.Delete != nil:
			key = it.Delete.Key
		default:
			key = it.Get.Key
		}
		if string(key) == "bad" {
			failed := e
			return &failed
		}
		return nil
	}
}

func TestBatch(t *testing.T) {
	f := &fakeCoordinator{
		write: coord.WriteResponse{Token: []byte("token"), Dot: causal.Dot{Actor: 1, Counter: 4}, Acks: 2, Level: quorum.All},
		fail: failing(coord.Error{
			Code: errcode.QuorumNotReached, Message: "too few", Acks: 1, Need: 2, Causes: []coord.Cause{{Node: ring.NodeID{9}, Name: "n9", Reason: "is down"}},
		}),
	}
	_, kv := kvOf(t, f)
	ctx := metadata.AppendToOutgoingContext(testContext(t), "x-pairdb-tenant", "shop")
	r, err := kv.Batch(ctx, &pairdbv1.BatchRequest{Consistency: pairdbv1.Consistency_CONSISTENCY_ALL, Items: []*pairdbv1.BatchItem{
		putItem(&pairdbv1.PutRequest{Key: []byte("a"), Value: []byte("v"), Context: []byte("c"), IdempotencyKey: []byte("id")}),
		putItem(&pairdbv1.PutRequest{Key: []byte("bad"), Consistency: pairdbv1.Consistency_CONSISTENCY_ALL}),
		deleteItem(&pairdbv1.DeleteRequest{Key: []byte("b"), Context: []byte("c"), IdempotencyKey: []byte("id")}),
	}})
	if err != nil || len(r.GetResults()) != 3 {
		t.Fatalf("%v, %v", r, err)
	}
	put, del := f.items[0].Put, f.items[2].Delete
	if put.Tenant != "shop" || put.Level != quorum.All || string(put.Value) != "v" || string(put.Token) != "c" || string(put.IdempotencyKey) != "id" || put.Deadline.IsZero() {
		t.Errorf("%+v", put)
	}
	if del.Tenant != "shop" || del.Level != quorum.All || string(del.Token) != "c" || string(del.IdempotencyKey) != "id" || del.Deadline.IsZero() {
		t.Errorf("%+v", del)
	}
	if p, d := r.GetResults()[0].GetPut(), r.GetResults()[2].GetDelete(); p.GetAcks() != 2 || d.GetDot().GetCounter() != 4 {
		t.Errorf("%v, %v", p, d)
	}
	e := r.GetResults()[1].GetError()
	want := map[string]string{errcode.MetaOutcome: "indeterminate", errcode.MetaAcks: "1", errcode.MetaNeed: "2", errcode.MetaCauses: "n9: is down"}
	if e.GetCode() != "QUORUM_NOT_REACHED" || e.GetMessage() != "too few" || fmt.Sprint(e.GetMetadata()) != fmt.Sprint(want) || e.GetRetryDelay() == nil {
		t.Errorf("%v", e)
	}
}

// TestBatchRefuses: what only this edge can see is refused before the coordinator
// is asked, with the item named.
func TestBatchRefuses(t *testing.T) {
	f := new(fakeCoordinator)
	_, kv := kvOf(t, f)
	ctx := testContext(t)
	good := putItem(&pairdbv1.PutRequest{Key: []byte("a")})
	for says, req := range map[string]*pairdbv1.BatchRequest{
		"more than 1000 items": {Items: slices.Repeat([]*pairdbv1.BatchItem{good}, 1001)},
		`item 1: the tenant "x" is not the batch's, "shop"`: {TenantId: "shop", Items: []*pairdbv1.BatchItem{
			good, putItem(&pairdbv1.PutRequest{Key: []byte("b"), TenantId: "x"}),
		}},
		"item 1: the consistency CONSISTENCY_ALL": {Items: []*pairdbv1.BatchItem{
			good, deleteItem(&pairdbv1.DeleteRequest{Key: []byte("b"), Consistency: pairdbv1.Consistency_CONSISTENCY_ALL}),
		}},
		"consistency: it is": {Consistency: 17, Items: []*pairdbv1.BatchItem{good}},
	} {
		_, err := kv.Batch(ctx, req)
		info, _ := details(t, err)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), says) || info.GetMetadata()[errcode.MetaOutcome] != "not_applied" {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if _, err := kv.MultiGet(ctx, &pairdbv1.MultiGetRequest{Keys: make([][]byte, 1001)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("1001 keys: %v", err)
	}
	if len(f.items) != 0 {
		t.Errorf("%d items were begun", len(f.items))
	}
}

func TestMultiGet(t *testing.T) {
	f := &fakeCoordinator{
		read: coord.GetResponse{Token: []byte("seen"), Siblings: []causal.Sibling{{Value: []byte("v")}}},
		fail: failing(coord.Error{Code: errcode.KeyNotFound, Message: "absent"}),
	}
	_, kv := kvOf(t, f)
	r, err := kv.MultiGet(testContext(t), &pairdbv1.MultiGetRequest{TenantId: "shop", Consistency: pairdbv1.Consistency_CONSISTENCY_ONE, Keys: [][]byte{[]byte("a"), []byte("bad"), []byte("a")}})
	if err != nil || len(r.GetResults()) != 3 {
		t.Fatalf("%v, %v", r, err)
	}
	if g := f.items[0].Get; g.Tenant != "shop" || g.Level != quorum.One || string(g.Key) != "a" || g.Deadline.IsZero() {
		t.Errorf("%+v", g)
	}
	if g := r.GetResults()[2].GetGet(); string(g.GetKey()) != "a" || string(g.GetSiblings()[0].GetValue()) != "v" {
		t.Errorf("%v", g)
	}
	if e := r.GetResults()[1].GetError(); e.GetCode() != "KEY_NOT_FOUND" || len(e.GetMetadata()) != 0 || e.GetRetryDelay() != nil {
		t.Errorf("%v", e)
	}
}

// TestLargestBatch: 16 MiB in 1000 items fit into a message.
func TestLargestBatch(t *testing.T) {
	f := new(fakeCoordinator)
	_, kv := kvOf(t, f)
	req := &pairdbv1.BatchRequest{TenantId: strings.Repeat("t", 63)}
	each := coord.MaxBatchBytes / coord.MaxBatchItems
	for range coord.MaxBatchItems {
		req.Items = append(req.Items, putItem(&pairdbv1.PutRequest{
			TenantId: req.GetTenantId(), Key: make([]byte, 1024), Value: make([]byte, each-1024-256-4096), Context: make([]byte, 4096), IdempotencyKey: make([]byte, 256),
		}))
	}
	if r, err := kv.Batch(testContext(t), req); err != nil || len(r.GetResults()) != coord.MaxBatchItems {
		t.Errorf("%d results, %v", len(r.GetResults()), err)
	}
}

// TestItemsAreCountedOnTheWire: a message of millions of empty items is not
// decoded.
func TestItemsAreCountedOnTheWire(t *testing.T) {
	for field, m := range map[protowire.Number]interface {
		proto.Message
		count() int
	}{
		3: batchRequest{new(pairdbv1.BatchRequest)},
		1: pipelineRequest{new(pairdbv1.PipelineRequest)},
	} {
		one := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), nil)
		clipped, err := clipItems(bytes.Repeat(one, 8<<20), field, coord.MaxBatchItems+1)
		if err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(clipped, m); err != nil || m.count() != coord.MaxBatchItems+1 {
			t.Errorf("%d items, %v", m.count(), err)
		}
		if repeated, ok := repeatedField(m.ProtoReflect().Interface()); !ok || repeated != field || m.ProtoReflect().Descriptor().Fields().ByNumber(field).Cardinality().String() != "repeated" {
			t.Errorf("%T holds its items in field %d", m, repeated)
		}
	}
}

type batchRequest struct{ *pairdbv1.BatchRequest }

func (r batchRequest) count() int { return len(r.GetItems()) }

type pipelineRequest struct{ *pairdbv1.PipelineRequest }

func (r pipelineRequest) count() int { return len(r.GetItems()) }

// FuzzClipItems: what is cut off is a prefix with no more than the limit, a
// message within the limit stays whole, and what does not decode is an error.
func FuzzClipItems(f *testing.F) {
	whole, err := proto.Marshal(&pairdbv1.BatchRequest{TenantId: "t", Items: []*pairdbv1.BatchItem{putItem(&pairdbv1.PutRequest{Key: []byte("k")}), {}, {}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:5])
	f.Add([]byte{0x1b, 0x1c})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 2
		got, err := clipItems(b, 3, limit)
		full, part := new(pairdbv1.BatchRequest), new(pairdbv1.BatchRequest)
		fullErr := proto.Unmarshal(b, full)
		if err != nil {
			if fullErr == nil {
				t.Fatalf("refused what decodes: %v", err)
			}
			return
		}
		if !bytes.HasPrefix(b, got) {
			t.Fatal("not a prefix")
		}
		partErr := proto.Unmarshal(got, part)
		switch {
		case fullErr == nil && partErr != nil:
			t.Fatalf("a prefix does not decode: %v", partErr)
		case len(part.GetItems()) > limit:
			t.Fatalf("%d items", len(part.GetItems()))
		case fullErr == nil && len(full.GetItems()) < limit && !bytes.Equal(got, b):
			t.Fatal("a small message was cut")
		}
	})
}
