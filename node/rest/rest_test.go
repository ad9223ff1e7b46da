package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/rpc"
)

// fakeKV is a one-copy store that remembers the level it was asked for.
type fakeKV struct {
	values map[string]causal.Sibling
	level  quorum.Level
	err    error
	expect causal.Context
	// token is what the last write carried, and several what every read returns
	// if there is any.
	token   []byte
	several []causal.Sibling
	// absent and dot are the conditions of the last write.
	absent bool
	dot    causal.Dot
	// keyed are the idempotency keys that were seen, id the last of them.
	keyed map[string]bool
	id    string
	// items are those of the last batch.
	items    []coord.Item
	batchErr error
	// pageSize is how many keys a page of a scan has, the one that makes
	// pagesLeft 1 fails, and scan is what was asked for last.
	pageSize, pagesLeft int
	scan                coord.ScanRequest
}

// duplicate notes an idempotency key and says whether it was there.
func (f *fakeKV) duplicate(id []byte) bool {
	f.id = string(id)
	was := f.keyed[f.id]
	f.keyed[f.id] = f.id != ""
	return was
}

var testDot = causal.Dot{Actor: 0xabc, Counter: 7}

func (f *fakeKV) Put(_ context.Context, r coord.PutRequest) (coord.WriteResponse, error) {
	if f.err != nil {
		return coord.WriteResponse{}, f.err
	}
	s := causal.Sibling{Dot: testDot, Value: r.Value}
	if r.JSON {
		s.Flags = causal.FlagJSON
	}
	if at, ok := r.Expiry.Instant(time.UnixMilli(0)); ok {
		s.Flags, s.ExpiresAt = s.Flags|causal.FlagExpiry, at
	}
	f.values[r.Tenant+"/"+string(r.Key)], f.level, f.token = s, r.Level, r.Token
	f.absent, f.dot = r.IfAbsent, r.IfDot
	return coord.WriteResponse{
		Token: []byte("wrote"), Dot: testDot, Context: causal.NewContext(testDot), Acks: 2, Replicas: 3, Level: r.Level, Duplicate: f.duplicate(r.IdempotencyKey),
	}, nil
}

func (f *fakeKV) Get(_ context.Context, r coord.GetRequest) (coord.GetResponse, error) {
	if f.err != nil {
		return coord.GetResponse{}, f.err
	}
	f.level = r.Level
	if f.several != nil {
		return coord.GetResponse{Token: []byte("read"), Siblings: f.several}, nil
	}
	s, ok := f.values[r.Tenant+"/"+string(r.Key)]
	if !ok {
		return coord.GetResponse{}, &coord.Error{Code: errcode.KeyNotFound, Message: "no such key"}
	}
	return coord.GetResponse{Token: []byte("read"), Siblings: []causal.Sibling{s}, Context: causal.NewContext(s.Dot)}, nil
}

func (f *fakeKV) Delete(_ context.Context, r coord.DeleteRequest) (coord.WriteResponse, error) {
	if f.err != nil {
		return coord.WriteResponse{}, f.err
	}
	f.expect, f.level, f.token, f.dot = r.ExpectClock, r.Level, r.Token, r.IfDot
	delete(f.values, r.Tenant+"/"+string(r.Key))
	return coord.WriteResponse{
		Token: []byte("deleted"), Dot: testDot, Context: causal.NewContext(testDot), Acks: 2, Replicas: 3, Duplicate: f.duplicate(r.IdempotencyKey),
	}, nil
}

// Batch does the items one after the other, and fails with batchErr instead.
func (f *fakeKV) Batch(ctx context.Context, items []coord.Item) ([]coord.ItemResult, error) {
	f.items = items
	if f.batchErr != nil {
		return nil, f.batchErr
	}
	results := make([]coord.ItemResult, len(items))
	for i, it := range items {
		r := &results[i]
		switch {
		case it.Put != nil:
			r.Write, r.Err = f.Put(ctx, *it.Put)
		case it.Delete != nil:
			r.Write, r.Err = f.Delete(ctx, *it.Delete)
		default:
			r.Get, r.Err = f.Get(ctx, *it.Get)
		}
	}
	return results, nil
}

