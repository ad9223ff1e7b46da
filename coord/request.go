package coord

import (
	"cmp"
	"time"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// PutRequest asks to write a value. The slices must not change until the call
// has answered.
type PutRequest struct {
	// Tenant is the tenant's name.
	Tenant string
	// Key has 1..1024 bytes of any kind.
	Key []byte
	// Value has up to the coordinator's MaxValueSize bytes; empty is legal.
	Value []byte
	// Level is how many owners must have it on disk before the answer; zero
	// means quorum.Quorum.
	Level quorum.Level
	// Token is the causal context of an earlier answer, or empty. The write
	// supersedes exactly what the token covers. Without one it supersedes what
	// its minter knows, or nothing where the tenant keeps siblings.
	Token []byte
	// JSON remembers that the value came in as a JSON document.
	JSON bool
	// Expiry is when the value ends to be read; zero is never. The node that
	// mints the write makes an instant of it by its own clock, once, and that is
	// stored with the value.
	Expiry causal.Expiry
	// IfAbsent, IfMatch and IfDot are conditions, at most one of them, and none
	// beside a Token. The minter judges the condition by what a read at Level
	// finds and by what it holds; if it does not hold, the write fails with
	// PRECONDITION_FAILED and nothing is changed. That is no atomic
	// compare-and-set: of writes made at the same time several may succeed.
	//
	// IfAbsent asks that there is no value: none, a deleted or an expired one.
	IfAbsent bool
	// IfMatch is a context like Token, and asks that it covers what the key holds:
	// all siblings, or the winner where the last writer wins.
	IfMatch []byte
	// IfDot asks that there is one value, and that it is this one; zero for no
	// such condition.
	IfDot causal.Dot
	// IdempotencyKey has up to 256 bytes; empty means none. Within 24 hours
	// all puts and deletes of one tenant and key with the same one are one
	// write, through whatever coordinator they come.
	IdempotencyKey []byte
	// Deadline is when the caller gives up; zero means the coordinator's
	// timeout alone.
	Deadline time.Time
}

func (r *PutRequest) request() request {
	req := request{
		kind: KindPut, tenant: r.Tenant, key: r.Key, level: cmp.Or(r.Level, quorum.Quorum), token: r.Token,
		value: r.Value, json: r.JSON, expiry: r.Expiry, idempotencyKey: r.IdempotencyKey, deadline: r.Deadline,
	}
	if r.IfAbsent {
		req.cond |= ifAbsent
	}
	req.provided(r.IfMatch, r.IfDot)
	return req
}

// DeleteRequest asks to delete a key. Deleting an absent key succeeds.
type DeleteRequest struct {
	Tenant string
	Key    []byte
	Level  quorum.Level
	// Token is as in PutRequest, but without one a delete of a tenant that keeps
	// siblings supersedes what a read at the same level sees.
	Token []byte
	// IdempotencyKey is that of PutRequest.
	IdempotencyKey []byte
	// IfMatch and IfDot are those of PutRequest.
	IfMatch []byte
	IfDot   causal.Dot
	// Deadline is when the caller gives up.
	Deadline time.Time
	// ExpectClock, if not nil, is compared with the context of what the minter
	// holds; if they differ the delete fails with PRECONDITION_FAILED and
	// nothing is changed. It is never used as a context. A repeated delete
	// with an idempotency key is not compared again. It goes with none of the
	// other conditions.
	ExpectClock causal.Context
}

func (r *DeleteRequest) request() request {
	req := request{
		kind: KindDelete, tenant: r.Tenant, key: r.Key, level: cmp.Or(r.Level, quorum.Quorum), token: r.Token,
		expect: r.ExpectClock, idempotencyKey: r.IdempotencyKey, deadline: r.Deadline,
	}
	if r.ExpectClock != nil {
		req.cond |= ifClock
	}
	req.provided(r.IfMatch, r.IfDot)
	return req
}

// WriteResponse answers a Put or a Delete that reached its level.
type WriteResponse struct {
	// Token covers the write and all that it superseded. It is empty where
	// siblings are kept if no token covers these without another value.
	Token []byte
	// Dot names the write.
	Dot causal.Dot
	// Context is what Token covers.
	Context causal.Context
	// Acks is the number of owners that had the write on disk when the
	// answer was given, Replicas the number of owners.
	Acks, Replicas int
	// Level is the level that was reached.
	Level quorum.Level
	// Duplicate says that an earlier attempt with the same idempotency key had
	// begun this write.
	Duplicate bool
}

// GetRequest asks for a key.
type GetRequest struct {
	Tenant string
	Key    []byte
	// Level is how many owners must agree before the answer; zero means
	// quorum.Quorum.
	Level quorum.Level
	// Deadline is when the caller gives up.
	Deadline time.Time
}

func (r *GetRequest) request() request {
	return request{kind: KindGet, tenant: r.Tenant, key: r.Key, level: cmp.Or(r.Level, quorum.Quorum), deadline: r.Deadline}
}

// GetResponse answers a Get that found a value.
type GetResponse struct {
	// Siblings are the live values, the winner first and the others by dot;
	// under the policy lww only the winner. Never empty.
	Siblings []causal.Sibling
	// Token covers everything the read saw.
	Token []byte
	// Context is what Token covers.
	Context causal.Context
}
