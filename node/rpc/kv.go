package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc/metadata"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// Coordinator runs client operations. *coord.Coordinator is one.
type Coordinator interface {
	Put(ctx context.Context, req coord.PutRequest) (coord.WriteResponse, error)
	Get(ctx context.Context, req coord.GetRequest) (coord.GetResponse, error)
	Delete(ctx context.Context, req coord.DeleteRequest) (coord.WriteResponse, error)
	// Batch checks all items before it begins any, and has a result for each.
	Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error)
	// StartAll starts the items and calls done once for each, from any
	// goroutine. It may wait for room, not for what it has started.
	StartAll(items []coord.Item, done func(i int, r coord.ItemResult))
	Scan(ctx context.Context, req coord.ScanRequest) (coord.ScanResponse, error)
}

const (
	// mdTenant names the tenant of a request that does not itself.
	mdTenant = "x-pairdb-tenant"
	// defaultTenant is that of a request without any.
	defaultTenant = "default"
)

// kvService is the service KV.
type kvService struct {
	pairdbv1.UnimplementedKVServer
	coord   Coordinator
	now     func() time.Time
	timeout time.Duration
	// itemError is the wire's form of what one of several requests failed with.
	itemError func(method string, err error, write bool) *pairdbv1.ItemError
	observe   func(method, code string, d time.Duration)
	panicked  func(method string, r any) error
	// stopping is closed when streams are to end.
	stopping  <-chan struct{}
	pipelines pipelines
}

// terms are what requests that come together have in common.
type terms struct {
	tenant   string
	level    quorum.Level
	deadline time.Time
}

// Put implements pairdbv1.KVServer.
func (k *kvService) Put(ctx context.Context, req *pairdbv1.PutRequest) (*pairdbv1.PutResponse, error) {
	t, err := k.termsOf(ctx, req)
	if err != nil {
		return nil, err
	}
	w, err := k.coord.Put(ctx, putOf(t, req))
	if err != nil {
		return nil, err
	}
	return putAnswer(&w), nil
}

func putOf(t terms, req *pairdbv1.PutRequest) coord.PutRequest {
	return coord.PutRequest{
		Tenant: t.tenant, Key: req.GetKey(), Value: req.GetValue(),
		Level: t.level, Token: req.GetContext(), Expiry: expiryOf(req.GetTtl(), req.GetExpiresAt()),
		IfAbsent: req.GetIfAbsent(), IfMatch: req.GetIfMatch(),
		IdempotencyKey: req.GetIdempotencyKey(), Deadline: t.deadline,
	}
}

// Get implements pairdbv1.KVServer.
func (k *kvService) Get(ctx context.Context, req *pairdbv1.GetRequest) (*pairdbv1.GetResponse, error) {
	t, err := k.termsOf(ctx, req)
	if err != nil {
		return nil, err
	}
	reads, err := reading(ctx)
	if err != nil {
		return nil, err
	}
	size := 0
	defer func() { reads.End(size) }()
	r, err := k.coord.Get(ctx, getOf(t, req.GetKey()))
	if err != nil {
		return nil, err
	}
	resp := getAnswer(req.GetKey(), &r)
	size = valuesOf(resp.GetSiblings())
	return resp, nil
}

func getOf(t terms, key []byte) coord.GetRequest {
	return coord.GetRequest{Tenant: t.tenant, Key: key, Level: t.level, Deadline: t.deadline}
}

// Delete implements pairdbv1.KVServer.
func (k *kvService) Delete(ctx context.Context, req *pairdbv1.DeleteRequest) (*pairdbv1.DeleteResponse, error) {
	t, err := k.termsOf(ctx, req)
	if err != nil {
		return nil, err
	}
	w, err := k.coord.Delete(ctx, deleteOf(t, req))
	if err != nil {
		return nil, err
	}
	return deleteAnswer(&w), nil
}

func deleteOf(t terms, req *pairdbv1.DeleteRequest) coord.DeleteRequest {
	return coord.DeleteRequest{
		Tenant: t.tenant, Key: req.GetKey(),
		Level: t.level, Token: req.GetContext(), IfMatch: req.GetIfMatch(), IdempotencyKey: req.GetIdempotencyKey(), Deadline: t.deadline,
	}
}

// termsOf are those of a call.
func (k *kvService) termsOf(ctx context.Context, req interface {
	GetTenantId() string
	GetConsistency() pairdbv1.Consistency
},
) (terms, error) {
	level, err := levelOf(req.GetConsistency())
	return terms{tenant: tenantOf(ctx, req.GetTenantId()), level: level, deadline: k.deadline(ctx)}, err
}

// deadline is the client's, or the server's for a client that has none, by the
// coordinator's clock. It costs no timer: the coordinator keeps it.
func (k *kvService) deadline(ctx context.Context) time.Time {
	if d, ok := ctx.Deadline(); ok {
		return k.deadlineOf(d)
	}
	return k.now().Add(k.timeout)
}

// deadlineOf is a client's deadline by the coordinator's clock.
func (k *kvService) deadlineOf(d time.Time) time.Time { return k.now().Add(time.Until(d)) }

// tenantOf is the tenant of the request: its field, else the metadata, else the
// default.
func tenantOf(ctx context.Context, field string) string {
	if field != "" {
		return field
	}
	if v := metadata.ValueFromIncomingContext(ctx, mdTenant); len(v) > 0 && v[0] != "" {
		return v[0]
	}
	return defaultTenant
}

// levelOf maps the wire's level; unspecified is quorum.
func levelOf(c pairdbv1.Consistency) (quorum.Level, error) {
	switch c {
	case pairdbv1.Consistency_CONSISTENCY_UNSPECIFIED, pairdbv1.Consistency_CONSISTENCY_QUORUM:
		return quorum.Quorum, nil
	case pairdbv1.Consistency_CONSISTENCY_ONE:
		return quorum.One, nil
	case pairdbv1.Consistency_CONSISTENCY_ALL:
		return quorum.All, nil
	}
	return 0, invalid("consistency: it is CONSISTENCY_ONE, CONSISTENCY_QUORUM or CONSISTENCY_ALL")
}

// consistencyOf is the inverse of levelOf.
func consistencyOf(l quorum.Level) pairdbv1.Consistency {
	switch l {
	case quorum.One:
		return pairdbv1.Consistency_CONSISTENCY_ONE
	case quorum.All:
		return pairdbv1.Consistency_CONSISTENCY_ALL
	}
	return pairdbv1.Consistency_CONSISTENCY_QUORUM
}
