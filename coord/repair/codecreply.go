package repair

import (
	"encoding/binary"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// replyFormat is the first byte of every answer.
const replyFormat = 1

// stateReply is the answer about one span to kindState, and without State to
// kindAdopt and kindRelease. Of State kindKnown has what is confirmed and released.
type stateReply struct {
	state State
	// floor is the answer to kindKnown, too.
	floor uint64
	// why says in a phrase why there is no answer; empty if there is one.
	why string
	// lost says that this is no answer: none came. It does not travel.
	lost bool
}

func encodeStates(k kind, all []stateReply) []byte {
	b := binary.AppendUvarint([]byte{replyFormat}, uint64(len(all)))
	for i := range all {
		a := &all[i]
		b = appendBytes(b, []byte(a.why))
		if a.why != "" || k != kindState && k != kindKnown {
			continue
		}
		s := &a.state
		if k == kindKnown {
			b = appendU64(appendConfirmed(appendConfirmed(b, &s.Confirmed), &s.Released), a.floor)
			continue
		}
		b = appendU64(appendU64(appendU64(b, s.Session), s.Actor), s.Drawn)
		b = appendContext(b, s.Seen)
		// Votes may have counters of 0, which a Context cannot have.
		b = binary.AppendUvarint(b, uint64(len(s.Votes)))
		for _, d := range s.Votes {
			b = appendU64(appendU64(b, d.Actor), d.Counter)
		}
		flags := byte(0)
		if s.VotesUnknown {
			flags |= 1
		}
		if s.Sweeping {
			flags |= 2
		}
		b = appendU64(append(b, flags), uint64(s.Now))
		b = appendConfirmed(appendConfirmed(b, &s.Confirmed), &s.Released)
	}
	return b
}

// maxWhy bounds the phrases of peers.
const maxWhy = 512

func decodeStates(k kind, b []byte) ([]stateReply, error) {
	r := reader{b: b}
	if r.u8() != replyFormat {
		r.fail()
	}
	all := make([]stateReply, r.count(maxSpans, 1))
	for i := range all {
		a := &all[i]
		if a.why = string(r.bytes(maxWhy)); a.why != "" || k != kindState && k != kindKnown {
			continue
		}
		s := &a.state
		if k == kindKnown {
			s.Confirmed, s.Released, a.floor = r.confirmed(), r.confirmed(), r.u64()
			continue
		}
		s.Session, s.Actor, s.Drawn = r.u64(), r.u64(), r.u64()
		s.Seen = r.context()
		if n := r.count(causal.MaxActors, 16); n > 0 {
			s.Votes = make(causal.Context, n)
		}
		for j := range s.Votes {
			s.Votes[j] = causal.Dot{Actor: r.u64(), Counter: r.u64()}
		}
		flags := r.u8()
		if flags&^3 != 0 {
			r.fail()
		}
		s.VotesUnknown, s.Sweeping = flags&1 != 0, flags&2 != 0
		s.Now = int64(r.u64())
		s.Confirmed, s.Released = r.confirmed(), r.confirmed()
	}
	return all, r.end()
}

// tenantSum is the sum of all that is held of a tenant in a partition.
type tenantSum struct {
	tenant ring.TenantNumber
	depth  uint8
	sum    Sum
}

// sumReply is the answer to kindSums: tenants if no ranges were asked for, else the
// sums of all parts of all ranges in order.
type sumReply struct {
	session uint64
	tenants []tenantSum
	sums    []Sum
}

func appendSum(b []byte, s Sum) []byte {
	return appendU64(appendU64(binary.AppendUvarint(b, s.Count), s.Hi), s.Lo)
}

func (r *reader) sum() Sum { return Sum{r.uvarint(), r.u64(), r.u64()} }

func (a *sumReply) encode() []byte {
	b := appendU64([]byte{replyFormat}, a.session)
	b = binary.AppendUvarint(b, uint64(len(a.tenants)))
	for i := range a.tenants {
		t := &a.tenants[i]
		b = append(binary.BigEndian.AppendUint32(b, uint32(t.tenant)), t.depth)
		b = appendSum(b, t.sum)
	}
	b = binary.AppendUvarint(b, uint64(len(a.sums)))
	for _, s := range a.sums {
		b = appendSum(b, s)
	}
	return b
}

func decodeSums(b []byte) (*sumReply, error) {
	r := reader{b: b}
	if r.u8() != replyFormat {
		r.fail()
	}
	a := &sumReply{session: r.u64()}
	a.tenants = make([]tenantSum, r.count(maxTenants, 22))
	for i := range a.tenants {
		t := &a.tenants[i]
		t.tenant, t.depth, t.sum = ring.TenantNumber(r.u32()), r.u8(), r.sum()
		if t.depth > 64 || i > 0 && t.tenant <= a.tenants[i-1].tenant {
			r.fail()
		}
	}
	a.sums = make([]Sum, r.count(1<<16, 17))
	for i := range a.sums {
		a.sums[i] = r.sum()
	}
	return a, r.end()
}

// diffPart answers one diffItem.
type diffPart struct {
	// rows are those the asker does not have, in order.
	rows []Row
	// missing has a bit for each hash that is of no row here.
	missing []byte
	// end is where the answer ends before the range does, nil if it does not.
	end *position
}

func (p *diffPart) misses(i int) bool { return p.missing[i/8]>>(i%8)&1 == 1 }

type diffReply struct {
	session uint64
	parts   []diffPart
}

func (a *diffReply) encode() []byte {
	b := appendU64([]byte{replyFormat}, a.session)
	b = binary.AppendUvarint(b, uint64(len(a.parts)))
	for i := range a.parts {
		p := &a.parts[i]
		b = binary.AppendUvarint(b, uint64(len(p.rows)))
		for k := range p.rows {
			row := &p.rows[k]
			b = appendBytes(appendU64(b, uint64(row.Token)), row.Key)
			b = binary.AppendUvarint(b, uint64(row.Size))
			b = appendBytes(b, row.Object.Append(nil))
		}
		b = appendPosition(appendBytes(b, p.missing), p.end)
	}
	return b
}

// maxObject bounds what a peer says of the size of an object, in bytes.
const maxObject = 1 << 30

func decodeDiff(b []byte, q *request) (*diffReply, error) {
	r := reader{b: b}
	if r.u8() != replyFormat {
		r.fail()
	}
	a := &diffReply{session: r.u64()}
	if a.parts = make([]diffPart, r.count(maxItems, 3)); len(a.parts) != len(q.diffs) {
		return nil, errBody
	}
	for i := range a.parts {
		p, it := &a.parts[i], &q.diffs[i]
		p.rows = make([]Row, r.count(1<<16, 13))
		for k := range p.rows {
			row := &p.rows[k]
			row.Token, row.Key = ring.Token(r.u64()), r.bytes(coord.MaxKeySize)
			size := r.uvarint()
			o, err := causal.Decode(r.bytes(len(r.b)))
			if err != nil || size > maxObject || len(row.Key) == 0 || row.Token < it.first || row.Token > it.last {
				r.fail()
			}
			if k > 0 && row.at().compare(p.rows[k-1].at()) <= 0 {
				r.fail()
			}
			row.Size, row.Object = int(size), o
		}
		if p.missing = r.bytes(maxHashes/8 + 1); len(p.missing) != (len(it.hashes)+7)/8 {
			r.fail()
		}
		p.end = r.position()
		if r.bad {
			return nil, errBody
		}
	}
	return a, r.end()
}

func (row *Row) at() *position { return &position{row.Token, row.Key} }

type recordReply struct {
	session uint64
	rows    []RecordRow
	more    bool
}

func (a *recordReply) encode() []byte {
	b := appendU64([]byte{replyFormat}, a.session)
	more := byte(0)
	if a.more {
		more = 1
	}
	b = binary.AppendUvarint(append(b, more), uint64(len(a.rows)))
	for i := range a.rows {
		b = appendRecord(b, &a.rows[i])
	}
	return b
}

func decodeRecords(b []byte) (*recordReply, error) {
	r := reader{b: b}
	if r.u8() != replyFormat {
		r.fail()
	}
	a := &recordReply{session: r.u64()}
	more := r.u8()
	if more > 1 {
		r.fail()
	}
	a.more = more == 1
	a.rows = make([]RecordRow, r.count(maxRows, 30))
	for i := range a.rows {
		a.rows[i] = r.record()
	}
	return a, r.end()
}

// objectRow is one object as an owner holds it.
type objectRow struct {
	key    []byte
	object []byte // encoded
}

// objectReply is the answer to kindObjects.
type objectReply struct {
	session uint64
	rows    []objectRow
	// next is where to go on, nil for nowhere.
	next *position
}

func (a *objectReply) encode() []byte {
	size := 64
	for i := range a.rows {
		size += len(a.rows[i].key) + len(a.rows[i].object) + 2*binary.MaxVarintLen32
	}
	b := appendU64(append(make([]byte, 0, size), replyFormat), a.session)
	b = binary.AppendUvarint(b, uint64(len(a.rows)))
	for i := range a.rows {
		b = appendBytes(appendBytes(b, a.rows[i].key), a.rows[i].object)
	}
	return appendPosition(b, a.next)
}

// decodeObjects reads an answer; slices alias b.
func decodeObjects(b []byte) (*objectReply, error) {
	r := reader{b: b}
	if r.u8() != replyFormat {
		r.fail()
	}
	a := &objectReply{session: r.u64()}
	a.rows = make([]objectRow, r.count(maxFrameKeys, 2))
	for i := range a.rows {
		row := &a.rows[i]
		if row.key, row.object = r.bytes(coord.MaxKeySize), r.bytes(len(r.b)); len(row.key) == 0 {
			r.fail()
		}
	}
	a.next = r.position()
	return a, r.end()
}
