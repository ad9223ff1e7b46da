package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

var (
	testCluster = ring.ClusterID{1, 2, 3}
	nodeA       = ring.NodeID{0xa}
	nodeB       = ring.NodeID{0xb}
)

func requestFrame(waited time.Duration, left time.Duration, msgs ...coord.Message) []byte {
	b := appendHeader(nil, kindRequests, testCluster, nodeA)
	for i := range msgs {
		b = appendRequest(b, uint64(i+1), &msgs[i], left)
	}
	sealFrame(b, len(msgs), waited)
	return b
}

func TestRequestsRoundTrip(t *testing.T) {
	now := time.Unix(1000, 0)
	full := coord.Message{
		Op: coord.OpMerge, Partition: 1023, PV: 1 << 40, Tenant: 1 << 31, TenantVersion: 9, Token: 1 << 63,
		Key: []byte("key"), Body: []byte("body"),
	}
	msgs := []coord.Message{
		full,
		{Op: coord.OpForward, Body: bytes.Repeat([]byte{7}, 300<<10)},
		{Op: coord.OpDigest, Key: bytes.Repeat([]byte{8}, 1024)},
		{},
	}
	b := requestFrame(1500*time.Microsecond, 10*time.Second, msgs...)
	want := headerLen
	for i := range msgs {
		want += requestSize(&msgs[i])
	}
	if len(b) != want {
		t.Fatalf("frame has %d bytes, the sizes add up to %d", len(b), want)
	}
	h, items, err := decodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	if h.cluster != testCluster || h.sender != nodeA || h.kind != kindRequests || h.count != len(msgs) || h.waited != 2*time.Millisecond {
		t.Fatalf("header %+v", h)
	}
	rs, err := decodeRequests(h, items, now)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range rs.msgs {
		if want := now.Add(10*time.Second - 2*time.Millisecond); !got.Deadline.Equal(want) {
			t.Errorf("message %d: deadline %v, want %v", i, got.Deadline, want)
		}
		got.Deadline = time.Time{}
		if !bytes.Equal(got.Key, msgs[i].Key) || !bytes.Equal(got.Body, msgs[i].Body) {
			t.Errorf("message %d: bytes differ", i)
		}
		got.Key, got.Body = msgs[i].Key, msgs[i].Body
		if !reflect.DeepEqual(got, msgs[i]) || rs.ids[i] != uint64(i+1) {
			t.Errorf("message %d: %+v, want %+v", i, got, msgs[i])
		}
	}
	// An append to what was decoded must not reach the next item.
	_ = append(rs.msgs[0].Body, "spill"...)
	_ = append(rs.msgs[0].Key, "spill"...)
	if again, err := decodeRequests(h, items, now); err != nil || again.ids[1] != 2 || string(again.msgs[0].Body) != "body" {
		t.Errorf("an append ran into the frame: %v", err)
	}
}

