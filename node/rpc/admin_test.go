package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// fakeAdmin notes what it is asked for. Its long calls wait for hold, if set, or
// for their context.
type fakeAdmin struct {
	fail  error
	hold  chan struct{}
	began chan struct{} // told when a long call has begun

	mu    sync.Mutex
	asked []string
}

func (f *fakeAdmin) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
}

func (f *fakeAdmin) wait(ctx context.Context) error {
	if f.hold == nil {
		return f.fail
	}
	f.began <- struct{}{}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.hold:
		return f.fail
	}
}

func (f *fakeAdmin) Scrub(start bool) *pairdbv1.NodeScrub {
	f.note("scrub %t", start)
	return &pairdbv1.NodeScrub{Running: start, QuarantinedPartitions: 4}
}

func (f *fakeAdmin) Flush(context.Context) (uint64, error) {
	f.note("flush")
	return 7, f.fail
}

func (f *fakeAdmin) Compact(ctx context.Context, whole bool, first, last ring.Partition, progress func(*pairdbv1.CompactResponse)) (*pairdbv1.CompactResponse, error) {
	f.note("compact %t %d-%d", whole, first, last)
	progress(&pairdbv1.CompactResponse{Level: 1, TablesDone: 1, TablesTotal: 2})
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	return &pairdbv1.CompactResponse{Merges: 2, Bytes: 99}, nil
}

func (f *fakeAdmin) Verify(ctx context.Context, progress func(*pairdbv1.VerifyResponse)) (*pairdbv1.VerifyResponse, error) {
	f.note("verify")
	progress(&pairdbv1.VerifyResponse{BytesDone: 1, BytesTotal: 2})
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	return &pairdbv1.VerifyResponse{Tables: 3, Damage: []*pairdbv1.Damage{{File: "1.sst", Offset: 4, Reason: "bad"}}}, nil
}

func (f *fakeAdmin) Stats() *pairdbv1.StatsResponse {
	return &pairdbv1.StatsResponse{Keys: 5}
}

// receive reads a stream to its end.
func receive[M any](stream interface{ Recv() (M, error) }, err error) ([]M, error) {
	if err != nil {
		return nil, err
	}
	var got []M
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, m)
	}
}

