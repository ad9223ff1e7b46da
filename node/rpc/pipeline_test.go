package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

type pipelineClient = grpc.BidiStreamingClient[pairdbv1.PipelineRequest, pairdbv1.PipelineResponse]

func pipelineGet(id uint64, key string) *pairdbv1.PipelineItem {
	return &pairdbv1.PipelineItem{Id: id, Request: &pairdbv1.PipelineItem_Get{Get: &pairdbv1.GetRequest{Key: []byte(key)}}}
}

func pipelinePut(id uint64, r *pairdbv1.PutRequest) *pairdbv1.PipelineItem {
	return &pairdbv1.PipelineItem{Id: id, Request: &pairdbv1.PipelineItem_Put{Put: r}}
}

func pipelineDelete(id uint64, r *pairdbv1.DeleteRequest) *pairdbv1.PipelineItem {
	return &pairdbv1.PipelineItem{Id: id, Request: &pairdbv1.PipelineItem_Delete{Delete: r}}
}

func sendItems(t *testing.T, s pipelineClient, items ...*pairdbv1.PipelineItem) {
	t.Helper()
	if err := s.Send(&pairdbv1.PipelineRequest{Items: items}); err != nil {
		t.Fatal(err)
	}
}

// recvResults returns n results by id, several of one id in their order.
func recvResults(t *testing.T, s pipelineClient, n int) map[uint64][]*pairdbv1.PipelineResult {
	t.Helper()
	got := map[uint64][]*pairdbv1.PipelineResult{}
	for n > 0 {
		r, err := s.Recv()
		if err != nil {
			t.Fatalf("%d results are missing: %v", n, err)
		}
		for _, res := range r.GetResults() {
			got[res.GetId()] = append(got[res.GetId()], res)
		}
		n -= len(r.GetResults())
	}
	return got
}

