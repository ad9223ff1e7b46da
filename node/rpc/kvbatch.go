package rpc

import (
	"context"
	"fmt"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
)

// Batch implements pairdbv1.KVServer.
func (k *kvService) Batch(ctx context.Context, req *pairdbv1.BatchRequest) (*pairdbv1.BatchResponse, error) {
	t, err := k.termsOf(ctx, req)
	if err != nil {
		return nil, err
	}
	items, err := batchItems(t, req)
	if err != nil {
		return nil, err
	}
	results, err := k.coord.Batch(ctx, items)
	if err != nil {
		return nil, err
	}
	resp := &pairdbv1.BatchResponse{Results: make([]*pairdbv1.BatchResult, len(results))}
	backing := make([]struct {
		out pairdbv1.BatchResult
		put pairdbv1.BatchResult_Put
	}, len(results))
	for i := range results {
		r, out := &results[i], &backing[i].out
		switch {
		case r.Err != nil:
			out.Result = &pairdbv1.BatchResult_Error{Error: k.itemError(pairdbv1.KV_Batch_FullMethodName, r.Err, true)}
		case items[i].Put != nil:
			backing[i].put.Put = putAnswer(&r.Write)
			out.Result = &backing[i].put
		default:
			out.Result = &pairdbv1.BatchResult_Delete{Delete: deleteAnswer(&r.Write)}
		}
		resp.Results[i] = out
	}
	return resp, nil
}

// batchItems are the writes of a batch. What is wrong beside tenant and level
// the coordinator says.
func batchItems(t terms, req *pairdbv1.BatchRequest) ([]coord.Item, error) {
	if n := len(req.GetItems()); n > coord.MaxBatchItems {
		// The codec reads no more than one beyond the limit.
		return nil, invalid(fmt.Sprintf("the batch has more than %d items, which is all that is allowed", coord.MaxBatchItems))
	}
	items := make([]coord.Item, len(req.GetItems()))
	puts := make([]coord.PutRequest, 0, len(items))
	for i, it := range req.GetItems() {
		switch w := it.GetWrite().(type) {
		case *pairdbv1.BatchItem_Put:
			if err := sameTerms(i, req, w.Put); err != nil {
				return nil, err
			}
			puts = append(puts, putOf(t, w.Put))
			items[i].Put = &puts[len(puts)-1]
		case *pairdbv1.BatchItem_Delete:
			if err := sameTerms(i, req, w.Delete); err != nil {
				return nil, err
			}
			d := deleteOf(t, w.Delete)
			items[i].Delete = &d
		}
	}
	return items, nil
}

// sameTerms refuses an item that contradicts its batch.
func sameTerms(i int, batch *pairdbv1.BatchRequest, item interface {
	GetTenantId() string
	GetConsistency() pairdbv1.Consistency
},
) error {
	if id := item.GetTenantId(); id != "" && id != batch.GetTenantId() {
		return invalid(fmt.Sprintf("item %d: the tenant %q is not the batch's, %q; leave it empty", i, clip(id, 64), clip(batch.GetTenantId(), 64)))
	}
	if c := item.GetConsistency(); c != pairdbv1.Consistency_CONSISTENCY_UNSPECIFIED && c != batch.GetConsistency() {
		return invalid(fmt.Sprintf("item %d: the consistency %v is not the batch's, %v; leave it unspecified", i, c, batch.GetConsistency()))
	}
	return nil
}

// MultiGet implements pairdbv1.KVServer.
func (k *kvService) MultiGet(ctx context.Context, req *pairdbv1.MultiGetRequest) (*pairdbv1.MultiGetResponse, error) {
	t, err := k.termsOf(ctx, req)
	if err != nil {
		return nil, err
	}
	if n := len(req.GetKeys()); n > coord.MaxBatchItems {
		return nil, invalid(fmt.Sprintf("more than %d keys are asked for, which is all that is allowed", coord.MaxBatchItems))
	}
	items := make([]coord.Item, len(req.GetKeys()))
	gets := make([]coord.GetRequest, len(items))
	for i, key := range req.GetKeys() {
		gets[i] = getOf(t, key)
		items[i].Get = &gets[i]
	}
	reads, err := reading(ctx)
	if err != nil {
		return nil, err
	}
	size := 0
	defer func() { reads.End(size) }()
	results, err := k.coord.Batch(ctx, items)
	if err != nil {
		return nil, err
	}
	resp := &pairdbv1.MultiGetResponse{Results: make([]*pairdbv1.MultiGetResult, len(results))}
	backing := make([]struct {
		out pairdbv1.MultiGetResult
		get pairdbv1.MultiGetResult_Get
	}, len(results))
	for i := range results {
		r, out := &results[i], &backing[i].out
		if r.Err != nil {
			out.Result = &pairdbv1.MultiGetResult_Error{Error: k.itemError(pairdbv1.KV_MultiGet_FullMethodName, r.Err, false)}
		} else {
			backing[i].get.Get = getAnswer(items[i].Get.Key, &r.Get)
			size += valuesOf(backing[i].get.Get.GetSiblings())
			out.Result = &backing[i].get
		}
		resp.Results[i] = out
	}
	return resp, nil
}
