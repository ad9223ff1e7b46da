package rest

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// TestObserve: what is asked for reaches the node, keys that are no text are
// base64, mistakes are refused, and so are callers from other machines.
func TestObserve(t *testing.T) {
	f := newFixture(t)
	get := func(target, remote string) (int, string) {
		t.Helper()
		r := httptest.NewRequest("GET", target, nil)
		r.RemoteAddr, r.Host = remote, "127.0.0.1:8080"
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const local = "127.0.0.1:1"
	code, body := get("/v1/admin/events?cursor=c&limit=7&node=n1", local)
	if code != 200 || !strings.Contains(body, `"details":{"state":"full"},"count":2}`) || !strings.Contains(body, `"next_cursor":"c"`) || !strings.Contains(body, `"reason":"dead"`) {
		t.Errorf("%d %s", code, body)
	}
	for _, part := range []string{`cursor:"c"`, "limit:7", `node:"n1"`} {
		if !strings.Contains(f.asked, part) {
			t.Errorf("asked for %s", f.asked)
		}
	}
	code, body = get("/v1/admin/traffic?hot_keys=9", local)
	if code != 200 || !strings.Contains(body, `"key":"/w==","key_encoding":"base64","kind":"write"`) || !strings.Contains(body, `"p50_seconds":0.001`) || !strings.Contains(f.asked, "hot_keys:9") {
		t.Errorf("%d %s, asked for %s", code, body, f.asked)
	}
	code, body = get("/v1/admin/hints", local)
	if code != 200 || !strings.Contains(body, `"targets":[{"node_id":"01","name":"n1","count":3,"bytes":100,"oldest_at":"2023-11-14T22:13:20Z","holders":[{"node_id":"02"`) || !strings.Contains(body, `"reason":"silent"`) {
		t.Errorf("%d %s", code, body)
	}
	code, body = get("/v1/admin/repair?id=r1", local)
	if code != 200 || !strings.Contains(body, `"ended_at":"2023-11-14T22:13:20Z","spans":4,"done":4,"confirmed":3,"keys_differed":7,"rows_sent":8,"bytes":9,"error":"n3 is down"}`) || !strings.Contains(f.asked, `ids:"r1"`) {
		t.Errorf("%d %s, asked for %s", code, body, f.asked)
	}
	for target, want := range map[string]int{
		"/v1/admin/hints?x=1": 400, "/v1/admin/repair?partition=1": 400,
		"/v1/admin/events?cursor=bad": 400, "/v1/admin/events?since=now": 400, "/v1/admin/events?limit=-1": 400, "/v1/admin/events?x=1": 400,
		"/v1/admin/events?node=a&node=b": 400, "/v1/admin/traffic?hot_keys=-1": 400, "/v1/admin/traffic?limit=1": 400,
	} {
		if code, body := get(target, local); code != want {
			t.Errorf("%s: %d %s", target, code, body)
		}
	}
	for _, target := range []string{"/v1/admin/events", "/v1/admin/traffic", "/v1/admin/repair"} {
		if code, body := get(target, "192.0.2.7:1"); code != 403 {
			t.Errorf("%s from afar: %d %s", target, code, body)
		}
	}
}