func openPipeline(t *testing.T, ctx context.Context, kv pairdbv1.KVClient) pipelineClient {
	t.Helper()
	s, err := kv.Pipeline(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPipeline: requests of all kinds, good and bad, on one stream, which they do
// not end.
func TestPipeline(t *testing.T) {
	f := &fakeCoordinator{
		write: coord.WriteResponse{Token: []byte("token"), Acks: 2, Level: quorum.One, Dot: causal.Dot{Actor: 1, Counter: 2}},
		read:  coord.GetResponse{Siblings: []causal.Sibling{{Value: []byte("v")}}},
		fail:  failing(coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate, Message: "late"}),
	}
	_, kv := kvOf(t, f)
	ctx := metadata.AppendToOutgoingContext(testContext(t), "x-pairdb-tenant", "shop")
	s := openPipeline(t, ctx, kv)
	began := time.Now()
	sendItems(t, s,
		pipelineGet(0, "k"),
		pipelinePut(1, &pairdbv1.PutRequest{TenantId: "other", Key: []byte("k"), Value: []byte("v"), Context: []byte("c"), IdempotencyKey: []byte("id"), Consistency: pairdbv1.Consistency_CONSISTENCY_ONE}),
		pipelineDelete(1<<63, &pairdbv1.DeleteRequest{Key: []byte("bad")}),
	)
	timed := pipelineGet(4, "bad")
	timed.TimeoutMs = 1500
	sendItems(t, s, timed, &pairdbv1.PipelineItem{Id: 5}, pipelinePut(6, &pairdbv1.PutRequest{Key: []byte("k"), Consistency: 17}))
	got := recvResults(t, s, 6)
	if r := got[0][0].GetGet(); string(r.GetKey()) != "k" || string(r.GetSiblings()[0].GetValue()) != "v" {
		t.Errorf("%v", r)
	}
	if r := got[1][0].GetPut(); r.GetAcks() != 2 || string(r.GetContext()) != "token" {
		t.Errorf("%v", r)
	}
	for id, want := range map[uint64]string{
		1 << 63: "TIMEOUT indeterminate", 4: "TIMEOUT ", 5: "INVALID_ARGUMENT not_applied", 6: "INVALID_ARGUMENT not_applied",
	} {
		e := got[id][0].GetError()
		if what := e.GetCode() + " " + e.GetMetadata()[errcode.MetaOutcome]; what != want {
			t.Errorf("%d: %s, want %s", id, what, want)
		}
	}
	if g, p, d, g2 := f.items[0].Get, f.items[1].Put, f.items[2].Delete, f.items[3].Get; g.Tenant != "shop" || g.Level != quorum.Quorum ||
		p.Tenant != "other" || p.Level != quorum.One || string(p.Value) != "v" || string(p.Token) != "c" || string(p.IdempotencyKey) != "id" ||
		d.Tenant != "shop" || g2.Deadline.Before(began.Add(1500*time.Millisecond)) || !g2.Deadline.Before(g.Deadline) {
		t.Errorf("%+v %+v %+v %+v", g, p, d, g2)
	}
	// The stream goes on, and ends as its client wants.
	sendItems(t, s, pipelineGet(0, "k"))
	recvResults(t, s, 1)
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Recv(); err != io.EOF {
		t.Errorf("%v, %v", r, err)
	}
}

// TestPipelineIDs: an id in flight is not taken again, and its own reply comes.
func TestPipelineIDs(t *testing.T) {
	f := &fakeCoordinator{read: coord.GetResponse{Siblings: []causal.Sibling{{Value: []byte("v")}}}, hold: make(chan struct{})}
	_, kv := kvOf(t, f)
	s := openPipeline(t, testContext(t), kv)
	sendItems(t, s, pipelineGet(7, "a"), pipelineGet(7, "b"))
	first := recvResults(t, s, 1)[7][0]
	if e := first.GetError(); e.GetCode() != "INVALID_ARGUMENT" || !strings.Contains(e.GetMessage(), "id 7") {
		t.Errorf("%v", first)
	}
	close(f.hold)
	if g := recvResults(t, s, 1)[7][0].GetGet(); string(g.GetKey()) != "a" {
		t.Errorf("%v", g)
	}
	if len(f.items) != 1 {
		t.Errorf("%d requests were begun", len(f.items))
	}
}

// TestPipelineBounds: no more is begun than may be in flight, by number and by
// bytes, until replies leave.
func TestPipelineBounds(t *testing.T) {
	begun := func(f *fakeCoordinator) int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.items)
	}
	for name, tc := range map[string]struct {
		value, items, want int
	}{
		"number": {10, 3000, maxInFlight},
		"bytes":  {5 << 20, 8, 3},
		"large":  {10 << 20, 4, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeCoordinator{hold: make(chan struct{})}
			_, kv := kvOf(t, f)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			s := openPipeline(t, ctx, kv)
			sent := make(chan error, 1)
			go func() {
				var err error
				for i := 0; i < tc.items && err == nil; i++ {
					// Sending blocks once the windows are full.
					err = s.Send(&pairdbv1.PipelineRequest{Items: []*pairdbv1.PipelineItem{
						pipelinePut(uint64(i), &pairdbv1.PutRequest{Key: []byte("k"), Value: make([]byte, tc.value)}),
					}})
				}
				sent <- err
			}()
			waitFor(t, func() bool { return begun(f) >= tc.want })
			// Whoever would begin too many has had the time for it.
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for range 30 {
				<-tick.C
				if n := begun(f); n > tc.want {
					t.Fatalf("%d requests were begun, at most %d may be", n, tc.want)
				}
			}
			close(f.hold)
			recvResults(t, s, tc.items)
			if err := <-sent; err != nil || begun(f) != tc.items {
				t.Errorf("%d begun, %v", begun(f), err)
			}
		})
	}
}

