package coord

import (
	"encoding/binary"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// scan serves OpScan.
func (f *frame) scan(i int, t *schema.Tenant) {
	c, m := f.c, &f.msgs[i]
	r, err := decodeScanRange(m)
	if err != nil {
		f.fail(i, &Error{Code: errcode.InvalidArgument, Outcome: errcode.NotApplied, Message: "the range to scan does not decode"})
		return
	}
	r.Class, r.LWW = t.Class(), t.Policy == schema.PolicyLWW
	c.hold(1)
	c.opts.Replica.Scan(&r, func(p ScanPiece, err error) {
		rep := Reply{Status: StatusOK}
		if err = c.unmoved(m.Partition, m.Tenant, m.PV, err); err == nil {
			rep.Body = encodeScanPiece(&p, r.Mode)
		}
		f.answer(i, rep, err)
		c.leave()
	})
}

// The body of OpScan is, after the format: flags u8, the key of the position to
// begin at, the bounds of the keys, with scanHasUntil the token u64 and key of the
// position to end at, and the bounds of the piece: keys, bytes, budget.
const (
	scanModeMask = 3
	scanGroup    = 1 << 2
	scanHasUntil = 1 << 3
	scanStrict   = 1 << 4
)

// maxPositionKey is the longest key of a position: the first one behind the
// longest key.
const maxPositionKey = MaxKeySize + 1

// encodeScanRange returns the body; partition, tenant and the token to begin at
// travel in the Message.
func encodeScanRange(r *ScanRange) []byte {
	b := make([]byte, 0, 64+len(r.From.Key)+len(r.Start)+len(r.End))
	flags := byte(r.Mode)
	if r.Group {
		flags |= scanGroup
	}
	if r.Until != nil {
		flags |= scanHasUntil
	}
	if r.Strict {
		flags |= scanStrict
	}
	b = append(b, bodyFormat, flags)
	b = appendBytes(b, r.From.Key)
	b = appendBytes(b, r.Start)
	b = appendBytes(b, r.End)
	if r.Until != nil {
		b = appendPosition(b, r.Until)
	}
	for _, n := range []int{r.MaxKeys, r.MaxBytes, r.Budget} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// decodeScanRange reads a range that a peer asks for. It aliases the message.
func decodeScanRange(m *Message) (ScanRange, error) {
	d := decoder{b: m.Body}
	d.format()
	flags := d.u8()
	r := ScanRange{
		Partition: m.Partition, Tenant: m.Tenant, Mode: ScanMode(flags & scanModeMask), Group: flags&scanGroup != 0, Strict: flags&scanStrict != 0,
	}
	if r.Mode > ScanDigests || flags&^(scanModeMask|scanGroup|scanHasUntil|scanStrict) != 0 {
		d.fail()
	}
	r.From = Position{m.Token, d.bytes(maxPositionKey)}
	r.Start, r.End = d.bytes(MaxKeySize), d.bytes(MaxKeySize)
	if flags&scanHasUntil != 0 {
		until := d.position()
		r.Until = &until
	}
	r.MaxKeys, r.MaxBytes, r.Budget = int(d.uvarint(pieceKeys)), int(d.uvarint(pieceBytes)), int(d.uvarint(pieceBudget))
	if r.MaxKeys < 1 || r.MaxBytes < 1 || r.Budget < 2 {
		d.fail()
	}
	return r, d.end()
}

func appendPosition(b []byte, p *Position) []byte {
	return appendBytes(binary.BigEndian.AppendUint64(b, uint64(p.Token)), p.Key)
}

func (d *decoder) position() Position {
	return Position{ring.Token(d.u64()), d.bytes(maxPositionKey)}
}

// scanMore says that a piece ends before its range, at the position that follows.
const scanMore = 1

// The body of a piece is, after the format: flags u8, entries looked at, with
// scanMore the token u64 and key of the position it ends at, the number of keys,
// and of each the key, the size of the object, and the object or, in a range of
// digests, 16 bytes.
func encodeScanPiece(p *ScanPiece, mode ScanMode) []byte {
	n := 64 + maxPositionKey
	for i := range p.Entries {
		n += 32 + len(p.Entries[i].Key) + len(p.Entries[i].Object)
	}
	flags := byte(0)
	if p.Next != nil {
		flags = scanMore
	}
	b := append(make([]byte, 0, n), bodyFormat, flags)
	b = binary.AppendUvarint(b, uint64(p.Scanned))
	if p.Next != nil {
		b = appendPosition(b, p.Next)
	}
	b = binary.AppendUvarint(b, uint64(len(p.Entries)))
	for i := range p.Entries {
		e := &p.Entries[i]
		b = appendBytes(b, e.Key)
		b = binary.AppendUvarint(b, uint64(e.Size))
		if mode == ScanDigests {
			b = append(b, e.Digest[:]...)
		} else {
			b = appendBytes(b, e.Object)
		}
	}
	return b
}

// maxScanObject bounds what a piece says of the size of an object, in bytes.
const maxScanObject = 1 << 30

// decodeScanPiece reads the answer to a range. Keys and objects alias b.
func decodeScanPiece(b []byte, r *ScanRange) (ScanPiece, error) {
	d := decoder{b: b}
	d.format()
	flags := d.u8()
	if flags&^scanMore != 0 {
		d.fail()
	}
	p := ScanPiece{Scanned: int(d.uvarint(pieceBudget))}
	if flags&scanMore != 0 {
		next := d.position()
		p.Next = &next
	}
	// The smallest entry has a key of one byte: three bytes and one of an object.
	n := d.uvarint(uint64(min(r.MaxKeys, len(d.b)/4)))
	p.Entries = make([]ScanEntry, n)
	for i := range p.Entries {
		e := &p.Entries[i]
		e.Key, e.Size = d.bytes(MaxKeySize), int(d.uvarint(maxScanObject))
		if r.Mode != ScanDigests {
			e.Object = d.bytes(uint64(len(d.b)))
		} else if len(d.b) < len(e.Digest) {
			d.fail()
		} else {
			e.Digest = [16]byte(d.b)
			d.b = d.b[len(e.Digest):]
		}
		if len(e.Key) == 0 {
			d.fail()
		}
		if d.bad {
			break
		}
	}
	return p, d.end()
}
