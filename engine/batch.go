package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/memtable"
)

// Limits of a batch and its parts, in bytes.
const (
	// MaxKeySize bounds a key.
	MaxKeySize = 64 << 10
	// MaxValueSize bounds a value.
	MaxValueSize = 31 << 20
	// MaxBatchSize bounds the encoded size of a batch.
	MaxBatchSize = 256 << 20
	// MaxBatchRangeDeletes bounds the range deletes of a batch.
	MaxBatchRangeDeletes = 1024
	// maxBatchMem bounds what a batch takes in a memtable.
	maxBatchMem = 1 << 30
)

var (
	// ErrTooLarge says that a key, a value or a batch exceeds its limit.
	ErrTooLarge = errors.New("engine: too large")
	// ErrEmptyKey says that a key has no bytes.
	ErrEmptyKey = errors.New("engine: empty key")
)

// A batch is encoded as it stands in the log: a header of the first sequence
// number and the number of operations, then for each a kind byte, the key with
// its length, and for a set the value, for a range delete the end.
const batchHeaderLen = 8 + 4

// Batch is a list of mutations that are applied together or not at all; later
// ones win over earlier ones. It is used by one goroutine at a time and may be
// used again after Apply and Reset. The zero Batch is empty and usable.
type Batch struct {
	data  []byte
	count uint32
	// memSize bounds what the operations take in a memtable.
	memSize int64
	ranges  int   // range deletes
	err     error // the first refused operation
	places  places
}

// NewBatch returns an empty batch.
func NewBatch() *Batch { return &Batch{} }

// Set gives key a value. Both are copied.
func (b *Batch) Set(key, value []byte) { b.add(base.KindSet, key, value) }

// Delete takes the value of key away, if it has one.
func (b *Batch) Delete(key []byte) { b.add(base.KindDelete, key, nil) }

// DeleteRange takes the values of all keys in [start, end) away. An empty range
// is dropped.
func (b *Batch) DeleteRange(start, end []byte) {
	if (base.RangeDel{Start: start, End: end}).Empty() {
		return
	}
	if b.ranges++; b.ranges > MaxBatchRangeDeletes && b.err == nil {
		b.err = fmt.Errorf("%w: more than %d range deletes in a batch", ErrTooLarge, MaxBatchRangeDeletes)
	}
	b.add(base.KindRangeDelete, start, end)
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.data, b.count, b.memSize, b.ranges, b.err = b.data[:0], 0, 0, 0, nil }

// Len returns the number of operations.
func (b *Batch) Len() int { return int(b.count) }

// Size returns the encoded size in bytes.
func (b *Batch) Size() int { return len(b.data) }

func (b *Batch) add(kind base.Kind, key, value []byte) {
	if b.err != nil {
		return
	}
	switch {
	case len(key) == 0:
		b.err = ErrEmptyKey
	case len(key) > MaxKeySize:
		b.err = fmt.Errorf("%w: key of %d bytes, limit is %d", ErrTooLarge, len(key), MaxKeySize)
	case kind == base.KindRangeDelete && len(value) > MaxKeySize:
		b.err = fmt.Errorf("%w: range end of %d bytes, limit is %d", ErrTooLarge, len(value), MaxKeySize)
	case len(value) > MaxValueSize:
		b.err = fmt.Errorf("%w: value of %d bytes, limit is %d", ErrTooLarge, len(value), MaxValueSize)
	case len(b.data)+len(key)+len(value) > MaxBatchSize ||
		b.memSize+int64(memtable.Need(len(key), len(value))) > maxBatchMem:
		b.err = fmt.Errorf("%w: batch would exceed %d bytes, or %d in memory", ErrTooLarge, MaxBatchSize, maxBatchMem)
	}
	if b.err != nil {
		return
	}
	if len(b.data) == 0 {
		var header [batchHeaderLen]byte
		b.data = append(b.data, header[:]...)
	}
	b.data = append(b.data, byte(kind))
	b.data = binary.AppendUvarint(b.data, uint64(len(key)))
	b.data = append(b.data, key...)
	if kind != base.KindDelete {
		b.data = binary.AppendUvarint(b.data, uint64(len(value)))
		b.data = append(b.data, value...)
	}
	b.count++
	b.memSize += int64(memtable.Need(len(key), len(value)))
}

// number fills in the header before the batch is logged.
func (b *Batch) number(first base.SeqNum) {
	binary.LittleEndian.PutUint64(b.data, uint64(first))
	binary.LittleEndian.PutUint32(b.data[8:], b.count)
}

// errBatch says that a log record with a valid checksum does not parse.
var errBatch = errors.New("malformed batch")

// batchReader reads an encoded batch.
type batchReader struct {
	first base.SeqNum
	count uint32
	rest  []byte
	// read is the number of operations returned by next.
	read uint32
	bad  bool
}

func newBatchReader(data []byte) (batchReader, error) {
	if len(data) < batchHeaderLen {
		return batchReader{}, errBatch
	}
	r := batchReader{
		first: base.SeqNum(binary.LittleEndian.Uint64(data)),
		count: binary.LittleEndian.Uint32(data[8:]),
		rest:  data[batchHeaderLen:],
	}
	// Every operation takes at least three bytes.
	if r.count == 0 || int64(r.count) > int64(len(r.rest))/3 || r.first == 0 ||
		r.first > base.MaxSeqNum-base.SeqNum(r.count) {
		return batchReader{}, errBatch
	}
	return r, nil
}

// last returns the sequence number of the last operation.
func (r *batchReader) last() base.SeqNum { return r.first + base.SeqNum(r.count) - 1 }

// next returns the next operation; its slices alias the batch. After false,
// bad tells whether the batch is malformed.
func (r *batchReader) next() (kind base.Kind, key, value []byte, ok bool) {
	if r.read == r.count {
		r.bad = r.bad || len(r.rest) > 0
		return 0, nil, nil, false
	}
	if len(r.rest) == 0 {
		r.bad = true
		return 0, nil, nil, false
	}
	kind = base.Kind(r.rest[0])
	r.rest = r.rest[1:]
	key = r.bytes()
	if kind != base.KindDelete {
		value = r.bytes()
	}
	if r.bad || !kind.Valid() || len(key) == 0 {
		r.bad = true
		return 0, nil, nil, false
	}
	r.read++
	return kind, key, value, true
}

func (r *batchReader) bytes() []byte {
	n, w := binary.Uvarint(r.rest)
	if w <= 0 || n > uint64(len(r.rest)-w) {
		r.bad = true
		return nil
	}
	out := r.rest[w:][:n:n]
	r.rest = r.rest[w+int(n):]
	return out
}

// Op is one operation of a batch. Value is empty for a delete and the exclusive
// end of the keys for a range delete.
type Op struct {
	Seq        base.SeqNum
	Kind       base.Kind
	Key, Value []byte
}

// ReadBatch calls fn for each operation of a batch as a log record holds it. The
// bytes of an Op alias the record. A record that is no batch is an error before or
// after the operations that could be read; an error of fn is returned as it is.
func ReadBatch(record []byte, fn func(Op) error) error {
	r, err := newBatchReader(record)
	if err != nil {
		return err
	}
	for {
		seq := r.first + base.SeqNum(r.read)
		kind, key, value, ok := r.next()
		if !ok {
			break
		}
		if err := fn(Op{Seq: seq, Kind: kind, Key: key, Value: value}); err != nil {
			return err
		}
	}
	if r.bad {
		return errBatch
	}
	return nil
}
