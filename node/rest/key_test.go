package rest

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
)

// TestKeyArrivesAsSent: a body whose key or value is not text is refused, not
// stored under another key.
func TestKeyArrivesAsSent(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		name, method, body string
		code               errcode.Code
	}{
		{"bytes", "POST", `{"tenant_id":"t","key":"a` + "\xff" + `","value":1}`, errcode.InvalidKey},
		{"a cut character", "POST", `{"tenant_id":"t","key":"a` + "\xc3" + `","value":1}`, errcode.InvalidKey},
		{"bytes, then a good key", "POST", `{"tenant_id":"t","key":"` + "\xff" + `","key":"b","value":1}`, errcode.InvalidKey},
		{"high alone", "POST", `{"tenant_id":"t","key":"a\ud800","value":1}`, errcode.InvalidKey},
		{"low alone", "POST", `{"tenant_id":"t","key":"\uDFFFa","value":1}`, errcode.InvalidKey},
		{"two high", "POST", `{"tenant_id":"t","key":"\ud83d\ud83d\ude00","value":1}`, errcode.InvalidKey},
		{"high before another escape", "POST", `{"tenant_id":"t","key":"\ud83d\n\ude00","value":1}`, errcode.InvalidKey},
		{"bytes in a value", "POST", `{"tenant_id":"t","key":"a","value":{"b":["` + "\xff" + `"]}}`, errcode.InvalidArgument},
		{"delete bytes", "DELETE", `{"tenant_id":"t","key":"a` + "\xff" + `"}`, errcode.InvalidKey},
		{"delete high alone", "DELETE", `{"tenant_id":"t","key":"a\ud800"}`, errcode.InvalidKey},
		{"a number", "POST", `{"tenant_id":"t","key":7,"value":1}`, errcode.InvalidArgument},
	} {
		f.kv.values["t/a\uFFFD"] = causal.Sibling{}
		status, m := f.do(t, c.method, "/v1/key-value", c.body)
		if status != 400 || m["error_code"] != string(c.code) || m["outcome"] != string(errcode.NotApplied) {
			t.Errorf("%s: %d %v, want %s", c.name, status, m, c.code)
		}
		if len(f.kv.values) != 1 {
			t.Fatalf("%s: the store has %v", c.name, f.kv.values)
		}
	}
	for sent, want := range map[string]string{
		`\ud83d\ude00\uD83D\uDE00`: "😀😀", `é\u00e9`: "éé", `\\ud800`: `\ud800`, `\\\u0041`: `\A`,
		`\ufffd`: "\uFFFD", "\uFFFD": "\uFFFD", `\"\/`: `"/`,
	} {
		status, m := f.do(t, "POST", "/v1/key-value", `{"tenant_id":"t","key":"`+sent+`","value":1}`)
		if _, stored := f.kv.values["t/"+want]; status != 200 || m["key"] != want || !stored {
			t.Errorf("%s: %d %v, want the key %q", sent, status, m, want)
		}
	}
}

// FuzzJSONKey: a key that is accepted has no U+FFFD that was not sent.
func FuzzJSONKey(f *testing.F) {
	for _, s := range []string{`"a"`, "\"\xff\"", `"\ud800"`, `"\ud83d\ude00"`, `"\\ud800"`, `"\ufffd"`, `null`, `7`, `"\u12`, `\`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var k jsonKey
		direct := k
		_ = direct.UnmarshalJSON(raw) // whatever raw is, it must not panic
		if json.Unmarshal(raw, &k) != nil {
			return
		}
		sent := bytes.Contains(bytes.ToLower(raw), []byte("fffd")) || bytes.Contains(raw, []byte("\uFFFD"))
		if !utf8.ValidString(string(k)) || !sent && strings.ContainsRune(string(k), utf8.RuneError) {
			t.Errorf("%q became %q", raw, k)
		}
	})
}
