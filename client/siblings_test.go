package client

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

// TestSiblings: values stand beside each other until a context covers them.
func TestSiblings(t *testing.T) {
	c, _, servers := start(t, 1, Options{Tenant: "carts"})
	ctx := t.Context()
	if _, err := c.CreateTenant(ctx, NewTenant{ID: "carts", ConflictPolicy: pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS}); err != nil {
		t.Fatal(err)
	}
	first, err := c.Put(ctx, "k", []byte("one"))
	if err != nil || first.Context.IsZero() {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := c.Put(ctx, "k", []byte("two"))
	if err != nil || !second.Context.IsZero() {
		t.Fatalf("no context covers the second without the first: %+v, %v", second, err)
	}
	got, err := c.Get(ctx, "k")
	if err != nil || len(got.Siblings) != 2 || string(got.Value) != "two" || string(got.Siblings[1].Value) != "one" || got.Siblings[1].Dot != first.Dot {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := c.Delete(ctx, "k", WithContext(first.Context)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(ctx, "k"); err != nil || len(got.Siblings) != 1 || string(got.Value) != "two" {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := c.Put(ctx, "k", []byte("three"), WithContext(got.Context)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(ctx, "k"); err != nil || len(got.Siblings) != 1 || string(got.Value) != "three" {
		t.Fatalf("%+v, %v", got, err)
	}

	// A refusal brings the context it asks for.
	for sent, want := range map[string]string{"c2Vlbi0x": "seen-1", "": "", "%": "", strings.Repeat("A", 8000): ""} {
		servers[0].SetHook(func(context.Context, string, any) error {
			return clienttest.Fail(errcode.PreconditionFailed, "64 siblings", map[string]string{errcode.MetaContext: sent})
		})
		_, err := c.Put(ctx, "k", nil)
		if e := asError(t, err); !errors.Is(err, ErrPreconditionFailed) || string(e.Context().Bytes()) != want || e.Outcome != errcode.NotApplied {
			t.Errorf("%.20q: %v with the context %q", sent, err, e.Context().Bytes())
		}
	}
}
