package rpc

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/node/door"
)

// largeReader answers every read with a value of a size, and counts.
type largeReader struct {
	fakeCoordinator
	value []byte
	reads atomic.Int64
}

func (l *largeReader) answer() coord.GetResponse {
	l.reads.Add(1)
	return coord.GetResponse{Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 2}, Value: l.value}}}
}

func (l *largeReader) Get(_ context.Context, r coord.GetRequest) (coord.GetResponse, error) {
	if len(r.Key) == 1 {
		return coord.GetResponse{Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 2}, Value: []byte("small")}}}, nil
	}
	return l.answer(), nil
}

func (l *largeReader) StartAll(items []coord.Item, done func(int, coord.ItemResult)) {
	for i := range items {
		done(i, coord.ItemResult{Get: l.answer()})
	}
}

func (l *largeReader) Scan(context.Context, coord.ScanRequest) (coord.ScanResponse, error) {
	return coord.ScanResponse{Items: []coord.ScanItem{{Key: []byte("k"), Siblings: l.answer().Siblings}}, PageToken: []byte("more")}, nil
}

// TestClientThatNeverReads: on a real socket, through each way to have values
// read. What waits for it stays within the budget, more is refused before it is
// read, others are served, and in the end it is cut off and nothing is counted any
// more.
func TestClientThatNeverReads(t *testing.T) {
	const value, budget = 1 << 20, 16 << 20
	pipeline := &pairdbv1.PipelineRequest{}
	for i := range 64 {
		pipeline.Items = append(pipeline.Items, &pairdbv1.PipelineItem{
			Id: uint64(i + 1), Request: &pairdbv1.PipelineItem_Get{Get: &pairdbv1.GetRequest{Key: []byte("large")}},
		})
	}
	multi := &pairdbv1.MultiGetRequest{Keys: [][]byte{[]byte("large")}}
	for _, tc := range []struct {
		name, method string
		req          any
		streams      int
	}{
		{"Get", pairdbv1.KV_Get_FullMethodName, &pairdbv1.GetRequest{Key: []byte("large")}, 200},
		{"MultiGet", pairdbv1.KV_MultiGet_FullMethodName, multi, 200},
		{"Scan", pairdbv1.KV_Scan_FullMethodName, &pairdbv1.ScanRequest{}, 200},
		{"Pipeline", pairdbv1.KV_Pipeline_FullMethodName, pipeline, 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &largeReader{value: bytes.Repeat([]byte{1}, value)}
			opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo)
			opts.Coordinator = &batchReader{c}
			s, err := NewServer(opts)
			if err != nil {
				t.Fatal(err)
			}
			var cut atomic.Int64
			d := door.New(door.Options{
				Max: 10, Stall: 100 * time.Millisecond, Rate: 1 << 30, Budget: budget,
				CutOff: func(net.Addr, door.Reason, int64) { cut.Add(1) },
			})
			l := d.Listener(listen(t), Farewell())
			if err := s.ServeClients(l); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			connect := func() *grpc.ClientConn {
				cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(1<<20))
				if err != nil {
					t.Fatal(err)
				}
				return cc
			}
			bad, good := connect(), connect()
			defer bad.Close()
			defer good.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var streams []grpc.ClientStream
			for range tc.streams {
				st, err := bad.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, tc.method)
				if err == nil {
					if err = st.SendMsg(tc.req); err == nil {
						err = st.CloseSend()
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				streams = append(streams, st)
			}
			// The server has come to all of them when no more is read.
			settled(t, func() int64 { return c.reads.Load()<<32 + d.Stats().Held })
			if held := d.Stats().Held; held > budget || held < value {
				t.Errorf("%d bytes wait for the client, the budget is %d", held, budget)
			}
			// Those of one message of a Pipeline are begun together, before any of them counts,
			// and two streams may come to that at the same moment.
			if n := c.reads.Load(); n*value > 2*budget && n > 2*int64(len(pipeline.Items)) {
				t.Errorf("%d values of 1 MiB were read for a client that does not read, the budget is %d MiB", n, budget>>20)
			}
			kv := pairdbv1.NewKVClient(good)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 20 {
						if _, err := kv.Get(ctx, &pairdbv1.GetRequest{Key: []byte("k")}); err != nil {
							t.Errorf("another client: %v", err)
						}
					}
				})
			}
			wg.Wait()
			deadline := time.Now().Add(10 * time.Second)
			for cut.Load() == 0 && time.Now().Before(deadline) {
				d.Sweep()
				time.Sleep(time.Millisecond)
			}
			if n := d.Stats().Closed[door.Unread]; n != 1 || cut.Load() != 1 {
				t.Errorf("%d connections were cut off, want the one", n)
			}
			if _, err := kv.Get(ctx, &pairdbv1.GetRequest{Key: []byte("k")}); err != nil {
				t.Errorf("another client afterwards: %v", err)
			}
			if held := d.Stats().Held; held != 0 {
				t.Errorf("%d bytes are counted for nobody", held)
			}
			refused := 0
			for _, st := range streams {
				if st.RecvMsg(new(pairdbv1.GetResponse)) != nil && status.Code(st.RecvMsg(new(pairdbv1.GetResponse))) == codes.ResourceExhausted {
					refused++
				}
			}
			t.Logf("%d streams refused, %d values read", refused, c.reads.Load())
		})
	}
}

