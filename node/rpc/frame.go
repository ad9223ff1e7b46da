package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// A frame is a header and items, integers big-endian:
//
//	format  u8   frameFormat, or frameCompressed
//	kind    u8   kindRequests or kindReplies
//	cluster 16   the sender's cluster id
//	sender  16   the sender's node id
//	waited  u32  ms that passed between the frame's first item and its sending
//	count   u32  items
//
// Of a compressed frame all items are one s2 block. It is sent only to a node that
// said, when the stream was opened, that it understands them.
//
// A request item:
//
//	size    u32  of what follows
//	id      u64  echoed in the reply, chosen by the dialing side, not 0
//	op      u8
//	part    u16  partition
//	pv      u64
//	tenant  u32
//	tv      u64  tenant version
//	token   u64
//	left    u32  ms left when the frame was begun; "waited" comes off
//	key     u16 + bytes
//	body    the rest
//
// A reply item:
//
//	size    u32  of what follows
//	id      u64
//	status  u8
//	flags   u8   flagVersion, flagDigest
//	version u64  if flagVersion
//	digest  16   if flagDigest
//	body    the rest
const (
	frameFormat     = 1
	frameCompressed = 2

	kindRequests = 1
	kindReplies  = 2

	flagVersion = 1 << 0
	flagDigest  = 1 << 1

	headerLen     = 1 + 1 + 16 + 16 + 4 + 4
	waitedOffset  = 1 + 1 + 16 + 16
	countOffset   = waitedOffset + 4
	requestFixed  = 8 + 1 + 2 + 8 + 4 + 8 + 8 + 4 + 2
	replyFixed    = 8 + 1 + 1
	itemSizeLen   = 4
	requestIDOff  = itemSizeLen
	maxKeyLen     = math.MaxUint16
	maxRemaining  = math.MaxUint32 * time.Millisecond
	minItemOnWire = itemSizeLen + replyFixed
)

const (
	// maxFrameItems is how far a frame is filled, in bytes; only a frame of
	// one single item may be larger.
	maxFrameItems = 256 << 10
	// MaxFrameBytes bounds a frame on the peer listener: an object may have
	// several siblings of 10 MiB.
	MaxFrameBytes = 64 << 20
	// largeItem is the size in bytes from which an item travels in LaneLarge.
	largeItem = 64 << 10
)

// errFrame is matched by every error of the decoder.
var errFrame = errors.New("malformed frame")

// frameHeader is the decoded header of a frame.
type frameHeader struct {
	kind    byte
	cluster ring.ClusterID
	sender  ring.NodeID
	waited  time.Duration
	count   int
}

// appendHeader begins a frame; sealFrame completes it.
func appendHeader(b []byte, kind byte, cluster ring.ClusterID, sender ring.NodeID) []byte {
	b = append(b, frameFormat, kind)
	b = append(b, cluster[:]...)
	b = append(b, sender[:]...)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// sealFrame fills in what is known only when the frame is sent.
func sealFrame(b []byte, count int, waited time.Duration) {
	// Rounded up, while an item's time is rounded down: an item that is over
	// here is over at the peer too.
	ms := (max(waited, 0) + time.Millisecond - 1) / time.Millisecond
	binary.BigEndian.PutUint32(b[waitedOffset:], uint32(min(ms, math.MaxUint32)))
	binary.BigEndian.PutUint32(b[countOffset:], uint32(count))
}

// requestSize is the space m takes in a frame, in bytes.
func requestSize(m *coord.Message) int {
	return itemSizeLen + requestFixed + len(m.Key) + len(m.Body)
}

// appendRequest encodes one request; left is the time remaining. The caller has
// checked the key's length and the item's size.
func appendRequest(b []byte, id uint64, m *coord.Message, left time.Duration) []byte {
	be := binary.BigEndian
	left = min(max(left, 0), maxRemaining)
	b = be.AppendUint32(b, uint32(requestFixed+len(m.Key)+len(m.Body)))
	b = be.AppendUint64(b, id)
	b = append(b, byte(m.Op))
	b = be.AppendUint16(b, uint16(m.Partition))
	b = be.AppendUint64(b, uint64(m.PV))
	b = be.AppendUint32(b, uint32(m.Tenant))
	b = be.AppendUint64(b, uint64(m.TenantVersion))
	b = be.AppendUint64(b, uint64(m.Token))
	b = be.AppendUint32(b, uint32(left/time.Millisecond))
	b = be.AppendUint16(b, uint16(len(m.Key)))
	b = append(b, m.Key...)
	return append(b, m.Body...)
}

// replySize is the space r takes in a frame, in bytes.
func replySize(r *coord.Reply) int {
	n := itemSizeLen + replyFixed + len(r.Body)
	if r.Version != 0 {
		n += 8
	}
	if r.Digest != ([16]byte{}) {
		n += 16
	}
	return n
}

// appendReply encodes one reply.
func appendReply(b []byte, id uint64, r *coord.Reply) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, uint32(replySize(r)-itemSizeLen))
	b = be.AppendUint64(b, id)
	var flags byte
	if r.Version != 0 {
		flags |= flagVersion
	}
	if r.Digest != ([16]byte{}) {
		flags |= flagDigest
	}
	b = append(b, byte(r.Status), flags)
	if flags&flagVersion != 0 {
		b = be.AppendUint64(b, uint64(r.Version))
	}
	if flags&flagDigest != 0 {
		b = append(b, r.Digest[:]...)
	}
	return append(b, r.Body...)
}

