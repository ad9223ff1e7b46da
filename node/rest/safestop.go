package rest

import (
	"net/http"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

type stopReason struct {
	Kind  string   `json:"kind"`
	Text  string   `json:"text"`
	Next  string   `json:"next"`
	Nodes []string `json:"nodes"`
}

type safeAnswer struct {
	// Status is "safe" or "unsafe", for those that look at the body alone.
	Status  string       `json:"status"`
	Safe    bool         `json:"safe"`
	NodeID  string       `json:"node_id"`
	Name    string       `json:"name"`
	Reasons []stopReason `json:"reasons"`
}

// safeToStop says whether a node can be stopped, by the status alone, too.
func (h *Handler) safeToStop(w http.ResponseWriter, r *http.Request) {
	q, err := queryOf(r.URL, "node")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	resp, err := h.opts.SafeToStop(r.Context(), &pairdbv1.SafeToStopRequest{Node: q.Get("node")})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	a := safeAnswer{Status: "safe", Safe: resp.GetSafe(), NodeID: resp.GetNodeId(), Name: resp.GetName(), Reasons: []stopReason{}}
	for _, x := range resp.GetReasons() {
		a.Reasons = append(a.Reasons, stopReason{x.GetKind(), x.GetText(), x.GetNext(), append([]string{}, x.GetNodes()...)})
	}
	status := http.StatusOK
	if !a.Safe {
		a.Status, status = "unsafe", http.StatusServiceUnavailable
	}
	h.write(w, r, status, a)
}
