package rest

import (
	"net/http"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/schema"
)

// defaultRF is the replication factor of a tenant created without one.
const defaultRF = 3

type tenantAnswer struct {
	Status            string `json:"status"`
	TenantID          string `json:"tenant_id"`
	ReplicationFactor int    `json:"replication_factor"`
	ConflictPolicy    string `json:"conflict_policy"`
	CreatedAt         string `json:"created_at"`
	UpdatedAt         string `json:"updated_at,omitempty"`
	// Next is the replication factor that was asked for and does not hold yet.
	Next int `json:"next_replication_factor,omitempty"`
}

func (h *Handler) createTenant(w http.ResponseWriter, r *http.Request) {
	var body struct {
		TenantID          string `json:"tenant_id"`
		ReplicationFactor *int   `json:"replication_factor"`
		ConflictPolicy    string `json:"conflict_policy"`
	}
	if err := h.decode(w, r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	rf := defaultRF
	if body.ReplicationFactor != nil {
		rf = *body.ReplicationFactor
	}
	policy := schema.PolicyLWW
	switch body.ConflictPolicy {
	case "", schema.PolicyLWW.String():
	case schema.PolicySiblings.String():
		policy = schema.PolicySiblings
	default:
		h.fail(w, r, invalidf("conflict_policy %q is not lww or siblings", body.ConflictPolicy))
		return
	}
	t, err := h.opts.Metadata.CreateTenant(r.Context(), body.TenantID, rf, policy)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.write(w, r, http.StatusCreated, tenantAnswer{
		Status: "success", TenantID: t.Name, ReplicationFactor: t.RF, ConflictPolicy: t.Policy.String(), CreatedAt: stamp(t.CreatedAt),
	})
}

func (h *Handler) getTenant(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if err := schema.ValidateTenantID(id); err != nil {
		h.fail(w, r, err)
		return
	}
	t, err := h.opts.Metadata.RefreshTenant(r.Context(), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	// One view of it and of what is asked for it.
	snap := h.opts.Metadata.Snapshot()
	t = snap.Current(t)
	a := tenantAnswer{
		Status: "success", TenantID: t.Name, ReplicationFactor: t.RF, ConflictPolicy: t.Policy.String(),
		CreatedAt: stamp(t.CreatedAt), UpdatedAt: stamp(t.UpdatedAt),
	}
	if rf, _ := snap.AskedRF(t); rf != t.RF {
		a.Next = rf
	}
	h.write(w, r, http.StatusOK, a)
}

type replicationAnswer struct {
	Status   string `json:"status"`
	TenantID string `json:"tenant_id"`
	Old      uint32 `json:"old_replication_factor"`
	New      uint32 `json:"new_replication_factor"`
	// MigrationID is empty if the tenant has that factor already.
	MigrationID string `json:"migration_id"`
	UpdatedAt   string `json:"updated_at"`
}

// replicateTenant gives a tenant another replication factor.
func (h *Handler) replicateTenant(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "changes of tenants are") {
		return
	}
	var body struct {
		ReplicationFactor uint32 `json:"replication_factor"`
	}
	if err := h.decode(w, r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	u, err := h.opts.UpdateTenant(r.Context(), &pairdbv1.UpdateTenantRequest{TenantId: r.PathValue("id"), ReplicationFactor: body.ReplicationFactor})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.write(w, r, http.StatusOK, replicationAnswer{
		Status: "success", TenantID: u.GetTenant().GetTenantId(), Old: u.GetOldReplicationFactor(), New: body.ReplicationFactor,
		MigrationID: u.GetChangeId(), UpdatedAt: stamp(u.GetTenant().GetUpdatedAt().AsTime()),
	})
}

// deleteTenant ends a tenant with all its data.
func (h *Handler) deleteTenant(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "changes of tenants are") {
		return
	}
	d, err := h.opts.DeleteTenant(r.Context(), &pairdbv1.DeleteTenantRequest{TenantId: r.PathValue("id")})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.write(w, r, http.StatusOK, struct {
		Status   string `json:"status"`
		TenantID string `json:"tenant_id"`
		Message  string `json:"message"`
	}{"success", d.GetTenant().GetTenantId(), "it is no more; the nodes drop its data"})
}
