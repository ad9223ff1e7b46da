package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord"
)

func TestShareOfMemory(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct{ memory, want int64 }{
		{0, 256 * mib},             // nobody limits it
		{100 * mib, 16 * mib},      // at least one of the largest values
		{1024 * mib, 32 * mib},     // its part
		{1 << 50, 256 * mib},       // at most
		{1<<63 - 1, 256 * mib},     // nothing known
		{512*mib + 1, 16 * mib},    //
		{2048 * mib, 2 * 32 * mib}, //
	} {
		if got := shareOf(tc.memory, 32, 16*mib, 256*mib); got != tc.want {
			t.Errorf("memory %d: %d, want %d", tc.memory, got, tc.want)
		}
	}
}

// TestLargeValuesWaitForRoom: they are refused, not applied and told so, while
// the room is taken; small ones pass.
func TestLargeValuesWaitForRoom(t *testing.T) {
	cfg := soloConfig(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan Addresses, 1)
	n, err := Open(cfg, Options{Logger: slog.New(slog.DiscardHandler), Memory: 1, Ready: func(a Addresses) { ready <- a }})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx) }()
	at := <-ready
	gate := newAdmission(n.coord, 1<<20, 20*time.Millisecond)
	put := func(size int) error {
		_, err := gate.Put(t.Context(), coord.PutRequest{Tenant: "default", Key: []byte("k"), Value: make([]byte, size), Level: 1})
		return err
	}
	for _, size := range []int{0, admittedValue, 1 << 20, 2 << 20} {
		if err := put(size); err != nil {
			t.Errorf("%d bytes with nobody there: %v", size, err)
		}
	}
	if err := gate.free.Acquire(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		var e *coord.Error
		if err := put(admittedValue); !errors.As(err, &e) || e.Code != errcode.ResourceExhausted || e.Outcome != errcode.NotApplied || !strings.Contains(e.Message, why) {
			t.Errorf("a large value without room: %v, want it refused because %s", err, why)
		}
	}
	refused("deadline")
	if err := put(admittedValue - 1); err != nil {
		t.Errorf("a small value: %v", err)
	}
	gate.inside.Add(waitFactor<<20 + 1)
	refused("too many wait")
	gate.inside.Add(-(waitFactor<<20 + 1))
	gate.free.Release(1 << 20)
	if err := put(1 << 20); err != nil || gate.inside.Load() != 0 {
		t.Errorf("room again: %v, %d bytes inside", err, gate.inside.Load())
	}

	// The node's own gate is at its door, and lets the largest value in.
	c, err := client.New(client.Options{Endpoints: []string{at.GRPC}, NoRouting: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), "big", make([]byte, 10<<20), client.WithLevel(client.LevelOne)); err != nil {
		t.Errorf("10 MiB into the least memory: %v", err)
	}
	cancel()
	if err := errors.Join(c.Close(), <-served, n.Close(t.Context())); err != nil {
		t.Error(err)
	}
}
