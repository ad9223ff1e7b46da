package rest

import (
	"net/http"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

type hintHolderAnswer struct {
	NodeID   string `json:"node_id"`
	Name     string `json:"name"`
	Count    uint64 `json:"count"`
	Bytes    uint64 `json:"bytes"`
	OldestAt string `json:"oldest_at"`
}

type hintTargetAnswer struct {
	hintHolderAnswer
	Holders []hintHolderAnswer `json:"holders"`
}

// hints lists the nodes that writes did not reach.
func (h *Handler) hints(w http.ResponseWriter, r *http.Request) {
	if _, err := queryOf(r.URL); err != nil {
		h.fail(w, r, err)
		return
	}
	resp, err := h.opts.Hints(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	targets := make([]hintTargetAnswer, 0, len(resp.GetTargets()))
	for _, t := range resp.GetTargets() {
		a := hintTargetAnswer{hintHolderAnswer{t.GetNodeId(), t.GetName(), t.GetCount(), t.GetBytes(), stamp(t.GetOldestAt().AsTime())}, []hintHolderAnswer{}}
		for _, o := range t.GetHolders() {
			a.Holders = append(a.Holders, hintHolderAnswer{o.GetNodeId(), o.GetName(), o.GetCount(), o.GetBytes(), stamp(o.GetOldestAt().AsTime())})
		}
		targets = append(targets, a)
	}
	h.write(w, r, http.StatusOK, struct {
		Status      string              `json:"status"`
		Targets     []hintTargetAnswer  `json:"targets"`
		Unreachable []unreachableAnswer `json:"unreachable"`
	}{"success", targets, unreachableOf(resp.GetUnreachable())})
}

type repairRunAnswer struct {
	ID           string  `json:"id"`
	NodeID       string  `json:"node_id"`
	Name         string  `json:"name"`
	TenantID     string  `json:"tenant_id,omitempty"`
	Partition    *uint32 `json:"partition,omitempty"`
	StartedAt    string  `json:"started_at"`
	EndedAt      string  `json:"ended_at,omitempty"`
	Spans        uint32  `json:"spans"`
	Done         uint32  `json:"done"`
	Confirmed    uint32  `json:"confirmed"`
	KeysDiffered uint64  `json:"keys_differed"`
	RowsSent     uint64  `json:"rows_sent"`
	Bytes        uint64  `json:"bytes"`
	Error        string  `json:"error,omitempty"`
}

// startRepair has all nodes begin rounds.
func (h *Handler) startRepair(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "repairs are") {
		return
	}
	var body struct {
		TenantID  string  `json:"tenant_id"`
		Partition *uint32 `json:"partition"`
	}
	if err := h.decode(w, r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	resp, err := h.opts.StartRepair(r.Context(), &pairdbv1.StartRepairRequest{TenantId: body.TenantID, Partition: body.Partition})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeRuns(w, r, http.StatusAccepted, resp.GetRuns(), resp.GetUnreachable())
}

// repairStatus shows how far repairs are.
func (h *Handler) repairStatus(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "repairs are") {
		return
	}
	q, err := queryOf(r.URL, "id")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	req := new(pairdbv1.RepairStatusRequest)
	if id := q.Get("id"); id != "" {
		req.Ids = []string{id}
	}
	resp, err := h.opts.RepairStatus(r.Context(), req)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeRuns(w, r, http.StatusOK, resp.GetRuns(), resp.GetUnreachable())
}

func (h *Handler) writeRuns(w http.ResponseWriter, r *http.Request, code int, runs []*pairdbv1.RepairRun, silent []*pairdbv1.UnreachableNode) {
	all := make([]repairRunAnswer, 0, len(runs))
	for _, u := range runs {
		a := repairRunAnswer{
			ID: u.GetId(), NodeID: u.GetNodeId(), Name: u.GetName(), TenantID: u.GetTenantId(), Partition: u.Partition,
			StartedAt: stamp(u.GetStartedAt().AsTime()), Spans: u.GetSpans(), Done: u.GetDone(), Confirmed: u.GetConfirmed(),
			KeysDiffered: u.GetKeysDiffered(), RowsSent: u.GetRowsSent(), Bytes: u.GetBytes(), Error: u.GetError(),
		}
		if t := u.GetEndedAt(); t != nil {
			a.EndedAt = stamp(t.AsTime())
		}
		all = append(all, a)
	}
	h.write(w, r, code, struct {
		Status      string              `json:"status"`
		Runs        []repairRunAnswer   `json:"runs"`
		Unreachable []unreachableAnswer `json:"unreachable"`
	}{"success", all, unreachableOf(silent)})
}
