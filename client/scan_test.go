package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

// fill stores n keys and returns them in order.
func fill(store *clienttest.Store, n int) []string {
	var keys []string
	for i := range n {
		k := fmt.Sprintf("k/%04d", i)
		store.SetValue("default", k, []byte("v"+k))
		keys = append(keys, k)
	}
	return keys
}

// all reads a scan to its end.
func all(s *Scanner) ([]string, error) {
	defer s.Close()
	var keys []string
	for s.Next() {
		keys = append(keys, s.Item().Key)
	}
	return keys, s.Err()
}

func TestScanReturnsKeysAndValues(t *testing.T) {
	c, store, _ := start(t, 1, Options{})
	keys := fill(store, 25)
	store.SetValue("default", "other", []byte("x"))
	s := c.Scan(t.Context(), ScanOptions{Prefix: "k/", PageSize: 7})
	for i := 0; s.Next(); i++ {
		it := s.Item()
		if it.Key != keys[i] || string(it.Value) != "v"+keys[i] || len(it.Siblings) != 1 || it.Context.IsZero() || it.Siblings[0].Dot.Counter == 0 {
			t.Fatalf("item %d is %+v", i, it)
		}
	}
	if s.Err() != nil || s.Scanned() != 25 || len(s.PageToken()) != 0 || s.Next() {
		t.Errorf("ended with %v after %d, token %q", s.Err(), s.Scanned(), s.PageToken())
	}
	s.Close()
	for name, tc := range map[string]struct {
		o    ScanOptions
		want []string
	}{
		"range":  {ScanOptions{Start: "k/0003", End: "k/0006"}, keys[3:6]},
		"limit":  {ScanOptions{Limit: 10, PageSize: 4}, keys[:10]},
		"nobody": {ScanOptions{Prefix: "z"}, nil},
	} {
		if got, err := all(c.Scan(t.Context(), tc.o)); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	s = c.Scan(t.Context(), ScanOptions{KeysOnly: true, Limit: 1})
	defer s.Close()
	if !s.Next() || s.Item().Value != nil || len(s.Item().Siblings) != 1 {
		t.Errorf("keys only: %+v %v", s.Item(), s.Err())
	}
}

func TestScanGoesOnWithAToken(t *testing.T) {
	c, store, _ := start(t, 1, Options{})
	keys := fill(store, 20)
	var got []string
	var token []byte
	for range 7 {
		s := c.Scan(t.Context(), ScanOptions{Limit: 3, PageToken: token})
		part, err := all(s)
		if err != nil {
			t.Fatal(err)
		}
		got, token = append(got, part...), s.PageToken()
	}
	if !slices.Equal(got, keys) || len(token) != 0 {
		t.Errorf("got %v, then %q", got, token)
	}
}

// TestScanSurvivesLostNodes: one endpoint never answers, another breaks after
// each page, and still every key comes once.
func TestScanSurvivesLostNodes(t *testing.T) {
	store := clienttest.NewStore()
	keys := fill(store, 50)
	var servers []*clienttest.Server
	opts := Options{Endpoints: []string{deadEndpoint(t)}}
	for range 2 {
		s, err := clienttest.Start(store)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		servers = append(servers, s)
		opts.Endpoints = append(opts.Endpoints, s.Addr())
	}
	c, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var calls atomic.Int32
	for _, s := range servers {
		s.SetHook(func(context.Context, string, any) error {
			if calls.Add(1)%2 == 0 {
				return clienttest.Fail(errcode.QuorumNotReached, "a node is down", nil)
			}
			return nil
		})
	}
	for _, limit := range []int{0, 33} {
		want := keys
		if limit > 0 {
			want = keys[:limit]
		}
		if got, err := all(c.Scan(t.Context(), ScanOptions{PageSize: 10, Limit: limit})); err != nil || !slices.Equal(got, want) {
			t.Errorf("limit %d: %v %v", limit, got, err)
		}
	}
}

// TestScanGivesUp: what no other node can mend ends the scan at once, and what
// does not get better ends it after some attempts.
func TestScanGivesUp(t *testing.T) {
	c, store, servers := start(t, 2, Options{})
	short, err := New(Options{Endpoints: []string{servers[0].Addr(), servers[1].Addr()}, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	fill(store, 5)
	for code, most := range map[errcode.Code]int32{errcode.InvalidArgument: 1, errcode.QuorumNotReached: scanAttempts} {
		var calls atomic.Int32
		for _, s := range servers {
			s.SetHook(func(_ context.Context, method string, _ any) error {
				if method == pairdbv1.KV_Scan_FullMethodName {
					calls.Add(1)
				}
				return clienttest.Fail(code, "no", nil)
			})
		}
		if _, err := all(c.Scan(t.Context(), ScanOptions{})); CodeOf(err) != code || calls.Load() > most {
			t.Errorf("%s: %v after %d calls", code, err, calls.Load())
		}
	}
	for _, s := range servers {
		s.SetHook(func(ctx context.Context, _ string, _ any) error {
			<-ctx.Done()
			return ctx.Err()
		})
	}
	began := time.Now()
	if _, err := all(short.Scan(t.Context(), ScanOptions{})); CodeOf(err) != errcode.Timeout || time.Since(began) > 10*time.Second {
		t.Errorf("nodes that say nothing: %v after %s", err, time.Since(began))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all(c.Scan(ctx, ScanOptions{})); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestScanChecksItsOptions(t *testing.T) {
	c, _, _ := start(t, 1, Options{})
	for name, tc := range map[string]struct {
		o    ScanOptions
		want errcode.Code
	}{
		"prefix":    {ScanOptions{Prefix: strings.Repeat("x", MaxKeySize+1)}, errcode.KeyTooLarge},
		"end":       {ScanOptions{End: strings.Repeat("x", MaxKeySize+1)}, errcode.KeyTooLarge},
		"limit":     {ScanOptions{Limit: -1}, errcode.InvalidArgument},
		"page size": {ScanOptions{PageSize: MaxPageSize + 1}, errcode.InvalidArgument},
		"token":     {ScanOptions{PageToken: make([]byte, maxPageToken+1)}, errcode.InvalidArgument},
	} {
		if _, err := all(c.Scan(t.Context(), tc.o)); CodeOf(err) != tc.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := all(c.Scan(t.Context(), ScanOptions{})); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
