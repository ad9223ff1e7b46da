package ring

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Propose is the content of KindPropose.
type Propose struct {
	// Parent is the version of the finalised layout that is changed: with another
	// one in force the entry is void.
	Parent Version
	// Layout has the entry's version.
	Layout *Layout
	// Removed are members that are lost, sorted: they are retired with the change,
	// without having handed over anything.
	Removed []NodeID
	// Closes are the intents that the change carries out, sorted.
	Closes [][16]byte
	// Factors are the replication factors that it changes, sorted by tenant.
	Factors []Factor
}

func (p *Propose) check(v Version) string {
	switch {
	case p.Layout == nil || p.Layout.version != v:
		return "its layout has another version"
	case p.Parent == 0 || p.Parent >= v:
		return fmt.Sprintf("its parent is %d", p.Parent)
	case len(p.Removed) > MaxNodes || len(p.Closes) > MaxIntents || len(p.Factors) > MaxOwnClasses:
		return "it removes, closes or changes too many"
	}
	if !rising(p.Removed) {
		return "removed nodes are out of order"
	}
	for _, id := range p.Removed {
		if _, there := p.Layout.index(id); there {
			return fmt.Sprintf("it removes %s, which is in its layout", id.Short())
		}
	}
	for i, op := range p.Closes {
		if op == [16]byte{} || i > 0 && bytes.Compare(p.Closes[i-1][:], op[:]) >= 0 {
			return "closed intents are out of order"
		}
	}
	for i, f := range p.Factors {
		if f.Tenant == 0 || i > 0 && p.Factors[i-1].Tenant >= f.Tenant {
			return "tenants are out of order"
		}
		if f.RF < 1 || f.RF > MaxRF {
			return fmt.Sprintf("replication factor %d", f.RF)
		}
	}
	return ""
}

// format is the one that the entry is encoded in, so that there is one encoding of it.
func (e *Entry) format() byte {
	if e.Propose != nil && len(e.Propose.Factors) > 0 {
		return factorsFormat
	}
	return entryFormat
}

// factorBytes are those of an encoded Factor.
const factorBytes = 4 + 1 + 8

func appendFactor(dst []byte, f Factor) []byte {
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(f.Tenant)), f.RF)
	return binary.BigEndian.AppendUint64(dst, uint64(f.AskedAtMs))
}

func (r *reader) factor() Factor {
	return Factor{Tenant: TenantNumber(r.u32()), RF: r.u8(), AskedAtMs: int64(r.u64())}
}

func (p *Propose) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Parent))
	dst = appendIDs(dst, p.Removed)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Closes)))
	for _, op := range p.Closes {
		dst = append(dst, op[:]...)
	}
	if len(p.Factors) > 0 {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Factors)))
	}
	for _, f := range p.Factors {
		dst = appendFactor(dst, f)
	}
	return appendLayout32(dst, p.Layout)
}

func (e *Entry) decodePropose(r *reader, format byte) error {
	p := &Propose{Parent: Version(r.u64()), Removed: r.ids()}
	n := int(r.u16())
	if n > MaxIntents || len(r.b) < 16*n {
		return ErrCorrupt
	}
	for range n {
		var op [16]byte
		copy(op[:], r.take(16))
		p.Closes = append(p.Closes, op)
	}
	if format == factorsFormat {
		if n = int(r.u16()); n > MaxOwnClasses || len(r.b) < factorBytes*n {
			return ErrCorrupt
		}
		for range n {
			p.Factors = append(p.Factors, r.factor())
		}
	}
	b := r.take(int(r.u32()))
	if r.bad {
		return ErrCorrupt
	}
	var err error
	p.Layout, err = DecodeLayout(b)
	e.Propose = p
	return err
}
