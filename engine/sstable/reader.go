package sstable

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
	"github.com/pairdb/pairdb/engine/vfs"
)

// Reader reads one table. It is safe for concurrent use; Close comes after the
// last use of the Reader and of its iterators.
type Reader struct {
	f     vfs.File
	opts  ReaderOptions
	limit uint64 // where the footer starts; every block ends at or before it
	foot  footer
	crc   checksummer
	dec   *Decoder

	// Pinned for the life of the Reader.
	index     block // top level
	filter    filter
	rangeDels []base.RangeDel
	props     Properties

	closed atomic.Bool
}

// NewReader opens the table in f, which has size bytes, and loads its footer,
// top index, filter, properties and range deletes. The Reader owns f from then
// on; when NewReader fails, f stays the caller's. A file of another format
// version is base.ErrFormat, damage is a base.CorruptError.
func NewReader(f vfs.File, size int64, opts ReaderOptions) (*Reader, error) {
	r := &Reader{f: f, opts: opts, dec: opts.Decoder}
	if r.dec == nil {
		r.dec = NewDecoder()
	}
	if err := r.readFooter(size); err != nil {
		return nil, err
	}
	if err := r.readMeta(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Reader) readFooter(size int64) error {
	if size < footerSize {
		return r.corrupt(0, errMagic)
	}
	var buf [footerSize]byte
	at := size - footerSize
	if err := r.readAt(buf[:], at); err != nil {
		return err
	}
	foot, err := decodeFooter(buf[:], uint64(size))
	switch {
	case errors.Is(err, errVersion):
		return fmt.Errorf("open table %s: %w %d: %w", r.opts.Name, err, foot.version, base.ErrFormat)
	case err != nil:
		return r.corrupt(uint64(at), err)
	case r.opts.Nonce != 0 && r.opts.Nonce != foot.nonce:
		return r.corrupt(uint64(at), fmt.Errorf("nonce is %016x, want %016x", foot.nonce, r.opts.Nonce))
	}
	r.foot, r.limit, r.crc = foot, uint64(at), newChecksummer(foot.nonce)
	return nil
}

func (r *Reader) readMeta() error {
	b, err := r.fetch(r.foot.props)
	if err != nil {
		return err
	}
	if r.props, err = decodeProps(b); err != nil {
		return r.corrupt(r.foot.props.offset, err)
	}
	if r.foot.filter.length > 0 {
		if b, err = r.fetch(r.foot.filter); err != nil {
			return err
		}
		if r.filter, err = decodeFilter(b); err != nil {
			return r.corrupt(r.foot.filter.offset, err)
		}
	}
	if r.foot.rangeDel.length > 0 {
		if b, err = r.fetch(r.foot.rangeDel); err != nil {
			return err
		}
		if r.rangeDels, err = decodeRangeDels(b); err != nil {
			return r.corrupt(r.foot.rangeDel.offset, err)
		}
	}
	if uint64(len(r.rangeDels)) != r.props.RangeDels {
		return r.corrupt(r.foot.props.offset, errProps)
	}
	if b, err = r.fetch(r.foot.index); err != nil {
		return err
	}
	var ok bool
	if r.index, ok = parseBlock(b); !ok {
		return r.corrupt(r.foot.index.offset, errBlock)
	}
	return nil
}

// decodeRangeDels reads a block made by encodeRangeDels. The keys are copied.
func decodeRangeDels(b []byte) ([]base.RangeDel, error) {
	blk, ok := parseBlock(b)
	if !ok {
		return nil, errBlock
	}
	var it blockIter
	it.init(blk)
	var list []base.RangeDel
	for ok := it.first(); ok; ok = it.step() {
		k := it.internalKey().Clone()
		rd := base.RangeDel{Start: k.UserKey, End: append([]byte(nil), it.value...), Seq: k.SeqNum()}
		if k.Kind() != base.KindRangeDelete || rd.Empty() {
			return nil, errBlock
		}
		list = append(list, rd)
	}
	if it.bad {
		return nil, errBlock
	}
	return list, nil
}

func (r *Reader) corrupt(offset uint64, err error) error {
	return &base.CorruptError{File: r.opts.Name, Offset: int64(offset), Err: err}
}

// readAt fills b. The caller has checked the range against the size given to
// NewReader, so an early end means that the file lost bytes since.
func (r *Reader) readAt(b []byte, offset int64) error {
	n, err := r.f.ReadAt(b, offset)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return r.corrupt(uint64(offset), io.ErrUnexpectedEOF)
	default:
		return fmt.Errorf("read table %s at %d: %w", r.opts.Name, offset, err)
	}
}

