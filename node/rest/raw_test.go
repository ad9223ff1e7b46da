package rest

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// raw sends a request whose answer is no JSON, and holds the answer against the
// OpenAPI document.
func (f *fixture) raw(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	f.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if f.near {
		r.RemoteAddr, r.Host = "127.0.0.1:4711", "127.0.0.1:8080"
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	if err := f.documented(r, body, w.Result()); err != nil {
		f.t.Error(err)
	}
	return w
}

func TestRawRoundTrip(t *testing.T) {
	f := newFixture(t)
	// The path is the key, unescaped once and never cleaned.
	for path, key := range map[string]string{
		"k": "k", "a/b": "a/b", "a//b/../c": "a//b/../c", "..": "..", "%2e%2e/%2F": "../\x2f", "a%00%ff": "a\x00\xff", "a+b%2Bc": "a+b+c",
		"a%253F": "a%3F", "/": "/", "a/": "a/", ".": ".",
	} {
		w := f.raw("PUT", "/v1/kv/shop/"+path+"?consistency=all", "v\x00\xff", "X-PairDB-Context", base64.StdEncoding.EncodeToString([]byte("seen")))
		if w.Code != 204 || w.Body.Len() != 0 || w.Header().Get("X-PairDB-Context") != base64.StdEncoding.EncodeToString([]byte("wrote")) {
			t.Errorf("put %q: %d %q %v", path, w.Code, w.Body, w.Header())
		}
		s, ok := f.kv.values["shop/"+key]
		if !ok || string(s.Value) != "v\x00\xff" || s.Flags != 0 || f.kv.level != quorum.All || string(f.kv.token) != "seen" {
			t.Errorf("put %q: %v, level %v, token %q", path, f.kv.values, f.kv.level, f.kv.token)
		}
		w = f.raw("GET", "/v1/kv/shop/"+path+"?consistency=one", "")
		if w.Code != 200 || w.Body.String() != "v\x00\xff" || w.Header().Get("Content-Type") != "application/octet-stream" ||
			w.Header().Get("ETag") != `"0000000000000abc-7"` || w.Header().Get("X-PairDB-Context") != "cmVhZA==" || f.kv.level != quorum.One {
			t.Errorf("get %q: %d %q %v", path, w.Code, w.Body, w.Header())
		}
		w = f.raw("DELETE", "/v1/kv/shop/"+path, "", "X-PairDB-Context", "c2Vlbg==")
		if w.Code != 204 || len(f.kv.values) != 0 || string(f.kv.token) != "seen" || w.Header().Get("X-PairDB-Context") == "" || f.kv.expect != nil {
			t.Errorf("delete %q: %d %v %v", path, w.Code, f.kv.values, w.Header())
		}
	}
	if code, m := f.do(t, "GET", "/v1/kv/shop/k", ""); code != 404 || m["error_code"] != "KEY_NOT_FOUND" {
		t.Errorf("get of nothing: %d %v", code, m)
	}
	if last := f.observed[len(f.observed)-1]; last != "GET /v1/kv/{tenant}/{key...} 404" {
		t.Errorf("observed %q", last)
	}
	f.kv.values["shop/j"] = causal.Sibling{Value: []byte(`{"a":1}`), Flags: causal.FlagJSON}
	if w := f.raw("GET", "/v1/kv/shop/j", ""); w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("a JSON value: %v", w.Header())
	}
	f.kv.values["shop/empty"] = causal.Sibling{}
	if w := f.raw("GET", "/v1/kv/shop/empty", ""); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("an empty value: %d %q", w.Code, w.Body)
	}
}

func TestRawNotModified(t *testing.T) {
	f := newFixture(t)
	f.kv.values["t/k"] = causal.Sibling{Dot: testDot, Value: []byte("v")}
	for tag, want := range map[string]int{
		`"0000000000000abc-7"`: 304, `W/"0000000000000abc-7"`: 304, `"other", "0000000000000abc-7"`: 304, `*`: 304,
		`"other"`: 200, `0000000000000abc-7`: 200, ``: 200,
	} {
		w := f.raw("GET", "/v1/kv/t/k", "", "If-None-Match", tag)
		if w.Code != want || (w.Body.Len() == 0) != (want == 304) || w.Header().Get("ETag") == "" || w.Header().Get("X-PairDB-Context") == "" {
			t.Errorf("If-None-Match %s: %d %q %v", tag, w.Code, w.Body, w.Header())
		}
	}
}