type fakeMetadata struct {
	snap    *schema.Snapshot
	tenants map[string]*schema.Tenant
}

var errTenantExists = errors.New("exists")

func (f *fakeMetadata) Snapshot() *schema.Snapshot { return f.snap }

func (f *fakeMetadata) CreateTenant(_ context.Context, name string, rf int, p schema.ConflictPolicy) (schema.Tenant, error) {
	if err := errors.Join(schema.ValidateTenantID(name), schema.ValidateRF(rf)); err != nil {
		return schema.Tenant{}, err
	}
	if f.tenants[name] != nil {
		return schema.Tenant{}, errTenantExists
	}
	t := &schema.Tenant{Number: 2, Name: name, RF: rf, Policy: p, CreatedAt: time.UnixMilli(1000), UpdatedAt: time.UnixMilli(1000)}
	f.tenants[name] = t
	return *t, nil
}

func (f *fakeMetadata) RefreshTenant(_ context.Context, name string) (*schema.Tenant, error) {
	if t, ok := f.tenants[name]; ok {
		return t, nil
	}
	return nil, coord.UnknownTenant(name, true, errcode.NotApplied)
}

func classify(err error) *coord.Error {
	var e *coord.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errTenantExists):
		return &coord.Error{Code: errcode.TenantExists}
	case errors.Is(err, schema.ErrTenantID):
		return &coord.Error{Code: errcode.InvalidTenantID, Message: err.Error()}
	case errors.Is(err, schema.ErrRF):
		return &coord.Error{Code: errcode.InvalidReplicationFactor, Message: err.Error()}
	default:
		return &coord.Error{Code: errcode.Internal, Message: err.Error()}
	}
}

