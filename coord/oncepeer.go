package coord

import (
	"encoding/binary"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/schema"
)

// lookup serves OpLookup.
func (f *frame) lookup(i int, t *schema.Tenant) {
	c, m := f.c, &f.msgs[i]
	if len(m.Body) == 0 || len(m.Body) > causal.MaxIdempotencyKey {
		f.malformed(i)
		return
	}
	c.hold(1)
	c.opts.Replica.Lookup(m.address(t), m.Body, c.opts.Clock.Now(), func(h Held, err error) {
		f.answer(i, Reply{Status: StatusOK, Body: encodeHeld(&h)}, err)
		c.leave()
	})
}

// claim serves OpClaim.
func (f *frame) claim(i int, t *schema.Tenant) {
	c, m := f.c, &f.msgs[i]
	key, r, rest, err := decodeClaim(m.Body)
	if err != nil || len(rest) > 0 || r.Applied {
		f.malformed(i)
		return
	}
	c.hold(1)
	c.opts.Replica.Claim(m.address(t), key, &r, c.opts.Clock.Now(), func(held causal.Record, err error) {
		f.answer(i, Reply{Status: StatusOK, Body: held.Append(nil)}, err)
		c.leave()
	})
}

// applied returns what OpApply asks to merge; ok is false if it was answered
// already.
func (f *frame) applied(i int, t *schema.Tenant) (item MergeItem, ok bool) {
	m := &f.msgs[i]
	key, r, object, err := decodeClaim(m.Body)
	if err != nil || !r.Applied {
		f.malformed(i)
		return MergeItem{}, false
	}
	return MergeItem{
		Address: m.address(t), Object: object, LastWriteWins: t.Policy == schema.PolicyLWW,
		IdempotencyKey: key, Record: &r,
	}, true
}

func (f *frame) malformed(i int) {
	f.fail(i, &Error{
		Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
		Message: "what the peer sent about an idempotency key does not decode",
	})
}

// claimLen is an upper bound of what appendClaim appends, in bytes.
func claimLen(key []byte, r *causal.Record) int {
	return 1 + 2*binary.MaxVarintLen64 + len(key) + r.EncodedLen()
}

// appendClaim appends an idempotency key and what it stands for: the body of
// OpClaim, and of OpApply up to the object.
func appendClaim(b, key []byte, r *causal.Record) []byte {
	b = append(b, bodyFormat)
	b = appendBytes(b, key)
	return appendBytes(b, r.Append(nil))
}

// decodeClaim reads what appendClaim wrote and returns what follows; key and
// rest alias b.
func decodeClaim(b []byte) (key []byte, r causal.Record, rest []byte, err error) {
	d := decoder{b: b}
	d.format()
	key = d.bytes(causal.MaxIdempotencyKey)
	record := d.bytes(uint64(len(d.b)))
	if d.bad || len(key) == 0 {
		return nil, causal.Record{}, nil, errBody
	}
	if r, err = causal.DecodeRecord(record); err != nil {
		return nil, causal.Record{}, nil, errBody
	}
	return key, r, d.b, nil
}

// encodeHeld returns the answer to OpLookup.
func encodeHeld(h *Held) []byte {
	b := make([]byte, 0, 32+18*len(h.Context))
	b = append(b, bodyFormat)
	b = binary.BigEndian.AppendUint64(b, h.HLC)
	b = appendBytes(b, h.Context.Append(nil))
	var record []byte
	if h.Record != nil {
		record = h.Record.Append(nil)
	}
	return appendBytes(b, record)
}

func decodeHeld(b []byte) (Held, error) {
	d := decoder{b: b}
	d.format()
	h := Held{HLC: d.u64(), Context: d.context(causal.MaxActors)}
	record := d.bytes(uint64(len(d.b)))
	if err := d.end(); err != nil {
		return Held{}, err
	}
	if len(record) > 0 {
		r, err := causal.DecodeRecord(record)
		if err != nil {
			return Held{}, errBody
		}
		h.Record = &r
	}
	return h, nil
}
