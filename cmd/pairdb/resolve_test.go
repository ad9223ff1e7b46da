package main

import (
	"context"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/client/clienttest"
)

// TestResolveRace: what others write between the read and the write of resolve
// is kept, and the exit code says so. A failure of the write changes nothing.
func TestResolveRace(t *testing.T) {
	store := clienttest.NewStore()
	s, err := clienttest.Start(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := client.New(client.Options{Endpoints: []string{s.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateTenant(t.Context(), client.NewTenant{ID: "carts", ConflictPolicy: pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	store.SetValue("carts", "k", []byte("one"))
	store.SetValue("carts", "k", []byte("two"))
	resolve := func() (int, string) {
		code, stdout, stderr := runCLI(t, t.Context(), "", "resolve", "k", "merged", "--tenant", "carts", "--endpoint", s.Addr())
		if stdout != "" {
			t.Errorf("stdout %q", stdout)
		}
		return code, stderr
	}

	s.SetHook(func(_ context.Context, method string, _ any) error {
		if strings.HasSuffix(method, "/Put") {
			return clienttest.Fail(errcode.DiskFull, "the disk is full", map[string]string{errcode.MetaOutcome: "not_applied"})
		}
		return nil
	})
	if code, stderr := resolve(); code == 0 || strings.Contains(stderr, "replaced") {
		t.Errorf("a refused write: exit code %d, %q", code, stderr)
	}

	s.SetHook(func(_ context.Context, method string, _ any) error {
		if strings.HasSuffix(method, "/Put") {
			store.SetValue("carts", "k", []byte("between"))
		}
		return nil
	})
	code, stderr := resolve()
	if code != errcode.ExitConflict || !strings.Contains(stderr, "replaced 2 siblings") || !strings.Contains(stderr, "has 2 siblings again") || !strings.Contains(stderr, "resolve again") {
		t.Errorf("a write in between: exit code %d, %q", code, stderr)
	}

	s.SetHook(nil)
	if code, stderr := resolve(); code != 0 || !strings.Contains(stderr, "replaced 2 siblings") {
		t.Errorf("resolved again: exit code %d, %q", code, stderr)
	}
	if v, _ := store.Value("carts", "k"); string(v) != "merged" {
		t.Errorf("the key holds %q", v)
	}
}
