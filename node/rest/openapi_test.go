//go:build !race

package rest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/node/rest/contract"
)

var newContract = sync.OnceValues(func() (*contract.Checker, error) {
	doc, err := OpenAPI()
	if err != nil {
		return nil, err
	}
	return contract.New(doc)
})

// contract returns what checks the answers of all tests of this package.
func (f *fixture) contract() *contract.Checker {
	f.t.Helper()
	c, err := newContract()
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// documented holds an answer against the document.
func (f *fixture) documented(r *http.Request, body string, answer *http.Response) error {
	f.t.Helper()
	return f.contract().Check(r.Method, r.URL, r.Header, []byte(body), answer)
}

// TestDocumentMatchesRoutes: what is served is in openapi.yaml, and nothing else
// is. Who adds a route adds it there, and a row to the requests of
// TestAnswersAreAsDocumented.
func TestDocumentMatchesRoutes(t *testing.T) {
	f := newFixture(t)
	var served []string
	for _, r := range f.handler.routes() {
		served = append(served, strings.ReplaceAll(r.pattern, "...}", "}"))
	}
	for _, r := range f.handler.rawRoutes() {
		served = append(served, r.pattern+" "+strings.ReplaceAll(rawPattern, "...}", "}"))
	}
	documented := f.contract().Operations()
	for _, op := range served {
		if !slices.Contains(documented, op) {
			t.Errorf("%s is served and not in node/rest/openapi.yaml: add it there", op)
		}
	}
	for _, op := range documented {
		if !slices.Contains(served, op) {
			t.Errorf("%s is in node/rest/openapi.yaml and not served: remove it there, or add the route", op)
		}
	}
}

// TestDocumentHasAllCodes: the error codes of the document are those of the table.
func TestDocumentHasAllCodes(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas struct {
				ErrorCode struct{ Enum []errcode.Code } `yaml:"ErrorCode"`
			}
		}
	}
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	var want []errcode.Code
	for _, info := range errcode.All() {
		if info.Code != errcode.OK {
			want = append(want, info.Code)
		}
	}
	if got := doc.Components.Schemas.ErrorCode.Enum; !slices.Equal(got, want) {
		t.Errorf("the enum of ErrorCode in node/rest/openapi.yaml is\n%v, want\n%v", got, want)
	}
}

// exchange is a request to a running server, and the status of its answer.
type exchange struct {
	method, target, body string
	headers              []string
	status               int
}

