package client

import (
	"context"

	"google.golang.org/grpc"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// Write is one write of a Batch: a PutOp or a DeleteOp.
type Write struct {
	delete bool
	key    string
	value  []byte
	opts   []CallOption
}

// PutOp stores value under key. Options that concern one write, such as
// WithContext and WithIdempotencyKey, belong here, WithTenant and WithLevel to the
// Batch. The slice is not kept.
func PutOp(key string, value []byte, opts ...CallOption) Write {
	return Write{key: key, value: value, opts: opts}
}

// DeleteOp deletes key; see PutOp.
func DeleteOp(key string, opts ...CallOption) Write {
	return Write{delete: true, key: key, opts: opts}
}

// BatchResult is what came of one write of a Batch. One field is set.
type BatchResult struct {
	Put    *PutResult
	Delete *DeleteResult
	// Err is an *Error, as a call of its own would have failed with.
	Err error
}

// from is an answer with the endpoint that it came from.
type from[Resp any] struct {
	answer   Resp
	endpoint string
}

// Batch makes up to MaxBatchItems writes of different keys, with at most
// MaxBatchBytes, at once and without order or atomicity: some may be applied while
// others fail. It returns a result for each, in their order. An error means that
// there are none: the batch was refused as a whole before anything was begun, or
// the answer was lost, and the error's Outcome tells these apart. A batch of which
// every write has an idempotency key moves on to the next endpoint as such a
// write does, and may be sent again by its caller: what was done is not done
// again, and each result says so.
func (c *Client) Batch(ctx context.Context, ops []Write, opts ...CallOption) ([]BatchResult, error) {
	const op = "batch"
	o := c.callOptions(opts)
	if err := checkCount(op, writes, len(ops)); err != nil {
		return nil, err
	}
	req := &pairdbv1.BatchRequest{TenantId: o.tenant, Consistency: o.level.wire(), Items: make([]*pairdbv1.BatchItem, len(ops))}
	k, size := keyedWrites, 0
	for i := range ops {
		item, own, err := ops[i].item()
		if err != nil {
			return nil, err
		}
		req.Items[i] = item
		size += len(ops[i].key) + len(ops[i].value) + len(own.seen.token) + len(own.match.token) + len(own.idempotencyKey)
		if !own.keyed || o.level == LevelOne {
			k = writes
		}
	}
	if size > MaxBatchBytes {
		return nil, localError(op, writes, errcode.InvalidArgument, "the batch has %d bytes of keys, values, contexts and idempotency keys, at most %d (16 MiB) are possible", size, MaxBatchBytes)
	}
	resp, err := invokeAt(ctx, c, op, k, place{tenant: o.tenant, class: batchClass, items: true}, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (from[*pairdbv1.BatchResponse], error) {
		resp, err := cn.kv.Batch(ctx, req, opts...)
		return from[*pairdbv1.BatchResponse]{resp, cn.endpoint}, err
	})
	if err != nil {
		return nil, err
	}
	if len(resp.answer.GetResults()) != len(ops) {
		e := localError(op, writes, errcode.Internal, "the node answered %d writes with %d results", len(ops), len(resp.answer.GetResults()))
		e.Outcome = errcode.Indeterminate
		return nil, e
	}
	results := make([]BatchResult, len(ops))
	for i, r := range resp.answer.GetResults() {
		results[i] = ops[i].result(k, resp.endpoint, r)
	}
	noteItems(c, o.tenant, results, func(r *BatchResult) error { return r.Err })
	return results, nil
}

// name is the call that the write would be.
func (w *Write) name() string {
	if w.delete {
		return "delete"
	}
	return "put"
}

// item is the write as it is sent, with its own options.
func (w *Write) item() (*pairdbv1.BatchItem, callOptions, error) {
	var o callOptions
	for _, opt := range w.opts {
		opt(&o)
	}
	if w.delete {
		req, err := o.deleteRequest(w.name(), w.key)
		return &pairdbv1.BatchItem{Write: &pairdbv1.BatchItem_Delete{Delete: req}}, o, err
	}
	req, err := o.putRequest(w.name(), w.key, w.value)
	return &pairdbv1.BatchItem{Write: &pairdbv1.BatchItem_Put{Put: req}}, o, err
}

func (w *Write) result(k kind, endpoint string, r *pairdbv1.BatchResult) BatchResult {
	switch got := r.GetResult().(type) {
	case *pairdbv1.BatchResult_Put:
		if !w.delete {
			return BatchResult{Put: putResult(got.Put)}
		}
	case *pairdbv1.BatchResult_Delete:
		if w.delete {
			return BatchResult{Delete: deleteResult(got.Delete)}
		}
	case *pairdbv1.BatchResult_Error:
		return BatchResult{Err: itemError(w.name(), k, endpoint, got.Error)}
	}
	e := localError(w.name(), k, errcode.Internal, "the node answered with something else")
	e.Outcome = errcode.Indeterminate
	return BatchResult{Err: e}
}

// KeyResult is what came of reading one key. One of Get and Err is set.
type KeyResult struct {
	Get *GetResult
	// Err is an *Error; ErrKeyNotFound for a key that is absent or deleted.
	Err error
}

// MultiGet reads up to MaxBatchItems keys, each by itself: it is no snapshot. It
// returns a result for each, in their order, with at most 16 MiB of values, or one
// key's values that are larger alone. Keys that found no more room have an error
// with the code RESOURCE_EXHAUSTED: ask for them again.
func (c *Client) MultiGet(ctx context.Context, keys []string, opts ...CallOption) ([]KeyResult, error) {
	const op = "multiget"
	if err := checkCount(op, reads, len(keys)); err != nil {
		return nil, err
	}
	o := c.callOptions(opts)
	req := &pairdbv1.MultiGetRequest{TenantId: o.tenant, Consistency: o.level.wire(), Keys: make([][]byte, len(keys))}
	for i, key := range keys {
		if err := checkKey("get", reads, key); err != nil {
			return nil, err
		}
		req.Keys[i] = []byte(key)
	}
	resp, err := invokeAt(ctx, c, op, reads, place{tenant: o.tenant, class: multiGetClass, items: true}, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (from[*pairdbv1.MultiGetResponse], error) {
		resp, err := cn.kv.MultiGet(ctx, req, opts...)
		return from[*pairdbv1.MultiGetResponse]{resp, cn.endpoint}, err
	})
	if err != nil {
		return nil, err
	}
	if len(resp.answer.GetResults()) != len(keys) {
		return nil, localError(op, reads, errcode.Internal, "the node answered for %d keys with %d results", len(keys), len(resp.answer.GetResults()))
	}
	results := make([]KeyResult, len(keys))
	for i, r := range resp.answer.GetResults() {
		if e := r.GetError(); e != nil {
			results[i].Err = itemError("get", reads, resp.endpoint, e)
			continue
		}
		results[i].Get, results[i].Err = getResult("get", r.GetGet())
	}
	noteItems(c, o.tenant, results, func(r *KeyResult) error { return r.Err })
	return results, nil
}

func checkCount(op string, k kind, n int) error {
	if n == 0 || n > MaxBatchItems {
		return localError(op, k, errcode.InvalidArgument, "there are %d items, it has to be 1 to %d", n, MaxBatchItems)
	}
	return nil
}