// decodeHeader reads a frame's header and returns the items' bytes.
func decodeHeader(b []byte) (frameHeader, []byte, error) {
	var h frameHeader
	if len(b) < headerLen {
		return h, nil, fmt.Errorf("%w: %d bytes, a header has %d", errFrame, len(b), headerLen)
	}
	if b[0] != frameFormat {
		return h, nil, fmt.Errorf("%w: format %d, this node knows %d", errFrame, b[0], frameFormat)
	}
	h.kind = b[1]
	copy(h.cluster[:], b[2:])
	copy(h.sender[:], b[18:])
	h.waited = time.Duration(binary.BigEndian.Uint32(b[waitedOffset:])) * time.Millisecond
	count := binary.BigEndian.Uint32(b[countOffset:])
	items := b[headerLen:]
	// Checked before anybody allocates by it.
	if int64(count)*minItemOnWire > int64(len(items)) {
		return h, nil, fmt.Errorf("%w: %d items in %d bytes", errFrame, count, len(items))
	}
	h.count = int(count)
	return h, items, nil
}

// nextItem cuts one item off b.
func nextItem(b []byte, fixed int) (item, rest []byte, err error) {
	if len(b) < itemSizeLen {
		return nil, nil, fmt.Errorf("%w: cut short", errFrame)
	}
	size := uint64(binary.BigEndian.Uint32(b))
	b = b[itemSizeLen:]
	if size < uint64(fixed) || size > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%w: item of %d bytes, %d left", errFrame, size, len(b))
	}
	// Capped, so that an append to a body cannot run into the next item.
	return b[:size:size], b[size:], nil
}

// requests are the decoded items of one frame: ids[i] and msgs[i] belong
// together.
type requests struct {
	ids  []uint64
	msgs []coord.Message
}

// decodeRequests decodes the items of a request frame. The messages alias b.
// Deadlines count from now.
func decodeRequests(h frameHeader, b []byte, now time.Time) (requests, error) {
	if h.kind != kindRequests {
		return requests{}, fmt.Errorf("%w: kind %d where requests belong", errFrame, h.kind)
	}
	if h.count*(itemSizeLen+requestFixed) > len(b) {
		return requests{}, fmt.Errorf("%w: %d requests in %d bytes", errFrame, h.count, len(b))
	}
	rs := requests{ids: make([]uint64, h.count), msgs: make([]coord.Message, h.count)}
	be := binary.BigEndian
	for i := range rs.msgs {
		item, rest, err := nextItem(b, requestFixed)
		if err != nil {
			return requests{}, err
		}
		b = rest
		if rs.ids[i] = be.Uint64(item); rs.ids[i] == 0 {
			return requests{}, fmt.Errorf("%w: request without an id", errFrame)
		}
		m := &rs.msgs[i]
		m.Op = coord.Op(item[8])
		m.Partition = ring.Partition(be.Uint16(item[9:]))
		m.PV = ring.Version(be.Uint64(item[11:]))
		m.Tenant = ring.TenantNumber(be.Uint32(item[19:]))
		m.TenantVersion = ring.Version(be.Uint64(item[23:]))
		m.Token = ring.Token(be.Uint64(item[31:]))
		m.Deadline = now.Add(time.Duration(be.Uint32(item[39:]))*time.Millisecond - h.waited)
		keyLen := int(be.Uint16(item[43:]))
		tail := item[requestFixed:]
		if keyLen > len(tail) {
			return requests{}, fmt.Errorf("%w: key of %d bytes, %d left", errFrame, keyLen, len(tail))
		}
		m.Key, m.Body = tail[:keyLen:keyLen], tail[keyLen:]
	}
	if len(b) != 0 {
		return requests{}, fmt.Errorf("%w: %d bytes after the last item", errFrame, len(b))
	}
	return rs, nil
}

// decodeReplies decodes the items of a reply frame and hands them to each, which
// copies what it keeps of a Reply. What that points to aliases b.
func decodeReplies(h frameHeader, b []byte, each func(id uint64, r *coord.Reply)) error {
	if h.kind != kindReplies {
		return fmt.Errorf("%w: kind %d where replies belong", errFrame, h.kind)
	}
	be := binary.BigEndian
	var r coord.Reply // one for all: each takes what it wants of it
	for range h.count {
		item, rest, err := nextItem(b, replyFixed)
		if err != nil {
			return err
		}
		b = rest
		id, flags := be.Uint64(item), item[9]
		r = coord.Reply{Status: coord.Status(item[8])}
		item = item[replyFixed:]
		if flags&^(flagVersion|flagDigest) != 0 {
			return fmt.Errorf("%w: reply flags %#x", errFrame, flags)
		}
		if flags&flagVersion != 0 {
			if len(item) < 8 {
				return fmt.Errorf("%w: reply cut short", errFrame)
			}
			r.Version, item = ring.Version(be.Uint64(item)), item[8:]
		}
		if flags&flagDigest != 0 {
			if len(item) < 16 {
				return fmt.Errorf("%w: reply cut short", errFrame)
			}
			copy(r.Digest[:], item)
			item = item[16:]
		}
		if len(item) > 0 {
			r.Body = item
		}
		each(id, &r)
	}
	if len(b) != 0 {
		return fmt.Errorf("%w: %d bytes after the last item", errFrame, len(b))
	}
	return nil
}
