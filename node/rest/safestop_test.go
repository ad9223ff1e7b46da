package rest

import "testing"

func TestSafeToStop(t *testing.T) {
	f := newFixture(t)
	code, m := f.do(t, "GET", "/v1/admin/safe-to-stop", "")
	if code != 200 || f.asked != "safe " || m["status"] != "safe" || m["safe"] != true || m["node_id"] != "01" || m["name"] != "n1" || len(m["reasons"].([]any)) != 0 {
		t.Errorf("safe: %d %v, asked for %s", code, m, f.asked)
	}
	code, m = f.do(t, "GET", "/v1/admin/safe-to-stop?node=n2", "")
	if code != 503 || f.asked != "safe n2" || m["status"] != "unsafe" || m["safe"] != false {
		t.Fatalf("unsafe: %d %v, asked for %s", code, m, f.asked)
	}
	first := m["reasons"].([]any)[0].(map[string]any)
	if first["kind"] != "down" || first["text"] != "nodes do not serve: n1" || first["next"] != "start them" || first["nodes"].([]any)[0] != "n1" {
		t.Errorf("the first reason is %v", first)
	}
	if second := m["reasons"].([]any)[1].(map[string]any); len(second["nodes"].([]any)) != 0 {
		t.Errorf("the second reason is %v", second)
	}
	if code, m = f.do(t, "GET", "/v1/admin/safe-to-stop?node=nobody", ""); code != 400 || m["error_code"] != "INVALID_ARGUMENT" {
		t.Errorf("nobody: %d %v", code, m)
	}
	f.asked = ""
	if code, m = f.do(t, "GET", "/v1/admin/safe-to-stop?nodes=n1", ""); code != 400 || f.asked != "" {
		t.Errorf("another parameter: %d %v, asked for %q", code, m, f.asked)
	}
}
