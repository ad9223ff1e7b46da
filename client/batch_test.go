package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

func TestBatch(t *testing.T) {
	c, store, servers := start(t, 1, Options{Tenant: "shop"})
	if _, err := c.CreateTenant(t.Context(), NewTenant{ID: "shop"}); err != nil {
		t.Fatal(err)
	}
	store.SetValue("shop", "gone", []byte("v"))
	servers[0].SetHook(func(_ context.Context, _ string, req any) error {
		if p, ok := req.(*pairdbv1.PutRequest); ok && string(p.GetKey()) == "bad" {
			return clienttest.FailWrite(errcode.QuorumNotReached, errcode.NotApplied, 1, 2, "too few")
		}
		return nil
	})
	ops := []Write{PutOp("a", []byte("1"), WithIdempotencyKey("x")), PutOp("bad", nil), DeleteOp("gone")}
	for i := range 2 {
		results, err := c.Batch(t.Context(), ops, WithLevel(LevelAll))
		if err != nil || len(results) != 3 {
			t.Fatalf("%v, %v", results, err)
		}
		if r := results[0].Put; r == nil || r.Level != LevelAll || r.Duplicate != (i == 1) || r.Context.IsZero() {
			t.Errorf("%+v", results[0])
		}
		e := asError(t, results[1].Err)
		if e.Op != "put" || !errors.Is(e, ErrQuorumNotReached) || e.Outcome != errcode.NotApplied || e.Acks != 1 || e.Need != 2 || len(e.Causes) != 2 || e.Endpoint != servers[0].Addr() {
			t.Errorf("%+v", e)
		}
		if results[2].Delete == nil || results[2].Err != nil {
			t.Errorf("%+v", results[2])
		}
	}
	if v, _ := store.Value("shop", "a"); string(v) != "1" {
		t.Errorf("%q", v)
	}
	if _, ok := store.Value("shop", "gone"); ok {
		t.Error("not deleted")
	}
	got, err := c.MultiGet(t.Context(), []string{"a", "gone"})
	if err != nil || string(got[0].Get.Value) != "1" || !errors.Is(got[1].Err, ErrKeyNotFound) {
		t.Fatalf("%+v, %v", got, err)
	}
	if e := asError(t, got[1].Err); e.Outcome != "" || e.Op != "get" {
		t.Errorf("%+v", e)
	}
}

func TestBatchLimitsAreCheckedBeforeSending(t *testing.T) {
	c, _, servers := start(t, 1, Options{})
	servers[0].SetHook(func(_ context.Context, method string, _ any) error {
		t.Errorf("%s was sent", method)
		return nil
	})
	ctx := t.Context()
	many, keys := make([]Write, MaxBatchItems+1), make([]string, MaxBatchItems+1)
	for i := range many {
		keys[i] = fmt.Sprint(i)
		many[i] = PutOp(keys[i], nil)
	}
	half := make([]byte, MaxBatchBytes/2)
	for name, ops := range map[string][]Write{
		"none": nil, "many": many, "large": {PutOp("a", half), PutOp("b", half)}, "empty key": {PutOp("a", nil), DeleteOp("")},
		"large value": {PutOp("a", make([]byte, MaxValueSize+1))}, "idempotency key": {DeleteOp("a", WithIdempotencyKey(strings.Repeat("x", 257)))},
	} {
		_, err := c.Batch(ctx, ops)
		if e := asError(t, err); e.Outcome != errcode.NotApplied {
			t.Errorf("%s: %+v", name, e)
		}
	}
	for name, keys := range map[string][]string{"none": nil, "many": keys, "empty key": {""}} {
		_, err := c.MultiGet(ctx, keys)
		if e := asError(t, err); e.Outcome != "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// A batch moves on to the next endpoint as its most delicate write would.
func TestBatchMovesOn(t *testing.T) {
	keyed := []Write{PutOp("a", nil, WithIdempotencyKey("1")), DeleteOp("b", WithIdempotencyKey("2"))}
	plain := append(keyed[:1:1], DeleteOp("b"))
	for _, tc := range []struct {
		ops   []Write
		level Level
		ok    bool
	}{{keyed, LevelQuorum, true}, {plain, LevelQuorum, false}, {keyed, LevelOne, false}} {
		c, store, servers := start(t, 2, Options{})
		servers[0].SetHook(func(_ context.Context, _ string, req any) error {
			if _, ok := req.(*pairdbv1.BatchRequest); ok {
				return clienttest.FailWrite(errcode.Unavailable, errcode.Indeterminate, 0, 0, "in doubt")
			}
			return nil
		})
		_, err := c.Batch(t.Context(), tc.ops, WithLevel(tc.level))
		_, there := store.Value("default", "a")
		if (err == nil) != tc.ok || there != tc.ok {
			t.Errorf("%v at %v: %v, stored %v", tc.ops, tc.level, err, there)
		}
		if err != nil && asError(t, err).Outcome != errcode.Indeterminate {
			t.Errorf("%v", err)
		}
	}
}
