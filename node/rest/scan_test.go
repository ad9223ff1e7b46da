package rest

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// Scan returns the keys of a tenant in order; a page token is the last key.
func (f *fakeKV) Scan(_ context.Context, r coord.ScanRequest) (coord.ScanResponse, error) {
	if f.err != nil || f.pagesLeft == 1 {
		if f.err == nil {
			f.pagesLeft = 0
			return coord.ScanResponse{}, &coord.Error{Code: errcode.QuorumNotReached, Acks: 1, Need: 2}
		}
		return coord.ScanResponse{}, f.err
	}
	f.pagesLeft--
	f.level, f.scan = r.Level, r
	var keys []string
	for id := range f.values {
		if tenant, key, _ := strings.Cut(id, "/"); tenant == r.Tenant && strings.HasPrefix(key, string(r.Prefix)) && key > string(r.PageToken) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	p := coord.ScanResponse{Scanned: len(keys)}
	for i, key := range keys {
		if i == min(r.MaxKeys, max(f.pageSize, 1)) {
			p.PageToken = []byte(keys[i-1])
			break
		}
		siblings := []causal.Sibling{f.values[r.Tenant+"/"+key]}
		p.Items = append(p.Items, coord.ScanItem{Key: []byte(key), Siblings: append(siblings, f.several...), Token: []byte("seen"), Context: causal.NewContext(testDot)})
	}
	return p, nil
}

// lines does a GET and decodes each line of the answer.
func (f *fixture) lines(t *testing.T, target string) (int, string, []map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
	var all []map[string]any
	for line := range strings.Lines(w.Body.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: line %q: %v", target, line, err)
		}
		all = append(all, m)
	}
	return w.Code, w.Header().Get("Content-Type"), all
}

func TestScan(t *testing.T) {
	f := newFixture(t)
	f.kv.pageSize = 2
	for key, s := range map[string]causal.Sibling{
		"a": {Value: []byte(`{"n":1}`), Flags: causal.FlagJSON}, "b": {Value: []byte("text")}, "c": {Value: []byte{0xff}}, "d\x00": {Value: []byte("x")}, "e": {},
	} {
		f.kv.values["shop/"+key] = s
	}
	code, kind, got := f.lines(t, "/v1/scan?tenant_id=shop&consistency=all")
	if code != 200 || kind != "application/x-ndjson" || len(got) != 6 || f.kv.level != quorum.All {
		t.Fatalf("%d %s %v", code, kind, got)
	}
	if v := got[0]["value"].(map[string]any)["n"]; v != 1.0 || got[0]["context"] != "c2Vlbg==" || got[0]["vector_clock"].(map[string]any)["0000000000000abc"] != 7.0 {
		t.Errorf("%v", got[0])
	}
	if got[1]["value"] != "text" || got[2]["value"] != "/w==" || got[2]["encoding"] != "base64" || got[3]["key"] != "ZAA=" || got[3]["key_encoding"] != "base64" || got[4]["value"] != "" {
		t.Errorf("%v", got)
	}
	if end := got[5]; end["status"] != "success" || end["next_page_token"] != "" || end["count"] != 5.0 || end["scanned"] != 9.0 {
		t.Errorf("the last line is %v", end)
	}
	// A limit ends the answer, and the token goes on behind it.
	_, _, got = f.lines(t, "/v1/scan?tenant_id=shop&limit=3&keys_only=true&start=a&end=z")
	if len(got) != 4 || got[3]["next_page_token"] != "Yw" || got[0]["value"] != nil || !f.kv.scan.KeysOnly || string(f.kv.scan.Start)+string(f.kv.scan.End) != "az" {
		t.Errorf("%v, asked %+v", got, f.kv.scan)
	}
	for _, token := range []string{"Yw", "Yw=="} {
		if _, _, got = f.lines(t, "/v1/scan?tenant_id=shop&page_token="+token); len(got) != 3 || got[1]["key"] != "e" {
			t.Errorf("%v", got)
		}
	}
	f.kv.several = []causal.Sibling{{Value: []byte("other")}}
	if _, _, got = f.lines(t, "/v1/scan?tenant_id=shop&prefix=b"); len(got) != 2 || got[0]["siblings"].([]any)[0].(map[string]any)["value"] != "other" {
		t.Errorf("%v", got)
	}
}

func TestScanRefuses(t *testing.T) {
	f := newFixture(t)
	for _, query := range []string{
		"limit=0", "limit=-1", "limit=x", "keys_only=perhaps", "page_token=%21", "consistency=two", "prefx=a", "prefix=a&prefix=b", "a=%zz",
	} {
		code, m := f.do(t, "GET", "/v1/scan?tenant_id=shop&"+query, "")
		if code != 400 || m["error_code"] != "INVALID_ARGUMENT" {
			t.Errorf("%s: %d %v", query, code, m)
		}
	}
	f.kv.err = &coord.Error{Code: errcode.TenantNotFound, Message: "none"}
	if code, m := f.do(t, "GET", "/v1/scan?tenant_id=shop", ""); code != 404 || m["error_code"] != "TENANT_NOT_FOUND" {
		t.Errorf("%d %v", code, m)
	}
}

// TestScanThatFailsLater says so in its last line.
func TestScanThatFailsLater(t *testing.T) {
	f := newFixture(t)
	f.kv.pageSize, f.kv.pagesLeft = 1, 3
	for _, key := range []string{"a", "b", "c"} {
		f.kv.values["shop/"+key] = causal.Sibling{Value: []byte("v")}
	}
	code, _, got := f.lines(t, "/v1/scan?tenant_id=shop")
	if end := got[len(got)-1]; code != 200 || len(got) != 3 || end["status"] != "error" || end["error_code"] != "QUORUM_NOT_REACHED" || end["need"] != 2.0 || end["outcome"] != nil {
		t.Errorf("%d %v", code, got)
	}
}
