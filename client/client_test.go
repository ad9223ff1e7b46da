package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
	"github.com/pairdb/pairdb/node/freeport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs n servers with one store, and a client of all of them.
func start(t *testing.T, n int, opts Options) (*Client, *clienttest.Store, []*clienttest.Server) {
	t.Helper()
	store := clienttest.NewStore()
	var servers []*clienttest.Server
	for range n {
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
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, store, servers
}

// deadEndpoint returns an address at which nothing listens.
func deadEndpoint(t *testing.T) string {
	t.Helper()
	ports, err := freeport.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", ports[0])
}

func asError(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *Error", err)
	}
	return e
}

func TestRoundTrip(t *testing.T) {
	c, store, _ := start(t, 1, Options{})
	ctx := t.Context()
	for _, key := range []string{"k", "a//b/../c", "\xff\x00\n", "{tag}x", strings.Repeat("k", MaxKeySize)} {
		values := [][]byte{nil, []byte("v"), {0, 0xff, '\n'}}
		if key == "k" {
			values = append(values, bytes.Repeat([]byte("x"), MaxValueSize))
		}
		for _, value := range values {
			put, err := c.Put(ctx, key, value, WithLevel(LevelAll))
			if err != nil {
				t.Fatalf("put %q: %v", key, err)
			}
			if put.Acks != 2 || put.Level != LevelAll || put.Context.IsZero() || put.Dot.Counter == 0 || put.Proto() == nil {
				t.Fatalf("put %q: %+v", key, put)
			}
			if got, ok := store.Value("default", key); !ok || !bytes.Equal(got, value) {
				t.Fatalf("stored %d bytes, put %d", len(got), len(value))
			}
			got, err := c.Get(ctx, key)
			if err != nil || !bytes.Equal(got.Value, value) || got.Siblings[0].WrittenAt.IsZero() || !got.Siblings[0].ExpiresAt.IsZero() {
				t.Fatalf("get %q: %v", key, err)
			}
		}
		if _, err := c.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(ctx, key); !errors.Is(err, ErrKeyNotFound) {
			t.Fatalf("get deleted: %v", err)
		}
	}
}

func TestLimitsAreCheckedBeforeSending(t *testing.T) {
	c, _, servers := start(t, 1, Options{})
	servers[0].SetHook(func(_ context.Context, method string, _ any) error {
		t.Errorf("%s was sent", method)
		return nil
	})
	ctx := t.Context()
	_, empty := c.Put(ctx, "", nil)
	_, long := c.Get(ctx, strings.Repeat("k", MaxKeySize+1))
	_, large := c.Put(ctx, "k", make([]byte, MaxValueSize+1))
	_, del := c.Delete(ctx, "")
	for _, tc := range []struct {
		err     error
		is      error
		outcome errcode.Outcome
	}{
		{empty, ErrInvalidKey, errcode.NotApplied},
		{long, ErrKeyTooLarge, ""},
		{large, ErrValueTooLarge, errcode.NotApplied},
		{del, ErrInvalidKey, errcode.NotApplied},
	} {
		if !errors.Is(tc.err, tc.is) || asError(t, tc.err).Outcome != tc.outcome {
			t.Errorf("%v: want %v, outcome %q", tc.err, tc.is, tc.outcome)
		}
	}
}

