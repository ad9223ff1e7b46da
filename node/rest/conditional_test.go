package rest

import (
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// TestRawExpiry: the query says how long, the answer until when. The store's clock
// is at 1970.
func TestRawExpiry(t *testing.T) {
	f := newFixture(t)
	for ttl, want := range map[string]string{
		"":             "",
		"?ttl=90s":     "1970-01-01T00:01:30Z",
		"?ttl=90":      "1970-01-01T00:01:30Z",
		"?ttl=1h0.25s": "1970-01-01T01:00:00.25Z",
		"?ttl=1.001":   "1970-01-01T00:00:01.001Z",
		"?ttl=1ms":     "1970-01-01T00:00:00.001Z",
		"?ttl=876000h": "2069-12-07T00:00:00Z",
	} {
		if w := f.raw("PUT", "/v1/kv/t/k"+ttl, "v"); w.Code != 204 || w.Header().Get("ETag") != `"0000000000000abc-7"` {
			t.Errorf("put %s: %d %v", ttl, w.Code, w.Header())
		}
		if w := f.raw("GET", "/v1/kv/t/k", ""); w.Code != 200 || w.Header().Get("X-PairDB-Expires-At") != want {
			t.Errorf("get of %s: %d %v", ttl, w.Code, w.Header())
		}
	}
	f.kv.several = []causal.Sibling{{Dot: testDot, Flags: causal.FlagExpiry, ExpiresAt: 5}, {Dot: causal.Dot{Actor: 1, Counter: 1}}}
	_, m := f.do(t, "GET", "/v1/kv/t/k", "")
	list := m["siblings"].([]any)
	if list[0].(map[string]any)["expires_at"] != "1970-01-01T00:00:00.005Z" || list[1].(map[string]any)["expires_at"] != nil {
		t.Errorf("%v", m)
	}
}

// TestRawConditions: what the headers ask reaches the coordinator, and its refusal
// is a 412 with the context of what there is.
func TestRawConditions(t *testing.T) {
	f := newFixture(t)
	f.raw("PUT", "/v1/kv/t/k", "v", "If-None-Match", "*")
	if !f.kv.absent || !f.kv.dot.IsZero() {
		t.Error("If-None-Match: * did not arrive")
	}
	f.raw("PUT", "/v1/kv/t/k", "v", "If-Match", `"0000000000000abc-7"`)
	if f.kv.absent || f.kv.dot != testDot {
		t.Errorf("If-Match arrived as %v", f.kv.dot)
	}
	f.raw("PUT", "/v1/kv/t/k", "v")
	if !f.kv.dot.IsZero() {
		t.Error("a condition nobody gave")
	}
	f.raw("DELETE", "/v1/kv/t/k", "", "If-Match", `"ffffffffffffffff-18446744073709551615"`)
	if want := (causal.Dot{Actor: 1<<64 - 1, Counter: 1<<64 - 1}); f.kv.dot != want {
		t.Errorf("If-Match arrived as %v", f.kv.dot)
	}
	f.kv.err = &coord.Error{Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied, Message: "the key has a value", Token: []byte("there")}
	code, m := f.do(t, "PUT", "/v1/kv/t/k", "v", "If-None-Match", "*")
	if code != 412 || m["error_code"] != "PRECONDITION_FAILED" || m["context"] != "dGhlcmU=" || m["outcome"] != "not_applied" {
		t.Errorf("%d %v", code, m)
	}
}

// TestJSONExpiryAndConditions does the same for the JSON route.
func TestJSONExpiryAndConditions(t *testing.T) {
	f := newFixture(t)
	for fields, want := range map[string]any{
		``:                     nil,
		`,"ttl_seconds":90`:    "1970-01-01T00:01:30Z",
		`,"ttl_seconds":0.25`:  "1970-01-01T00:00:00.25Z",
		`,"ttl_seconds":1.001`: "1970-01-01T00:00:01.001Z",
		`,"expires_at":"2027-01-31T13:00:00.2505+01:00"`: "2027-01-31T12:00:00.25Z",
	} {
		if code, m := f.do(t, "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1`+fields+`}`); code != 200 || f.kv.absent {
			t.Errorf("put %s: %d %v", fields, code, m)
		}
		if code, m := f.do(t, "GET", "/v1/key-value?tenant_id=t&key=k", ""); code != 200 || m["expires_at"] != want {
			t.Errorf("get of %s: %d %v", fields, code, m)
		}
	}
	f.do(t, "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":1,"if_absent":true}`)
	if !f.kv.absent {
		t.Error("if_absent did not arrive")
	}
	before := f.kv.values["t/k"]
	for _, fields := range []string{
		`"ttl_seconds":0`, `"ttl_seconds":-1`, `"ttl_seconds":0.0009`, `"ttl_seconds":3153600001`, `"ttl_seconds":1e400`, `"ttl_seconds":"soon"`,
		`"ttl_seconds":[]`, `"expires_at":"tomorrow"`, `"expires_at":7`, `"ttl_seconds":5,"expires_at":"2027-01-31T12:00:00Z"`, `"if_absent":1`,
		`"if_match":"x"`,
	} {
		code, m := f.do(t, "POST", "/v1/key-value", `{"tenant_id":"t","key":"k","value":2,`+fields+`}`)
		if code != 400 || m["error_code"] != "INVALID_ARGUMENT" || m["outcome"] != "not_applied" || string(f.kv.values["t/k"].Value) != string(before.Value) {
			t.Errorf("%s: %d %v", fields, code, m)
		}
	}
}
