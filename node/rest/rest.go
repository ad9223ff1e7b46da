// Package rest is the HTTP/JSON edge: it decodes a request, hands it to the
// coordinator and writes the answer or the error as JSON. It keeps the routes
// and field names of the earlier system, so that its users' scripts go on
// working, and decides nothing itself.
package rest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// KV runs client operations. *coord.Coordinator is one.
type KV interface {
	Put(ctx context.Context, req coord.PutRequest) (coord.WriteResponse, error)
	Get(ctx context.Context, req coord.GetRequest) (coord.GetResponse, error)
	Delete(ctx context.Context, req coord.DeleteRequest) (coord.WriteResponse, error)
	// Batch checks all items before it begins any, and has a result for each.
	Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error)
	Scan(ctx context.Context, req coord.ScanRequest) (coord.ScanResponse, error)
}

// Metadata is what the edge reads of the cluster and the one thing it changes.
type Metadata interface {
	// Snapshot returns the present immutable view, never nil.
	Snapshot() *schema.Snapshot
	// CreateTenant returns once the tenant exists exactly once.
	CreateTenant(ctx context.Context, name string, rf int, p schema.ConflictPolicy) (schema.Tenant, error)
	// RefreshTenant looks a tenant up that Snapshot may not know yet because
	// it was created through another node a moment ago. The error says whether there
	// is none, or too few other nodes could be asked.
	RefreshTenant(ctx context.Context, name string) (*schema.Tenant, error)
}

// NodeFigures is what one node says of its own data.
type NodeFigures struct {
	// Keys is the engine's estimate of live keys, all replicas counted.
	Keys uint64
	// DiskUsedPercent is the use of the file system that holds the data, 0..100.
	DiskUsedPercent float64
}

// Options configure a Handler. All fields but Outcome, Refuse, MaxValueBytes and
// CORSOrigins are required.
type Options struct {
	KV       KV
	Metadata Metadata
	// Figures asks every member for its own figures; a member that did not
	// answer is missing from the result.
	Figures func(ctx context.Context) map[ring.NodeID]NodeFigures
	// Events and Traffic ask every member what happened to it and what clients do.
	Events  func(context.Context, *pairdbv1.EventsRequest) (*pairdbv1.EventsResponse, error)
	Traffic func(context.Context, *pairdbv1.TrafficRequest) (*pairdbv1.TrafficResponse, error)
	// Hints, StartRepair and RepairStatus ask every member likewise.
	Hints        func(context.Context) (*pairdbv1.HintsResponse, error)
	StartRepair  func(context.Context, *pairdbv1.StartRepairRequest) (*pairdbv1.StartRepairResponse, error)
	RepairStatus func(context.Context, *pairdbv1.RepairStatusRequest) (*pairdbv1.RepairStatusResponse, error)
	// AcceptNode takes in a node that waits to join: its name, id or the beginning of
	// either. Decommission, RemoveNode and ChangeStatus are the calls of Cluster.
	AcceptNode   func(ctx context.Context, node string) (*pairdbv1.NodeChange, error)
	Decommission func(context.Context, *pairdbv1.DecommissionRequest) (*pairdbv1.NodeChange, error)
	RemoveNode   func(context.Context, *pairdbv1.RemoveRequest) (*pairdbv1.NodeChange, error)
	ChangeStatus func(context.Context, *pairdbv1.ChangeStatusRequest) (*pairdbv1.NodeChange, error)
	// UpdateTenant and DeleteTenant are the calls of Tenants.
	UpdateTenant func(context.Context, *pairdbv1.UpdateTenantRequest) (*pairdbv1.UpdateTenantResponse, error)
	DeleteTenant func(context.Context, *pairdbv1.DeleteTenantRequest) (*pairdbv1.DeleteTenantResponse, error)
	// SafeToStop says whether a node can be stopped.
	SafeToStop func(context.Context, *pairdbv1.SafeToStopRequest) (*pairdbv1.SafeToStopResponse, error)
	// Classify turns any error into the one typed form. It never returns nil.
	Classify func(error) *coord.Error
	// Outcome says what a failed write did when its error does not: what its
	// code tells, "" for nothing. Default: always indeterminate.
	Outcome func(errcode.Code) errcode.Outcome
	// Refuse says what a request that reads or writes keys would be refused with
	// now, before it is looked at. Default: nothing ever is.
	Refuse func(write bool) *coord.Error
	// Checks says what keeps the node from serving; empty means ready.
	Checks func() []Check
	// Metrics serves GET /metrics.
	Metrics http.Handler
	// Observe is called once per request with the route's pattern.
	Observe func(route string, status int, d time.Duration)
	Logger  *slog.Logger
	// MaxValueBytes bounds a value; the body limit follows it. Default 10 MiB.
	MaxValueBytes int
	// CORSOrigins are the origins whose pages may use the API from a browser, as
	// scheme://host[:port]. None: no page of another origin may.
	CORSOrigins []string
}

// Check is one condition of readiness.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Handler serves the HTTP API of one node. It is safe for concurrent use and
// owns nothing that must be closed.
type Handler struct {
	opts Options
	mux  *http.ServeMux
	// origins tells a page of another origin, which a browser lets write to
	// a node on its own machine, from the clients that are no browsers.
	origins http.CrossOriginProtection
}

