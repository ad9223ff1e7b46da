package repair

import (
	"encoding/binary"
	"fmt"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// kind says what a request asks for. Values travel between nodes.
type kind uint8

const (
	// kindState asks for the State of many spans.
	kindState kind = 1
	// kindAdopt and kindRelease hand over what is confirmed of many spans.
	kindAdopt   kind = 2
	kindRelease kind = 3
	// kindSums asks for sums of one span: of given ranges, or of all its tenants.
	kindSums kind = 4
	// kindDiff asks for rows of one span that the asker does not have.
	kindDiff kind = 5
	// kindRecords asks for a page of the idempotency records of one span.
	kindRecords kind = 6
	// kindDirty tells who drives spans that they are to be compared soon.
	kindDirty kind = 7
	// kindKnown asks an old owner what it knows to be confirmed and released of many
	// spans, for a node that is about to own them.
	kindKnown kind = 8
	// kindObjects asks for whole objects of one tenant in one span, in the order of
	// their storage keys.
	kindObjects kind = 9
	// kindApplied asks which of some idempotency keys of one span stand for writes that
	// were made.
	kindApplied kind = 10
)

// Limits of what is accepted. A message has at most about 1 MiB.
const (
	maxSpans   = 128
	maxItems   = 4096
	maxBits    = 8
	maxHashes  = 8192
	maxTenants = 1 << 16
	maxReplies = 768 << 10
	maxRows    = 4096
	maxVotes   = 256
)

// request is what one OpRepair asks for.
type request struct {
	kind kind
	// spans are what it is about; exactly one for kindSums, kindDiff, kindRecords,
	// kindObjects and kindApplied.
	spans []spanItem
	// agreed is the hash of what must be confirmed where rows and sums are told.
	agreed uint64
	sums   []sumItem
	diffs  []diffItem
	// after is where a page of records begins, and votes says that votes are wanted,
	// too.
	after *RecordRow
	votes bool
	// rows are the idempotency keys that kindApplied asks about, without records.
	rows []RecordRow
	// tenant and from say where a piece of objects begins; nil is the first.
	tenant ring.TenantNumber
	from   *position
}

// spanItem is one span in a request, and for kindAdopt and kindRelease what is
// confirmed of it.
type spanItem struct {
	Span
	pv ring.Version
	// session is what the owner answered with before; another one refuses.
	session   uint64
	confirmed causal.Confirmed
	// repairedAt is when the round began that this ends, 0 if it ends none.
	repairedAt int64
}

// sumItem asks for the sums of the 1<<bits parts of a range.
type sumItem struct {
	tenant      ring.TenantNumber
	first, last ring.Token
	bits        uint8
}

// diffItem asks for the rows of a range, behind after and up to until, whose hash
// is not among those given, and which of those given are of no row.
type diffItem struct {
	tenant       ring.TenantNumber
	first, last  ring.Token
	after, until *position
	hashes       []uint64
}

func (q *request) encode() []byte {
	b := coord.RepairBody(make([]byte, 0, 256), q.spans[0].Class)
	b = append(b, byte(q.kind))
	b = binary.AppendUvarint(b, uint64(len(q.spans)))
	for i := range q.spans {
		s := &q.spans[i]
		b = binary.BigEndian.AppendUint16(b, uint16(s.Partition))
		b = ring.AppendClass(b, s.Class)
		b = appendU64(b, uint64(s.pv))
		if q.kind == kindAdopt || q.kind == kindRelease {
			b = appendU64(b, s.session)
			b = appendU64(b, uint64(s.repairedAt))
			b = appendConfirmed(b, &s.confirmed)
		}
	}
	switch q.kind {
	case kindSums:
		b = appendU64(b, q.agreed)
		b = binary.AppendUvarint(b, uint64(len(q.sums)))
		for i := range q.sums {
			it := &q.sums[i]
			b = appendRange(b, it.tenant, it.first, it.last)
			b = append(b, it.bits)
		}
	case kindDiff:
		b = appendU64(b, q.agreed)
		b = binary.AppendUvarint(b, uint64(len(q.diffs)))
		for i := range q.diffs {
			it := &q.diffs[i]
			b = appendRange(b, it.tenant, it.first, it.last)
			b = appendPosition(appendPosition(b, it.after), it.until)
			b = binary.AppendUvarint(b, uint64(len(it.hashes)))
			for _, h := range it.hashes {
				b = appendU64(b, h)
			}
		}
	case kindRecords:
		flags := byte(0)
		if q.votes {
			flags |= recordVotes
		}
		if q.after == nil {
			return append(b, flags)
		}
		b = appendRecord(append(b, flags|recordAfter), q.after)
	case kindObjects:
		b = appendU64(b, q.agreed)
		b = appendPosition(binary.BigEndian.AppendUint32(b, uint32(q.tenant)), q.from)
	case kindApplied:
		b = binary.AppendUvarint(b, uint64(len(q.rows)))
		for i := range q.rows {
			b = appendRecord(b, &q.rows[i])
		}
	}
	return b
}

// The flags of a kindRecords.
const (
	recordAfter = 1
	recordVotes = 2
)

// decodeRequest reads a request; slices alias b.
func decodeRequest(b []byte) (*request, error) {
	class, rest, ok := coord.RepairClass(b)
	if !ok {
		return nil, errBody
	}
	r := reader{b: rest}
	q := &request{kind: kind(r.u8())}
	hands := q.kind == kindAdopt || q.kind == kindRelease
	one := q.kind == kindSums || q.kind == kindDiff || q.kind == kindRecords || q.kind == kindObjects || q.kind == kindApplied
	size := 11
	if hands {
		size = 28
	}
	q.spans = make([]spanItem, r.count(maxSpans, size))
	for i := range q.spans {
		s := &q.spans[i]
		s.Partition, s.Class, s.pv = ring.Partition(r.u16()), r.class(), ring.Version(r.u64())
		if hands {
			s.session, s.repairedAt, s.confirmed = r.u64(), int64(r.u64()), r.confirmed()
		}
	}
	if len(q.spans) == 0 || q.spans[0].Class != class || one && len(q.spans) != 1 {
		r.fail()
	}
	switch q.kind {
	case kindState, kindAdopt, kindRelease, kindDirty, kindKnown:
	case kindSums:
		q.agreed = r.u64()
		q.sums = make([]sumItem, r.count(maxItems, 21))
		for i := range q.sums {
			it := &q.sums[i]
			it.tenant, it.first, it.last = r.rng()
			if it.bits = r.u8(); it.bits > maxBits {
				r.fail()
			}
		}
	case kindDiff:
		q.agreed = r.u64()
		q.diffs = make([]diffItem, r.count(maxItems, 23))
		for i := range q.diffs {
			it := &q.diffs[i]
			it.tenant, it.first, it.last = r.rng()
			it.after, it.until = r.position(), r.position()
			it.hashes = make([]uint64, r.count(maxHashes, 8))
			for k := range it.hashes {
				it.hashes[k] = r.u64()
			}
		}
	case kindRecords:
		flags := r.u8()
		if flags&^(recordAfter|recordVotes) != 0 {
			r.fail()
		}
		q.votes = flags&recordVotes != 0
		if flags&recordAfter != 0 {
			after := r.record()
			q.after = &after
		}
	case kindObjects:
		q.agreed, q.tenant, q.from = r.u64(), ring.TenantNumber(r.u32()), r.position()
	case kindApplied:
		q.rows = make([]RecordRow, r.count(maxVotes, 30))
		for i := range q.rows {
			q.rows[i] = r.record()
		}
	default:
		return nil, fmt.Errorf("%w of the unknown kind %d", errBody, q.kind)
	}
	return q, r.end()
}

func appendRange(b []byte, t ring.TenantNumber, first, last ring.Token) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(t))
	return appendU64(appendU64(b, uint64(first)), uint64(last))
}

func (r *reader) rng() (t ring.TenantNumber, first, last ring.Token) {
	t, first, last = ring.TenantNumber(r.u32()), ring.Token(r.u64()), ring.Token(r.u64())
	if first > last {
		r.fail()
	}
	return t, first, last
}

func appendRecord(b []byte, row *RecordRow) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(row.Tenant))
	b = append(appendU64(b, uint64(row.Token)), row.KeyHash[:]...)
	b = appendBytes(b, row.IdempotencyKey)
	return appendBytes(b, row.Record)
}

func (r *reader) record() (row RecordRow) {
	row.Tenant, row.Token = ring.TenantNumber(r.u32()), ring.Token(r.u64())
	copy(row.KeyHash[:], r.take(len(row.KeyHash)))
	row.IdempotencyKey, row.Record = r.bytes(causal.MaxIdempotencyKey), r.bytes(len(r.b))
	return row
}
