package rest

import (
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

type storageNode struct {
	NodeID       string `json:"node_id"`
	Name         string `json:"name"`
	Host         string `json:"host"`
	Port         int    `json:"port"`
	Status       string `json:"status"`
	VirtualNodes int    `json:"virtual_nodes"`
	// KeysCount and DiskUsagePercent are absent for a node that did not
	// answer: a zero would be a lie.
	KeysCount        *uint64  `json:"keys_count,omitempty"`
	DiskUsagePercent *float64 `json:"disk_usage_percent,omitempty"`
}

func (h *Handler) listStorageNodes(w http.ResponseWriter, r *http.Request) {
	snap := h.opts.Metadata.Snapshot()
	figures := h.opts.Figures(r.Context())
	owned := partitionCounts(snap)
	nodes := make([]storageNode, 0, len(snap.Members))
	for i := range snap.Members {
		m := &snap.Members[i]
		n := storageNode{
			NodeID: m.ID.String(), Name: m.Name,
			Status: m.Liveness.String(), VirtualNodes: owned[m.ID],
		}
		if host, port, err := net.SplitHostPort(m.Addresses.GRPC); err == nil {
			n.Host = host
			if p, err := strconv.ParseUint(port, 10, 16); err == nil {
				n.Port = int(p)
			}
		}
		if f, ok := figures[m.ID]; ok {
			n.KeysCount, n.DiskUsagePercent = &f.Keys, &f.DiskUsedPercent
		}
		nodes = append(nodes, n)
	}
	h.write(w, r, http.StatusOK, struct {
		Status string        `json:"status"`
		Nodes  []storageNode `json:"nodes"`
	}{"success", nodes})
}

// partitionCounts counts each node's virtual nodes: the partitions it may own
// for some tenant, at any replication factor.
func partitionCounts(snap *schema.Snapshot) map[ring.NodeID]int {
	counts := make(map[ring.NodeID]int)
	if snap.Layout == nil {
		return counts
	}
	var owners []ring.NodeID
	for p := range snap.Layout.Partitions() {
		owners = snap.Layout.Owners(owners[:0], ring.Partition(p), ring.MaxRF)
		for _, id := range owners {
			counts[id]++
		}
	}
	return counts
}

func (h *Handler) live(w http.ResponseWriter, r *http.Request) {
	h.write(w, r, http.StatusOK, map[string]string{"status": "healthy"})
}

func (h *Handler) ready(w http.ResponseWriter, r *http.Request) {
	checks := h.opts.Checks()
	status, word := http.StatusOK, "ready"
	for _, c := range checks {
		if !c.OK {
			status, word = http.StatusServiceUnavailable, "not ready"
		}
	}
	h.write(w, r, status, struct {
		Status string  `json:"status"`
		Checks []Check `json:"checks"`
	}{word, checks})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
