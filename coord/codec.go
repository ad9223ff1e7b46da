package coord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Bodies of peer messages, format 1. Every body begins with its format. Strings
// and byte slices are a uvarint length and the bytes.
const bodyFormat = 1

// Limits of what a peer may send.
const (
	maxCauses      = 2 * quorum.MaxOwners
	maxErrorString = 4096
	maxClockActors = 1024
)

var errBody = errors.New("malformed peer message body")

// Kind says what a client asked for. Values travel between nodes.
type Kind uint8

// The kinds of client operations.
const (
	KindPut    Kind = 1
	KindDelete Kind = 2
	KindGet    Kind = 3
	// KindScan is never forwarded.
	KindScan Kind = 4
)

// String returns the kind in lower case.
func (k Kind) String() string {
	switch k {
	case KindPut:
		return "put"
	case KindDelete:
		return "delete"
	case KindGet:
		return "get"
	case KindScan:
		return "scan"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// reads reports whether operations of the kind change nothing.
func (k Kind) reads() bool { return k == KindGet || k == KindScan }

// request is any client operation, as it is forwarded.
type request struct {
	kind   Kind
	tenant string
	key    []byte
	level  quorum.Level
	token  []byte
	value  []byte
	json   bool
	// expect counts only with hasExpect.
	hasExpect bool
	expect    causal.Context
	// idempotencyKey is empty if the client sent none.
	idempotencyKey []byte
	deadline       time.Time
	// scan is what a KindScan asks for, nil for the others.
	scan *scanWant
}

const (
	requestJSON        = 1 << 0
	requestExpect      = 1 << 1
	requestIdempotency = 1 << 2
)

// encode returns the body that forwards r; tenant and deadline travel in the
// Message.
func (r *request) encode() []byte {
	b := make([]byte, 0, 64+len(r.key)+len(r.token)+len(r.value)+18*len(r.expect)+len(r.idempotencyKey))
	var flags byte
	if r.json {
		flags |= requestJSON
	}
	if r.hasExpect {
		flags |= requestExpect
	}
	if len(r.idempotencyKey) > 0 {
		flags |= requestIdempotency
	}
	b = append(b, bodyFormat, byte(r.kind), byte(r.level), flags)
	b = appendBytes(b, r.key)
	b = appendBytes(b, r.token)
	b = appendBytes(b, r.value)
	if r.hasExpect {
		b = appendBytes(b, r.expect.Append(nil))
	}
	if len(r.idempotencyKey) > 0 {
		b = appendBytes(b, r.idempotencyKey)
	}
	return b
}

// decodeRequest reads a forwarded operation; keys, token and value alias b.
// What it says is still to be validated.
func decodeRequest(b []byte) (request, error) {
	d := decoder{b: b}
	d.format()
	r := request{kind: Kind(d.u8()), level: quorum.Level(d.u8())}
	flags := d.u8()
	if r.kind < KindPut || r.kind > KindGet || !r.level.Valid() || flags&^(requestJSON|requestExpect|requestIdempotency) != 0 {
		d.fail()
	}
	r.json = flags&requestJSON != 0
	r.hasExpect = flags&requestExpect != 0
	r.key = d.bytes(MaxKeySize)
	r.token = d.bytes(MaxTokenSize)
	r.value = d.bytes(MaxValueSize)
	if r.hasExpect {
		r.expect = d.context(maxClockActors)
	}
	if flags&requestIdempotency != 0 {
		if r.idempotencyKey = d.bytes(causal.MaxIdempotencyKey); len(r.idempotencyKey) == 0 || r.kind == KindGet {
			d.fail()
		}
	}
	return r, d.end()
}

// responseDuplicate is a bit beside the level of a write's response.
const responseDuplicate = 1 << 7

func encodeWriteResponse(w *WriteResponse) []byte {
	b := make([]byte, 0, 64+len(w.Token)+18*len(w.Context))
	level := byte(w.Level)
	if w.Duplicate {
		level |= responseDuplicate
	}
	b = append(b, bodyFormat, level, byte(w.Acks), byte(w.Replicas))
	b = binary.BigEndian.AppendUint64(b, w.Dot.Actor)
	b = binary.BigEndian.AppendUint64(b, w.Dot.Counter)
	b = appendBytes(b, w.Token)
	return appendBytes(b, w.Context.Append(nil))
}

func decodeWriteResponse(b []byte) (WriteResponse, error) {
	d := decoder{b: b}
	d.format()
	level := d.u8()
	w := WriteResponse{
		Level: quorum.Level(level &^ responseDuplicate), Duplicate: level&responseDuplicate != 0,
		Acks: int(d.u8()), Replicas: int(d.u8()),
	}
	w.Dot = causal.Dot{Actor: d.u64(), Counter: d.u64()}
	w.Token = d.bytes(MaxTokenSize)
	w.Context = d.context(causal.MaxActors)
	if !w.Level.Valid() {
		d.fail()
	}
	return w, d.end()
}

func encodeGetResponse(g *GetResponse) []byte {
	o := causal.Object{Context: g.Context, Siblings: sortedByDot(g.Siblings)}
	b := make([]byte, 0, 16+len(g.Token)+o.EncodedLen())
	b = append(b, bodyFormat)
	b = appendBytes(b, g.Token)
	return o.Append(b)
}

func decodeGetResponse(b []byte) (GetResponse, error) {
	d := decoder{b: b}
	d.format()
	g := GetResponse{Token: d.bytes(MaxTokenSize)}
	if d.bad || len(d.b) == 0 {
		return GetResponse{}, errBody
	}
	o, err := causal.Decode(d.b)
	if err != nil {
		return GetResponse{}, fmt.Errorf("%w: %w", errBody, err)
	}
	if len(o.Siblings) == 0 {
		return GetResponse{}, errBody
	}
	g.Context, g.Siblings = o.Context, winnerFirst(&o)
	return g, nil
}

// EncodeError returns the body of a reply with StatusError. Err stays behind.
func EncodeError(e *Error) []byte {
	b := make([]byte, 0, 128)
	b = append(b, bodyFormat)
	b = appendString(b, string(e.Code))
	b = appendString(b, string(e.Outcome))
	b = binary.AppendUvarint(b, uint64(max(e.Acks, 0)))
	b = binary.AppendUvarint(b, uint64(max(e.Need, 0)))
	b = appendString(b, e.Message)
	n := min(len(e.Causes), maxCauses)
	b = binary.AppendUvarint(b, uint64(n))
	for _, c := range e.Causes[:n] {
		b = append(b, c.Node[:]...)
		b = appendString(b, c.Name)
		b = appendString(b, c.Reason)
	}
	if len(e.Token) > 0 {
		b = appendBytes(b, e.Token)
	}
	return b
}

// DecodeError reads what EncodeError wrote. An unknown code is kept.
func DecodeError(b []byte) (*Error, error) {
	d := decoder{b: b}
	d.format()
	e := &Error{
		Code: errcode.Code(d.bytes(64)), Outcome: errcode.Outcome(d.bytes(64)),
		Acks: int(d.uvarint(quorum.MaxOwners)), Need: int(d.uvarint(quorum.MaxOwners)),
		Message: string(d.bytes(maxErrorString)),
	}
	if e.Code == "" || e.Outcome != "" && e.Outcome != errcode.NotApplied && e.Outcome != errcode.Indeterminate {
		d.fail()
	}
	n := d.uvarint(maxCauses)
	for range n {
		var c Cause
		if len(d.b) < len(c.Node) {
			d.fail()
			break
		}
		c.Node = ring.NodeID(d.b[:len(c.Node)])
		d.b = d.b[len(c.Node):]
		c.Name, c.Reason = string(d.bytes(maxErrorString)), string(d.bytes(maxErrorString))
		e.Causes = append(e.Causes, c)
	}
	if len(d.b) > 0 {
		if e.Token = d.bytes(MaxTokenSize); len(e.Token) == 0 {
			d.fail()
		}
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return e, nil
}

func appendBytes(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendString cuts what is longer than a peer would accept.
func appendString(b []byte, s string) []byte {
	s = s[:min(len(s), maxErrorString)]
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decoder takes a body apart; after the first failure it yields zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) format() {
	if d.u8() != bodyFormat {
		d.fail()
	}
}

func (d *decoder) u8() byte {
	if len(d.b) < 1 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) u64() uint64 {
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes returns a length-prefixed slice of at most limit bytes, aliased.
func (d *decoder) bytes(limit uint64) []byte {
	n := d.uvarint(limit)
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) context(limit int) causal.Context {
	c, err := causal.DecodeContext(d.bytes(uint64(len(d.b))), limit)
	if err != nil {
		d.fail()
	}
	return c
}

func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return errBody
	}
	return nil
}