// verify checks a stored block and splits off its trailer.
func (r *Reader) verify(h handle, raw []byte) (payload []byte, codec Codec, err error) {
	n := len(raw) - trailerSize
	if r.crc.sum(h.offset, raw[:n+1]) != leUint32(raw[n+1:]) {
		return nil, 0, r.corrupt(h.offset, errChecksum)
	}
	return raw[:n], Codec(raw[n]), nil
}

// decodeInto returns the decoded block: payload itself when it is not
// compressed, else dst grown to the declared length.
func (r *Reader) decodeInto(dst []byte, h handle, payload []byte, codec Codec) ([]byte, error) {
	if codec == CodecNone {
		return payload, nil
	}
	n, err := decodedLen(payload)
	if err != nil {
		return nil, r.corrupt(h.offset, err)
	}
	if cap(dst) < n {
		dst = make([]byte, n)
	}
	if err := r.dec.decode(dst[:n], payload, codec); err != nil {
		return nil, r.corrupt(h.offset, err)
	}
	return dst[:n], nil
}

// fetch reads a block from the file into memory of its own.
func (r *Reader) fetch(h handle) ([]byte, error) {
	n := int(h.length) + trailerSize
	if n > maxPooled {
		raw := make([]byte, n)
		return r.fetchInto(h, raw, false)
	}
	p := r.dec.buffer(n)
	defer r.dec.release(p)
	return r.fetchInto(h, *p, true)
}

// fetchInto is fetch through the buffer raw, from which the block is copied
// when it is lent.
func (r *Reader) fetchInto(h handle, raw []byte, lent bool) ([]byte, error) {
	if err := r.readAt(raw, int64(h.offset)); err != nil {
		return nil, err
	}
	payload, codec, err := r.verify(h, raw)
	if err != nil {
		return nil, err
	}
	if codec == CodecNone && lent {
		return append(make([]byte, 0, len(payload)), payload...), nil
	}
	return r.decodeInto(nil, h, payload, codec)
}

// load returns a data or index block, from the cache if it is there, and the
// memory it lies in, which the caller releases.
func (r *Reader) load(h handle) (block, *cache.Block, error) {
	if b := r.opts.Cache.Get(r.key(h)); b != nil {
		return r.parse(h, b)
	}
	raw := r.dec.buffer(int(h.length) + trailerSize)
	defer r.dec.release(raw)
	if err := r.readAt(*raw, int64(h.offset)); err != nil {
		return block{}, nil, err
	}
	return r.admit(h, *raw)
}

// key names a block in the cache.
func (r *Reader) key(h handle) cache.Key {
	return cache.Key{File: r.opts.FileNum, Offset: h.offset}
}

// admit decodes a block as it is stored into the cache.
func (r *Reader) admit(h handle, raw []byte) (block, *cache.Block, error) {
	payload, codec, err := r.verify(h, raw)
	if err != nil {
		return block{}, nil, err
	}
	n := len(payload)
	if codec != CodecNone {
		if n, err = decodedLen(payload); err != nil {
			return block{}, nil, r.corrupt(h.offset, err)
		}
	}
	b := r.opts.Cache.NewBlock(n)
	if codec == CodecNone {
		copy(b.Bytes(), payload)
	} else if err := r.dec.decode(b.Bytes(), payload, codec); err != nil {
		b.Release()
		return block{}, nil, r.corrupt(h.offset, err)
	}
	blk, mem, err := r.parse(h, b)
	if err == nil {
		r.opts.Cache.Set(r.key(h), b)
	}
	return blk, mem, err
}

// parse is parseBlock on what b holds; b is released if it is malformed.
func (r *Reader) parse(h handle, b *cache.Block) (block, *cache.Block, error) {
	blk, ok := parseBlock(b.Bytes())
	if !ok {
		b.Release()
		return block{}, nil, r.corrupt(h.offset, errBlock)
	}
	return blk, b, nil
}

