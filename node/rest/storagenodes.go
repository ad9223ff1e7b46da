package rest

import (
	"fmt"
	"net/http"
	"strconv"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// changeAnswer is what a request that changes the ring is answered with.
type changeAnswer struct {
	Status      string `json:"status"`
	NodeID      string `json:"node_id"`
	MigrationID string `json:"migration_id"`
	Message     string `json:"message"`
	// EstimatedCompletion is null while it is not known.
	EstimatedCompletion *string `json:"estimated_completion"`
}

// acceptStorageNode takes a node in that waits to join.
func (h *Handler) acceptStorageNode(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "changes of the ring are") {
		return
	}
	var body struct {
		NodeID string `json:"node_id"`
	}
	if err := h.decode(w, r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	c, err := h.opts.AcceptNode(r.Context(), body.NodeID)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeChange(w, r, c, c.GetName()+" joins; it fetches its share of the data")
}

// deleteStorageNode has a node leave, or gives it up for lost.
func (h *Handler) deleteStorageNode(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "changes of the ring are") {
		return
	}
	q, err := queryOf(r.URL, "force")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	force := false
	if q.Has("force") {
		if force, err = strconv.ParseBool(q.Get("force")); err != nil {
			h.fail(w, r, invalidf("force is %q, want true or false", q.Get("force")))
			return
		}
	}
	if force {
		c, err := h.opts.RemoveNode(r.Context(), &pairdbv1.RemoveRequest{Node: r.PathValue("id"), AcceptLoss: true})
		if err != nil {
			h.fail(w, r, err)
			return
		}
		h.writeChange(w, r, c, c.GetName()+" is given up for lost; the other nodes take its partitions, and what it alone had is lost"+givenUpText(c))
		return
	}
	c, err := h.opts.Decommission(r.Context(), &pairdbv1.DecommissionRequest{Node: r.PathValue("id")})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeChange(w, r, c, c.GetName()+" hands over its partitions, and then leaves for good")
}

// givenUpText says what is lost with a node beyond writes that reached nobody else.
func givenUpText(c *pairdbv1.NodeChange) string {
	s := ""
	for _, g := range c.GetGivenUp() {
		s += fmt.Sprintf("; of %d partitions of tenants with %d copies the newest acknowledged writes may be gone, and %d of them have no copy left",
			len(g.GetPartitions()), g.GetReplicationFactor(), len(g.GetEmptyPartitions()))
	}
	return s
}

func (h *Handler) writeChange(w http.ResponseWriter, r *http.Request, c *pairdbv1.NodeChange, message string) {
	h.write(w, r, http.StatusAccepted, changeAnswer{
		Status: "success", NodeID: c.GetNodeId(), MigrationID: c.GetId(), Message: message, EstimatedCompletion: estimateOf(c),
	})
}

// estimateOf is when moving will have ended, nil for not known.
func estimateOf(c *pairdbv1.NodeChange) *string {
	if c.GetEstimatedEnd() == nil {
		return nil
	}
	s := stamp(c.GetEstimatedEnd().AsTime())
	return &s
}

type migrationProgress struct {
	KeysMigrated uint64  `json:"keys_migrated"`
	TotalKeys    uint64  `json:"total_keys"`
	Percentage   float64 `json:"percentage"`
}

type migrationAnswer struct {
	Status          string            `json:"status"`
	MigrationID     string            `json:"migration_id"`
	Type            string            `json:"type"`
	NodeID          string            `json:"node_id"`
	TenantID        string            `json:"tenant_id,omitempty"`
	MigrationStatus string            `json:"migration_status"`
	State           string            `json:"state"`
	WaitsFor        string            `json:"waits_for,omitempty"`
	Progress        migrationProgress `json:"progress"`
	// StartedAt is null for one that is not begun, or whose begin nobody remembers.
	StartedAt           *string             `json:"started_at"`
	EstimatedCompletion *string             `json:"estimated_completion"`
	Unreachable         []unreachableAnswer `json:"unreachable"`
}

// migration shows how far a change of a node is.
func (h *Handler) migration(w http.ResponseWriter, r *http.Request) {
	if _, err := queryOf(r.URL); err != nil {
		h.fail(w, r, err)
		return
	}
	c, err := h.opts.ChangeStatus(r.Context(), &pairdbv1.ChangeStatusRequest{Id: r.PathValue("id")})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	a := migrationAnswer{
		Status: "success", MigrationID: c.GetId(), Type: c.GetVerb(), NodeID: c.GetNodeId(), TenantID: c.GetTenantId(),
		MigrationStatus: migrationStatus(c.GetState()), State: c.GetState(), WaitsFor: c.GetWaitsFor(),
		Progress:            migrationProgress{KeysMigrated: c.GetKeysDone(), TotalKeys: totalKeys(c), Percentage: c.GetPercent()},
		EstimatedCompletion: estimateOf(c), Unreachable: unreachableOf(c.GetUnreachable()),
	}
	if t := c.GetBegunAt(); t != nil {
		s := stamp(t.AsTime())
		a.StartedAt = &s
	}
	h.write(w, r, http.StatusOK, a)
}

// totalKeys is about how many keys there are to move, going by how many were in what is
// done; 0 for not known.
func totalKeys(c *pairdbv1.NodeChange) uint64 {
	if c.GetPercent() <= 0 {
		return 0
	}
	return max(c.GetKeysDone(), uint64(float64(c.GetKeysDone())*100/c.GetPercent()))
}

// migrationStatus is the earlier system's kind of word for how far a change is.
func migrationStatus(state string) string {
	switch state {
	case "waiting":
		return "pending"
	case "done":
		return "completed"
	case "aborted":
		return "cancelled"
	}
	return "in_progress"
}