func TestRepliesRoundTrip(t *testing.T) {
	replies := []coord.Reply{
		{Status: coord.StatusOK},
		{Status: coord.StatusStale, Version: 77},
		{Status: coord.StatusOK, Digest: [16]byte{15: 1}},
		{Status: coord.StatusError, Version: 1, Digest: [16]byte{1}, Body: []byte("why")},
	}
	b := appendHeader(nil, kindReplies, testCluster, nodeB)
	want := headerLen
	for i := range replies {
		b = appendReply(b, uint64(i), &replies[i])
		want += replySize(&replies[i])
	}
	sealFrame(b, len(replies), 0)
	if len(b) != want {
		t.Fatalf("frame has %d bytes, the sizes add up to %d", len(b), want)
	}
	h, items, err := decodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	var got []coord.Reply
	err = decodeReplies(h, items, func(id uint64, r *coord.Reply) {
		if id != uint64(len(got)) {
			t.Errorf("id %d at place %d", id, len(got))
		}
		got = append(got, *r)
	})
	if err != nil || !reflect.DeepEqual(got, replies) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestRepliesAreDecodedInPlace: a frame of many costs no more allocations than
// one of few.
func TestRepliesAreDecodedInPlace(t *testing.T) {
	const n = 100
	b := appendHeader(nil, kindReplies, ring.ClusterID{1}, ring.NodeID{2})
	for i := range n {
		b = appendReply(b, uint64(i), &coord.Reply{Status: coord.StatusOK, Digest: [16]byte{byte(i) + 1}})
	}
	sealFrame(b, n, 0)
	h, items, err := decodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	allocs := testing.AllocsPerRun(10, func() {
		if err := decodeReplies(h, items, func(_ uint64, r *coord.Reply) { seen += int(r.Status) }); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 2 {
		t.Errorf("%v allocations for %d replies", allocs, n)
	}
}

// TestDecodeRefuses checks each bound, and that no cut of a frame decodes.
func TestDecodeRefuses(t *testing.T) {
	good := requestFrame(0, time.Second, coord.Message{Key: []byte("k"), Body: []byte("b")}, coord.Message{Key: []byte("l")})
	decode := func(b []byte) error {
		h, items, err := decodeHeader(b)
		if err == nil {
			_, err = decodeRequests(h, items, time.Now())
		}
		return err
	}
	if err := decode(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if err := decode(good[:n]); !errors.Is(err, errFrame) {
			t.Errorf("the first %d bytes decode: %v", n, err)
		}
	}
	be := binary.BigEndian
	for name, spoil := range map[string]func(b []byte) []byte{
		"format":         func(b []byte) []byte { b[0] = 2; return b },
		"kind":           func(b []byte) []byte { b[1] = kindReplies; return b },
		"huge count":     func(b []byte) []byte { be.PutUint32(b[countOffset:], 1<<32-1); return b },
		"one more":       func(b []byte) []byte { be.PutUint32(b[countOffset:], 3); return b },
		"one less":       func(b []byte) []byte { be.PutUint32(b[countOffset:], 1); return b },
		"huge item":      func(b []byte) []byte { be.PutUint32(b[headerLen:], 1<<32-1); return b },
		"tiny item":      func(b []byte) []byte { be.PutUint32(b[headerLen:], requestFixed-1); return b },
		"huge key":       func(b []byte) []byte { be.PutUint16(b[headerLen+itemSizeLen+43:], 1<<16-1); return b },
		"no id":          func(b []byte) []byte { be.PutUint64(b[headerLen+requestIDOff:], 0); return b },
		"trailing bytes": func(b []byte) []byte { return append(b, 0) },
	} {
		if err := decode(spoil(bytes.Clone(good))); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExpiredBeforeSendingIsExpiredAtPeer is the promise behind ErrNotSent for
// a message whose time ran out in the queue.
func TestExpiredBeforeSendingIsExpiredAtPeer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Unix(5000, 0)
	for range 10000 {
		left := time.Duration(rng.Int64N(int64(20 * time.Millisecond)))
		waited := left + time.Duration(rng.Int64N(int64(time.Millisecond)))
		h, items, err := decodeHeader(requestFrame(waited, left, coord.Message{}))
		if err != nil {
			t.Fatal(err)
		}
		rs, err := decodeRequests(h, items, now)
		if err != nil {
			t.Fatal(err)
		}
		if rs.msgs[0].Deadline.After(now) {
			t.Fatalf("%v left, waited %v: still alive at the peer", left, waited)
		}
	}
}

// TestCodecSpeaksProto holds the hand-written codec against the generated code.
func TestCodecSpeaksProto(t *testing.T) {
	codec := newFrameCodec()
	for _, n := range []int{1, 100, 127, 128, 5000, 300 << 10} {
		payload := bytes.Repeat([]byte{0xd}, n)
		sent := bytes.Clone(payload)
		data, err := codec.Marshal(&outFrame{buf: &sent, pool: new(bufferPool)})
		if err != nil {
			t.Fatal(err)
		}
		var asProto peerv1.Frame
		if err := proto.Unmarshal(data.Materialize(), &asProto); err != nil || !bytes.Equal(asProto.GetPayload(), payload) {
			t.Errorf("%d bytes: protobuf does not read it: %v", n, err)
		}
		wire, err := proto.Marshal(&peerv1.Frame{Payload: payload})
		if err != nil {
			t.Fatal(err)
		}
		var in inFrame
		if err := codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, &in); err != nil || !bytes.Equal(in.payload, payload) {
			t.Errorf("%d bytes: does not read protobuf: %v", n, err)
		}
	}
	for _, bad := range [][]byte{nil, {0x0a}, {0x0a, 5, 1}, {0x12, 1, 1}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		if err := codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(bad)}, new(inFrame)); !errors.Is(err, errFrame) {
			t.Errorf("%x decodes: %v", bad, err)
		}
	}
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(requestFrame(0, time.Second, coord.Message{Op: coord.OpMerge, Key: []byte("k"), Body: []byte("body")}, coord.Message{}))
	b := appendHeader(nil, kindReplies, testCluster, nodeB)
	b = appendReply(b, 7, &coord.Reply{Status: coord.StatusStale, Version: 3, Digest: [16]byte{1}, Body: []byte("x")})
	sealFrame(b, 1, time.Second)
	f.Add(b)
	big := requestFrame(0, time.Second, coord.Message{Op: coord.OpMerge, Body: text(2 * leastSqueezed)})
	f.Add(big)
	if c, ok := compressFrame(big, new(bufferPool)); ok {
		f.Add(*c)
		f.Add((*c)[:len(*c)-1])
	}
	now := time.Unix(1<<30, 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		b, err := expandFrame(b)
		if err != nil {
			if !errors.Is(err, errFrame) {
				t.Fatal(err)
			}
			return
		}
		if len(b) > MaxFrameBytes {
			t.Fatalf("a frame of %d bytes", len(b))
		}
		if len(b) > headerLen && b[0] == frameFormat {
			if c, ok := compressFrame(b, new(bufferPool)); ok {
				if back, err := expandFrame(*c); err != nil || !bytes.Equal(back, b) {
					t.Fatalf("%x came back as %x: %v", b, back, err)
				}
			}
		}
		h, items, err := decodeHeader(b)
		if err != nil {
			return
		}
		// What decodes must encode to the same bytes.
		out := appendHeader(nil, h.kind, h.cluster, h.sender)
		if rs, err := decodeRequests(h, items, now); err == nil {
			for i := range rs.msgs {
				m := &rs.msgs[i]
				out = appendRequest(out, rs.ids[i], m, m.Deadline.Sub(now)+h.waited)
			}
			sealFrame(out, len(rs.msgs), h.waited)
			if !bytes.Equal(out, b) {
				t.Fatalf("requests: %x became %x", b, out)
			}
			return
		}
		count := 0
		canonical := true
		err = decodeReplies(h, items, func(id uint64, r *coord.Reply) {
			count++
			before := len(out)
			out = appendReply(out, id, r)
			// A flag with a zero field is legal, and never written.
			canonical = canonical && bytes.HasPrefix(b[min(before, len(b)):], out[before:])
		})
		if err != nil {
			return
		}
		sealFrame(out, count, h.waited)
		if canonical && !bytes.Equal(out, b) {
			t.Fatalf("replies: %x became %x", b, out)
		}
	})
}
