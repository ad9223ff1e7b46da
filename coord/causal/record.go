package causal

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/zeebo/xxh3"
)

// Record is what an owner remembers of a write that came with an idempotency
// key: a vote for what the write is to be, made before anything of it is
// written, and later what it became. All but Round and Applied is fixed when the
// dot is reserved, so that whoever finishes the write, with a value of the same
// Payload, makes the very same sibling.
type Record struct {
	// Dot is the identity reserved for the write.
	Dot Dot
	// HLC, Flags and ExpiresAt are those of the sibling; of the flags only
	// FlagTombstone, FlagJSON and FlagExpiry.
	HLC       uint64
	Flags     Flags
	ExpiresAt int64
	// Context is what the write supersedes, and Dot.
	Context Context
	// Payload tells a retry from another write; see PayloadHash.
	Payload [16]byte
	// Expires is an instant in Unix milliseconds; from then on the record counts
	// as absent. It has nothing to do with when the value expires.
	Expires int64
	// Round numbers the votes about one idempotency key. A vote gives way to one
	// of a later round only.
	Round uint32
	// Applied says that the owners have agreed on this write and that the object
	// beside the record has seen it. It is final.
	Applied bool
}

// The encoding of a record, format 1, with the parts of an object's:
//
//	format u8 = 1, state u8 (1 applied), flags u8, round uvarint,
//	hlc u64, expires i64, payload hash 16 bytes,
//	when the value expires i64, only with FlagExpiry, context,
//	index of the dot's actor in the context uvarint, counter uvarint
//
// It is canonical. Stored data depends on it; it never changes.
const (
	formatRecord = 1
	stateApplied = 1
	recordFlags  = FlagTombstone | FlagJSON | FlagExpiry
	recordFixed  = 1 + 1 + 1 + 8 + 8 + 16 + 8
)

// PayloadHash is 16 bytes over the kind of a write, when its value expires in
// the client's words, and the value. It is no defence against forgers: whom they
// could fool is themselves.
func PayloadHash(f Flags, e Expiry, value []byte) [16]byte {
	h := xxh3.New()
	head := append(make([]byte, 0, 10), byte(f&recordFlags&^FlagExpiry))
	if e.Kind != ExpiryNever {
		head[0] |= byte(FlagExpiry)
		head = binary.BigEndian.AppendUint64(append(head, byte(e.Kind)), uint64(e.Millis))
	}
	_, _ = h.Write(head)  // a hash never fails,
	_, _ = h.Write(value) // here neither
	return h.Sum128().Bytes()
}

// Live reports whether the record counts at the given instant.
func (r *Record) Live(now time.Time) bool { return r.Expires > now.UnixMilli() }

// Object returns the write as an object that has seen nothing but what the
// write supersedes. It shares the record's context and value.
func (r *Record) Object(value []byte) Object {
	s := Sibling{Dot: r.Dot, HLC: r.HLC, Flags: r.Flags, ExpiresAt: r.ExpiresAt, Value: value}
	return Object{Context: r.Context, Siblings: []Sibling{s}}
}

// GivesWay reports whether a vote r is to be replaced by the vote next.
func (r *Record) GivesWay(next *Record) bool { return !r.Applied && r.Round < next.Round }

// Yields reports whether r is to be replaced by next, which is applied. Two
// applied records with different dots exist only if the older one has expired
// here, or if a writer was content with one owner: the one that lasts longer
// stays, on every owner.
func (r *Record) Yields(next *Record) bool {
	switch {
	case !r.Applied:
		return true
	case r.Expires != next.Expires:
		return r.Expires < next.Expires
	default:
		return next.Dot.Compare(r.Dot) < 0
	}
}

// EncodedLen returns an upper bound of the length of r's encoding, in bytes.
func (r *Record) EncodedLen() int {
	const varint = binary.MaxVarintLen64
	return recordFixed + 4*varint + len(r.Context)*(8+varint)
}

// Append appends the encoding of r to dst.
func (r *Record) Append(dst []byte) []byte {
	var state byte
	if r.Applied {
		state |= stateApplied
	}
	dst = append(dst, formatRecord, state, byte(r.Flags))
	dst = binary.AppendUvarint(dst, uint64(r.Round))
	dst = binary.BigEndian.AppendUint64(dst, r.HLC)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Expires))
	dst = append(dst, r.Payload[:]...)
	if r.Flags&FlagExpiry != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.ExpiresAt))
	}
	dst = r.Context.Append(dst)
	at, _ := r.Context.find(r.Dot.Actor)
	dst = binary.AppendUvarint(dst, uint64(at))
	return binary.AppendUvarint(dst, r.Dot.Counter)
}

// DecodeRecord returns the record that b encodes. Nothing aliases b. Memory
// allocated is bounded by the length of b.
func DecodeRecord(b []byte) (Record, error) {
	if len(b) == 0 || b[0] != formatRecord {
		return Record{}, fmt.Errorf("decode record of %d bytes: %w", len(b), ErrFormat)
	}
	d := reader{b: b[1:]}
	var r Record
	if len(d.b) < 2 || d.b[0]&^stateApplied != 0 || Flags(d.b[1])&^recordFlags != 0 {
		return Record{}, fmt.Errorf("decode record of %d bytes: %w", len(b), ErrMalformed)
	}
	r.Applied, r.Flags = d.b[0] == stateApplied, Flags(d.b[1])
	d.b = d.b[2:]
	round := d.uvarint()
	r.HLC, r.Expires = d.u64(), int64(d.u64())
	r.Payload = d.hash()
	if r.Flags&FlagExpiry != 0 {
		r.ExpiresAt = int64(d.u64())
	}
	r.Context = d.context(MaxActors)
	at, counter := d.uvarint(), d.uvarint()
	if !d.ok() || len(d.b) > 0 || round > math.MaxUint32 ||
		at >= uint64(len(r.Context)) || counter == 0 || counter > r.Context[at].Counter {
		return Record{}, fmt.Errorf("decode record of %d bytes: %w", len(b), ErrMalformed)
	}
	r.Round = uint32(round)
	r.Dot = Dot{r.Context[at].Actor, counter}
	return r, nil
}

func (r *reader) hash() (h [16]byte) {
	if len(r.b) < len(h) {
		r.fail()
		return h
	}
	copy(h[:], r.b)
	r.b = r.b[len(h):]
	return h
}