type fixture struct {
	asked    string // of events or traffic, the last time
	t        *testing.T
	kv       *fakeKV
	handler  *Handler
	notReady bool
	observed []string
	near     bool                            // requests come from this machine
	changes  map[string]*pairdbv1.NodeChange // that there are, by id
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	id := ring.NodeID{1}
	layout, err := ring.NewLayout(1024, []ring.LayoutNode{{ID: id, Name: "n1", Capacity: 100}})
	if err != nil {
		t.Fatal(err)
	}
	snap := schema.Build(schema.Snapshot{Self: id, Layout: layout, Ready: true, Members: []schema.Member{
		{ID: id, Name: "n1", Liveness: schema.Alive, Addresses: schema.Addresses{GRPC: "127.0.0.1:50051"}},
		{ID: ring.NodeID{2}, Name: "n2", Liveness: schema.Dead},
	}}, nil)
	f := &fixture{t: t, kv: &fakeKV{values: map[string]causal.Sibling{}, keyed: map[string]bool{}}}
	f.handler, err = New(Options{
		KV:       f.kv,
		Metadata: &fakeMetadata{snap: snap, tenants: map[string]*schema.Tenant{}},
		Figures: func(context.Context) map[ring.NodeID]NodeFigures {
			return map[ring.NodeID]NodeFigures{id: {Keys: 12, DiskUsedPercent: 5.5}}
		},
		Events: func(_ context.Context, req *pairdbv1.EventsRequest) (*pairdbv1.EventsResponse, error) {
			if req.GetCursor() == "bad" {
				return nil, &coord.Error{Code: errcode.InvalidArgument, Message: "cursor: it is not one that an answer had"}
			}
			at := timestamppb.New(time.Unix(1_700_000_000, 0))
			f.asked = fmt.Sprint(req)
			return &pairdbv1.EventsResponse{
				NextCursor: "c", Unreachable: []*pairdbv1.UnreachableNode{{NodeId: "02", Name: "n2", Reason: "dead"}},
				Events: []*pairdbv1.Event{{
					Node: &pairdbv1.NodeName{NodeId: "01", Name: "n1"}, Number: 1, Time: at, Last: at, Kind: "disk", Severity: "error", Text: "the disk is full", Count: 2,
					Details: []*pairdbv1.EventDetail{{Key: "state", Value: "full"}},
				}},
			}, nil
		},
		Hints: func(context.Context) (*pairdbv1.HintsResponse, error) {
			h := &pairdbv1.HintHolder{NodeId: "02", Name: "n2", Count: 3, Bytes: 100, OldestAt: timestamppb.New(time.Unix(1_700_000_000, 0))}
			return &pairdbv1.HintsResponse{
				Targets:     []*pairdbv1.HintTarget{{NodeId: "01", Name: "n1", Count: h.Count, Bytes: h.Bytes, OldestAt: h.OldestAt, Holders: []*pairdbv1.HintHolder{h}}},
				Unreachable: []*pairdbv1.UnreachableNode{{NodeId: "03", Name: "n3", Reason: "silent"}},
			}, nil
		},
		StartRepair: func(_ context.Context, req *pairdbv1.StartRepairRequest) (*pairdbv1.StartRepairResponse, error) {
			f.asked = fmt.Sprint(req)
			return &pairdbv1.StartRepairResponse{Runs: []*pairdbv1.RepairRun{{
				Id: "r1", NodeId: "01", Name: "n1", TenantId: req.GetTenantId(), Partition: req.Partition, StartedAt: timestamppb.New(time.Unix(1_700_000_000, 0)), Spans: 4,
			}}}, nil
		},
		RepairStatus: func(_ context.Context, req *pairdbv1.RepairStatusRequest) (*pairdbv1.RepairStatusResponse, error) {
			f.asked = fmt.Sprint(req)
			at := timestamppb.New(time.Unix(1_700_000_000, 0))
			return &pairdbv1.RepairStatusResponse{Runs: []*pairdbv1.RepairRun{{
				Id: "r1", NodeId: "01", Name: "n1", StartedAt: at, EndedAt: at, Spans: 4, Done: 4, Confirmed: 3, KeysDiffered: 7, RowsSent: 8, Bytes: 9, Error: "n3 is down",
			}}}, nil
		},
		AcceptNode: func(_ context.Context, node string) (*pairdbv1.NodeChange, error) {
			f.asked = "accept " + node
			if node == "" {
				return nil, &coord.Error{Code: errcode.InvalidArgument, Message: "node_id is missing"}
			}
			return &pairdbv1.NodeChange{Id: node, Verb: "join", NodeId: node, Name: "n4"}, nil
		},
		Decommission: func(_ context.Context, req *pairdbv1.DecommissionRequest) (*pairdbv1.NodeChange, error) {
			f.asked = "decommission " + req.GetNode()
			if req.GetNode() == "last" {
				return nil, &coord.Error{Code: errcode.NodeInUse, Message: "too few nodes would remain"}
			}
			return &pairdbv1.NodeChange{Id: "c1", Verb: "leave", NodeId: "01", Name: req.GetNode(), EstimatedEnd: timestamppb.New(time.Unix(1_700_000_000, 0))}, nil
		},
		UpdateTenant: func(_ context.Context, req *pairdbv1.UpdateTenantRequest) (*pairdbv1.UpdateTenantResponse, error) {
			f.asked = fmt.Sprint("replicate ", req.GetTenantId(), " ", req.GetReplicationFactor())
			return &pairdbv1.UpdateTenantResponse{
				Tenant:               &pairdbv1.Tenant{TenantId: req.GetTenantId(), UpdatedAt: timestamppb.New(time.Unix(1_700_000_000, 0))},
				OldReplicationFactor: 3, ChangeId: "7e",
			}, nil
		},
		DeleteTenant: func(_ context.Context, req *pairdbv1.DeleteTenantRequest) (*pairdbv1.DeleteTenantResponse, error) {
			f.asked = "delete " + req.GetTenantId()
			if req.GetTenantId() == "none" {
				return nil, &coord.Error{Code: errcode.TenantNotFound, Message: "there is no such tenant"}
			}
			return &pairdbv1.DeleteTenantResponse{Tenant: &pairdbv1.Tenant{TenantId: req.GetTenantId()}}, nil
		},
		RemoveNode: func(_ context.Context, req *pairdbv1.RemoveRequest) (*pairdbv1.NodeChange, error) {
			f.asked = fmt.Sprint("remove ", req.GetNode(), req.GetAcceptLoss())
			return &pairdbv1.NodeChange{Id: "c2", Verb: "remove", NodeId: "01", Name: req.GetNode()}, nil
		},
		ChangeStatus: func(_ context.Context, req *pairdbv1.ChangeStatusRequest) (*pairdbv1.NodeChange, error) {
			f.asked = "status " + req.GetId()
			c, ok := f.changes[req.GetId()]
			if !ok {
				return nil, &coord.Error{Code: errcode.MigrationNotFound, Message: "nobody knows it"}
			}
			return c, nil
		},
		SafeToStop: func(_ context.Context, req *pairdbv1.SafeToStopRequest) (*pairdbv1.SafeToStopResponse, error) {
			f.asked = "safe " + req.GetNode()
			switch req.GetNode() {
			case "":
				return &pairdbv1.SafeToStopResponse{Safe: true, NodeId: "01", Name: "n1"}, nil
			case "n2":
				return &pairdbv1.SafeToStopResponse{NodeId: "02", Name: "n2", Reasons: []*pairdbv1.StopReason{
					{Kind: "down", Text: "nodes do not serve: n1", Next: "start them", Nodes: []string{"n1"}}, {Kind: "change", Text: "owners change", Next: "wait"},
				}}, nil
			}
			return nil, &coord.Error{Code: errcode.InvalidArgument, Message: "node: there is no such node"}
		},
		Traffic: func(_ context.Context, req *pairdbv1.TrafficRequest) (*pairdbv1.TrafficResponse, error) {
			f.asked = fmt.Sprint(req)
			return &pairdbv1.TrafficResponse{
				Nodes: []*pairdbv1.NodeTraffic{{
					Node: &pairdbv1.NodeName{NodeId: "01", Name: "n1"}, UnderWay: 2, ReadsPerSecond: 4,
					Operations: []*pairdbv1.OperationTraffic{{Operation: "get", PerSecond: 4, P50: durationpb.New(time.Millisecond)}},
				}},
				HotKeys: []*pairdbv1.HotKey{{TenantId: "t", Key: []byte("k"), Kind: "read", PerSecond: 3, Share: 0.75}, {TenantId: "t", Key: []byte{0xff}, Kind: "write", PerSecond: 1}},
			}, nil
		},
		Classify: classify,
		Checks: func() []Check {
			return []Check{{Name: "layout", OK: !f.notReady, Detail: "waiting"}}
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, err := io.WriteString(w, "series 1\n"); err != nil {
				t.Error(err)
			}
		}),
		Observe: func(route string, status int, _ time.Duration) {
			f.observed = append(f.observed, fmt.Sprint(route, " ", status))
		},
		Logger:        slog.New(slog.DiscardHandler),
		MaxValueBytes: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) do(t *testing.T, method, target, body string, headers ...string) (int, map[string]any) {
	t.Helper()
	w := f.raw(method, target, body, headers...)
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("%s %s: body %q: %v", method, target, w.Body, err)
	}
	if id := w.Header().Get("X-Request-ID"); id == "" {
		t.Errorf("%s %s: no X-Request-ID", method, target)
	}
	return w.Code, m
}

