package rest

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

type eventAnswer struct {
	NodeID   string            `json:"node_id"`
	Node     string            `json:"node"`
	Number   uint64            `json:"number"`
	Time     string            `json:"time"`
	LastTime string            `json:"last_time"`
	Kind     string            `json:"kind"`
	Severity string            `json:"severity"`
	Text     string            `json:"text"`
	Details  map[string]string `json:"details,omitempty"`
	Count    uint64            `json:"count"`
	LeftOut  uint64            `json:"left_out,omitempty"`
}

type unreachableAnswer struct {
	NodeID string `json:"node_id"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// events lists what happened to the nodes. Who follows them asks again with the
// cursor of the answer before.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "events are") {
		return
	}
	q, err := queryOf(r.URL, "cursor", "since", "limit", "node")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	req := &pairdbv1.EventsRequest{Cursor: q.Get("cursor"), Node: q.Get("node")}
	if v := q.Get("limit"); v != "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n < 1 {
			h.fail(w, r, invalidf("limit=%q is no number of events, at least 1", v))
			return
		}
		req.Limit = uint32(n)
	}
	if v := q.Get("since"); v != "" {
		at, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			h.fail(w, r, invalidf("since=%q is no time such as 2026-11-26T20:00:00Z", v))
			return
		}
		req.Since = timestamppb.New(at)
	}
	resp, err := h.opts.Events(r.Context(), req)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	events := make([]eventAnswer, 0, len(resp.GetEvents()))
	for _, e := range resp.GetEvents() {
		a := eventAnswer{
			NodeID: e.GetNode().GetNodeId(), Node: e.GetNode().GetName(), Number: e.GetNumber(), Time: stamp(e.GetTime().AsTime()), LastTime: stamp(e.GetLast().AsTime()),
			Kind: e.GetKind(), Severity: e.GetSeverity(), Text: e.GetText(), Count: e.GetCount(), LeftOut: e.GetLeftOut(),
		}
		for _, d := range e.GetDetails() {
			if a.Details == nil {
				a.Details = make(map[string]string)
			}
			a.Details[d.GetKey()] = d.GetValue()
		}
		events = append(events, a)
	}
	h.write(w, r, http.StatusOK, struct {
		Status      string              `json:"status"`
		Events      []eventAnswer       `json:"events"`
		NextCursor  string              `json:"next_cursor"`
		Unreachable []unreachableAnswer `json:"unreachable"`
	}{"success", events, resp.GetNextCursor(), unreachableOf(resp.GetUnreachable())})
}

type operationAnswer struct {
	Operation       string  `json:"operation"`
	PerSecond       float64 `json:"per_second"`
	FailedPerSecond float64 `json:"failed_per_second"`
	P50             float64 `json:"p50_seconds"`
	P95             float64 `json:"p95_seconds"`
	P99             float64 `json:"p99_seconds"`
}

type nodeTrafficAnswer struct {
	NodeID          string            `json:"node_id"`
	Node            string            `json:"node"`
	WindowSeconds   float64           `json:"window_seconds"`
	UnderWay        uint64            `json:"under_way"`
	ReadsPerSecond  float64           `json:"reads_per_second"`
	WritesPerSecond float64           `json:"writes_per_second"`
	Operations      []operationAnswer `json:"operations"`
}

type hotKeyAnswer struct {
	TenantID       string  `json:"tenant_id"`
	Key            string  `json:"key"`
	KeyEncoding    string  `json:"key_encoding,omitempty"`
	Kind           string  `json:"kind"`
	PerSecond      float64 `json:"per_second"`
	PerSecondError float64 `json:"per_second_error"`
	Share          float64 `json:"share"`
}

// traffic shows what clients do, and the keys used most if hot_keys asks for them.
func (h *Handler) traffic(w http.ResponseWriter, r *http.Request) {
	if !h.ownMachine(w, r, "traffic is") {
		return
	}
	q, err := queryOf(r.URL, "node", "hot_keys")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	req := &pairdbv1.TrafficRequest{Node: q.Get("node")}
	if v := q.Get("hot_keys"); v != "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			h.fail(w, r, invalidf("hot_keys=%q is no number of keys", v))
			return
		}
		req.HotKeys = uint32(n)
	}
	resp, err := h.opts.Traffic(r.Context(), req)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	nodes := make([]nodeTrafficAnswer, 0, len(resp.GetNodes()))
	for _, n := range resp.GetNodes() {
		a := nodeTrafficAnswer{
			NodeID: n.GetNode().GetNodeId(), Node: n.GetNode().GetName(), WindowSeconds: n.GetWindow().AsDuration().Seconds(), UnderWay: n.GetUnderWay(),
			ReadsPerSecond: n.GetReadsPerSecond(), WritesPerSecond: n.GetWritesPerSecond(), Operations: []operationAnswer{},
		}
		for _, o := range n.GetOperations() {
			a.Operations = append(a.Operations, operationAnswer{
				o.GetOperation(), o.GetPerSecond(), o.GetFailedPerSecond(),
				o.GetP50().AsDuration().Seconds(), o.GetP95().AsDuration().Seconds(), o.GetP99().AsDuration().Seconds(),
			})
		}
		nodes = append(nodes, a)
	}
	keys := make([]hotKeyAnswer, 0, len(resp.GetHotKeys()))
	for _, k := range resp.GetHotKeys() {
		a := hotKeyAnswer{k.GetTenantId(), string(k.GetKey()), "", k.GetKind(), k.GetPerSecond(), k.GetPerSecondError(), k.GetShare()}
		if checkJSONKey(a.Key) != nil {
			a.Key, a.KeyEncoding = base64.StdEncoding.EncodeToString(k.GetKey()), "base64"
		}
		keys = append(keys, a)
	}
	h.write(w, r, http.StatusOK, struct {
		Status      string              `json:"status"`
		Nodes       []nodeTrafficAnswer `json:"nodes"`
		HotKeys     []hotKeyAnswer      `json:"hot_keys"`
		Unreachable []unreachableAnswer `json:"unreachable"`
	}{"success", nodes, keys, unreachableOf(resp.GetUnreachable())})
}

func unreachableOf(nodes []*pairdbv1.UnreachableNode) []unreachableAnswer {
	out := make([]unreachableAnswer, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, unreachableAnswer{n.GetNodeId(), n.GetName(), n.GetReason()})
	}
	return out
}

// queryOf reads a query that may have each of the names once and no other.
func queryOf(u *url.URL, names ...string) (url.Values, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, invalidf("the query string is malformed: %v", err)
	}
	for name, values := range q {
		if !slices.Contains(names, name) {
			return nil, invalidf("unknown query parameter %q; use %s", name, strings.Join(names, ", "))
		}
		if len(values) > 1 {
			return nil, invalidf("query parameter %q is given %d times", name, len(values))
		}
	}
	return q, nil
}