func TestRawSiblings(t *testing.T) {
	f := newFixture(t)
	f.kv.several = []causal.Sibling{
		{Dot: causal.Dot{Actor: 2, Counter: 9}, HLC: 1000 << 16, Value: []byte{0xff}},
		{Dot: causal.Dot{Actor: 1, Counter: 3}, HLC: 0},
	}
	code, m := f.do(t, "GET", "/v1/kv/t/k", "")
	want := map[string]any{"status": "siblings", "siblings": []any{
		map[string]any{"value": "/w==", "encoding": "base64", "dot": "0000000000000002-9", "written_at": "1970-01-01T00:00:01Z"},
		map[string]any{"value": "", "encoding": "base64", "dot": "0000000000000001-3", "written_at": "1970-01-01T00:00:00Z"},
	}}
	if code != http.StatusMultipleChoices || !reflect.DeepEqual(m, want) {
		t.Fatalf("%d %v, want %v", code, m, want)
	}
	w := f.raw("GET", "/v1/kv/t/k", "")
	tag := w.Header().Get("ETag")
	if w.Header().Get("X-PairDB-Context") != "cmVhZA==" || len(tag) != 34 {
		t.Errorf("%v", w.Header())
	}
	if w := f.raw("GET", "/v1/kv/t/k", "", "If-None-Match", tag); w.Code != 304 {
		t.Errorf("the same siblings again: %d", w.Code)
	}
	f.kv.several[1].Dot.Counter = 4
	if w := f.raw("GET", "/v1/kv/t/k", "", "If-None-Match", tag); w.Code != 300 {
		t.Errorf("other siblings: %d", w.Code)
	}
	code, m = f.do(t, "GET", "/v1/key-value?tenant_id=t&key=k", "")
	if code != 200 || m["value"] != "/w==" || m["encoding"] != "base64" || !reflect.DeepEqual(m["siblings"], []any{map[string]any{"value": ""}}) {
		t.Errorf("the JSON route: %d %v", code, m)
	}
}

