package rest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// lines sends a request and returns the lines of the answer.
func (f *fixture) lines(t *testing.T, method, target, body string) (int, []map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	if w.Code == 200 && w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("content type %q", w.Header().Get("Content-Type"))
	}
	var all []map[string]any
	for line := range strings.Lines(w.Body.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, m)
	}
	return w.Code, all
}

func TestBatch(t *testing.T) {
	f := newFixture(t)
	body := `{"op":"put","key":"a","value":{"n": [1, 2.50]},"idempotency_key":"order 7"}
{"op":"get","key":"a"}

{"op":"delete","key":"b","idempotency_key":"d"}
{"op":"put","key":"c","value":null}
{"op":"get","key":"nope"}`
	code, m := f.lines(t, "POST", "/v1/batch?tenant_id=shop&consistency=all", body)
	if code != 200 || len(m) != 5 {
		t.Fatalf("%d %v", code, m)
	}
	if p := f.kv.items[0].Put; p.Tenant != "shop" || p.Level != quorum.All || !p.JSON || string(p.Value) != `{"n":[1,2.50]}` || string(p.IdempotencyKey) != "order 7" {
		t.Errorf("%+v", p)
	}
	if d := f.kv.items[2].Delete; d.Tenant != "shop" || d.Level != quorum.All || string(d.IdempotencyKey) != "d" {
		t.Errorf("%+v", d)
	}
	if m[0]["status"] != "success" || m[0]["key"] != "a" || m[0]["idempotency_key"] != "order 7" || m[0]["replica_count"] != 3.0 || m[0]["consistency"] != "all" || m[0]["is_duplicate"] != false {
		t.Errorf("%v", m[0])
	}
	if m[1]["key"] != "a" || fmt.Sprint(m[1]["value"]) != "map[n:[1 2.5]]" {
		t.Errorf("%v", m[1])
	}
	if m[2]["status"] != "success" || m[2]["key"] != "b" || m[2]["idempotency_key"] != "d" {
		t.Errorf("%v", m[2])
	}
	if m[3]["idempotency_key"] != "0000000000000abc-7" {
		t.Errorf("%v", m[3])
	}
	if m[4]["status"] != "error" || m[4]["key"] != "nope" || m[4]["error_code"] != "KEY_NOT_FOUND" || m[4]["request_id"] == "" || m[4]["outcome"] != nil {
		t.Errorf("%v", m[4])
	}
	f.lines(t, "POST", "/v1/batch", `{"op":"put","key":"a","value":1,"ttl_seconds":1.5,"if_absent":true}`+"\n"+`{"op":"put","key":"b","value":1,"expires_at":"2027-01-31T12:00:00Z"}`)
	if p := f.kv.items[0].Put; !p.IfAbsent || p.Expiry != causal.ExpiresAfter(1500*time.Millisecond) {
		t.Errorf("%+v", p)
	}
	if p := f.kv.items[1].Put; p.IfAbsent || p.Expiry != causal.ExpiresAt(time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{
		`{"op":"delete","key":"a","if_absent":true}`, `{"op":"get","key":"a","ttl_seconds":1}`, `{"op":"put","key":"a","value":1,"ttl_seconds":0}`,
	} {
		if code, m := f.lines(t, "POST", "/v1/batch", bad); code != 400 || m[0]["error_code"] != "INVALID_ARGUMENT" {
			t.Errorf("%s: %d %v", bad, code, m)
		}
	}
	// A value that is no JSON, though it is marked so, spoils its own line only.
	f.kv.values["/broken"] = causal.Sibling{Value: []byte("{"), Flags: causal.FlagJSON}
	if code, m := f.lines(t, "POST", "/v1/batch", `{"op":"get","key":"broken"}`+"\n"+`{"op":"put","key":"x","value":1}`); code != 200 || m[0]["error_code"] != "INTERNAL" || m[1]["status"] != "success" {
		t.Errorf("%d %v", code, m)
	}
	// What failed and does not say how may have been done.
	f.kv.err = &coord.Error{Code: errcode.QuorumNotReached, Acks: 1, Need: 2, Message: "too few"}
	if _, m := f.lines(t, "POST", "/v1/batch", `{"op":"put","key":"x","value":1}`); m[0]["outcome"] != "indeterminate" || m[0]["need"] != 2.0 {
		t.Errorf("%v", m)
	}
}

// TestBatchRefuses: one bad line, and nothing is begun; the message names it.
func TestBatchRefuses(t *testing.T) {
	f := newFixture(t)
	good := `{"op":"put","key":"a","value":1}` + "\n"
	for _, c := range []struct {
		target, body string
		code         errcode.Code
		says         string
	}{
		{"", good + "\n{", errcode.InvalidArgument, "item 1, in line 3"},
		{"", good + `{"op":"get","key":"a"} {}`, errcode.InvalidArgument, "item 1, in line 2: there is something after"},
		{"", good + `{"op":"get","key":"a","ttl":1}`, errcode.InvalidArgument, "unknown field"},
		{"", good + `{"op":"move","key":"a"}`, errcode.InvalidArgument, "item 1, in line 2: the op"},
		{"", good + `{"op":"put","key":"a"}`, errcode.InvalidArgument, "value is missing"},
		{"", good + `{"op":"get","key":"a","value":1}`, errcode.InvalidArgument, "field value"},
		{"", good + `{"op":"get","key":"a","idempotency_key":"x"}`, errcode.InvalidArgument, "idempotency_key is for"},
		{"", good + `{"op":"delete","key":"a","idempotency_key":""}`, errcode.InvalidArgument, "idempotency_key has 0 bytes"},
		{"", good + `{"op":"delete","key":"a","idempotency_key":"é"}`, errcode.InvalidArgument, "printable"},
		{"", good + `{"op":"get","key":"a\u0000"}`, errcode.InvalidKey, "item 1, in line 2"},
		{"", good + `{"op":"get","key":"\ud800"}`, errcode.InvalidKey, "surrogate"},
		{"", good + "{\"op\":\"put\",\"key\":\"a\",\"value\":\"\xff\"}", errcode.InvalidArgument, "not UTF-8"},
		{"", good + `{"op":"put","key":"a","value":"` + strings.Repeat("x", 1000+bodySlack) + `"}`, errcode.ValueTooLarge, "item 1"},
		{"", strings.Repeat(good, coord.MaxBatchItems+1), errcode.InvalidArgument, "more than 1000 items"},
		{"?key=a", good, errcode.InvalidArgument, "unknown query parameter"},
		{"?tenant_id=a&tenant_id=b", good, errcode.InvalidArgument, "2 times"},
		{"?consistency=two", good, errcode.InvalidArgument, "consistency"},
		{"?%zz", good, errcode.InvalidArgument, "malformed"},
	} {
		status, m := f.lines(t, "POST", "/v1/batch"+c.target, c.body)
		if status != errcode.Lookup(c.code).HTTP || m[0]["error_code"] != string(c.code) || m[0]["outcome"] != "not_applied" || !strings.Contains(fmt.Sprint(m[0]["message"]), c.says) {
			t.Errorf("%q: %d %v; want %s with %q", c.body[:min(len(c.body), 80)], status, m, c.code, c.says)
		}
	}
	if f.kv.items != nil {
		t.Errorf("%d items were begun", len(f.kv.items))
	}
	// A body that is too large, announced or not.
	large := func() io.Reader { return io.LimitReader(endless{}, maxBatchBody+1) }
	for _, length := range []int64{maxBatchBody + 1, -1} {
		r := httptest.NewRequest("POST", "/v1/batch", large())
		r.ContentLength = length
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		if w.Code != 400 || !strings.Contains(w.Body.String(), "larger than") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	f.kv.batchErr = &coord.Error{Code: errcode.InvalidArgument, Outcome: errcode.NotApplied, Message: "items 0 and 1 have the same key"}
	if status, m := f.lines(t, "POST", "/v1/batch", good+good); status != 400 || !strings.Contains(fmt.Sprint(m[0]["message"]), "same key") {
		t.Errorf("%d %v", status, m)
	}
}

// endless is a body of empty lines.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '\n'
	}
	return len(b), nil
}

// FuzzBatchLine: a line is an item with a key that is text, or a typed error.
func FuzzBatchLine(f *testing.F) {
	f.Add([]byte(`{"op":"put","key":"a","value":{"n": 1},"idempotency_key":"x"}`))
	f.Add([]byte(`{"op":"get","key":"\ud83d\ude00"}`))
	f.Add([]byte(`{"op":"delete","key":null}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		it, err := parseBatchLine(line, fields{tenant: "t", level: quorum.One})
		if err != nil {
			if e, ok := err.(*coord.Error); !ok || e.Outcome != errcode.NotApplied {
				t.Fatalf("%v", err)
			}
			return
		}
		if err := checkJSONKey(keyOf(&it)); err != nil {
			t.Fatal(err)
		}
		if it.Put != nil && !json.Valid(it.Put.Value) {
			t.Fatalf("%q is no JSON", it.Put.Value)
		}
	})
}
