package rest

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

const trusted = "https://app.example"

// corsHeaders lists what an answer says of other origins.
func corsHeaders(h http.Header) (found []string) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			found = append(found, name)
		}
	}
	return found
}

// TestNoOriginIsTrustedByItself: without configuration a browser is told nothing.
func TestNoOriginIsTrustedByItself(t *testing.T) {
	f := newFixture(t)
	for _, method := range []string{"GET", "OPTIONS"} {
		w := f.raw(method, "/health", "", "Origin", trusted, "Access-Control-Request-Method", "PUT")
		if found := corsHeaders(w.Header()); found != nil || w.Header().Get("Vary") != "" {
			t.Errorf("%s: %v", method, w.Header())
		}
		if want := map[string]int{"GET": 200, "OPTIONS": 405}[method]; w.Code != want {
			t.Errorf("%s: %d, want %d", method, w.Code, want)
		}
	}
}

func TestConfiguredOrigins(t *testing.T) {
	f := newFixture(t)
	opts := f.handler.opts
	opts.CORSOrigins = []string{trusted, "http://localhost:3000"}
	var err error
	if f.handler, err = New(opts); err != nil {
		t.Fatal(err)
	}
	// The question of the page, and what it then does.
	w := f.raw("OPTIONS", "/v1/kv/t/k", "", "Origin", trusted, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-pairdb-context")
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != trusted || !strings.Contains(w.Header().Get("Access-Control-Allow-Methods"), "PUT") ||
		!strings.Contains(w.Header().Get("Access-Control-Allow-Headers"), "X-PairDB-Context") || w.Header().Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: %d %v", w.Code, w.Header())
	}
	w = f.raw("PUT", "/v1/kv/t/k", "v", "Origin", trusted, "Sec-Fetch-Site", "cross-site")
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != trusted || !strings.Contains(w.Header().Get("Access-Control-Expose-Headers"), "X-PairDB-Context") {
		t.Errorf("put: %d %v", w.Code, w.Header())
	}
	// A failure can be read too.
	if w = f.raw("GET", "/v1/kv/t/none", "", "Origin", trusted); w.Code != 404 || w.Header().Get("Access-Control-Allow-Origin") != trusted {
		t.Errorf("get of nothing: %d %v", w.Code, w.Header())
	}
	// Others, and origins that only look alike, are told nothing and write nothing.
	for _, origin := range []string{"https://app.example.evil", "http://app.example", "https://app.example:444", "https://APP.example", "null", "*"} {
		w := f.raw("OPTIONS", "/v1/kv/t/k", "", "Origin", origin, "Access-Control-Request-Method", "PUT")
		if w.Code != 405 || corsHeaders(w.Header()) != nil || w.Header().Get("Vary") != "Origin" {
			t.Errorf("preflight of %s: %d %v", origin, w.Code, w.Header())
		}
		w = f.raw("PUT", "/v1/kv/t/other", "v", "Origin", origin, "Sec-Fetch-Site", "cross-site")
		if _, stored := f.kv.values["t/other"]; w.Code != 403 || stored || corsHeaders(w.Header()) != nil {
			t.Errorf("put of %s: %d %v", origin, w.Code, w.Header())
		}
	}
	opts.CORSOrigins = []string{"app.example"}
	if _, err := New(opts); err == nil {
		t.Error("app.example was taken for an origin")
	}
}

// TestRequestIDs: a sound one is kept, any other is replaced by a new one, and
// the answer has the same in header and body.
func TestRequestIDs(t *testing.T) {
	f := newFixture(t)
	for id, kept := range map[string]bool{
		"a": true, strings.Repeat("x", 128): true, "7f3-~!": true,
		"": false, strings.Repeat("x", 129): false, "a b": false, "a\tb": false, "é": false, "a\x7f": false,
	} {
		w := f.raw("GET", "/v1/kv/t/none", "", "X-Request-ID", id)
		got := w.Header().Get("X-Request-ID")
		if (got == id) != kept || got == "" || len(got) > 128 || !strings.Contains(w.Body.String(), `"request_id":"`+got+`"`) {
			t.Errorf("%q became %q: %s", id, got, w.Body)
		}
	}
	first := f.raw("GET", "/health", "").Header().Get("X-Request-ID")
	if second := f.raw("GET", "/health", "").Header().Get("X-Request-ID"); first == second {
		t.Errorf("two requests are both named %s", first)
	}
}

// TestInternalErrorIsLogged: the id that the client was given finds the line.
func TestInternalErrorIsLogged(t *testing.T) {
	f := newFixture(t)
	var log strings.Builder
	f.handler.opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	f.kv.err = errors.New("the disk sang")
	if w := f.raw("GET", "/v1/kv/t/k", "", "X-Request-ID", "mine-1"); w.Code != 500 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := log.String(); !strings.Contains(got, "request_id=mine-1") || !strings.Contains(got, "the disk sang") {
		t.Errorf("the log says %q", got)
	}
	log.Reset()
	f.kv.err = &coord.Error{Code: errcode.QuorumNotReached}
	if f.raw("GET", "/v1/kv/t/k", ""); log.Len() > 0 {
		t.Errorf("the log says %q of what the client is told anyway", log.String())
	}
}
