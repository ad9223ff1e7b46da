package client

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// Dot is the identity of one write.
type Dot struct {
	// Actor minted the write: 64 random bits.
	Actor uint64
	// Counter numbers the actor's writes in one partition, from 1.
	Counter uint64
}

// Sibling is a value that no known write has superseded.
type Sibling struct {
	Value []byte
	Dot   Dot
	// WrittenAt is when it was written, by the minting replica's hybrid clock.
	WrittenAt time.Time
	// ExpiresAt is when it expires, in whole milliseconds; the zero time: never.
	ExpiresAt time.Time
}

// GetResult is what is stored under a key.
type GetResult struct {
	// Value is the winner, the same as Siblings[0].Value.
	Value []byte
	// Siblings has at least one entry; more only for a tenant that keeps
	// siblings.
	Siblings []Sibling
	// Context is what this read has seen.
	Context Context

	wire *pairdbv1.GetResponse
}

// Proto returns the answer as it came over the wire. It shares the values.
func (r *GetResult) Proto() *pairdbv1.GetResponse { return r.wire }

// PutResult says that a value is stored.
type PutResult struct {
	// Context is what this write has seen, itself included. It is zero for a
	// tenant that keeps siblings if no context covers the write without one of
	// the values beside it: Get has one of all of them.
	Context Context
	Dot     Dot
	// Acks is the number of replicas that had acknowledged when the answer was
	// sent, 1 to 7.
	Acks int
	// Level is the level the write was held to.
	Level Level
	// Duplicate says that an earlier attempt with the same idempotency key began
	// this write.
	Duplicate bool

	wire *pairdbv1.PutResponse
}

// Proto returns the answer as it came over the wire.
func (r *PutResult) Proto() *pairdbv1.PutResponse { return r.wire }

// DeleteResult says that a tombstone is stored; its fields are those of
// PutResult.
type DeleteResult struct {
	Context   Context
	Dot       Dot
	Acks      int
	Level     Level
	Duplicate bool

	wire *pairdbv1.DeleteResponse
}

// Proto returns the answer as it came over the wire.
func (r *DeleteResult) Proto() *pairdbv1.DeleteResponse { return r.wire }

// Put stores value under key. An empty value is a value. The slice is not kept.
// See WithContext for what becomes of the values that are there.
func (c *Client) Put(ctx context.Context, key string, value []byte, opts ...CallOption) (*PutResult, error) {
	const op = "put"
	o := c.callOptions(opts)
	req, err := o.putRequest(op, key, value)
	if err != nil {
		return nil, err
	}
	resp, err := invokeAt(ctx, c, op, o.writeKind(), place{tenant: o.tenant, key: req.GetKey(), class: writeClass}, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.PutResponse, error) {
		return cn.kv.Put(ctx, req, opts...)
	})
	if err != nil {
		return nil, err
	}
	return putResult(resp), nil
}

// putRequest is a put as it is sent, or what is wrong with it.
func (o *callOptions) putRequest(op, key string, value []byte) (*pairdbv1.PutRequest, error) {
	if err := checkKey(op, writes, key); err != nil {
		return nil, err
	}
	if len(value) > MaxValueSize {
		return nil, localError(op, writes, errcode.ValueTooLarge, "the value has %d bytes, at most %d (10 MiB) are possible", len(value), MaxValueSize)
	}
	if err := o.checkWrite(op, true); err != nil {
		return nil, err
	}
	req := &pairdbv1.PutRequest{
		TenantId: o.tenant, Key: []byte(key), Value: value, Consistency: o.level.wire(), Context: o.seen.Bytes(),
		IdempotencyKey: []byte(o.idempotencyKey),
	}
	o.fill(req)
	return req, nil
}

func putResult(resp *pairdbv1.PutResponse) *PutResult {
	return &PutResult{
		Context: contextFromWire(resp.GetContext()),
		Dot:     dotFromWire(resp.GetDot()),
		Acks:    int(resp.GetAcks()),
		Level:   levelFromWire(resp.GetConsistency()),

		Duplicate: resp.GetIsDuplicate(),
		wire:      resp,
	}
}

// Get reads key. A key that is absent, deleted or expired is ErrKeyNotFound.
func (c *Client) Get(ctx context.Context, key string, opts ...CallOption) (*GetResult, error) {
	const op = "get"
	if err := checkKey(op, reads, key); err != nil {
		return nil, err
	}
	o := c.callOptions(opts)
	req := &pairdbv1.GetRequest{TenantId: o.tenant, Key: []byte(key), Consistency: o.level.wire()}
	resp, err := invokeAt(ctx, c, op, reads, place{tenant: o.tenant, key: req.GetKey(), class: getClass}, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.GetResponse, error) {
		return cn.kv.Get(ctx, req, opts...)
	})
	if err != nil {
		return nil, err
	}
	return getResult(op, resp)
}