// batchReader is a largeReader with MultiGet.
type batchReader struct{ *largeReader }

func (b *batchReader) Batch(_ context.Context, items []coord.Item) ([]coord.ItemResult, error) {
	results := make([]coord.ItemResult, len(items))
	b.StartAll(items, func(i int, r coord.ItemResult) { results[i] = r })
	return results, nil
}

// settled returns when f is no longer 0 and has not changed for a while.
func settled(t *testing.T, f func() int64) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for last, same := f(), 0; same < 30; {
		if time.Now().After(deadline) {
			t.Fatal("it goes on and on")
		}
		time.Sleep(10 * time.Millisecond)
		if now := f(); now == last && now != 0 {
			same++
		} else {
			last, same = now, 0
		}
	}
}

// TestRefusedBeforeItIsDecoded: a call of KV that the gate refuses does not reach
// the coordinator, whether it is refused in the transport or, for its deadline is
// far away, later; and its status has all that a client needs; calls of other
// services are not asked about.
func TestRefusedBeforeItIsDecoded(t *testing.T) {
	refusal := map[bool]*coord.Error{
		true:  {Code: errcode.RateLimited, Outcome: errcode.NotApplied, Message: "busy", RetryAfter: 70 * time.Millisecond},
		false: {Code: errcode.RateLimited, Message: "busy", RetryAfter: 70 * time.Millisecond},
	}
	opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo)
	c := new(largeReader)
	opts.Coordinator = c
	opts.Refuse = func(write bool) *coord.Error { return refusal[write] }
	var mu sync.Mutex
	seen := map[string]int{}
	opts.Observe = func(method, code string, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		seen[method+" "+code]++
	}
	s, err := NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := listen(t)
	if err := s.ServeClients(l); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kv := pairdbv1.NewKVClient(conn)
	key := []byte("key")
	far, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for name, call := range map[string]func(ctx context.Context) error{
		"Put": func(ctx context.Context) error { _, err := kv.Put(ctx, &pairdbv1.PutRequest{Key: key}); return err },
		"Delete": func(ctx context.Context) error {
			_, err := kv.Delete(ctx, &pairdbv1.DeleteRequest{Key: key})
			return err
		},
		"Batch":    func(ctx context.Context) error { _, err := kv.Batch(ctx, &pairdbv1.BatchRequest{}); return err },
		"Get":      func(ctx context.Context) error { _, err := kv.Get(ctx, &pairdbv1.GetRequest{Key: key}); return err },
		"MultiGet": func(ctx context.Context) error { _, err := kv.MultiGet(ctx, &pairdbv1.MultiGetRequest{}); return err },
	} {
		for _, ctx := range []context.Context{t.Context(), far} {
			err := call(ctx)
			if status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%s: %v", name, err)
			}
			text := fmt.Sprint(status.Convert(err).Details())
			for want, there := range map[string]bool{"RATE_LIMITED": true, "retry_delay": true, "nanos:70000000": true, "not_applied": isWrite("/pairdb.v1.KV/" + name)} {
				if bytes.Contains([]byte(text), []byte(want)) != there {
					t.Errorf("%s: the details are %s; %q in them: want %v", name, text, want, there)
				}
			}
		}
		if n := seen["KV."+name+" RATE_LIMITED"]; n != 2 {
			t.Errorf("%s was observed %d times: %v", name, n, seen)
		}
	}
	if c.reads.Load() != 0 {
		t.Error("something was read")
	}
	if _, err := pairdbv1.NewClusterClient(conn).Status(t.Context(), &pairdbv1.StatusRequest{}); err != nil {
		t.Errorf("a call of another service: %v", err)
	}
}

// TestTimersLeftAreBounded: calls refused in the transport leave no more timers
// behind than their bound, and are refused all the same; when the time of those
// is over, there is room again.
func TestTimersLeftAreBounded(t *testing.T) {
	var left timersLeft
	const now = 1_000_000
	for i := range maxTimersLeft {
		if !left.add(now, 10+int64(i%2)) {
			t.Fatalf("there is no room for the %d-th", i)
		}
	}
	for _, tc := range []struct {
		at   int64
		room int
	}{{now, 0}, {now - 5, 0}, {now + 10, 0}, {now + 11, maxTimersLeft / 2}, {now + 500, maxTimersLeft}} {
		n := 0
		for n <= maxTimersLeft && left.add(tc.at, 30) {
			n++
		}
		if n != tc.room {
			t.Errorf("at %d there was room for %d, want %d", tc.at-now, n, tc.room)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if new(timersLeft).room(ctx) || !left.room(t.Context()) {
		t.Error("a timer of an hour may be left, or a call without one may not be refused")
	}
}