func TestPutGetDelete(t *testing.T) {
	f := newFixture(t)
	code, m := f.do(t, "POST", "/v1/key-value", `{"tenant_id":"shop","key":"k//..","value":{"b":[1,2.50,"é"]},"consistency":"all"}`)
	want := map[string]any{
		"status": "success", "key": "k//..", "idempotency_key": "0000000000000abc-7",
		"vector_clock": map[string]any{"0000000000000abc": 7.0}, "replica_count": 3.0, "consistency": "all", "is_duplicate": false,
	}
	if code != 200 || !reflect.DeepEqual(m, want) {
		t.Fatalf("put: %d %v, want %v", code, m, want)
	}
	if f.kv.level != quorum.All {
		t.Errorf("level %v reached the coordinator, want all", f.kv.level)
	}
	code, m = f.do(t, "GET", "/v1/key-value?tenant_id=shop&key=k%2F%2F..", "")
	if got := fmt.Sprint(m["value"]); code != 200 || got != "map[b:[1 2.5 é]]" {
		t.Fatalf("get: %d %v", code, m)
	}
	code, m = f.do(t, "DELETE", "/v1/key-value?tenant_id=shop&key=k%2F%2F..", "", "X-Vector-Clock", `{"0000000000000abc":7}`)
	if code != 200 || m["replica_count"] != 3.0 {
		t.Fatalf("delete: %d %v", code, m)
	}
	if !f.kv.expect.Equal(causal.NewContext(testDot)) {
		t.Errorf("expected clock %v reached the coordinator", f.kv.expect)
	}
	code, m = f.do(t, "DELETE", "/v1/key-value", `{"tenant_id":"shop","key":"k"}`)
	if code != 200 || m["status"] != "success" {
		t.Fatalf("delete by body: %d %v", code, m)
	}
	code, m = f.do(t, "GET", "/v1/key-value?tenant_id=shop&key=k%2F%2F..", "", "X-Request-ID", "abc-1")
	if code != 404 || m["error_code"] != "KEY_NOT_FOUND" || m["request_id"] != "abc-1" || m["status"] != "error" {
		t.Fatalf("get after delete: %d %v", code, m)
	}
}

