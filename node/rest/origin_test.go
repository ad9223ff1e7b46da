package rest

import "testing"

// TestPagesOfOthersDoNotWrite: a browser sends a page's requests to a node on its
// own machine, a form's also without asking. Clients that are no browsers send
// neither header and pass, whatever their Content-Type.
func TestPagesOfOthersDoNotWrite(t *testing.T) {
	const put = `{"tenant_id":"t","key":"k","value":1}`
	form := []string{"Content-Type", "application/x-www-form-urlencoded"} // as curl -d
	for _, c := range []struct {
		name    string
		headers []string
		refused bool
	}{
		{"curl -d", nil, false},
		{"the node's own page", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://example.com"}, false},
		{"an old browser's own page", []string{"Origin", "http://example.com"}, false},
		{"another site", []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://pages.example"}, true},
		{"another port", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://example.com:1"}, true},
		{"another site, old browser", []string{"Origin", "http://pages.example"}, true},
		{"a sandboxed page", []string{"Origin", "null"}, true},
	} {
		f := newFixture(t)
		for _, req := range []struct {
			method, target, body string
			ok                   int
		}{
			{"POST", "/v1/key-value", put, 200},
			{"POST", "/v1/tenants", `{"tenant_id":"shop"}`, 201},
			{"DELETE", "/v1/key-value?tenant_id=t&key=other", "", 200},
		} {
			code, m := f.do(t, req.method, req.target, req.body, append(form, c.headers...)...)
			if !c.refused && code != req.ok {
				t.Errorf("%s: %s %s: %d %v", c.name, req.method, req.target, code, m)
			}
			if c.refused && (code != 403 || m["error_code"] != "FORBIDDEN" || m["outcome"] != "not_applied" || m["request_id"] == nil) {
				t.Errorf("%s: %s %s: %d %v, want FORBIDDEN", c.name, req.method, req.target, code, m)
			}
		}
		if written := len(f.kv.values) > 0; written == c.refused {
			t.Errorf("%s: written: %v", c.name, written)
		}
		if code, m := f.do(t, "GET", "/health", "", c.headers...); code != 200 {
			t.Errorf("%s reads: %d %v", c.name, code, m)
		}
	}
}
