package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client/clienttest"
)

// TestExpiryAndConditionFlags drives put, get and delete with what the flags say.
func TestExpiryAndConditionFlags(t *testing.T) {
	store := clienttest.NewStore()
	s, err := clienttest.Start(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pairdb := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := runCLI(t, t.Context(), "", append(args, "--endpoint", s.Addr())...)
		if code != want {
			t.Fatalf("%v: exit code %d, want %d: %s", args, code, want, stderr)
		}
		return stdout, stderr
	}
	var got struct {
		Siblings []struct {
			ExpiresAt string `json:"expires_at"`
		} `json:"siblings"`
		Context string `json:"context"`
	}
	get := func() {
		t.Helper()
		out, _ := pairdb(0, "get", "k", "-o", "json")
		got.Siblings = nil
		if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Siblings) != 1 {
			t.Fatalf("%s: %v", out, err)
		}
	}
	refused := errcode.Lookup(errcode.PreconditionFailed).Exit

	pairdb(0, "put", "k", "v", "--ttl", "90m", "--if-absent")
	get()
	at, err := time.Parse(time.RFC3339Nano, got.Siblings[0].ExpiresAt)
	if left := time.Until(at); err != nil || left > 90*time.Minute || left < 89*time.Minute {
		t.Errorf("expires at %q: %v", got.Siblings[0].ExpiresAt, err)
	}
	if _, stderr := pairdb(refused, "put", "k", "w", "--if-absent"); !strings.Contains(stderr, "put k: PRECONDITION_FAILED") {
		t.Error(stderr)
	}
	if out, _ := pairdb(0, "get", "k", "-o", "table"); !strings.Contains(out, at.UTC().Format(time.RFC3339Nano)) {
		t.Errorf("the table does not say when it expires: %s", out)
	}
	before := got.Context
	pairdb(0, "put", "k", "w", "--if-match", before, "--expires-at", "2999-01-31T12:00:00.250+01:00")
	get()
	if got.Siblings[0].ExpiresAt != "2999-01-31T11:00:00.250Z" {
		t.Errorf("expires at %q", got.Siblings[0].ExpiresAt)
	}
	pairdb(refused, "put", "k", "x", "--if-match", before)
	pairdb(refused, "delete", "k", "--if-match", before)
	pairdb(0, "delete", "k", "--if-match", got.Context)
	pairdb(0, "put", "k", "x", "--if-absent", "--ttl", "1h")
	store.Advance(time.Hour)
	pairdb(errcode.ExitNotFound, "get", "k")
	pairdb(0, "put", "k", "y", "--if-absent")

	for _, flags := range [][]string{
		{"--ttl", "0s"},
		{"--ttl", "-1s"},
		{"--ttl", "999us"},
		{"--ttl", "10"},
		{"--ttl", "1000000h"},
		{"--ttl", "1h", "--expires-at", "2999-01-31T12:00:00Z"},
		{"--expires-at", "tomorrow"},
		{"--expires-at", "2001-01-31T12:00:00Z"},
		{"--if-absent", "--if-match", got.Context},
		{"--if-absent", "--context", got.Context},
		{"--if-match", got.Context, "--context", got.Context},
		{"--if-match", ""},
		{"--if-match", "%"},
	} {
		if _, stderr := pairdb(errcode.ExitUsage, append([]string{"put", "k", "z"}, flags...)...); !strings.Contains(stderr, "put") {
			t.Errorf("%v: %s", flags, stderr)
		}
	}
	if v, _ := store.Value("default", "k"); string(v) != "y" {
		t.Errorf("left %q", v)
	}
}
