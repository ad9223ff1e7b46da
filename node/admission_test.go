package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
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
	gate := newValueBudget(n.coord, 1<<20, time.Minute)
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
	gate.timeout = 20 * time.Millisecond
	refused("deadline")
	gate.timeout = time.Minute
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
	c, err := newClient(at.GRPC)
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

// TestBatchesWaitForRoom: a batch counts with all its values, and the large ones
// of a pipeline are refused alone.
func TestBatchesWaitForRoom(t *testing.T) {
	cfg := soloConfig(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan Addresses, 1)
	n, err := Open(cfg, Options{Logger: slog.New(slog.DiscardHandler), Memory: 1, Ready: func(a Addresses) { ready <- a }})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx) }()
	<-ready
	gate := newValueBudget(n.coord, 1<<20, time.Minute)
	items := func(sizes ...int) []coord.Item {
		var all []coord.Item
		for i, size := range sizes {
			all = append(all, coord.Item{Put: &coord.PutRequest{Tenant: "default", Key: []byte{'k', byte(i)}, Value: make([]byte, size), Level: 1}})
		}
		return all
	}
	batch := func(items []coord.Item) errcode.Code {
		results, err := gate.Batch(t.Context(), items)
		if err != nil {
			var e *coord.Error
			if !errors.As(err, &e) || e.Outcome != errcode.NotApplied {
				t.Errorf("refused with %v", err)
			}
			return e.Code
		}
		for i := range results {
			if results[i].Err != nil {
				t.Errorf("item %d: %v", i, results[i].Err)
			}
		}
		return errcode.OK
	}
	start := func(items []coord.Item) (codes []errcode.Code) {
		codes = make([]errcode.Code, len(items))
		done := make(chan struct{}, len(items))
		gate.StartAll(items, func(i int, r coord.ItemResult) {
			codes[i] = errcode.OK
			var e *coord.Error
			if errors.As(r.Err, &e) {
				codes[i] = e.Code
			}
			done <- struct{}{}
		})
		for range items {
			<-done
		}
		return codes
	}
	const ok, full = errcode.OK, errcode.ResourceExhausted
	half := admittedValue / 2
	if code := batch(items(half, half, 3<<20)); code != ok {
		t.Errorf("with nobody there: %s", code)
	}
	if codes := start(items(half, admittedValue, 2<<20)); !slices.Equal(codes, []errcode.Code{ok, ok, ok}) {
		t.Errorf("with nobody there: %v", codes)
	}
	if err := gate.free.Acquire(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	gate.timeout = 20 * time.Millisecond
	if code := batch(items(half, half)); code != full {
		t.Errorf("a batch without room: %s", code)
	}
	if code := batch(items(half-1, half)); code != ok {
		t.Errorf("a small batch: %s", code)
	}
	if code := batch(items(11<<20, half)); code != errcode.ValueTooLarge {
		t.Errorf("a batch that is wrong: %s", code)
	}
	if codes := start(items(half, admittedValue, 1)); !slices.Equal(codes, []errcode.Code{ok, full, ok}) {
		t.Errorf("a pipeline without room: %v", codes)
	}
	gate.timeout = time.Minute
	gate.free.Release(1 << 20)
	if code := batch(items(half, half)); code != ok || gate.inside.Load() != 0 {
		t.Errorf("room again: %s, %d bytes inside", code, gate.inside.Load())
	}
	cancel()
	if err := errors.Join(<-served, n.Close(t.Context())); err != nil {
		t.Error(err)
	}
}