// What is sent again with the same Idempotency-Key is answered as a duplicate.
func TestIdempotencyKey(t *testing.T) {
	f := newFixture(t)
	id := strings.Repeat("x", 256)
	for _, c := range []struct{ method, target, body string }{
		{"POST", "/v1/key-value", `{"tenant_id":"shop","key":"k","value":1}`},
		{"DELETE", "/v1/key-value?tenant_id=shop&key=k", ""},
		{"DELETE", "/v1/key-value", `{"tenant_id":"shop","key":"k"}`},
	} {
		clear(f.kv.keyed)
		for _, again := range []bool{false, true} {
			code, m := f.do(t, c.method, c.target, c.body, "Idempotency-Key", id)
			duplicate, _ := m["is_duplicate"].(bool) // left out of a delete that is none
			if code != 200 || m["idempotency_key"] != id || duplicate != again || f.kv.id != id {
				t.Errorf("%s %s, again %v: %d %v", c.method, c.target, again, code, m)
			}
		}
	}
	f.kv.err = &coord.Error{Code: errcode.IdempotencyKeyConflict, Outcome: errcode.NotApplied, Message: "another write"}
	if code, m := f.do(t, "POST", "/v1/key-value", `{"tenant_id":"shop","key":"k","value":2}`, "Idempotency-Key", id); code != 409 || m["error_code"] != string(errcode.IdempotencyKeyConflict) {
		t.Errorf("another value: %d %v", code, m)
	}
}

func TestValueForms(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		name     string
		s        causal.Sibling
		value    any
		encoding any
	}{
		{"json null", causal.Sibling{Value: []byte("null"), Flags: causal.FlagJSON}, nil, nil},
		{"json string", causal.Sibling{Value: []byte(`"x"`), Flags: causal.FlagJSON}, "x", nil},
		{"utf-8 bytes", causal.Sibling{Value: []byte(`{"a":1}`)}, `{"a":1}`, nil},
		{"empty bytes", causal.Sibling{}, "", nil},
		{"binary", causal.Sibling{Value: []byte{0xff, 0}}, "/wA=", "base64"},
	} {
		f.kv.values["t/k"] = c.s
		code, m := f.do(t, "GET", "/v1/key-value?tenant_id=t&key=k", "")
		if code != 200 || m["value"] != c.value || m["encoding"] != c.encoding {
			t.Errorf("%s: %d %v", c.name, code, m)
		}
	}
}

