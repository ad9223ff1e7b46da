package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client/clienttest"
)

func TestIdempotencyKey(t *testing.T) {
	c, _, _ := start(t, 1, Options{})
	id := WithIdempotencyKey(strings.Repeat("x", MaxIdempotencyKey))
	var dot Dot
	for i, again := range []bool{false, true} {
		r, err := c.Put(t.Context(), "k", []byte("v"), id)
		if err != nil || r.Duplicate != again || i > 0 && r.Dot != dot {
			t.Fatalf("%+v, %v", r, err)
		}
		dot = r.Dot
	}
	for _, again := range []bool{false, true} {
		if r, err := c.Delete(t.Context(), "k", WithIdempotencyKey("gone")); err != nil || r.Duplicate != again {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	_, put := c.Put(t.Context(), "k", nil, WithIdempotencyKey(strings.Repeat("x", MaxIdempotencyKey+1)))
	_, del := c.Delete(t.Context(), "k", WithIdempotencyKey(""))
	for _, err := range []error{put, del} {
		if e := asError(t, err); e.Code != errcode.InvalidArgument || e.Outcome != errcode.NotApplied {
			t.Errorf("%+v", e)
		}
	}
}

// A write with an idempotency key that may have been applied is sent to the next
// endpoint, unless the level leaves its effect to luck. Whatever the next one
// says, the first may have done it.
func TestKeyedWritesMoveOn(t *testing.T) {
	doubt := func(context.Context, string, any) error {
		return clienttest.FailWrite(errcode.Unavailable, errcode.Indeterminate, 0, 0, "the owner did not answer")
	}
	hang := func(ctx context.Context, _ string, _ any) error {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	for name, hook := range map[string]func(context.Context, string, any) error{"in doubt": doubt, "silent": hang} {
		t.Run(name, func(t *testing.T) {
			c, store, servers := start(t, 2, Options{Timeout: 4 * time.Second})
			servers[0].SetHook(hook)
			if _, err := c.Put(t.Context(), "k", []byte("v"), WithIdempotencyKey("id")); err != nil {
				t.Fatal(err)
			}
			if v, _ := store.Value("default", "k"); string(v) != "v" {
				t.Errorf("%q", v)
			}
		})
	}
	t.Run("at one", func(t *testing.T) {
		c, store, servers := start(t, 2, Options{})
		servers[0].SetHook(doubt)
		_, err := c.Put(t.Context(), "k", []byte("v"), WithIdempotencyKey("id"), WithLevel(LevelOne))
		if e := asError(t, err); e.Outcome != errcode.Indeterminate {
			t.Errorf("%+v", e)
		}
		if _, ok := store.Value("default", "k"); ok {
			t.Error("sent again")
		}
	})
	t.Run("refused by the next", func(t *testing.T) {
		c, _, servers := start(t, 2, Options{})
		servers[0].SetHook(doubt)
		servers[1].SetHook(func(context.Context, string, any) error {
			return clienttest.FailWrite(errcode.QuorumNotReached, errcode.NotApplied, 1, 2, "too few")
		})
		_, err := c.Put(t.Context(), "k", []byte("v"), WithIdempotencyKey("id"))
		if e := asError(t, err); !errors.Is(err, ErrQuorumNotReached) || e.Outcome != errcode.Indeterminate {
			t.Errorf("%+v", e)
		}
	})
}