// TestPipelineRepliesNobodyReads: they do not gather without bound. Values that
// find no room are left out, and no reply is.
func TestPipelineRepliesNobodyReads(t *testing.T) {
	f := &fakeCoordinator{read: coord.GetResponse{Siblings: []causal.Sibling{{Value: make([]byte, 1<<20)}}}}
	s, kv := kvOf(t, f)
	stream := openPipeline(t, testContext(t), kv)
	var items []*pairdbv1.PipelineItem
	for i := range 500 {
		items = append(items, pipelineGet(uint64(i), "k"))
	}
	sendItems(t, stream, items...)
	waitFor(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.items) == 500
	})
	values, refused := 0, 0
	for id, rs := range recvResults(t, stream, 500) {
		switch e := rs[0].GetError(); {
		case len(rs) != 1:
			t.Errorf("%d: %d replies", id, len(rs))
		case e == nil:
			values++
		case e.GetCode() == "RESOURCE_EXHAUSTED":
			refused++
		default:
			t.Errorf("%d: %v", id, e)
		}
	}
	if values < 10 || refused < 100 {
		t.Errorf("%d values, %d left out", values, refused)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestPipelineShutdown: what was read is answered, and the stream says that the
// rest was not begun.
func TestPipelineShutdown(t *testing.T) {
	f := &fakeCoordinator{hold: make(chan struct{})}
	s, kv := kvOf(t, f)
	stream := openPipeline(t, testContext(t), kv)
	sendItems(t, stream, pipelineGet(1, "k"), pipelineGet(2, "k"))
	waitFor(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.items) == 2
	})
	stopped := make(chan error, 1)
	go func() { stopped <- s.StopClients(testContext(t)) }()
	waitFor(t, func() bool {
		select {
		case <-s.stopping:
			return true
		default:
			return false
		}
	})
	close(f.hold)
	recvResults(t, stream, 2)
	_, err := stream.Recv()
	info, retry := details(t, err)
	if status.Code(err) != codes.Unavailable || info.GetReason() != "UNAVAILABLE" || info.GetMetadata()[errcode.MetaOutcome] != "not_applied" || retry == nil {
		t.Errorf("%v %v", err, info)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestPipelineEnds: by its client's end, by a message with too many requests, by
// a panic, by its deadline, and by more streams than a node serves.
func TestPipelineEnds(t *testing.T) {
	f := &fakeCoordinator{read: coord.GetResponse{Siblings: []causal.Sibling{{Value: []byte("v")}}}}
	server, kv := kvOf(t, f)
	open := func() int64 { return server.kv.pipelines.open.Load() }

	ctx, cancel := context.WithCancel(testContext(t))
	s := openPipeline(t, ctx, kv)
	waitFor(t, func() bool { return open() == 1 })
	cancel()
	waitFor(t, func() bool { return open() == 0 })
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}

	s = openPipeline(t, testContext(t), kv)
	many := make([]*pairdbv1.PipelineItem, 1001)
	for i := range many {
		many[i] = pipelineGet(uint64(i), "k")
	}
	sendItems(t, s, pipelineGet(5, "k"))
	sendItems(t, s, many...)
	recvResults(t, s, 1)
	_, err := s.Recv()
	if info, _ := details(t, err); status.Code(err) != codes.InvalidArgument || info.GetMetadata()[errcode.MetaOutcome] != "not_applied" {
		t.Errorf("1001 requests: %v", err)
	}

	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	s, err = kv.Pipeline(short)
	if err == nil { // else it was over by then
		_, err = s.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("at its deadline: %v", err)
	}
	waitFor(t, func() bool { return open() == 0 })

	ctx, cancel = context.WithCancel(testContext(t))
	defer cancel()
	for range maxPipelines {
		openPipeline(t, ctx, kv)
	}
	waitFor(t, func() bool { return open() == maxPipelines })
	_, err = openPipeline(t, ctx, kv).Recv()
	if info, _ := details(t, err); status.Code(err) != codes.ResourceExhausted || info.GetMetadata()[errcode.MetaOutcome] != "not_applied" {
		t.Errorf("one too many: %v", err)
	}
}

func TestPipelinePanics(t *testing.T) {
	f := &fakeCoordinator{fail: func(*coord.Item) error { panic("a secret") }}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator, opts.Logger = f, slog.New(slog.DiscardHandler)
	_, conn := clientOf(t, opts)
	s := openPipeline(t, testContext(t), pairdbv1.NewKVClient(conn))
	sendItems(t, s, pipelineGet(1, "k"))
	_, err := s.Recv()
	if status.Code(err) != codes.Internal || strings.Contains(fmt.Sprint(err), "secret") || errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}