func TestRawBadInput(t *testing.T) {
	f := newFixture(t)
	long := base64.StdEncoding.EncodeToString(make([]byte, coord.MaxTokenSize+3))
	for _, c := range []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		code                       errcode.Code
	}{
		{"ttl of a delete", "DELETE", "/v1/kv/t/k?ttl=10s", "", nil, 400, errcode.InvalidArgument},
		{"ttl twice", "PUT", "/v1/kv/t/k?ttl=10s&ttl=10s", "v", nil, 400, errcode.InvalidArgument},
		{"empty ttl", "PUT", "/v1/kv/t/k?ttl=", "v", nil, 400, errcode.InvalidArgument},
		{"no ttl", "PUT", "/v1/kv/t/k?ttl=0", "v", nil, 400, errcode.InvalidArgument},
		{"backwards", "PUT", "/v1/kv/t/k?ttl=-1s", "v", nil, 400, errcode.InvalidArgument},
		{"short ttl", "PUT", "/v1/kv/t/k?ttl=0.0009", "v", nil, 400, errcode.InvalidArgument},
		{"long ttl", "PUT", "/v1/kv/t/k?ttl=876001h", "v", nil, 400, errcode.InvalidArgument},
		{"longer ttl", "PUT", "/v1/kv/t/k?ttl=1e300", "v", nil, 400, errcode.InvalidArgument},
		{"ttl of no number", "PUT", "/v1/kv/t/k?ttl=NaN", "v", nil, 400, errcode.InvalidArgument},
		{"unknown parameter", "PUT", "/v1/kv/t/k?x=1", "v", nil, 400, errcode.InvalidArgument},
		{"doubled parameter", "PUT", "/v1/kv/t/k?consistency=one&consistency=all", "v", nil, 400, errcode.InvalidArgument},
		{"bad level", "DELETE", "/v1/kv/t/k?consistency=two", "", nil, 400, errcode.InvalidArgument},
		{"malformed query", "DELETE", "/v1/kv/t/k?consistency=%zz", "", nil, 400, errcode.InvalidArgument},
		{"oversized", "PUT", "/v1/kv/t/k", strings.Repeat("v", 1001), nil, 413, errcode.ValueTooLarge},
		{"if-none-match, a tag", "PUT", "/v1/kv/t/k", "v", []string{"If-None-Match", `"0000000000000abc-7"`}, 400, errcode.InvalidArgument},
		{"if-none-match, delete", "DELETE", "/v1/kv/t/k", "v", []string{"If-None-Match", "*"}, 400, errcode.InvalidArgument},
		{"if-match, no tag", "DELETE", "/v1/kv/t/k", "", []string{"If-Match", `"x"`}, 400, errcode.InvalidArgument},
		{"if-match, any", "PUT", "/v1/kv/t/k", "v", []string{"If-Match", "*"}, 400, errcode.InvalidArgument},
		{"if-match, weak", "PUT", "/v1/kv/t/k", "v", []string{"If-Match", `W/"0000000000000abc-7"`}, 400, errcode.InvalidArgument},
		{"if-match, two", "PUT", "/v1/kv/t/k", "v", []string{"If-Match", `"0000000000000abc-7", "0000000000000abc-8"`}, 400, errcode.InvalidArgument},
		{"if-match, another spelling", "PUT", "/v1/kv/t/k", "v", []string{"If-Match", `"0000000000000ABC-07"`}, 400, errcode.InvalidArgument},
		{"if-match, no counter", "PUT", "/v1/kv/t/k", "v", []string{"If-Match", `"0000000000000abc-0"`}, 400, errcode.InvalidArgument},
		{"both conditions", "PUT", "/v1/kv/t/k", "v", []string{"If-Match", `"0000000000000abc-7"`, "If-None-Match", "*"}, 400, errcode.InvalidArgument},
		{"by date", "PUT", "/v1/kv/t/k", "v", []string{"If-Unmodified-Since", "Tue, 15 Nov 1994 12:45:26 GMT"}, 400, errcode.InvalidArgument},
		{"idempotency key", "PUT", "/v1/kv/t/k", "v", []string{"Idempotency-Key", "x"}, 400, errcode.InvalidArgument},
		{"context not base64", "PUT", "/v1/kv/t/k", "v", []string{"X-PairDB-Context", "%%"}, 400, errcode.InvalidArgument},
		{"context too long", "DELETE", "/v1/kv/t/k", "", []string{"X-PairDB-Context", long}, 400, errcode.InvalidArgument},
		{"wrong method", "POST", "/v1/kv/t/k", "v", nil, 405, errcode.InvalidArgument},
	} {
		f.kv.values["t/k"] = causal.Sibling{Dot: testDot}
		status, m := f.do(t, c.method, c.target, c.body, c.headers...)
		if status != c.status || m["error_code"] != string(c.code) || m["message"] == "" || m["outcome"] == "indeterminate" {
			t.Errorf("%s: %d %v, want %d %s", c.name, status, m, c.status, c.code)
		}
		if len(f.kv.values) != 1 || f.kv.values["t/k"].Value != nil {
			t.Errorf("%s: the store has %v", c.name, f.kv.values)
		}
	}
	w := f.raw("POST", "/v1/kv/t/k", "v")
	if w.Header().Get("Allow") != "GET, PUT, DELETE" {
		t.Errorf("allowed: %q", w.Header().Get("Allow"))
	}
	// A body of unknown length is cut off at the limit.
	r := httptest.NewRequest("PUT", "/v1/kv/t/k", strings.NewReader(strings.Repeat("v", 1001)))
	r.ContentLength = -1
	w = httptest.NewRecorder()
	if f.handler.ServeHTTP(w, r); w.Code != 413 {
		t.Errorf("a chunked body over the limit: %d", w.Code)
	}
	if w := f.raw("PUT", "/v1/kv/t/k", strings.Repeat("v", 1000)); w.Code != 204 {
		t.Errorf("a body of the limit: %d", w.Code)
	}
}

// TestRefusalCarriesContext: a write that would have needed a context is told
// the present one.
func TestRefusalCarriesContext(t *testing.T) {
	f := newFixture(t)
	f.kv.err = &coord.Error{Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied, Message: "64 siblings", Token: []byte("seen")}
	code, m := f.do(t, "PUT", "/v1/kv/t/k", "v")
	if code != 412 || m["context"] != "c2Vlbg==" || m["outcome"] != "not_applied" {
		t.Errorf("%d %v", code, m)
	}
}