// New returns a handler, or an error that names every missing option.
func New(opts Options) (*Handler, error) {
	var missing []string
	for name, absent := range map[string]bool{
		"KV": opts.KV == nil, "Metadata": opts.Metadata == nil, "Figures": opts.Figures == nil, "Events": opts.Events == nil, "Traffic": opts.Traffic == nil,
		"Hints": opts.Hints == nil, "StartRepair": opts.StartRepair == nil, "RepairStatus": opts.RepairStatus == nil,
		"AcceptNode": opts.AcceptNode == nil, "Decommission": opts.Decommission == nil, "RemoveNode": opts.RemoveNode == nil, "ChangeStatus": opts.ChangeStatus == nil,
		"SafeToStop": opts.SafeToStop == nil,
		"Classify":   opts.Classify == nil, "Checks": opts.Checks == nil, "Metrics": opts.Metrics == nil,
		"Observe": opts.Observe == nil, "Logger": opts.Logger == nil,
	} {
		if absent {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, errors.New("rest: missing options: " + strings.Join(missing, ", "))
	}
	if opts.Outcome == nil {
		opts.Outcome = func(errcode.Code) errcode.Outcome { return errcode.Indeterminate }
	}
	if opts.Refuse == nil {
		opts.Refuse = func(bool) *coord.Error { return nil }
	}
	if opts.MaxValueBytes == 0 {
		opts.MaxValueBytes = 10 << 20
	}
	h := &Handler{opts: opts, mux: http.NewServeMux()}
	if err := h.trustOrigins(opts.CORSOrigins); err != nil {
		return nil, err
	}
	for _, r := range h.routes() {
		h.mux.HandleFunc(r.pattern, r.serve)
	}
	return h, nil
}

type route struct {
	pattern string
	serve   http.HandlerFunc
}

// routes lists what the mux serves, in the order of the docs; beside it stand the
// rawRoutes.
func (h *Handler) routes() []route {
	return []route{
		{"POST /v1/key-value", h.putKeyValue},
		{"GET /v1/key-value", h.getKeyValue},
		{"DELETE /v1/key-value", h.deleteKeyValue},
		{"POST /v1/batch", h.batch},
		{"GET /v1/scan", h.scanKeys},
		{"POST /v1/tenants", h.createTenant},
		{"GET /v1/tenants/{id}", h.getTenant},
		{"DELETE /v1/tenants/{id}", h.deleteTenant},
		{"PUT /v1/tenants/{id}/replication-factor", h.replicateTenant},
		{"GET /v1/admin/storage-nodes", h.listStorageNodes},
		{"POST /v1/admin/storage-nodes", h.acceptStorageNode},
		{"DELETE /v1/admin/storage-nodes/{id}", h.deleteStorageNode},
		{"GET /v1/admin/migrations/{id}", h.migration},
		{"GET /v1/admin/safe-to-stop", h.safeToStop},
		{"GET /v1/admin/events", h.events},
		{"GET /v1/admin/traffic", h.traffic},
		{"GET /v1/admin/hints", h.hints},
		{"POST /v1/admin/repair", h.startRepair},
		{"GET /v1/admin/repair", h.repairStatus},
		{"GET /v1/openapi.json", h.openAPI},
		{"GET /health", h.live},
		{"GET /healthz", h.live},
		{"GET /ready", h.ready},
		{"GET /readyz", h.ready},
		{"GET /startupz", h.ready},
		{"GET /metrics", h.opts.Metrics.ServeHTTP},
		{"GET /debug/pprof/{name...}", h.profile},
	}
}

type requestIDKey struct{}

// maxRequestIDLen bounds the client's X-Request-ID, in bytes.
const maxRequestIDLen = 128

// ServeHTTP names the request, serves it, and answers a panic with a clean 500.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	id := r.Header.Get("X-Request-ID")
	if !printable(id) || id == "" || len(id) > maxRequestIDLen {
		id = newRequestID()
	}
	w.Header().Set("X-Request-ID", id)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	serve, pattern := h.find(r)
	defer func() {
		if p := recover(); p != nil {
			h.opts.Logger.Error("request handler panicked", "route", pattern, "request_id", id, "panic", p, "stack", string(debug.Stack()))
			if !rec.wrote {
				h.fail(rec, r, errors.New("internal error"))
			}
		}
		if pattern == "" {
			pattern = "none"
		}
		h.opts.Observe(pattern, rec.status, time.Since(start))
	}()
	if h.allowOrigin(rec, r) {
		return
	}
	if pattern == "" {
		h.noRoute(rec, r)
		return
	}
	if err := h.origins.Check(r); err != nil {
		h.fail(rec, r, forbidden("a page of another origin may not write here: "+err.Error()))
		return
	}
	if keyRoute(pattern) {
		if e := h.opts.Refuse(!safe(r.Method)); e != nil {
			h.fail(rec, r, e)
			return
		}
	}
	serve.ServeHTTP(rec, r)
}

// keyRoute says whether a route reads or writes keys, so that it may be refused
// when there is too much to do. Tenants, administration, health and metrics never
// are.
func keyRoute(pattern string) bool {
	_, path, _ := strings.Cut(pattern, " ")
	return path == "/v1/key-value" || path == "/v1/batch" || path == "/v1/scan" || path == rawPattern
}

// noRoute answers in the API's own error shape, and says which methods the
// path has when only the method is wrong.
func (h *Handler) noRoute(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := &http.Request{Method: m, URL: r.URL, Host: r.Host}
		if _, pattern := h.find(probe); pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		h.failStatus(w, r, http.StatusMethodNotAllowed,
			invalidf("%s is not served at %s; use %s", r.Method, r.URL.Path, strings.Join(allowed, " or ")))
		return
	}
	h.failStatus(w, r, http.StatusNotFound, invalidf("there is no route %s", r.URL.Path))
}

// recorder remembers the status for the observer.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (r *recorder) WriteHeader(status int) {
	if !r.wrote {
		r.status, r.wrote = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func requestID(r *http.Request) string {
	id, ok := r.Context().Value(requestIDKey{}).(string)
	if !ok {
		return ""
	}
	return id
}

func newRequestID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
