package rpc

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// threePages are pages of two keys, of none, and of one.
func threePages() []coord.ScanResponse {
	item := func(key string) coord.ScanItem {
		return coord.ScanItem{Key: []byte(key), Token: []byte("seen " + key), Siblings: []causal.Sibling{
			{Dot: causal.Dot{Actor: 1, Counter: 2}, Value: []byte("v" + key), HLC: causal.HLCAt(time.UnixMilli(5000))},
		}}
	}
	return []coord.ScanResponse{
		{Items: []coord.ScanItem{item("a"), item("b")}, PageToken: []byte("p1"), Scanned: 7},
		{PageToken: []byte("p2"), Scanned: 50_000},
		{Items: []coord.ScanItem{item("c")}, Scanned: 1},
	}
}

// receiveAll reads a stream to its end.
func receiveAll(kv pairdbv1.KVClient, ctx context.Context, req *pairdbv1.ScanRequest) ([]*pairdbv1.ScanResponse, error) {
	stream, err := kv.Scan(ctx, req)
	if err != nil {
		return nil, err
	}
	var pages []*pairdbv1.ScanResponse
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return pages, nil
		}
		if err != nil {
			return pages, err
		}
		pages = append(pages, p)
	}
}

func TestScanStreamsPages(t *testing.T) {
	f := &fakeCoordinator{pages: threePages()}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	observed := make(chan string, 10)
	opts.Observe = func(method, code string, _ time.Duration) { observed <- method + " " + code }
	_, conn := clientOf(t, opts)
	kv := pairdbv1.NewKVClient(conn)
	ctx := testContext(t)
	pages, err := receiveAll(kv, ctx, &pairdbv1.ScanRequest{
		TenantId: "acme", Prefix: []byte("p"), Start: []byte("s"), End: []byte("e"), PageSize: 2, Limit: 9, KeysOnly: true,
		Consistency: pairdbv1.Consistency_CONSISTENCY_ALL, PageToken: []byte("t"),
	})
	if err != nil || len(pages) != 3 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	it := pages[0].GetItems()[1]
	if string(it.GetKey()) != "b" || string(it.GetContext()) != "seen b" || string(it.GetSiblings()[0].GetValue()) != "vb" ||
		it.GetSiblings()[0].GetDot().GetCounter() != 2 || it.GetSiblings()[0].GetWrittenAt().AsTime().UnixMilli() != 5000 {
		t.Errorf("item %v", it)
	}
	if string(pages[0].GetNextPageToken()) != "p1" || pages[1].GetScanned() != 50_000 || len(pages[2].GetNextPageToken()) != 0 {
		t.Errorf("pages %v", pages)
	}
	for i, want := range []struct {
		token string
		keys  int
	}{{"t", 2}, {"p1", 2}, {"p2", 2}} {
		r := f.scans[i]
		if string(r.PageToken) != want.token || r.MaxKeys != want.keys || r.Tenant != "acme" || string(r.Prefix) != "p" ||
			string(r.Start) != "s" || string(r.End) != "e" || !r.KeysOnly || r.Level != quorum.All || time.Until(r.Deadline) < 10*time.Second {
			t.Errorf("page %d is asked for with %+v", i, r)
		}
	}
	if got := <-observed; got != "KV.Scan OK" {
		t.Errorf("observed %s", got)
	}
}