// getResult is an answer to a get, which has a value.
func getResult(op string, resp *pairdbv1.GetResponse) (*GetResult, error) {
	if len(resp.GetSiblings()) == 0 {
		return nil, localError(op, reads, errcode.Internal, "the node answered without a value and without an error")
	}
	r := &GetResult{Siblings: siblingsFromWire(resp.GetSiblings()), Context: contextFromWire(resp.GetContext()), wire: resp}
	r.Value = r.Siblings[0].Value
	return r, nil
}

// Delete writes a tombstone under key. Deleting an absent key succeeds. Without
// a context it deletes what the node that mints the tombstone knows, or, for a
// tenant that keeps siblings, what a read at the same level sees.
func (c *Client) Delete(ctx context.Context, key string, opts ...CallOption) (*DeleteResult, error) {
	const op = "delete"
	o := c.callOptions(opts)
	req, err := o.deleteRequest(op, key)
	if err != nil {
		return nil, err
	}
	resp, err := invokeAt(ctx, c, op, o.writeKind(), place{tenant: o.tenant, key: req.GetKey(), class: writeClass}, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.DeleteResponse, error) {
		return cn.kv.Delete(ctx, req, opts...)
	})
	if err != nil {
		return nil, err
	}
	return deleteResult(resp), nil
}

// deleteRequest is a delete as it is sent, or what is wrong with it.
func (o *callOptions) deleteRequest(op, key string) (*pairdbv1.DeleteRequest, error) {
	if err := checkKey(op, writes, key); err != nil {
		return nil, err
	}
	if err := o.checkWrite(op, false); err != nil {
		return nil, err
	}
	return &pairdbv1.DeleteRequest{
		TenantId: o.tenant, Key: []byte(key), Consistency: o.level.wire(), Context: o.seen.Bytes(),
		IdempotencyKey: []byte(o.idempotencyKey), IfMatch: o.match.Bytes(),
	}, nil
}

func deleteResult(resp *pairdbv1.DeleteResponse) *DeleteResult {
	return &DeleteResult{
		Context: contextFromWire(resp.GetContext()),
		Dot:     dotFromWire(resp.GetDot()),
		Acks:    int(resp.GetAcks()),
		Level:   levelFromWire(resp.GetConsistency()),

		Duplicate: resp.GetIsDuplicate(),
		wire:      resp,
	}
}

// checkKey applies the limits on keys before anything is sent.
func checkKey(op string, k kind, key string) error {
	switch {
	case key == "":
		return localError(op, k, errcode.InvalidKey, "the key is empty; it must have 1 to %d bytes", MaxKeySize)
	case len(key) > MaxKeySize:
		return localError(op, k, errcode.KeyTooLarge, "the key has %d bytes, at most %d are possible", len(key), MaxKeySize)
	}
	return nil
}

// checkWrite applies the limits on what options say of a write; put says that it
// stores a value.
func (o *callOptions) checkWrite(op string, put bool) error {
	if n := len(o.idempotencyKey); o.keyed && (n == 0 || n > MaxIdempotencyKey) {
		return localError(op, writes, errcode.InvalidArgument, "the idempotency key has %d bytes, it must have 1 to %d", n, MaxIdempotencyKey)
	}
	return o.check(op, put, !o.seen.IsZero())
}

// writeKind is what sending the write twice may do. With an idempotency key
// it is one write, unless the level leaves that to luck.
func (o *callOptions) writeKind() kind {
	if o.keyed && o.level != LevelOne {
		return keyedWrites
	}
	return writes
}

func siblingsFromWire(wire []*pairdbv1.Sibling) []Sibling {
	siblings := make([]Sibling, len(wire))
	for i, w := range wire {
		s := Sibling{Value: w.GetValue(), Dot: dotFromWire(w.GetDot())}
		if w.GetWrittenAt() != nil {
			s.WrittenAt = w.GetWrittenAt().AsTime()
		}
		if w.GetExpiresAt() != nil {
			s.ExpiresAt = w.GetExpiresAt().AsTime()
		}
		siblings[i] = s
	}
	return siblings
}

func dotFromWire(d *pairdbv1.Dot) Dot {
	return Dot{Actor: d.GetActor(), Counter: d.GetCounter()}
}

// contextFromWire takes what a node sent. A token over the limit would be
// refused by every node, so that it is worth nothing here either.
func contextFromWire(token []byte) Context {
	seen, err := ContextFromBytes(token)
	if err != nil {
		return Context{}
	}
	return seen
}
