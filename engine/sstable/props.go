package sstable

import (
	"encoding/binary"
	"errors"

	"github.com/pairdb/pairdb/engine/base"
)

// Tags of the properties block. They are permanent; a reader skips tags it
// does not know.
const (
	propEntries = iota + 1
	propDeletes
	propRangeDels
	propSmallest
	propLargest
	propSmallestSeq
	propLargestSeq
	propRawKeyBytes
	propRawValueBytes
	propDataBlocks
	propDataBytes
	propIndexBlocks
)

var errProps = errors.New("malformed properties")

// numbers lists the numeric properties with their tags.
func (p *Properties) numbers() []struct {
	tag uint64
	v   *uint64
} {
	return []struct {
		tag uint64
		v   *uint64
	}{
		{propEntries, &p.Entries},
		{propDeletes, &p.Deletes},
		{propRangeDels, &p.RangeDels},
		{propSmallestSeq, (*uint64)(&p.SmallestSeq)},
		{propLargestSeq, (*uint64)(&p.LargestSeq)},
		{propRawKeyBytes, &p.RawKeyBytes},
		{propRawValueBytes, &p.RawValueBytes},
		{propDataBlocks, &p.DataBlocks},
		{propDataBytes, &p.DataBytes},
		{propIndexBlocks, &p.IndexBlocks},
	}
}

// append encodes p: tag, length, value for each property. A number is eight
// bytes, a key is an encoded internal key.
func (p *Properties) append(dst []byte) []byte {
	for _, n := range p.numbers() {
		dst = binary.AppendUvarint(dst, n.tag)
		dst = binary.AppendUvarint(dst, 8)
		dst = binary.LittleEndian.AppendUint64(dst, *n.v)
	}
	if p.Empty() {
		return dst
	}
	for _, k := range [...]struct {
		tag uint64
		key base.InternalKey
	}{{propSmallest, p.Smallest}, {propLargest, p.Largest}} {
		dst = binary.AppendUvarint(dst, k.tag)
		dst = binary.AppendUvarint(dst, uint64(k.key.Size()))
		dst = k.key.Append(dst)
	}
	return dst
}

// decodeProps reads what append wrote. The keys are copied.
func decodeProps(b []byte) (p Properties, err error) {
	numbers := p.numbers()
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return Properties{}, errProps
		}
		size, m := binary.Uvarint(b[n:])
		if m <= 0 || size > uint64(len(b)-n-m) {
			return Properties{}, errProps
		}
		val := b[n+m:][:size]
		b = b[n+m+int(size):]
		if tag == propSmallest || tag == propLargest {
			k, ok := base.DecodeInternalKey(val)
			if !ok {
				return Properties{}, errProps
			}
			if tag == propSmallest {
				p.Smallest = k.Clone()
			} else {
				p.Largest = k.Clone()
			}
			continue
		}
		for _, x := range numbers {
			if x.tag != tag {
				continue
			}
			if size != 8 {
				return Properties{}, errProps
			}
			*x.v = binary.LittleEndian.Uint64(val)
		}
	}
	if !p.Empty() && (base.Compare(p.Smallest, p.Largest) > 0 || p.Deletes > p.Entries || p.SmallestSeq > p.LargestSeq) {
		return Properties{}, errProps
	}
	return p, nil
}