// lookup finds, in an index block, the block that holds the first key at or
// after (userKey, tr).
func (r *Reader) lookup(index *block, at handle, userKey []byte, tr base.Trailer) (h handle, ok bool, err error) {
	value, _, found, _, err := index.find(userKey, tr)
	if err != nil {
		return handle{}, false, r.corrupt(at.offset, err)
	}
	if !found {
		return handle{}, false, nil
	}
	h, err = r.childHandle(at, value)
	return h, err == nil, err
}

// childHandle decodes a handle found in the index block at.
func (r *Reader) childHandle(at handle, value []byte) (handle, error) {
	h, ok := decodeHandle(value)
	if !ok || !h.within(r.limit) {
		return handle{}, r.corrupt(at.offset, errHandle)
	}
	return h, nil
}

// MayContain is false only if the table has no version of userKey, a range
// delete aside. It reads no block.
func (r *Reader) MayContain(userKey []byte) bool {
	return r.filter.n == 0 || r.filter.mayContain(filterHash(userKey))
}

// Filtered reports whether the table has a filter, so that MayContain can deny.
func (r *Reader) Filtered() bool { return r.filter.n > 0 }

// Get is Lookup if MayContain does not deny userKey.
func (r *Reader) Get(dst, userKey []byte, seq base.SeqNum) (value []byte, kind base.Kind, at base.SeqNum, ok bool, err error) {
	if !r.closed.Load() && !r.MayContain(userKey) {
		return dst, 0, 0, false, nil
	}
	return r.Lookup(dst, userKey, seq)
}

// Lookup appends to dst the value of the newest version of userKey whose sequence
// number is at most seq. ok is false when there is none, and dst comes back as
// it was. A delete is a version with an empty value; kind tells. Range deletes
// are not looked at. With the blocks in the cache nothing is allocated but
// what dst needs to grow.
func (r *Reader) Lookup(dst, userKey []byte, seq base.SeqNum) (value []byte, kind base.Kind, at base.SeqNum, ok bool, err error) {
	if r.closed.Load() {
		return dst, 0, 0, false, base.ErrClosed
	}
	tr := base.MakeTrailer(seq, base.KindMax)
	h, ok, err := r.lookup(&r.index, r.foot.index, userKey, tr)
	if ok && r.foot.levels == 2 {
		part, mem, err := r.load(h)
		if err != nil {
			return dst, 0, 0, false, err
		}
		if h, ok, err = r.lookup(&part, h, userKey, tr); err != nil {
			mem.Release()
			return dst, 0, 0, false, err
		}
		mem.Release()
	}
	if err != nil || !ok {
		return dst, 0, 0, false, err
	}
	data, mem, err := r.load(h)
	if err != nil {
		return dst, 0, 0, false, err
	}
	defer mem.Release()
	v, t, _, same, err := data.find(userKey, tr)
	if err != nil || (same && !pointKind(t.Kind())) {
		return dst, 0, 0, false, r.corrupt(h.offset, errBlock)
	}
	if !same {
		return dst, 0, 0, false, nil
	}
	return append(dst, v...), t.Kind(), t.SeqNum(), true, nil
}

func pointKind(k base.Kind) bool { return k == base.KindSet || k == base.KindDelete }

// RangeDels returns the table's range deletes, ascending by start. They are
// pinned and must not be changed.
func (r *Reader) RangeDels() []base.RangeDel { return r.rangeDels }

// Properties returns the table's properties. The keys must not be changed.
func (r *Reader) Properties() Properties { return r.props }

// Meta returns what Writer.Finish returned for this file.
func (r *Reader) Meta() Meta {
	return Meta{Size: int64(r.limit) + footerSize, Nonce: r.foot.nonce, Properties: r.props}
}

// PinnedBytes returns the memory the Reader holds outside the cache.
func (r *Reader) PinnedBytes() int64 {
	n := len(r.index.data) + len(r.index.restarts) + len(r.filter.lines)
	for _, rd := range r.rangeDels {
		n += len(rd.Start) + len(rd.End) + 56
	}
	return int64(n)
}

// Close closes the file. It is idempotent.
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	if err := r.f.Close(); err != nil {
		return fmt.Errorf("close table %s: %w", r.opts.Name, err)
	}
	return nil
}
