package rest

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

func TestChangeStorageNodes(t *testing.T) {
	f := newFixture(t)
	for _, x := range [][3]string{{"POST", "/v1/admin/storage-nodes", `{"node_id":"04"}`}, {"DELETE", "/v1/admin/storage-nodes/n1", ""}} {
		if code, m := f.do(t, x[0], x[1], x[2]); code != 403 || m["error_code"] != "FORBIDDEN" || f.asked != "" {
			t.Errorf("from another machine: %d %v", code, m)
		}
	}
	f.near = true
	code, m := f.do(t, "POST", "/v1/admin/storage-nodes", `{"node_id":"04"}`)
	if code != 202 || f.asked != "accept 04" || m["migration_id"] != "04" || m["node_id"] != "04" || m["status"] != "success" || m["estimated_completion"] != nil {
		t.Errorf("accept: %d %v, asked for %s", code, m, f.asked)
	}
	code, m = f.do(t, "DELETE", "/v1/admin/storage-nodes/n1", "")
	if code != 202 || f.asked != "decommission n1" || m["migration_id"] != "c1" || m["estimated_completion"] != "2023-11-14T22:13:20Z" {
		t.Errorf("decommission: %d %v, asked for %s", code, m, f.asked)
	}
	if code, m = f.do(t, "DELETE", "/v1/admin/storage-nodes/n1?force=false", ""); code != 202 || f.asked != "decommission n1" {
		t.Errorf("without force: %d %v, asked for %s", code, m, f.asked)
	}
	if code, m = f.do(t, "DELETE", "/v1/admin/storage-nodes/n1?force=true", ""); code != 202 || f.asked != "remove n1true" || m["migration_id"] != "c2" {
		t.Errorf("with force: %d %v, asked for %s", code, m, f.asked)
	}
	if code, m = f.do(t, "DELETE", "/v1/admin/storage-nodes/last", ""); code != 409 || m["error_code"] != "NODE_IN_USE" {
		t.Errorf("the last copies: %d %v", code, m)
	}
	f.asked = ""
	for _, x := range [][3]string{
		{"POST", "/v1/admin/storage-nodes", `{"id":"04"}`},
		{"POST", "/v1/admin/storage-nodes", ``},
		{"DELETE", "/v1/admin/storage-nodes/n1?force=maybe", ""},
		{"DELETE", "/v1/admin/storage-nodes/n1?now=1", ""},
		{"GET", "/v1/admin/migrations/x?deep=1", ""},
	} {
		if code, m := f.do(t, x[0], x[1], x[2]); code != 400 || f.asked != "" {
			t.Errorf("%v: %d %v, asked for %q", x, code, m, f.asked)
		}
	}
}

func TestMigration(t *testing.T) {
	f := newFixture(t)
	at := timestamppb.New(time.Unix(1_700_000_000, 0))
	f.changes = map[string]*pairdbv1.NodeChange{
		"a": {Id: "a", Verb: "leave", NodeId: "01", State: "moving", WaitsFor: "n2", KeysDone: 30, Percent: 25, BegunAt: at, EstimatedEnd: at, Unreachable: []*pairdbv1.UnreachableNode{{Name: "n3"}}},
		"b": {Id: "b", Verb: "join", State: "waiting"},
		"c": {Id: "c", State: "done", Percent: 100, KeysDone: 7},
		"d": {Id: "d", State: "aborted"},
		"e": {Id: "e", State: "something new"},
	}
	code, m := f.do(t, "GET", "/v1/admin/migrations/a", "")
	p := m["progress"].(map[string]any)
	if code != 200 || m["migration_status"] != "in_progress" || m["type"] != "leave" || m["started_at"] != "2023-11-14T22:13:20Z" || m["estimated_completion"] != m["started_at"] ||
		m["waits_for"] != "n2" || len(m["unreachable"].([]any)) != 1 || p["keys_migrated"] != 30.0 || p["total_keys"] != 120.0 || p["percentage"] != 25.0 {
		t.Errorf("%d %v", code, m)
	}
	for id, want := range map[string]string{"b": "pending", "c": "completed", "d": "cancelled", "e": "in_progress"} {
		if code, m := f.do(t, "GET", "/v1/admin/migrations/"+id, ""); code != 200 || m["migration_status"] != want || m["started_at"] != nil {
			t.Errorf("%s: %d %v, want %s", id, code, m, want)
		}
	}
	if code, m := f.do(t, "GET", "/v1/admin/migrations/f", ""); code != 404 || m["error_code"] != "MIGRATION_NOT_FOUND" {
		t.Errorf("unknown: %d %v", code, m)
	}
}
