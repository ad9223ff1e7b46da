package sstable

import (
	"errors"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// BlockKind says what a block of a table holds.
type BlockKind uint8

// The kinds of blocks, in the order of a file.
const (
	BlockData BlockKind = iota
	BlockIndex
	BlockFilter
	BlockRangeDels
	BlockProperties
	BlockTopIndex
)

// String names the kind.
func (k BlockKind) String() string {
	return [...]string{"data", "index", "filter", "range-deletes", "properties", "top-index"}[k]
}

// BlockInfo describes a block as it is stored.
type BlockInfo struct {
	Kind   BlockKind
	Offset int64 // of the payload
	Length int64 // of the payload; five bytes of codec and checksum follow
	Codec  Codec
	// Decoded is the length after decompression; 0 if the block is damaged.
	Decoded int64
	Entries int64
	// First and Last are a data block's keys, zero in an empty one. They are
	// valid until the visitor returns.
	First, Last base.InternalKey
	// Err is a *base.CorruptError if the block is damaged: its checksum, its
	// codec or what it holds.
	Err error
}

// FilterInfo describes a table's filter. It is zero if there is none.
type FilterInfo struct {
	Lines  uint64 // of 512 bits
	Probes int
}

// Info is what a table says of itself, as far as it can be read.
type Info struct {
	Size          int64
	FormatVersion int
	IndexLevels   int
	Nonce         uint64
	Properties    Properties
	Filter        FilterInfo
	RangeDels     []base.RangeDel
	// Damaged counts the blocks that were visited with an error.
	Damaged int64
	// Contents is the *base.CorruptError of a table whose blocks are sound one
	// by one and do not belong together: see Reader.VerifyChecksums. It is
	// looked for if no block is damaged.
	Contents error
}

// Visitor is told what Inspect finds; an error ends the inspection. Nil
// functions are not called.
type Visitor struct {
	// Block is called for each block: the data blocks in the order of keys, an
	// index block after those it names, then the others in the order of the
	// file. A data block comes after its entries.
	Block func(BlockInfo) error
	// Entry is called for each entry of a data block at offset at; key and
	// value are valid until it returns.
	Entry func(at int64, key base.InternalKey, value []byte) error
}

// Inspect reads a table that may be damaged, block by block: a damaged block is
// shown to v and does not hide the others. The error is that of a file that is
// no table or has no sound footer (base.CorruptError), is of another format
// version (base.ErrFormat), cannot be read, or that of v. f stays the caller's.
//
// Memory is that of the largest block. A block that overlaps one before it is
// damage and is not read, so that no more is read than the file has.
func Inspect(f vfs.File, size int64, name string, v Visitor) (Info, error) {
	r := &Reader{f: f, opts: ReaderOptions{Name: name}, dec: NewDecoder()}
	if err := r.readFooter(size); err != nil {
		return Info{}, err
	}
	in := &inspection{r: r, visit: v}
	in.info = Info{
		Size: size, FormatVersion: int(r.foot.version), IndexLevels: int(r.foot.levels), Nonce: r.foot.nonce,
	}
	for _, step := range []func() error{in.keys, in.filter, in.rangeDels, in.props, in.top} {
		if err := step(); err != nil {
			return in.info, err
		}
	}
	if in.info.Damaged > 0 {
		return in.info, nil
	}
	err := r.readMeta()
	if err == nil {
		err = r.VerifyChecksums()
	}
	if errors.Is(err, base.ErrCorrupt) {
		in.info.Contents, err = err, nil
	}
	return in.info, err
}

var errOverlap = errors.New("block overlaps the one before it")

type inspection struct {
	r     *Reader
	visit Visitor
	info  Info

	topInfo BlockInfo
	// next says where the next data and index block may begin. The first data
	// block of an index block may lie before the index block before it.
	next [2]uint64
	raw  []byte
	own  []byte // decoded data block
}

// report hands a block to the visitor.
func (in *inspection) report(b BlockInfo) error {
	if b.Err != nil {
		in.info.Damaged++
	}
	if in.visit.Block == nil {
		return nil
	}
	return in.visit.Block(b)
}

// describe begins the description of the block at h.
func describe(kind BlockKind, h handle) BlockInfo {
	return BlockInfo{Kind: kind, Offset: int64(h.offset), Length: int64(h.length)}
}

// read decodes the block at b into dst, if that is large enough. What is wrong
// with the block is in b.Err; the error is that of the file.
func (in *inspection) read(b *BlockInfo, h handle, dst []byte) ([]byte, error) {
	r := in.r
	if b.Kind != BlockFilter && h.length > MaxBlockBytes {
		b.Err = r.corrupt(h.offset, errLength)
		return nil, nil
	}
	n := int(h.length) + trailerSize
	if cap(in.raw) < n {
		in.raw = make([]byte, n)
	}
	raw := in.raw[:n]
	if err := r.readAt(raw, int64(h.offset)); err != nil {
		return nil, in.damage(b, err)
	}
	b.Codec = Codec(raw[n-trailerSize])
	payload, codec, err := r.verify(h, raw)
	if err != nil {
		return nil, in.damage(b, err)
	}
	out, err := r.decodeInto(dst, h, payload, codec)
	if err != nil {
		return nil, in.damage(b, err)
	}
	b.Decoded = int64(len(out))
	return out, nil
}

// damage notes an error that is damage and passes any other on.
func (in *inspection) damage(b *BlockInfo, err error) error {
	if !errors.Is(err, base.ErrCorrupt) {
		return err
	}
	b.Err, b.Decoded = err, 0
	return nil
}

// keys visits the index and what it names. The top index itself, which is the
// last block, is reported later.
func (in *inspection) keys() error {
	in.topInfo = describe(BlockTopIndex, in.r.foot.index)
	b, err := in.read(&in.topInfo, in.r.foot.index, nil)
	if err != nil || in.topInfo.Err != nil {
		return err
	}
	top := append([]byte(nil), b...) // b may be the buffer of the next block
	if in.r.foot.levels == 2 {
		return in.walk(&in.topInfo, in.r.foot.index, top, BlockIndex, in.index)
	}
	return in.walk(&in.topInfo, in.r.foot.index, top, BlockData, in.data)
}

// walk calls child for each handle in the index block b. They name blocks of
// kind, which lie in order.
func (in *inspection) walk(info *BlockInfo, at handle, b []byte, kind BlockKind, child func(handle) error) error {
	blk, ok := parseBlock(b)
	if !ok {
		info.Err = in.r.corrupt(at.offset, errBlock)
		return nil
	}
	var it blockIter
	it.init(blk)
	for ok := it.first(); ok; ok = it.step() {
		info.Entries++
		h, ok := decodeHandle(it.value)
		switch {
		case !ok || !h.within(in.r.limit):
			info.Err = in.r.corrupt(at.offset, errHandle)
			continue
		case h.offset < in.next[kind]:
			info.Err = in.r.corrupt(h.offset, errOverlap)
			continue
		}
		if err := child(h); err != nil {
			return err
		}
		in.next[kind] = h.offset + h.length + trailerSize
	}
	if it.bad {
		info.Err = in.r.corrupt(at.offset, errBlock)
	}
	return nil
}

// index visits an index block of the lower level, after what it names.
func (in *inspection) index(h handle) error {
	info := describe(BlockIndex, h)
	b, err := in.read(&info, h, nil)
	if err != nil {
		return err
	}
	if info.Err == nil {
		if err := in.walk(&info, h, append([]byte(nil), b...), BlockData, in.data); err != nil {
			return err
		}
	}
	return in.report(info)
}

// data visits a data block.
func (in *inspection) data(h handle) error {
	info := describe(BlockData, h)
	b, err := in.read(&info, h, in.own)
	if err != nil {
		return err
	}
	if info.Codec != CodecNone && cap(b) > cap(in.own) {
		in.own = b
	}
	if info.Err == nil {
		if err := in.entries(&info, h, b); err != nil {
			return err
		}
	}
	return in.report(info)
}

func (in *inspection) entries(info *BlockInfo, h handle, b []byte) error {
	blk, ok := parseBlock(b)
	if !ok {
		info.Err = in.r.corrupt(h.offset, errBlock)
		return nil
	}
	var it blockIter
	it.init(blk)
	for ok := it.first(); ok; ok = it.step() {
		k := it.internalKey()
		if !pointKind(k.Kind()) {
			it.bad = true
			break
		}
		if info.Entries == 0 {
			info.First = k.Clone()
		}
		info.Entries++
		if in.visit.Entry != nil {
			if err := in.visit.Entry(info.Offset, k, it.value); err != nil {
				return err
			}
		}
	}
	if it.bad {
		info.Err = in.r.corrupt(h.offset, errBlock)
	}
	if info.Entries > 0 {
		info.Last = base.InternalKey{UserKey: it.key, Trailer: it.trailer}
	}
	return nil
}

func (in *inspection) filter() error {
	h := in.r.foot.filter
	if h.empty() {
		return nil
	}
	info := describe(BlockFilter, h)
	b, err := in.read(&info, h, nil)
	if err != nil {
		return err
	}
	if info.Err == nil {
		f, err := decodeFilter(b)
		if err != nil {
			info.Err = in.r.corrupt(h.offset, err)
		}
		in.info.Filter = FilterInfo{Lines: f.n, Probes: f.probes}
	}
	return in.report(info)
}

func (in *inspection) rangeDels() error {
	h := in.r.foot.rangeDel
	if h.empty() {
		return nil
	}
	info := describe(BlockRangeDels, h)
	b, err := in.read(&info, h, nil)
	if err != nil {
		return err
	}
	if info.Err == nil {
		if in.info.RangeDels, err = decodeRangeDels(b); err != nil {
			info.Err = in.r.corrupt(h.offset, err)
		}
		info.Entries = int64(len(in.info.RangeDels))
	}
	return in.report(info)
}

func (in *inspection) props() error {
	h := in.r.foot.props
	info := describe(BlockProperties, h)
	b, err := in.read(&info, h, nil)
	if err != nil {
		return err
	}
	if info.Err == nil {
		if in.info.Properties, err = decodeProps(b); err != nil {
			info.Err = in.r.corrupt(h.offset, err)
		}
	}
	return in.report(info)
}

func (in *inspection) top() error { return in.report(in.topInfo) }
