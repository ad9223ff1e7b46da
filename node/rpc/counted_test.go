package rpc

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/node/door"
)

// TestReadAnswersOfStreamsCountNoMore: what a client has read of a Pipeline or a
// Scan is not counted as unread, however small the messages are, so that no
// client that reads is cut off.
func TestReadAnswersOfStreamsCountNoMore(t *testing.T) {
	for _, size := range []int{0, 10, 300, 900, 1 << 10, 3 << 10, 100 << 10} {
		opts := serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo)
		opts.Coordinator = &batchReader{&largeReader{value: make([]byte, size)}}
		s, err := NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		d := door.New(door.Options{Max: 10, Stall: time.Minute, Rate: 1 << 30, Budget: 1 << 30})
		l := d.Listener(listen(t), nil)
		if err := s.ServeClients(l); err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		kv := pairdbv1.NewKVClient(conn)
		pipe, err := kv.Pipeline(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(5) {
			err := pipe.Send(&pairdbv1.PipelineRequest{Items: []*pairdbv1.PipelineItem{
				{Id: i, Request: &pairdbv1.PipelineItem_Get{Get: &pairdbv1.GetRequest{Key: []byte("key")}}},
			}})
			if err == nil {
				_, err = pipe.Recv()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		scan, err := kv.Scan(ctx, &pairdbv1.ScanRequest{Limit: 5})
		for range 5 {
			if err == nil {
				_, err = scan.Recv()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(5 * time.Second)
		for d.Stats().Held != 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if held := d.Stats().Held; held != 0 {
			t.Errorf("with values of %d bytes: %d bytes are counted as unread that were read", size, held)
		}
	}
}

// TestLostAnswerCountsNoMore: gRPC may drop an answer without freeing it, when the
// client cancels its call at the wrong moment. It is not counted for ever.
func TestLostAnswerCountsNoMore(t *testing.T) {
	d := door.New(door.Options{Max: 10, Stall: time.Minute, Rate: 1 << 30, Budget: 1 << 30})
	l := d.Listener(listen(t), nil)
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	codec := newClientCodec()
	marshal := func() mem.BufferSlice {
		msg := &pairdbv1.GetResponse{Siblings: []*pairdbv1.Sibling{{Value: make([]byte, 2*heldBytes)}}}
		b, err := codec.Marshal(&answer{msg, door.Of(c.RemoteAddr())})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	marshal().Free()
	if held := d.Stats().Held; held != 0 {
		t.Errorf("%d bytes are counted that were freed", held)
	}
	kept := marshal()
	for range 3 {
		marshal()
	}
	deadline := time.Now().Add(10 * time.Second)
	for d.Stats().Held > 4*heldBytes && time.Now().Before(deadline) {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if held := d.Stats().Held; held <= 2*heldBytes || held > 4*heldBytes {
		t.Errorf("%d bytes are counted, want those of the one answer that is still there", held)
	}
	kept.Free()
	if held := d.Stats().Held; held != 0 {
		t.Errorf("%d bytes are counted in the end", held)
	}
}
