package client

import (
	"errors"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
)

func TestTTL(t *testing.T) {
	c, store, _ := start(t, 1, Options{})
	ctx := t.Context()
	began := time.Now()
	if _, err := c.Put(ctx, "k", []byte("v"), WithTTL(time.Hour)); err != nil {
		t.Fatal(err)
	}
	r, err := c.Get(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	at := r.Siblings[0].ExpiresAt
	if at.Before(began.Add(time.Hour-time.Millisecond)) || at.After(time.Now().Add(time.Hour)) {
		t.Errorf("expires at %v", at)
	}
	store.Advance(time.Hour)
	if _, err := c.Get(ctx, "k"); !errors.Is(err, ErrKeyNotFound) {
		t.Errorf("an hour later: %v", err)
	}
	until := began.Add(48 * time.Hour).Truncate(time.Millisecond)
	if _, err := c.Put(ctx, "k", []byte("v"), WithExpiry(until)); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Get(ctx, "k"); err != nil || !r.Siblings[0].ExpiresAt.Equal(until) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := c.Put(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Get(ctx, "k"); err != nil || !r.Siblings[0].ExpiresAt.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = c.Put(ctx, "k", []byte("w"), WithExpiry(began))
	if e := asError(t, err); e.Code != errcode.InvalidArgument {
		t.Errorf("past: %v", err)
	}
}

func TestConditions(t *testing.T) {
	c, store, _ := start(t, 1, Options{})
	ctx := t.Context()
	first, err := c.Put(ctx, "k", []byte("one"), IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	refused := func(err error) *Error {
		t.Helper()
		if !errors.Is(err, ErrPreconditionFailed) {
			t.Fatalf("got %v", err)
		}
		e := asError(t, err)
		if e.Outcome != errcode.NotApplied {
			t.Errorf("outcome %v", e.Outcome)
		}
		return e
	}
	_, err = c.Put(ctx, "k", []byte("two"), IfAbsent())
	if e := refused(err); e.Context() != first.Context {
		t.Errorf("the refusal brings %v, the value has %v", e.Context(), first.Context)
	}
	second, err := c.Put(ctx, "k", []byte("two"), IfMatch(first.Context), WithTTL(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Put(ctx, "k", []byte("three"), IfMatch(first.Context))
	refused(err)
	_, err = c.Delete(ctx, "k", IfMatch(first.Context))
	refused(err)
	if v, _ := store.Value("default", "k"); string(v) != "two" {
		t.Errorf("the refusals left %q", v)
	}
	if _, err := c.Delete(ctx, "k", IfMatch(second.Context)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Put(ctx, "k", []byte("once"), IfAbsent(), WithIdempotencyKey("id")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConditionsThatCannotBe are refused before anything is sent.
func TestConditionsThatCannotBe(t *testing.T) {
	c, store, _ := start(t, 1, Options{})
	ctx := t.Context()
	w, err := c.Put(ctx, "k", []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	seen := w.Context
	for name, opts := range map[string][]CallOption{
		"no ttl":          {WithTTL(0)},
		"short ttl":       {WithTTL(time.Millisecond - 1)},
		"backwards":       {WithTTL(-time.Hour)},
		"long ttl":        {WithTTL(MaxTTL + 1)},
		"both":            {WithTTL(time.Hour), WithExpiry(time.Now().Add(time.Hour))},
		"no instant":      {WithExpiry(time.Time{})},
		"after all":       {WithExpiry(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))},
		"two conditions":  {IfAbsent(), IfMatch(seen)},
		"absent, context": {IfAbsent(), WithContext(seen)},
		"match, context":  {IfMatch(seen), WithContext(seen)},
		"match nothing":   {IfMatch(Context{})},
	} {
		_, err := c.Put(ctx, "k", []byte("w"), opts...)
		if e := asError(t, err); e.Code != errcode.InvalidArgument || e.Outcome != errcode.NotApplied {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, opt := range map[string]CallOption{
		"ttl": WithTTL(time.Hour), "instant": WithExpiry(time.Now().Add(time.Hour)), "absent": IfAbsent(), "match nothing": IfMatch(Context{}),
	} {
		_, err := c.Delete(ctx, "k", opt)
		if e := asError(t, err); e.Code != errcode.InvalidArgument || e.Outcome != errcode.NotApplied {
			t.Errorf("delete, %s: %v", name, err)
		}
	}
	if v, _ := store.Value("default", "k"); string(v) != "v" {
		t.Errorf("left %q", v)
	}
}