// TestAnswersAreAsDocumented asks a server over real connections for a success
// and a failure of every operation, and holds both against the document.
func TestAnswersAreAsDocumented(t *testing.T) {
	f := newFixture(t)
	f.changes = map[string]*pairdbv1.NodeChange{strings.Repeat("0a", 16): {Id: strings.Repeat("0a", 16), Verb: "join", NodeId: "04", State: "moving", WaitsFor: "n4", Percent: 1.5}}
	checker, err := contract.New(must(OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f.handler)
	defer srv.Close()
	ask := func(list ...exchange) {
		t.Helper()
		for _, x := range list {
			resp := send(t, srv, checker, x)
			if resp.StatusCode != x.status {
				t.Errorf("%s %s: status %d, want %d", x.method, x.target, resp.StatusCode, x.status)
			}
		}
	}
	lines := []string{"Content-Type", "application/x-ndjson"}
	ask(
		exchange{"POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":{"a":null},"consistency":"all"}`, []string{"Idempotency-Key", "x"}, 200},
		exchange{"GET", "/v1/key-value?tenant_id=t&key=k&consistency=one", "", nil, 200},
		exchange{"GET", "/v1/scan?tenant_id=t&limit=5&keys_only=false", "", nil, 200},
		exchange{"POST", "/v1/batch?tenant_id=t&consistency=all", "{\"op\":\"put\",\"key\":\"b\",\"value\":1,\"ttl_seconds\":9}\n{\"op\":\"get\",\"key\":\"b\"}\n{\"op\":\"get\",\"key\":\"none\"}\n{\"op\":\"delete\",\"key\":\"c\",\"idempotency_key\":\"z\"}\n", lines, 200},
		exchange{"DELETE", "/v1/key-value?tenant_id=t&key=k", "", []string{"X-Vector-Clock", `{"0000000000000abc":7}`}, 200},
		exchange{"DELETE", "/v1/key-value", `{"tenant_id":"t","key":"k"}`, []string{"Idempotency-Key", "y"}, 200},
		exchange{"PUT", "/v1/kv/t/a/%2e%2e/k?consistency=one", "\x00\xff", nil, 204},
		exchange{"GET", "/v1/kv/t/a/%2e%2e/k", "", nil, 200},
		exchange{"HEAD", "/v1/kv/t/a/%2e%2e/k", "", nil, 200},
		exchange{"GET", "/v1/kv/t/a/%2e%2e/k", "", []string{"If-None-Match", "*"}, 304},
		exchange{"DELETE", "/v1/kv/t/a/%2e%2e/k", "", []string{"X-PairDB-Context", "c2Vlbg=="}, 204},
		exchange{"POST", "/v1/tenants", `{"tenant_id":"shop","replication_factor":2,"conflict_policy":"siblings"}`, nil, 201},
		exchange{"GET", "/v1/tenants/shop", "", nil, 200},
		exchange{"PUT", "/v1/tenants/shop/replication-factor", `{"replication_factor":5}`, nil, 200},
		exchange{"DELETE", "/v1/tenants/shop", "", nil, 200},
		exchange{"GET", "/v1/admin/storage-nodes", "", nil, 200},
		exchange{"POST", "/v1/admin/storage-nodes", `{"node_id":"04"}`, nil, 202},
		exchange{"DELETE", "/v1/admin/storage-nodes/n1", "", nil, 202},
		exchange{"DELETE", "/v1/admin/storage-nodes/n1?force=true", "", nil, 202},
		exchange{"GET", "/v1/admin/migrations/" + strings.Repeat("0a", 16), "", nil, 200},
		exchange{"GET", "/v1/admin/events?limit=5&since=2026-11-26T20:00:00Z", "", nil, 200},
		exchange{"GET", "/v1/admin/traffic?hot_keys=2", "", nil, 200},
		exchange{"GET", "/v1/admin/hints", "", nil, 200},
		exchange{"GET", "/v1/admin/safe-to-stop", "", nil, 200},
		exchange{"POST", "/v1/admin/repair", `{"tenant_id":"t","partition":3}`, nil, 202},
		exchange{"GET", "/v1/admin/repair?id=r1", "", nil, 200},
		exchange{"GET", "/v1/openapi.json", "", nil, 200},
		exchange{"GET", "/health", "", nil, 200},
		exchange{"GET", "/healthz", "", nil, 200},
		exchange{"GET", "/ready", "", nil, 200},
		exchange{"GET", "/readyz", "", nil, 200},
		exchange{"GET", "/startupz", "", nil, 200},
		exchange{"GET", "/metrics", "", nil, 200},
		exchange{"GET", "/debug/pprof/heap", "", nil, 200},
	)
	f.kv.several = []causal.Sibling{{Dot: testDot, Value: []byte{0xff}}, {Dot: causal.Dot{Actor: 1, Counter: 1}}}
	ask(exchange{"GET", "/v1/kv/t/k", "", nil, 300}, exchange{"GET", "/v1/key-value?tenant_id=t&key=k", "", nil, 200})

	f.notReady = true
	f.kv.err = &coord.Error{
		Code: errcode.QuorumNotReached, Outcome: errcode.Indeterminate, Acks: 1, Need: 2, Token: []byte("seen"),
		Causes: []coord.Cause{{Name: "n2", Reason: "down"}},
	}
	ask(
		exchange{"POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1}`, nil, 503},
		exchange{"GET", "/v1/key-value?tenant_id=t&key=k", "", nil, 503},
		exchange{"GET", "/v1/scan?tenant_id=t", "", nil, 503},
		exchange{"POST", "/v1/batch", "{\"op\":\"put\",\"key\":\"b\",\"value\":1}\n", lines, 200},
		exchange{"POST", "/v1/batch", "{\"op\":\"copy\",\"key\":\"b\"}\n", lines, 400},
		exchange{"DELETE", "/v1/key-value?tenant_id=t&key=k", "", nil, 503},
		exchange{"PUT", "/v1/kv/t/k", "", nil, 503},
		exchange{"GET", "/v1/kv/t/k", "", nil, 503},
		exchange{"HEAD", "/v1/kv/t/k", "", nil, 503},
		exchange{"DELETE", "/v1/kv/t/k", "", nil, 503},
		exchange{"POST", "/v1/tenants", `{"tenant_id":"shop"}`, nil, 409},
		exchange{"GET", "/v1/tenants/none", "", nil, 404},
		exchange{"PUT", "/v1/tenants/shop/replication-factor", `{"replication_factor":"many"}`, nil, 400},
		exchange{"DELETE", "/v1/tenants/none", "", nil, 404},
		exchange{"POST", "/v1/admin/storage-nodes", `{}`, nil, 400},
		exchange{"DELETE", "/v1/admin/storage-nodes/last", "", nil, 409},
		exchange{"DELETE", "/v1/admin/storage-nodes/n1?force=maybe", "", nil, 400},
		exchange{"GET", "/v1/admin/migrations/" + strings.Repeat("0b", 16), "", nil, 404},
		exchange{"GET", "/v1/admin/events?limit=0", "", nil, 400},
		exchange{"GET", "/v1/admin/traffic?hot_keys=all", "", nil, 400},
		exchange{"GET", "/v1/admin/hints?of=n1", "", nil, 400},
		exchange{"GET", "/v1/admin/safe-to-stop?node=n2", "", nil, 503},
		exchange{"GET", "/v1/admin/safe-to-stop?nodes=n2", "", nil, 400},
		exchange{"POST", "/v1/admin/repair", `{"partition":-1}`, nil, 400},
		exchange{"GET", "/v1/admin/repair?ids=r1", "", nil, 400},
		exchange{"GET", "/ready", "", nil, 503},
		exchange{"GET", "/readyz", "", nil, 503},
		exchange{"GET", "/startupz", "", nil, 503},
		exchange{"GET", "/debug/pprof/heap?seconds=9999", "", nil, 400},
		exchange{"GET", "/debug/pprof/nonsense", "", nil, 404},
	)
	neverFail := []string{"GET /v1/admin/storage-nodes", "GET /v1/openapi.json", "GET /health", "GET /healthz", "GET /metrics"}
	for _, op := range checker.Operations() {
		seen := checker.Seen(op)
		if !slices.ContainsFunc(seen, func(s int) bool { return s < 400 }) {
			t.Errorf("%s: no success was asked for; add one to this test", op)
		}
		if failed := slices.ContainsFunc(seen, func(s int) bool { return s >= 400 }); !failed && !slices.Contains(neverFail, op) {
			t.Errorf("%s: no failure was asked for; add one to this test", op)
		}
	}
}