func TestFailover(t *testing.T) {
	plain := func(c codes.Code) error { return status.Error(c, "from the transport") }
	for _, tc := range []struct {
		name       string
		op         string
		err        error
		wantSecond bool // the second endpoint was asked
		code       errcode.Code
		outcome    errcode.Outcome
	}{
		{"get unavailable", "get", clienttest.Fail(errcode.Unavailable, "stopping", nil), true, "", ""},
		{"get transport", "get", plain(codes.Unavailable), true, "", ""},
		{"get stale", "get", clienttest.Fail(errcode.StaleRing, "stale", nil), true, "", ""},
		{"get checksum", "get", clienttest.Fail(errcode.ChecksumFailed, "bad block", nil), true, "", ""},
		{"get not found", "get", clienttest.Fail(errcode.KeyNotFound, "none", nil), false, errcode.KeyNotFound, ""},
		{"get quorum", "get", clienttest.FailWrite(errcode.QuorumNotReached, "", 1, 2, "1 of 2"), false, errcode.QuorumNotReached, ""},
		{"get timeout by node", "get", clienttest.Fail(errcode.Timeout, "late", nil), false, errcode.Timeout, ""},
		{"put refused", "put", clienttest.FailWrite(errcode.Unavailable, errcode.NotApplied, 0, 2, "stopping"), true, "", ""},
		{"put stale", "put", clienttest.FailWrite(errcode.StaleRing, errcode.NotApplied, 0, 2, "stale"), true, "", ""},
		{"put unknown", "put", clienttest.FailWrite(errcode.Unavailable, errcode.Indeterminate, 1, 2, "lost"), false, errcode.Unavailable, errcode.Indeterminate},
		{"put no outcome", "put", clienttest.Fail(errcode.Unavailable, "?", nil), false, errcode.Unavailable, errcode.Indeterminate},
		{"put transport", "put", plain(codes.Unavailable), false, errcode.Unavailable, errcode.Indeterminate},
		{"put quorum refused", "put", clienttest.FailWrite(errcode.QuorumNotReached, errcode.NotApplied, 0, 2, "1 alive"), false, errcode.QuorumNotReached, errcode.NotApplied},
		{"put throttled", "put", clienttest.FailWrite(errcode.DiskThrottled, errcode.NotApplied, 0, 2, "full"), false, errcode.DiskThrottled, errcode.NotApplied},
		{"put tenant", "put", clienttest.Fail(errcode.TenantNotFound, "none", nil), false, errcode.TenantNotFound, errcode.NotApplied},
		{"put new word", "put", clienttest.FailWrite(errcode.Unavailable, "half_applied", 0, 2, "?"), false, errcode.Unavailable, errcode.Indeterminate},
		{"delete refused", "delete", clienttest.FailWrite(errcode.Unavailable, errcode.NotApplied, 0, 2, "stopping"), true, "", ""},
		{"delete transport", "delete", plain(codes.Unavailable), false, errcode.Unavailable, errcode.Indeterminate},
		{"create transport", "create", plain(codes.Unavailable), false, errcode.Unavailable, errcode.Indeterminate},
		{"create refused", "create", clienttest.FailWrite(errcode.Unavailable, errcode.NotApplied, 0, 2, "not ready"), true, "", ""},
		{"list unavailable", "list", clienttest.Fail(errcode.Unavailable, "stopping", nil), true, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Who is slow is asked twice, or whether it is alive: that is no part of this.
			c, store, servers := start(t, 2, Options{Retries: -1, NoHedging: true, NoNodeHealth: true})
			store.SetValue("default", "k", []byte("v"))
			var asked [2]atomic.Int32
			servers[0].SetHook(func(context.Context, string, any) error { asked[0].Add(1); return tc.err })
			servers[1].SetHook(func(context.Context, string, any) error { asked[1].Add(1); return nil })
			err := call(t.Context(), c, tc.op)
			if asked[0].Load() != 1 {
				t.Fatalf("first endpoint was asked %d times", asked[0].Load())
			}
			if (asked[1].Load() == 1) != tc.wantSecond || asked[1].Load() > 1 {
				t.Fatalf("second endpoint was asked %d times, want it asked: %v", asked[1].Load(), tc.wantSecond)
			}
			if tc.wantSecond {
				if err != nil {
					t.Fatal(err)
				}
				if c.Endpoint() != servers[1].Addr() {
					t.Error("the next call does not begin at the endpoint that worked")
				}
				return
			}
			if e := asError(t, err); e.Code != tc.code || e.Outcome != tc.outcome {
				t.Fatalf("got %s %q, want %s %q", e.Code, e.Outcome, tc.code, tc.outcome)
			}
		})
	}
}

func call(ctx context.Context, c *Client, op string) error {
	var err error
	switch op {
	case "get":
		_, err = c.Get(ctx, "k")
	case "put":
		_, err = c.Put(ctx, "k", []byte("w"))
	case "delete":
		_, err = c.Delete(ctx, "k")
	case "create":
		_, err = c.CreateTenant(ctx, NewTenant{ID: "t"})
	case "list":
		_, err = c.ListTenants(ctx)
	default:
		panic("unknown op " + op)
	}
	return err
}

func TestDeadEndpointIsSkipped(t *testing.T) {
	c, store, _ := start(t, 1, Options{Endpoints: []string{deadEndpoint(t)}})
	store.SetValue("default", "k", nil)
	for _, op := range []string{"put", "get", "create"} {
		if err := call(t.Context(), c, op); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
	}
}