func TestAdmin(t *testing.T) {
	f := foundedCluster(t, 1)
	fake := new(fakeAdmin)
	opts := serverOptions(t, f.Snapshot().Self, f, echo)
	opts.Admin = fake
	_, conn := clientOf(t, opts)
	c, ctx := pairdbv1.NewAdminClient(conn), testContext(t)

	flushed, err := c.Flush(ctx, &pairdbv1.FlushRequest{})
	if err != nil || flushed.GetFlushedSeq() != 7 || flushed.GetNode().GetName() != "node0" || flushed.GetNode().GetNodeId() != f.Snapshot().Self.String() {
		t.Errorf("%v, %v", flushed, err)
	}
	stats, err := c.Stats(ctx, &pairdbv1.StatsRequest{})
	if err != nil || stats.GetKeys() != 5 || stats.GetNode().GetName() != "node0" {
		t.Errorf("%v, %v", stats, err)
	}
	compacted, err := receive(c.Compact(ctx, &pairdbv1.CompactRequest{}))
	if err != nil || len(compacted) != 2 || compacted[0].GetDone() || compacted[0].GetTablesTotal() != 2 || !compacted[1].GetDone() ||
		compacted[1].GetMerges() != 2 || compacted[1].GetNode().GetName() != "node0" {
		t.Errorf("%v, %v", compacted, err)
	}
	if _, err = receive(c.Compact(ctx, &pairdbv1.CompactRequest{Partitions: &pairdbv1.PartitionRange{First: 3, Last: 63}})); err != nil {
		t.Error(err)
	}
	verified, err := receive(c.Verify(ctx, &pairdbv1.VerifyRequest{}))
	if err != nil || len(verified) != 2 || verified[0].GetDone() || !verified[1].GetDone() || len(verified[1].GetDamage()) != 1 {
		t.Errorf("%v, %v", verified, err)
	}
	for _, bad := range []*pairdbv1.PartitionRange{{First: 2, Last: 1}, {First: 0, Last: 64}, {First: 0, Last: 1<<32 - 1}, {First: 1<<16 + 1, Last: 1<<16 + 1}} {
		_, err := receive(c.Compact(ctx, &pairdbv1.CompactRequest{Partitions: bad}))
		if info, _ := details(t, err); errcode.Code(info.GetReason()) != errcode.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if want := "[flush compact true 0-0 compact false 3-63 verify]"; fmt.Sprint(fake.asked) != want {
		t.Errorf("asked %v, want %s", fake.asked, want)
	}
	fake.fail = &coord.Error{Code: errcode.InsufficientSpace, Message: "full"}
	_, cerr := receive(c.Compact(ctx, &pairdbv1.CompactRequest{}))
	_, verr := receive(c.Verify(ctx, &pairdbv1.VerifyRequest{}))
	_, ferr := c.Flush(ctx, &pairdbv1.FlushRequest{})
	for _, err := range []error{cerr, verr, ferr} {
		if info, _ := details(t, err); errcode.Code(info.GetReason()) != errcode.InsufficientSpace {
			t.Error(err)
		}
	}
}

// A long call ends when its client goes or the node stops, and only one of a kind
// runs.
func TestAdminLongCalls(t *testing.T) {
	fake := &fakeAdmin{hold: make(chan struct{}), began: make(chan struct{}, 1)}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Admin = fake
	s, conn := clientOf(t, opts)
	c := pairdbv1.NewAdminClient(conn)
	ctx, cancel := context.WithCancel(testContext(t))
	failed := make(chan error, 1)
	go func() {
		_, err := receive(c.Compact(ctx, &pairdbv1.CompactRequest{}))
		failed <- err
	}()
	<-fake.began
	_, err := receive(c.Compact(testContext(t), &pairdbv1.CompactRequest{}))
	if info, _ := details(t, err); errcode.Code(info.GetReason()) != errcode.ResourceExhausted {
		t.Errorf("a second one: %v", err)
	}
	cancel()
	if err := <-failed; status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	// The server notices by itself; until then a new call is refused.
	for {
		failed := make(chan error, 1)
		go func() {
			_, err := receive(c.Compact(testContext(t), &pairdbv1.CompactRequest{}))
			failed <- err
		}()
		select {
		case err := <-failed:
			if status.Code(err) != codes.ResourceExhausted {
				t.Fatal(err)
			}
			continue
		case <-fake.began:
		}
		if err := s.StopClients(testContext(t)); err != nil {
			t.Error(err)
		}
		err := <-failed
		if info, _ := details(t, err); errcode.Code(info.GetReason()) != errcode.Unavailable {
			t.Errorf("stopped: %v", err)
		}
		return
	}
}

// Calls from elsewhere are refused before anything is done. A caller without an
// address is from elsewhere.
func TestAdminIsForThisMachine(t *testing.T) {
	if err := allow(context.Background()); Classify(err).Code != errcode.Forbidden {
		t.Error(err)
	}
	for _, tc := range []struct {
		remote, local string
		ok            bool
	}{{"127.0.0.1:1", "127.0.0.1:2", true}, {"192.0.2.1:1", "192.0.2.1:2", true}, {"192.0.2.2:1", "192.0.2.1:2", false}} {
		fake := new(fakeAdmin)
		a := &adminService{meta: clusterOf(nodeB), admin: fake, stopping: make(chan struct{})}
		ctx := callerFrom(tc.remote, tc.local)
		_, ferr := a.Flush(ctx, &pairdbv1.FlushRequest{})
		_, serr := a.Stats(ctx, &pairdbv1.StatsRequest{})
		cerr := a.Compact(&pairdbv1.CompactRequest{}, compactStream{ctx: ctx})
		verr := a.Verify(&pairdbv1.VerifyRequest{}, verifyStream{ctx: ctx})
		for i, err := range []error{ferr, serr, cerr, verr} {
			if (err == nil) != tc.ok || err != nil && Classify(err).Code != errcode.Forbidden {
				t.Errorf("from %s, call %d: %v", tc.remote, i, err)
			}
		}
		if (len(fake.asked) > 0) != tc.ok {
			t.Errorf("from %s: asked %v", tc.remote, fake.asked)
		}
	}
}

// callerFrom is the context of a call from remote, which reached local.
func callerFrom(remote, local string) context.Context {
	return grpcpeer.NewContext(context.Background(), &grpcpeer.Peer{Addr: textAddr(remote), LocalAddr: textAddr(local)})
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

// compactStream and verifyStream take what is sent.
type compactStream struct {
	pairdbv1.Admin_CompactServer
	ctx context.Context
}

func (s compactStream) Context() context.Context             { return s.ctx }
func (s compactStream) Send(*pairdbv1.CompactResponse) error { return nil }

type verifyStream struct {
	pairdbv1.Admin_VerifyServer
	ctx context.Context
}

func (s verifyStream) Context() context.Context            { return s.ctx }
func (s verifyStream) Send(*pairdbv1.VerifyResponse) error { return nil }
