package rpc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// clientOf serves clients with opts and returns a connection to it.
func clientOf(t *testing.T, opts Options) (*Server, *grpc.ClientConn) {
	t.Helper()
	s, err := NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	if err := s.ServeClients(l); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(conn.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return s, conn
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestKV(t *testing.T) {
	seen := causal.Context{{Actor: 1, Counter: 2}, {Actor: 1 << 63, Counter: 4}}
	f := &fakeCoordinator{
		write: coord.WriteResponse{Token: []byte("token"), Dot: causal.Dot{Actor: 1 << 63, Counter: 4}, Context: seen, Acks: 2, Replicas: 3, Level: quorum.All, Duplicate: true},
		read: coord.GetResponse{Token: []byte("seen"), Context: seen, Siblings: []causal.Sibling{
			{Dot: causal.Dot{Actor: 1, Counter: 2}, HLC: causal.HLCAt(time.UnixMilli(1234567)) + 3, Value: []byte("v"), Flags: causal.FlagExpiry, ExpiresAt: 99000},
			{Dot: causal.Dot{Actor: 2, Counter: 1}},
		}},
	}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	var observed []string
	var mu sync.Mutex
	opts.Observe = func(method, code string, d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if d <= 0 {
			t.Errorf("%s took %v", method, d)
		}
		observed = append(observed, method+" "+code)
	}
	_, conn := clientOf(t, opts)
	kv := pairdbv1.NewKVClient(conn)
	ctx := testContext(t)

	put, err := kv.Put(ctx, &pairdbv1.PutRequest{
		TenantId: "acme", Key: []byte("k\x00"), Value: []byte("v"), Context: []byte("c"), Consistency: pairdbv1.Consistency_CONSISTENCY_ALL,
		IdempotencyKey: []byte("id"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(put.GetContext()) != "token" || put.GetDot().GetActor() != 1<<63 || put.GetAcks() != 2 || len(put.GetVectorClock()) != 2 ||
		put.GetVectorClock()[1].GetCounter() != 4 || put.GetConsistency() != pairdbv1.Consistency_CONSISTENCY_ALL || !put.GetIsDuplicate() {
		t.Errorf("put: %v", put)
	}
	if d := time.Until(f.put.Deadline); d < 15*time.Second || d > 20*time.Second {
		t.Errorf("the client has 20 s, the coordinator %v", d)
	}
	f.put.Deadline = time.Time{}
	if want := (coord.PutRequest{Tenant: "acme", Key: []byte("k\x00"), Value: []byte("v"), Token: []byte("c"), Level: quorum.All, IdempotencyKey: []byte("id")}); !reflect.DeepEqual(f.put, want) {
		t.Errorf("put asked %+v", f.put)
	}

	// No tenant, no level, no deadline.
	get, err := kv.Get(context.Background(), &pairdbv1.GetRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	s := get.GetSiblings()
	if len(s) != 2 || string(s[0].GetValue()) != "v" || !s[0].GetWrittenAt().AsTime().Equal(time.UnixMilli(1234567)) ||
		!s[0].GetExpiresAt().AsTime().Equal(time.UnixMilli(99000)) || s[1].ExpiresAt != nil || string(get.GetContext()) != "seen" || string(get.GetKey()) != "k" {
		t.Errorf("get: %v", get)
	}
	if d := time.Until(f.get.Deadline); f.get.Tenant != "default" || f.get.Level != quorum.Quorum || d > 10*time.Second || d < 5*time.Second {
		t.Errorf("get asked %+v", f.get)
	}

	del, err := kv.Delete(metadata.AppendToOutgoingContext(ctx, "x-pairdb-tenant", "other"), &pairdbv1.DeleteRequest{
		Key: []byte("k"), Consistency: pairdbv1.Consistency_CONSISTENCY_ONE, Context: []byte("c"), IdempotencyKey: []byte("id"),
	})
	if err != nil || !del.GetIsDuplicate() {
		t.Fatal(del, err)
	}
	if string(f.del.IdempotencyKey) != "id" || f.del.Tenant != "other" || f.del.Level != quorum.One || string(f.del.Token) != "c" || f.del.ExpectClock != nil {
		t.Errorf("delete asked %+v", f.del)
	}

	if _, err := kv.Get(ctx, &pairdbv1.GetRequest{Key: []byte("k"), Consistency: 77}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("level 77: %v", err)
	} else if info, _ := details(t, err); info.GetReason() != string(errcode.InvalidArgument) {
		t.Errorf("level 77: %v", info)
	}
	f.err = &coord.Error{Code: errcode.QuorumNotReached, Outcome: errcode.Indeterminate, Acks: 1, Need: 2, Message: "too few"}
	if _, err := kv.Put(ctx, &pairdbv1.PutRequest{Key: []byte("k")}); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "too few" {
		t.Errorf("got %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	want := []string{"KV.Put OK", "KV.Get OK", "KV.Delete OK", "KV.Get INVALID_ARGUMENT", "KV.Put QUORUM_NOT_REACHED"}
	if !slices.Equal(observed, want) {
		t.Errorf("observed %q", observed)
	}
}

// TestOutcomeIsNeverOpen: a write that failed without word of its outcome is
// indeterminate, unless the code is a refusal; a read has none.
func TestOutcomeIsNeverOpen(t *testing.T) {
	f := new(fakeCoordinator)
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator, opts.Logger = f, nil
	_, conn := clientOf(t, opts)
	kv := pairdbv1.NewKVClient(conn)
	for _, c := range []struct {
		err         error
		write, read errcode.Outcome
	}{
		{context.DeadlineExceeded, errcode.Indeterminate, ""},
		{errors.New("anything"), errcode.Indeterminate, ""},
		{&coord.Error{Code: errcode.Unavailable}, errcode.Indeterminate, ""},
		{&coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied}, errcode.NotApplied, errcode.NotApplied},
		{&coord.Error{Code: errcode.InvalidKey}, "", ""},
		{&coord.Error{Code: errcode.TenantNotFound}, "", ""},
	} {
		f.mu.Lock()
		f.err = c.err
		f.mu.Unlock()
		_, put := kv.Put(testContext(t), &pairdbv1.PutRequest{Key: []byte("k")})
		_, del := kv.Delete(testContext(t), &pairdbv1.DeleteRequest{Key: []byte("k")})
		_, get := kv.Get(testContext(t), &pairdbv1.GetRequest{Key: []byte("k")})
		for _, x := range []struct {
			err  error
			want errcode.Outcome
		}{{put, c.write}, {del, c.write}, {get, c.read}} {
			if info, _ := details(t, x.err); info.GetMetadata()[errcode.MetaOutcome] != string(x.want) {
				t.Errorf("%v: outcome %q, want %q", c.err, info.GetMetadata()[errcode.MetaOutcome], x.want)
			}
		}
	}
}

func TestPanicTellsNothing(t *testing.T) {
	f := &fakeCoordinator{panic: "secret state"}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	var log bytes.Buffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s, conn := clientOf(t, opts)
	_, err := pairdbv1.NewKVClient(conn).Get(testContext(t), &pairdbv1.GetRequest{Key: []byte("private-key")})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	f.mu.Lock()
	f.panic = nil
	f.mu.Unlock()
	if _, err := pairdbv1.NewKVClient(conn).Put(testContext(t), &pairdbv1.PutRequest{Key: []byte("private-key")}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if out := log.String(); !strings.Contains(out, "secret state") || !strings.Contains(out, "fakeCoordinator") || strings.Contains(out, "private-key") {
		t.Errorf("log: %s", out)
	}
}

// TestLimits passes the largest value both ways and refuses a larger message.
func TestLimits(t *testing.T) {
	value := bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16)
	f := &fakeCoordinator{read: coord.GetResponse{Siblings: []causal.Sibling{{Value: value}}}}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	_, conn := clientOf(t, opts)
	kv := pairdbv1.NewKVClient(conn)
	ctx := testContext(t)
	req := &pairdbv1.PutRequest{TenantId: strings.Repeat("t", 63), Key: make([]byte, 1024), Value: value, Context: make([]byte, 4096)}
	if _, err := kv.Put(ctx, req); err != nil || !bytes.Equal(f.put.Value, value) {
		t.Errorf("put of 10 MiB: %d arrived, %v", len(f.put.Value), err)
	}
	if r, err := kv.Get(ctx, &pairdbv1.GetRequest{Key: []byte("k")}); err != nil || !bytes.Equal(r.GetSiblings()[0].GetValue(), value) {
		t.Errorf("get of 10 MiB: %v", err)
	}
	// A little too large reaches the coordinator, which says VALUE_TOO_LARGE.
	req.Value = make([]byte, 10<<20+1)
	if _, err := kv.Put(ctx, req); err != nil || len(f.put.Value) != 10<<20+1 {
		t.Errorf("put of 10 MiB + 1: %v", err)
	}
	req.Value = make([]byte, 17<<20)
	if _, err := kv.Put(ctx, req); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("put of 17 MiB: %v", err)
	}
	huge := metadata.AppendToOutgoingContext(ctx, "x-filler", strings.Repeat("x", 64<<10))
	if _, err := kv.Get(huge, &pairdbv1.GetRequest{Key: []byte("k")}); err == nil {
		t.Error("64 KiB of headers were accepted")
	}
	if _, err := kv.Get(ctx, &pairdbv1.GetRequest{Key: []byte("k")}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestReadyIsAskedByOneAtATime: whoever tells whether a node is ready asks while nobody
// else tells: two that ask first and tell then may tell in the wrong order.
func TestReadyIsAskedByOneAtATime(t *testing.T) {
	s, _ := clientOf(t, serverOptions(t, nodeB, clusterOf(nodeB), echo))
	s.SetReady(func() bool {
		if s.telling.TryLock() {
			s.telling.Unlock()
			t.Error("another could tell what holds, and be followed by what held before")
		}
		return true
	})
	if !s.localInfo().Ready {
		t.Error("what was asked was not told")
	}
}

func TestHealthAndReflection(t *testing.T) {
	s, conn := clientOf(t, serverOptions(t, nodeB, clusterOf(nodeB), echo))
	ctx := testContext(t)
	check := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetStatus()
	}
	for _, ready := range []bool{false, true, false, true} {
		want := healthpb.HealthCheckResponse_NOT_SERVING
		if s.SetReady(func() bool { return ready }); ready {
			want = healthpb.HealthCheckResponse_SERVING
		} else if s.localInfo().Ready {
			t.Error("the figures say ready")
		}
		for _, service := range []string{"", "pairdb.v1.KV", "pairdb.v1.Tenants", "pairdb.v1.Cluster"} {
			if got := check(service); got != want {
				t.Errorf("ready %v: %q is %v", ready, service, got)
			}
		}
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, service := range r.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	for _, want := range []string{"pairdb.v1.KV", "pairdb.v1.Tenants", "pairdb.v1.Cluster", "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			t.Errorf("reflection lists %q", names)
		}
	}
	if slices.Contains(names, "pairdb.peer.v1.Peer") {
		t.Error("clients see the peers' service")
	}
}

func TestOrderlyStop(t *testing.T) {
	for name, orderly := range map[string]bool{"waits for a call": true, "cuts off at the deadline": false} {
		t.Run(name, func(t *testing.T) {
			f := &fakeCoordinator{hold: make(chan struct{})}
			opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
			opts.Coordinator = f
			s, conn := clientOf(t, opts)
			kv := pairdbv1.NewKVClient(conn)
			answered := make(chan error, 1)
			go func() {
				_, err := kv.Put(testContext(t), &pairdbv1.PutRequest{Key: []byte("k")})
				answered <- err
			}()
			waitFor(t, func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.put.Key != nil
			})
			d := 50 * time.Millisecond
			if orderly {
				d = 20 * time.Second
			}
			ctx, cancel := context.WithTimeout(context.Background(), d)
			defer cancel()
			stopped := make(chan error, 1)
			go func() { stopped <- errors.Join(s.StopClients(ctx), s.StopPeers(ctx), s.Close()) }()
			if orderly {
				waitFor(t, func() bool { // new calls are refused first
					_, err := healthpb.NewHealthClient(conn).Check(testContext(t), &healthpb.HealthCheckRequest{})
					return status.Code(err) == codes.Unavailable
				})
				close(f.hold)
			}
			err := <-stopped
			if putErr := <-answered; (putErr == nil) != orderly {
				t.Errorf("the call under way: %v", putErr)
			}
			if orderly != (err == nil) || !orderly && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("stop: %v", err)
			}
			for range 2 {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := s.ServeClients(listen(t)); !errors.Is(err, ErrClosed) {
				t.Errorf("serve after close: %v", err)
			}
		})
	}
}

func TestListenerFailure(t *testing.T) {
	s, err := NewServer(serverOptions(t, nodeB, clusterOf(nodeB), echo))
	if err != nil {
		t.Fatal(err)
	}
	clients, peers := listen(t), listen(t)
	if err := errors.Join(s.ServePeers(peers), s.ServeClients(clients)); err != nil {
		t.Fatal(err)
	}
	if err := peers.Close(); err != nil {
		t.Fatal(err)
	}
	<-s.Failed()
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "serve peers on "+peers.Addr().String()) {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := NewServer(Options{DefaultTimeout: -1})
	for _, want := range []string{"Self", "Coordinator", "Metadata", "Meta", "Peer", "Local", "Asker", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if _, err := NewPeers(PeersOptions{MaxPending: -1, DialTimeout: -1}); err == nil {
		t.Error("empty peer options were accepted")
	}
	if _, err := NewMetaClient(MetaClientOptions{}); err == nil {
		t.Error("empty meta client options were accepted")
	}
}
