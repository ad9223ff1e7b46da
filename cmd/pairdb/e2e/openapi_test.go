package e2e

import (
	"strings"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/node/rest"
	"github.com/pairdb/pairdb/node/rest/contract"
)

// documented returns what checks answers against the OpenAPI document.
var documented = sync.OnceValue(func() *contract.Checker {
	doc, err := rest.OpenAPI()
	if err != nil {
		panic(err)
	}
	c, err := contract.New(doc)
	if err != nil {
		panic(err)
	}
	return c
})

// TestHTTPIsAsDocumented: what a real node answers, and refuses, is what its
// OpenAPI document says. agent.raw compares.
func TestHTTPIsAsDocumented(t *testing.T) {
	const origin = "http://localhost:3000"
	a := startCluster(t, 1, "--set", "http.cors_origins="+origin).agents[0]
	for _, x := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/tenants", `{"tenant_id":"shop","replication_factor":1}`, 201},
		{"POST", "/v1/tenants", `{"tenant_id":"shop"}`, 409},
		{"POST", "/v1/tenants", `{"tenant_id":"Shop"}`, 400},
		{"GET", "/v1/tenants/shop", "", 200},
		{"GET", "/v1/tenants/none", "", 404},
		{"PUT", "/v1/tenants/shop/replication-factor", `{"replication_factor":1}`, 200},
		{"PUT", "/v1/tenants/none/replication-factor", `{"replication_factor":2}`, 404},
		{"PUT", "/v1/tenants/shop/replication-factor", `{"replication_factor":8}`, 400},
		{"DELETE", "/v1/tenants/none", "", 404},
		{"DELETE", "/v1/tenants/default", "", 400},
		{"POST", "/v1/key-value", `{"tenant_id":"shop","key":"k","value":[1,null]}`, 200},
		{"POST", "/v1/key-value", `{"tenant_id":"none","key":"k","value":1}`, 404},
		{"POST", "/v1/key-value", `{"tenant_id":"shop","key":"","value":1}`, 400},
		{"GET", "/v1/key-value?tenant_id=shop&key=k", "", 200},
		{"GET", "/v1/key-value?tenant_id=shop&key=none", "", 404},
		{"POST", "/v1/key-value", `{"tenant_id":"shop","key":"late","value":1,"ttl_seconds":3600}`, 200},
		{"POST", "/v1/key-value", `{"tenant_id":"shop","key":"late","value":2,"if_absent":true}`, 412},
		{"GET", "/v1/key-value?tenant_id=shop&key=late", "", 200},
		{"PUT", "/v1/kv/shop/late?ttl=90m", "v", 204},
		{"GET", "/v1/kv/shop/late", "", 200},
		{"GET", "/v1/scan?tenant_id=shop", "", 200},
		{"POST", "/v1/batch?tenant_id=shop", "{\"op\":\"put\",\"key\":\"b\",\"value\":1}\n{\"op\":\"get\",\"key\":\"none\"}\n{\"op\":\"delete\",\"key\":\"c\"}\n", 200},
		{"POST", "/v1/batch?tenant_id=shop", "oops", 400},
		{"GET", "/v1/scan?tenant_id=shop&limit=0", "", 400},
		{"DELETE", "/v1/key-value?tenant_id=shop&key=k", "", 200},
		{"DELETE", "/v1/key-value?tenant_id=none&key=k", "", 404},
		{"PUT", "/v1/kv/shop/a%2f%2e%2e%00%ff", "\x00\xff", 204},
		{"GET", "/v1/kv/shop/a%2f%2e%2e%00%ff", "", 200},
		{"HEAD", "/v1/kv/shop/a%2f%2e%2e%00%ff", "", 200},
		{"GET", "/v1/kv/shop/none", "", 404},
		{"PUT", "/v1/kv/shop/" + strings.Repeat("k", 1025), "", 400},
		{"DELETE", "/v1/kv/shop/a%2f%2e%2e%00%ff", "", 204},
		{"GET", "/v1/admin/storage-nodes", "", 200},
		{"POST", "/v1/admin/storage-nodes", `{"node_id":"nobody"}`, 400},
		{"DELETE", "/v1/admin/storage-nodes/nobody", "", 400},
		{"GET", "/v1/admin/migrations/00000000000000000000000000000000", "", 404},
		{"GET", "/v1/admin/safe-to-stop", "", 503}, // a node alone
		{"GET", "/v1/admin/safe-to-stop?node=nobody", "", 400},
		{"GET", "/v1/admin/events?limit=10", "", 200},
		{"GET", "/v1/admin/traffic", "", 200},
		{"GET", "/v1/admin/hints", "", 200},
		{"POST", "/v1/admin/repair", `{"tenant_id":"none"}`, 404},
		{"POST", "/v1/admin/repair", `{}`, 202},
		{"GET", "/v1/admin/repair", "", 200},
		{"GET", "/v1/openapi.json", "", 200},
		{"GET", "/health", "", 200},
		{"GET", "/healthz", "", 200},
		{"GET", "/ready", "", 200},
		{"GET", "/readyz", "", 200},
		{"GET", "/startupz", "", 200},
		{"GET", "/metrics", "", 200},
		{"GET", "/debug/pprof/goroutine?debug=1", "", 200},
		{"GET", "/nowhere", "", 404},
	} {
		resp, body := a.raw(x.method, x.path, []byte(x.body), "X-Request-ID", "mine", "Origin", origin)
		if resp.StatusCode != x.status {
			t.Errorf("%s %s: %d, want %d: %.300s", x.method, x.path, resp.StatusCode, x.status, body)
		}
		if got := resp.Header.Get("X-Request-ID"); got != "mine" {
			t.Errorf("%s %s: X-Request-ID is %q", x.method, x.path, got)
		}
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != origin {
			t.Errorf("%s %s: Access-Control-Allow-Origin is %q", x.method, x.path, got)
		}
		unsafe := x.status == 503 && strings.HasSuffix(x.path, "/safe-to-stop")                          // it is an answer
		failed := x.status >= 400 && x.method != "HEAD" && !unsafe || strings.Contains(x.body, `"none"`) // of a batch, one item
		if named := strings.Contains(string(body), `"request_id":"mine"`); named != failed {
			t.Errorf("%s %s: the body names the request: %t: %.300s", x.method, x.path, named, body)
		}
	}
	for _, op := range documented().Operations() {
		if len(documented().Seen(op)) == 0 {
			t.Errorf("%s was not asked for; add it here", op)
		}
	}
}