func TestAllEndpointsDead(t *testing.T) {
	dead := deadEndpoint(t)
	c, _, _ := start(t, 0, Options{Endpoints: []string{dead, deadEndpoint(t)}})
	_, err := c.Put(t.Context(), "k", nil)
	e := asError(t, err)
	if !errors.Is(err, ErrNotConnected) || !errors.Is(err, ErrUnavailable) || e.Outcome != errcode.NotApplied {
		t.Fatalf("%+v", e)
	}
	if !strings.Contains(e.Message, dead) || !strings.Contains(e.Message, "connection refused") {
		t.Errorf("message does not say what could not be reached and why: %s", e.Message)
	}
}

// A connection that breaks after the request was sent leaves a write in doubt,
// and doubt is never sent again.
func TestBrokenConnection(t *testing.T) {
	for _, op := range []string{"put", "get"} {
		t.Run(op, func(t *testing.T) {
			c, store, servers := start(t, 2, Options{NoHedging: true, NoNodeHealth: true})
			store.SetValue("default", "k", []byte("v"))
			arrived := make(chan struct{})
			servers[0].SetHook(func(ctx context.Context, _ string, _ any) error {
				close(arrived)
				<-ctx.Done()
				return ctx.Err()
			})
			var second atomic.Int32
			servers[1].SetHook(func(context.Context, string, any) error { second.Add(1); return nil })
			done := make(chan error, 1)
			go func() { done <- call(t.Context(), c, op) }()
			<-arrived
			servers[0].Close()
			err := <-done
			if op == "get" {
				if err != nil || second.Load() != 1 {
					t.Fatalf("read did not move on: %v", err)
				}
				return
			}
			if e := asError(t, err); e.Outcome != errcode.Indeterminate || e.NotConnected || second.Load() != 0 {
				t.Fatalf("second endpoint asked %d times, error %+v", second.Load(), e)
			}
			// The next call goes where somebody listens.
			if err := call(t.Context(), c, op); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestSilentEndpoint(t *testing.T) {
	hang := func(ctx context.Context, _ string, _ any) error {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	t.Run("read moves on within its share", func(t *testing.T) {
		c, store, servers := start(t, 2, Options{Timeout: 4 * time.Second})
		store.SetValue("default", "k", []byte("v"))
		servers[0].SetHook(hang)
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("write waits and is in doubt", func(t *testing.T) {
		c, _, servers := start(t, 2, Options{Timeout: 500 * time.Millisecond})
		connected(t, c) // so that it is sent at once
		servers[0].SetHook(hang)
		_, err := c.Put(t.Context(), "k", nil)
		if e := asError(t, err); !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) || e.Outcome != errcode.Indeterminate {
			t.Fatalf("%+v", e)
		}
		if c.Endpoint() == servers[0].Addr() {
			t.Error("the next call begins at the silent endpoint")
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		c, _, servers := start(t, 1, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		servers[0].SetHook(func(sctx context.Context, m string, r any) error { cancel(); return hang(sctx, m, r) })
		_, err := c.Put(ctx, "k", nil)
		if e := asError(t, err); !errors.Is(err, context.Canceled) || e.Outcome != errcode.Indeterminate {
			t.Fatalf("%+v", e)
		}
	})
}

func TestErrorDetails(t *testing.T) {
	c, _, servers := start(t, 1, Options{})
	servers[0].SetHook(func(context.Context, string, any) error {
		return clienttest.FailWrite(errcode.QuorumNotReached, errcode.Indeterminate, 1, 2, "1 of 3 replicas answered, 2 are needed")
	})
	_, err := c.Put(t.Context(), "k", nil)
	e := asError(t, err)
	want := []string{"n2: connection refused", "n3: timed out"}
	if !errors.Is(err, ErrQuorumNotReached) || e.Acks != 1 || e.Need != 2 || !slices.Equal(e.Causes, want) || e.Endpoint != servers[0].Addr() {
		t.Fatalf("%+v", e)
	}
	for _, s := range []error{ErrTimeout, ErrUnavailable, ErrNotConnected, ErrClosed} {
		if errors.Is(err, s) {
			t.Errorf("%v matches %v", err, s)
		}
	}
	if CodeOf(err) != errcode.QuorumNotReached || CodeOf(nil) != errcode.OK || CodeOf(errors.New("x")) != errcode.Internal {
		t.Error("CodeOf")
	}
}

func TestClosed(t *testing.T) {
	c, _, _ := start(t, 1, Options{})
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Get(t.Context(), "k"); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestClusterCalls(t *testing.T) {
	c, _, servers := start(t, 2, Options{})
	ctx := t.Context()
	rf := uint32(2)
	tenant, err := c.CreateTenant(ctx, NewTenant{ID: "blue", ReplicationFactor: &rf, ConflictPolicy: pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS})
	if err != nil || tenant.GetReplicationFactor() != 2 {
		t.Fatal(tenant, err)
	}
	zero := uint32(0)
	if _, err := c.CreateTenant(ctx, NewTenant{ID: "red", ReplicationFactor: &zero}); CodeOf(err) != errcode.InvalidReplicationFactor {
		t.Fatal(err)
	}
	if _, err := c.CreateTenant(ctx, NewTenant{ID: "blue"}); !errors.Is(err, ErrTenantExists) {
		t.Fatal(err)
	}
	if _, err := c.GetTenant(ctx, "red"); !errors.Is(err, ErrTenantNotFound) {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "k", nil, WithTenant("red")); !errors.Is(err, ErrTenantNotFound) {
		t.Fatal(err)
	}
	if list, err := c.ListTenants(ctx); err != nil || len(list.GetTenants()) != 2 {
		t.Fatal(list, err)
	}
	if st, err := c.Status(ctx); err != nil || len(st.GetNodes()) != 2 {
		t.Fatal(st, err)
	}
	if m, err := c.Members(ctx); err != nil || len(m.GetMembers()) != 2 {
		t.Fatal(m, err)
	}
	if r, err := c.Locate(ctx, "k"); err != nil || r.Token == nil || len(r.GetOwners()) == 0 {
		t.Fatal(r, err)
	}
	if r, err := c.Layout(ctx); err != nil || r.Token != nil || len(r.GetNodes()) != 2 {
		t.Fatal(r, err)
	}
	servers[1].SetServing(false)
	h := c.Health(ctx)
	if len(h) != 2 || !h[0].Serving || h[1].Serving || h[1].Status != "NOT_SERVING" {
		t.Fatalf("%+v", h)
	}
	servers[0].Close()
	if h := c.Health(ctx); h[0].Err == nil || h[0].Serving {
		t.Fatalf("%+v", h)
	}
}

func TestContextText(t *testing.T) {
	seen, err := ContextFromBytes([]byte{0, 1, 0xff})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]Context{"c": seen})
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]Context
	if err := json.Unmarshal(text, &back); err != nil || back["c"] != seen {
		t.Fatalf("%s: %v", text, err)
	}
	for _, bad := range []string{"!", "AA=", strings.Repeat("A", 8192)} {
		if _, err := ParseContext(bad); err == nil {
			t.Errorf("%.10q was taken", bad)
		}
	}
	if _, err := ContextFromBytes(make([]byte, maxContextSize+1)); err == nil {
		t.Error("a context over the limit was taken")
	}
	if c, err := ParseContext(""); err != nil || !c.IsZero() || c.Bytes() != nil {
		t.Error("the empty text is not the zero context")
	}
}

func FuzzParseContext(f *testing.F) {
	f.Add("")
	f.Add("AAEC")
	f.Add("AA=\n=")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseContext(text)
		if err != nil {
			return
		}
		back, err := ParseContext(c.String())
		if err != nil || back != c || len(c.Bytes()) > maxContextSize {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func TestNormalizeEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:1":     "127.0.0.1:1",
		"node1":           "node1:50051",
		"node1:65535":     "node1:65535",
		"::1":             "[::1]:50051",
		"[::1]":           "[::1]:50051",
		"[::1]:7":         "[::1]:7",
		"":                "",
		":50051":          "",
		"node1:0":         "",
		"node1:65536":     "",
		"node1:x":         "",
		"http://node1:80": "",
		"a b:1":           "",
		"node1/x":         "",
	} {
		got, err := NormalizeEndpoint(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("NormalizeEndpoint(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if _, err := New(Options{Endpoints: []string{"a:b:c:d"}}); err == nil {
		t.Error("New took an endpoint that is none")
	}
}

func TestLevels(t *testing.T) {
	for _, l := range []Level{LevelOne, LevelQuorum, LevelAll} {
		if got, err := ParseLevel(l.String()); err != nil || got != l || levelFromWire(l.wire()) != l {
			t.Errorf("%v", l)
		}
	}
	if _, err := ParseLevel("most"); err == nil {
		t.Error("a level that is none was taken")
	}
}