func TestBadInput(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", 70<<10)
	for _, c := range []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		code                       errcode.Code
	}{
		{"empty body", "POST", "/v1/key-value", "", nil, 400, errcode.InvalidArgument},
		{"not JSON", "POST", "/v1/key-value", "{", nil, 400, errcode.InvalidArgument},
		{"two objects", "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1}{}`, nil, 400, errcode.InvalidArgument},
		{"unknown field", "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1,"consistancy":"all"}`, nil, 400, errcode.InvalidArgument},
		{"no value", "POST", "/v1/key-value", `{"tenant_id":"t","key":"k"}`, nil, 400, errcode.InvalidArgument},
		{"bad level", "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1,"consistency":"two"}`, nil, 400, errcode.InvalidArgument},
		{"control character", "POST", "/v1/key-value", `{"tenant_id":"t","key":"a\u0000b","value":1}`, nil, 400, errcode.InvalidKey},
		{"oversized", "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":"` + long + `"}`, nil, 413, errcode.ValueTooLarge},
		{"empty idempotency key", "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1}`, []string{"Idempotency-Key", ""}, 400, errcode.InvalidArgument},
		{"long idempotency key", "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1}`, []string{"Idempotency-Key", strings.Repeat("x", 257)}, 400, errcode.InvalidArgument},
		{"idempotency key of bytes", "DELETE", "/v1/key-value?tenant_id=t&key=k", "", []string{"Idempotency-Key", "\xff"}, 400, errcode.InvalidArgument},
		{"unknown parameter", "GET", "/v1/key-value?tenant_id=t&key=k&x=1", "", nil, 400, errcode.InvalidArgument},
		{"doubled parameter", "GET", "/v1/key-value?tenant_id=t&key=k&key=l", "", nil, 400, errcode.InvalidArgument},
		{"malformed query", "GET", "/v1/key-value?key=%zz", "", nil, 400, errcode.InvalidArgument},
		{"not UTF-8", "GET", "/v1/key-value?tenant_id=t&key=%ff", "", nil, 400, errcode.InvalidKey},
		{"clock of no actor", "DELETE", "/v1/key-value?tenant_id=t&key=k", "", []string{"X-Vector-Clock", `{"n1":1}`}, 400, errcode.InvalidArgument},
		{"clock not JSON", "DELETE", "/v1/key-value?tenant_id=t&key=k", "", []string{"X-Vector-Clock", `7`}, 400, errcode.InvalidArgument},
		{"tenant id", "POST", "/v1/tenants", `{"tenant_id":"Shop"}`, nil, 400, errcode.InvalidTenantID},
		{"rf 0", "POST", "/v1/tenants", `{"tenant_id":"shop","replication_factor":0}`, nil, 400, errcode.InvalidReplicationFactor},
		{"rf 8", "POST", "/v1/tenants", `{"tenant_id":"shop","replication_factor":8}`, nil, 400, errcode.InvalidReplicationFactor},
		{"unknown tenant", "GET", "/v1/tenants/none", "", nil, 404, errcode.TenantNotFound},
		{"no route", "GET", "/v2/x", "", nil, 404, errcode.InvalidArgument},
		{"wrong method", "PUT", "/v1/key-value", "", nil, 405, errcode.InvalidArgument},
	} {
		status, m := f.do(t, c.method, c.target, c.body, c.headers...)
		if status != c.status || m["error_code"] != string(c.code) || m["message"] == "" {
			t.Errorf("%s: %d %v, want %d %s", c.name, status, m, c.status, c.code)
		}
	}
	if len(f.kv.values) != 0 {
		t.Errorf("bad input wrote %v", f.kv.values)
	}
}

func TestErrorCarriesOutcome(t *testing.T) {
	f := newFixture(t)
	f.kv.err = &coord.Error{
		Code: errcode.QuorumNotReached, Outcome: errcode.Indeterminate, Acks: 1, Need: 2, Message: "too few",
		Causes: []coord.Cause{{Node: ring.NodeID{2}, Name: "n2", Reason: "down"}},
	}
	code, m := f.do(t, "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1}`)
	if code != 503 || m["outcome"] != "indeterminate" || m["acks"] != 1.0 || m["need"] != 2.0 || len(m["causes"].([]any)) != 1 {
		t.Fatalf("%d %v", code, m)
	}
}

// TestOutcomeIsNeverOpen: a write whose error has no outcome gets one, also
// after a panic; a read has none.
func TestOutcomeIsNeverOpen(t *testing.T) {
	const put, target = `{"tenant_id":"t","key":"k","value":1}`, "/v1/key-value?tenant_id=t&key=k"
	f := newFixture(t)
	for _, c := range []struct {
		err   error
		write any
	}{
		{errors.New("anything"), "indeterminate"},
		{&coord.Error{Code: errcode.Unavailable}, "indeterminate"},
		{&coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied}, "not_applied"},
	} {
		f.kv.err = c.err
		if _, m := f.do(t, "POST", "/v1/key-value", put); m["outcome"] != c.write {
			t.Errorf("put, %v: %v", c.err, m)
		}
		if _, m := f.do(t, "DELETE", target, ""); m["outcome"] != c.write {
			t.Errorf("delete, %v: %v", c.err, m)
		}
	}
	f.kv.err = errors.New("anything")
	if _, m := f.do(t, "GET", target, ""); m["outcome"] != nil {
		t.Errorf("get: %v", m)
	}
	f.handler.opts.Outcome = rpc.WriteOutcome
	f.kv.err = &coord.Error{Code: errcode.TenantNotFound}
	if _, m := f.do(t, "POST", "/v1/key-value", put); m["outcome"] != nil {
		t.Errorf("a refusal: %v", m)
	}
	f.handler.opts.KV = nil
	if _, m := f.do(t, "POST", "/v1/key-value", put); m["outcome"] != "indeterminate" {
		t.Errorf("panic: %v", m)
	}
}

func TestTenants(t *testing.T) {
	f := newFixture(t)
	code, m := f.do(t, "POST", "/v1/tenants", `{"tenant_id":"shop"}`)
	if code != 201 || m["replication_factor"] != 3.0 || m["conflict_policy"] != "lww" || m["created_at"] != "1970-01-01T00:00:01Z" {
		t.Fatalf("create: %d %v", code, m)
	}
	if code, m = f.do(t, "POST", "/v1/tenants", `{"tenant_id":"shop"}`); code != 409 || m["error_code"] != "TENANT_EXISTS" {
		t.Fatalf("create again: %d %v", code, m)
	}
	if code, m = f.do(t, "GET", "/v1/tenants/shop", ""); code != 200 || m["updated_at"] == nil {
		t.Fatalf("get: %d %v", code, m)
	}
	if code, m = f.do(t, "POST", "/v1/tenants", `{"tenant_id":"carts","conflict_policy":"siblings"}`); code != 201 || m["conflict_policy"] != "siblings" {
		t.Fatalf("create with siblings: %d %v", code, m)
	}
	if code, m = f.do(t, "POST", "/v1/tenants", `{"tenant_id":"c","conflict_policy":"all"}`); code != 400 || m["error_code"] != "INVALID_ARGUMENT" {
		t.Fatalf("create with an unknown policy: %d %v", code, m)
	}
}

func TestStorageNodesAndHealth(t *testing.T) {
	f := newFixture(t)
	code, m := f.do(t, "GET", "/v1/admin/storage-nodes", "")
	nodes := m["nodes"].([]any)
	first, second := nodes[0].(map[string]any), nodes[1].(map[string]any)
	if code != 200 || first["host"] != "127.0.0.1" || first["port"] != 50051.0 || first["status"] != "alive" ||
		first["virtual_nodes"] != 1024.0 || first["keys_count"] != 12.0 || first["disk_usage_percent"] != 5.5 {
		t.Fatalf("%d %v", code, first)
	}
	if _, has := second["keys_count"]; has || second["status"] != "dead" {
		t.Fatalf("unreachable node: %v", second)
	}
	for _, path := range []string{"/health", "/healthz", "/ready", "/readyz", "/startupz"} {
		if code, m := f.do(t, "GET", path, ""); code != 200 {
			t.Errorf("%s: %d %v", path, code, m)
		}
	}
	f.notReady = true
	if code, _ := f.do(t, "GET", "/ready", ""); code != 503 {
		t.Errorf("/ready while not ready: %d", code)
	}
	if code, _ := f.do(t, "GET", "/health", ""); code != 200 {
		t.Errorf("/health while not ready: %d", code)
	}
	if last := f.observed[len(f.observed)-2]; last != "GET /ready 503" {
		t.Errorf("observed %q", last)
	}
}

func TestPanicIsCleanError(t *testing.T) {
	f := newFixture(t)
	f.handler.opts.KV = nil
	code, m := f.do(t, "GET", "/v1/key-value?tenant_id=t&key=k", "")
	if code != 500 || m["error_code"] != "INTERNAL" || m["message"] != "internal error" {
		t.Fatalf("%d %v", code, m)
	}
}