// send asks the server, checks the answer against the document, and returns it
// with its body read.
func send(t *testing.T, srv *httptest.Server, checker *contract.Checker, x exchange) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), x.method, srv.URL+x.target, strings.NewReader(x.body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(x.headers); i += 2 {
		req.Header.Set(x.headers[i], x.headers[i+1])
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // the answer was read
	if err := checker.Check(x.method, req.URL, req.Header, []byte(x.body), resp); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	return resp
}

// TestContractSees: the checker finds what is not as documented.
func TestContractSees(t *testing.T) {
	checker, err := contract.New(must(OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	named := func(more ...string) http.Header {
		h := http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"x"}}
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	for _, c := range []struct {
		name, method, target string
		status               int
		header               http.Header
		body, want           string
	}{
		{"sound", "GET", "/health", 200, named(), `{"status":"healthy"}`, ""},
		{"another word", "GET", "/health", 200, named(), `{"status":"fine"}`, "healthy"},
		{"a field more", "GET", "/health", 200, named(), `{"status":"healthy","x":1}`, "additional"},
		{"a field less", "GET", "/v1/key-value?tenant_id=t&key=k", 200, named(), `{"status":"success","key":"k","value":1}`, "vector_clock"},
		{"an unknown code", "GET", "/v1/kv/t/a/b", 404, named(), `{"status":"error","error_code":"X","message":"m","request_id":"r"}`, "error_code"},
		{"lines", "GET", "/v1/scan?tenant_id=t", 200, named("Content-Type", "application/x-ndjson"), "{\"key\":\"k\",\"value\":1,\"vector_clock\":{}}\n{\"status\":\"success\",\"next_page_token\":\"\",\"count\":1,\"scanned\":1}\n", ""},
		{"a line", "GET", "/v1/scan?tenant_id=t", 200, named("Content-Type", "application/x-ndjson"), "{\"key\":\"k\",\"value\":1}\n{\"status\":\"success\",\"next_page_token\":\"\",\"count\":1,\"scanned\":1}\n", "missing property 'vector_clock'"},
		{"a status", "GET", "/health", 202, named(), `{"status":"healthy"}`, "status is not in the document"},
		{"a header", "GET", "/health", 200, named("X-New", "1"), `{"status":"healthy"}`, "X-New"},
		{"a parameter", "GET", "/health?deep=1", 200, named(), `{"status":"healthy"}`, "deep"},
		{"a route", "GET", "/v1/new", 200, named(), `{}`, "no operation"},
		{"no name", "GET", "/health", 200, http.Header{"Content-Type": {"application/json"}}, `{"status":"healthy"}`, "X-Request-ID"},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		resp := &http.Response{StatusCode: c.status, Header: c.header, Body: io.NopCloser(strings.NewReader(c.body))}
		err := checker.Check(c.method, r.URL, r.Header, nil, resp)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want something of %q", c.name, err, c.want)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