func TestScanKeepsToTheLimit(t *testing.T) {
	f := &fakeCoordinator{pages: threePages()}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	_, conn := clientOf(t, opts)
	kv := pairdbv1.NewKVClient(conn)
	pages, err := receiveAll(kv, testContext(t), &pairdbv1.ScanRequest{Limit: 2})
	if err != nil || len(pages) != 1 || f.scans[0].MaxKeys != 2 || f.scans[0].Tenant != "default" {
		t.Errorf("%d pages, %v, asked %+v", len(pages), err, f.scans)
	}
	f.scans = nil
	if pages, err = receiveAll(kv, testContext(t), &pairdbv1.ScanRequest{Limit: 3}); err != nil || len(pages) != 3 || f.scans[1].MaxKeys != 1 {
		t.Errorf("%d pages, %v, asked %+v", len(pages), err, f.scans)
	}
	f.scans = nil
	if _, err = receiveAll(kv, testContext(t), &pairdbv1.ScanRequest{}); err != nil || f.scans[0].MaxKeys != coord.DefaultPageKeys {
		t.Errorf("%v, asked %+v", err, f.scans)
	}
	if _, err := receiveAll(kv, testContext(t), &pairdbv1.ScanRequest{PageSize: coord.MaxPageKeys + 1}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a page too large: %v", err)
	}
	f.err = &coord.Error{Code: errcode.QuorumNotReached, Acks: 1, Need: 2}
	if _, err := receiveAll(kv, testContext(t), &pairdbv1.ScanRequest{}); codeOf(err) != string(errcode.QuorumNotReached) {
		t.Errorf("an error of the coordinator: %v", err)
	}
}

// TestScanOverhead: what the coordinator counts for a page is no less than what it
// takes on the wire, also with the largest numbers and the smallest keys.
func TestScanOverhead(t *testing.T) {
	p := coord.ScanResponse{PageToken: make([]byte, coord.MaxPageTokenSize), Scanned: math.MaxInt}
	counted := 4096
	for range 100 {
		s := causal.Sibling{
			Dot: causal.Dot{Actor: math.MaxUint64, Counter: math.MaxUint64}, HLC: math.MaxUint64 >> 1, Value: make([]byte, 40),
			Flags: causal.FlagExpiry, ExpiresAt: 1 << 50,
		}
		p.Items = append(p.Items, coord.ScanItem{Key: []byte("k"), Token: make([]byte, 60), Siblings: []causal.Sibling{s, s}})
		counted += 24 + 1 + 60 + 2*(64+40)
	}
	if n := proto.Size(pageOf(&p)); n > counted {
		t.Errorf("%d bytes, %d are counted", n, counted)
	}
}

// TestScanWaitsForItsClient: a client that does not read stops the making of
// pages, and one that is gone ends it.
func TestScanWaitsForItsClient(t *testing.T) {
	page := coord.ScanResponse{PageToken: []byte("more"), Items: []coord.ScanItem{{Key: make([]byte, 4<<20)}}}
	f := &fakeCoordinator{}
	for range 200 {
		f.pages = append(f.pages, page)
	}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	_, conn := clientOf(t, opts)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	stream, err := pairdbv1.NewKVClient(conn).Scan(ctx, &pairdbv1.ScanRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	made := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.scans)
	}
	// As many as there is room for on the way, and then no more.
	last, still := made(), 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for still < 15 {
		<-tick.C
		if n := made(); n != last {
			last, still = n, 0
			if n > 4 {
				t.Fatalf("%d pages are made for a client that read one", n)
			}
		} else {
			still++
		}
	}
}

// TestScanEndsWithTheNode: a scan does not hold up a stop, and its client is told
// to go on elsewhere.
func TestScanEndsWithTheNode(t *testing.T) {
	f := &fakeCoordinator{hold: make(chan struct{})}
	for range 50 {
		f.pages = append(f.pages, coord.ScanResponse{PageToken: []byte("more")})
	}
	opts := serverOptions(t, nodeB, clusterOf(nodeB), echo)
	opts.Coordinator = f
	s, conn := clientOf(t, opts)
	stream, err := pairdbv1.NewKVClient(conn).Scan(testContext(t), &pairdbv1.ScanRequest{})
	if err != nil {
		t.Fatal(err)
	}
	f.hold <- struct{}{}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.StopClients(testContext(t)) }()
	<-s.stopping
	close(f.hold)
	for err == nil {
		_, err = stream.Recv()
	}
	if codeOf(err) != string(errcode.Unavailable) {
		t.Errorf("the scan ends with %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
