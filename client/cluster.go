package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// ConflictPolicy says what becomes of concurrent writes to one key of a tenant.
type ConflictPolicy = pairdbv1.ConflictPolicy

// NewTenant describes a tenant to create.
type NewTenant struct {
	// ID matches ^[a-z0-9][a-z0-9_-]{0,62}$.
	ID string
	// ReplicationFactor is the number of replicas of each key, 1 to 7. Nil: the
	// cluster's default, 3. A pointer, so that 0 is refused and not defaulted.
	ReplicationFactor *uint32
	// ConflictPolicy is unspecified for the cluster's default, which is
	// last-writer-wins.
	ConflictPolicy ConflictPolicy
}

// CreateTenant makes a tenant, exactly once in the cluster: ErrTenantExists if
// there is one of that name. It is not sent again when its outcome is unknown.
func (c *Client) CreateTenant(ctx context.Context, t NewTenant) (*pairdbv1.Tenant, error) {
	req := &pairdbv1.CreateTenantRequest{TenantId: t.ID, ReplicationFactor: t.ReplicationFactor, ConflictPolicy: t.ConflictPolicy}
	return invoke(ctx, c, "tenant create", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.Tenant, error) {
		return cn.tenants.Create(ctx, req, opts...)
	})
}

// UpdateTenant gives a tenant another number of replicas of each key, 1 to 7. It answers
// when that is noted; ChangeStatus with the answer's change_id says how far the data has
// moved.
func (c *Client) UpdateTenant(ctx context.Context, id string, replicationFactor uint32) (*pairdbv1.UpdateTenantResponse, error) {
	req := &pairdbv1.UpdateTenantRequest{TenantId: id, ReplicationFactor: replicationFactor}
	return invoke(ctx, c, "tenant update", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.UpdateTenantResponse, error) {
		return cn.tenants.Update(ctx, req, opts...)
	})
}

// DeleteTenant ends a tenant with all its data, or fails with ErrTenantNotFound. It is
// not sent again when its outcome is unknown.
func (c *Client) DeleteTenant(ctx context.Context, id string) (*pairdbv1.DeleteTenantResponse, error) {
	req := &pairdbv1.DeleteTenantRequest{TenantId: id}
	return invoke(ctx, c, "tenant delete", writes, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.DeleteTenantResponse, error) {
		return cn.tenants.Delete(ctx, req, opts...)
	})
}

// GetTenant shows a tenant, or fails with ErrTenantNotFound.
func (c *Client) GetTenant(ctx context.Context, id string) (*pairdbv1.Tenant, error) {
	return invoke(ctx, c, "tenant show", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.Tenant, error) {
		return cn.tenants.Get(ctx, &pairdbv1.GetTenantRequest{TenantId: id}, opts...)
	})
}

// ListTenants lists all tenants, ordered by id.
func (c *Client) ListTenants(ctx context.Context) (*pairdbv1.ListTenantsResponse, error) {
	return invoke(ctx, c, "tenant list", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.ListTenantsResponse, error) {
		return cn.tenants.List(ctx, &pairdbv1.ListTenantsRequest{}, opts...)
	})
}

// Status says how the cluster is, as one of its nodes sees it.
func (c *Client) Status(ctx context.Context) (*pairdbv1.StatusResponse, error) {
	return invoke(ctx, c, "status", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.StatusResponse, error) {
		return cn.cluster.Status(ctx, &pairdbv1.StatusRequest{}, opts...)
	})
}

// Members shows the cluster as the gossip of one of its nodes sees it.
func (c *Client) Members(ctx context.Context) (*pairdbv1.MembersResponse, error) {
	return invoke(ctx, c, "members", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.MembersResponse, error) {
		return cn.cluster.Members(ctx, &pairdbv1.MembersRequest{}, opts...)
	})
}

// Layout shows how the partitions are spread over the nodes.
func (c *Client) Layout(ctx context.Context) (*pairdbv1.RingResponse, error) {
	return c.ring(ctx, &pairdbv1.RingRequest{})
}

// Locate says where a key lives.
func (c *Client) Locate(ctx context.Context, key string, opts ...CallOption) (*pairdbv1.RingResponse, error) {
	if err := checkKey("ring", reads, key); err != nil {
		return nil, err
	}
	return c.ring(ctx, &pairdbv1.RingRequest{Key: []byte(key), TenantId: c.callOptions(opts).tenant})
}

func (c *Client) ring(ctx context.Context, req *pairdbv1.RingRequest) (*pairdbv1.RingResponse, error) {
	return invoke(ctx, c, "ring", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.RingResponse, error) {
		return cn.cluster.Ring(ctx, req, opts...)
	})
}

// Health is how one endpoint answered a health check.
type Health struct {
	Endpoint string
	// Serving says that the node takes requests.
	Serving bool
	// Status is the node's word: "SERVING", "NOT_SERVING", …; empty if it did
	// not answer.
	Status string
	// Err is why there was no answer.
	Err *Error
}

// Health asks every endpoint, one after the other, whether it serves. The
// result has one entry per endpoint in the order of Options.Endpoints.
func (c *Client) Health(ctx context.Context) []Health {
	const op = "health"
	if c.opts.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.Timeout)
		defer cancel()
	}
	var all []Health
	for i, cn := range c.conns {
		h := Health{Endpoint: cn.endpoint}
		resp, err := attempt(ctx, cn, op, reads, len(c.conns)-i, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*healthpb.HealthCheckResponse, error) {
			return cn.health.Check(ctx, &healthpb.HealthCheckRequest{}, opts...)
		})
		switch {
		case err == nil:
			h.Status = resp.GetStatus().String()
			h.Serving = resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
		case status.Code(err.Err) == codes.Unimplemented:
			h.Err = localError(op, reads, errcode.Internal, "%s has no health service; it is not a pairdb node", cn.endpoint)
		default:
			h.Err = err
		}
		all = append(all, h)
	}
	return all
}
