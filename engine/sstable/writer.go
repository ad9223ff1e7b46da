package sstable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
)

// writeSize is how much output is gathered for one Write: system calls cost
// more than copying.
const writeSize = 128 << 10

var (
	errFinished = errors.New("sstable: writer is finished")
	errOrder    = errors.New("sstable: keys out of order")
	errTooLarge = errors.New("sstable: entry too large")
)

// Writer writes one table. One goroutine uses it. After an error every call
// returns that error; the caller removes the file. The caller creates, syncs
// and closes the file.
type Writer struct {
	f    vfs.File
	opts WriterOptions
	err  error

	crc     checksummer
	enc     encoder
	out     []byte // blocks not written yet
	written uint64 // bytes of the file before out

	data  blockWriter
	index blockWriter // lowest level
	top   blockWriter // index of index blocks, once there are several
	sep   []byte      // scratch
	hbuf  []byte      // scratch

	hashes    []uint64 // one for each distinct user key
	rangeDels []base.RangeDel
	props     Properties
	started   bool // an entry was added
}

// NewWriter returns a writer into the empty file f. Options that do not
// validate are reported by the first call.
func NewWriter(f vfs.File, opts WriterOptions) *Writer {
	opts.EnsureDefaults()
	w := &Writer{f: f, opts: opts, err: opts.Validate(), crc: newChecksummer(opts.Nonce)}
	w.enc.codec = opts.Codec
	w.data.interval = opts.RestartInterval
	// Every index entry is a restart point: seeks in an index are binary all
	// the way, and its keys differ too early for prefixes to save much.
	w.index.interval, w.top.interval = 1, 1
	w.props.SmallestSeq = base.MaxSeqNum
	return w
}

// Add appends a point entry. Keys come in ascending order of base.Compare,
// without duplicates. key and value are copied.
func (w *Writer) Add(key base.InternalKey, value []byte) error {
	if w.err != nil {
		return w.err
	}
	if k := key.Kind(); k != base.KindSet && k != base.KindDelete {
		return fmt.Errorf("sstable: add %s: kind is not a point key", k)
	}
	if len(key.UserKey)+len(value) > MaxEntryBytes {
		return errTooLarge
	}
	shared := commonPrefix(w.data.last, key.UserKey)
	sameUser := w.started && shared == len(w.data.last) && shared == len(key.UserKey)
	if w.started && !after(w.data.last, key.UserKey, shared) && (!sameUser || key.Trailer >= w.data.lastTr) {
		return fmt.Errorf("%w: %s after %s", errOrder, key,
			base.InternalKey{UserKey: w.data.last, Trailer: w.data.lastTr})
	}
	if w.data.entries > 0 && w.data.size()+entrySize(key.UserKey, value) > w.opts.BlockSize {
		if w.err = w.cutData(key.UserKey, shared, sameUser); w.err != nil {
			return w.err
		}
	}
	if !w.started {
		w.started = true
		w.props.Smallest = key.Clone()
	}
	if !sameUser && w.opts.BitsPerKey > 0 {
		w.hashes = append(w.hashes, filterHash(key.UserKey))
	}
	w.data.add(key.UserKey, key.Trailer, value, shared)
	w.count(key, value)
	return nil
}

// after reports whether b is a greater user key than a, given the length of
// their common prefix.
func after(a, b []byte, shared int) bool {
	if shared == len(b) {
		return false
	}
	return shared == len(a) || a[shared] < b[shared]
}

func (w *Writer) count(key base.InternalKey, value []byte) {
	p := &w.props
	p.Entries++
	if key.Kind() == base.KindDelete {
		p.Deletes++
	}
	p.RawKeyBytes += uint64(len(key.UserKey))
	p.RawValueBytes += uint64(len(value))
	p.SmallestSeq = min(p.SmallestSeq, key.SeqNum())
	p.LargestSeq = max(p.LargestSeq, key.SeqNum())
}

// AddRangeDel adds a range delete, in any order. It is copied. An empty range
// is dropped.
func (w *Writer) AddRangeDel(rd base.RangeDel) error {
	if w.err != nil {
		return w.err
	}
	if rd.Empty() {
		return nil
	}
	if len(rd.Start)+len(rd.End) > MaxEntryBytes {
		return errTooLarge
	}
	w.rangeDels = append(w.rangeDels, base.RangeDel{
		Start: slices.Clone(rd.Start), End: slices.Clone(rd.End), Seq: rd.Seq,
	})
	w.props.RangeDels++
	w.props.SmallestSeq = min(w.props.SmallestSeq, rd.Seq)
	w.props.LargestSeq = max(w.props.LargestSeq, rd.Seq)
	return nil
}

// EstimatedSize returns about how many bytes the file would have if it were
// finished now; blocks not compressed yet count in full.
func (w *Writer) EstimatedSize() int64 {
	n := int64(w.written) + int64(len(w.out)) + footerSize
	n += int64(w.data.size() + w.index.size() + w.top.size())
	if w.opts.BitsPerKey > 0 {
		n += int64(len(w.hashes)) * int64(w.opts.BitsPerKey) / 8
	}
	return n
}

// cutData ends the data block before a key that shares a prefix with the last
// one, and indexes it.
func (w *Writer) cutData(nextUser []byte, shared int, sameUser bool) error {
	sepTr := base.Trailer(0) // sorts after every version of the separator
	if sameUser {
		// The versions of one user key go on in the next block, so only
		// the full key tells the blocks apart.
		w.sep = append(w.sep[:0], w.data.last...)
		sepTr = w.data.lastTr
	} else {
		w.sep = separator(w.sep[:0], w.data.last, nextUser, shared)
	}
	return w.flushData(sepTr)
}

// flushData writes the data block and adds it to the index under (w.sep, sepTr).
func (w *Writer) flushData(sepTr base.Trailer) error {
	h, err := w.writeBlock(w.data.finish(), true)
	if err != nil {
		return err
	}
	w.data.reset()
	w.props.DataBlocks++
	w.props.DataBytes += h.length + trailerSize
	w.hbuf = h.append(w.hbuf[:0])
	if w.index.entries > 0 && w.index.size()+entrySize(w.sep, w.hbuf) > w.opts.IndexBlockSize {
		if err := w.flushIndex(); err != nil {
			return err
		}
		w.hbuf = h.append(w.hbuf[:0])
	}
	w.index.add(w.sep, sepTr, w.hbuf, 0)
	return nil
}

// flushIndex writes an index block and adds it to the top level under its last
// separator.
func (w *Writer) flushIndex() error {
	h, err := w.writeBlock(w.index.finish(), true)
	if err != nil {
		return err
	}
	w.index.reset()
	w.props.IndexBlocks++
	w.hbuf = h.append(w.hbuf[:0])
	w.top.add(w.index.last, w.index.lastTr, w.hbuf, 0)
	return nil
}

// writeBlock appends a block and its trailer to the output.
func (w *Writer) writeBlock(b []byte, compress bool) (handle, error) {
	if len(b) > MaxBlockBytes {
		return handle{}, fmt.Errorf("sstable: block of %d bytes is larger than %d", len(b), MaxBlockBytes)
	}
	payload, codec := b, CodecNone
	if compress {
		var err error
		if payload, codec, err = w.enc.encode(b); err != nil {
			return handle{}, err
		}
	}
	h := handle{offset: w.written + uint64(len(w.out)), length: uint64(len(payload))}
	start := len(w.out)
	w.out = append(append(w.out, payload...), byte(codec))
	w.out = binary.LittleEndian.AppendUint32(w.out, w.crc.sum(h.offset, w.out[start:]))
	if len(w.out) >= writeSize {
		return h, w.drain()
	}
	return h, nil
}

// drain hands the output to the file.
func (w *Writer) drain() error {
	if _, err := w.f.Write(w.out); err != nil {
		return fmt.Errorf("sstable: write: %w", err)
	}
	w.written += uint64(len(w.out))
	w.out = w.out[:0]
	return nil
}

// Finish writes what is left of the table and describes it. The bytes are
// durable once the caller has synced the file. The writer is of no use
// afterwards.
func (w *Writer) Finish() (Meta, error) {
	if w.err != nil {
		return Meta{}, w.err
	}
	size, err := w.finish()
	if err != nil {
		w.err = err
		return Meta{}, err
	}
	w.err = errFinished
	return Meta{Size: size, Nonce: w.opts.Nonce, Properties: w.props}, nil
}

func (w *Writer) finish() (int64, error) {
	w.bounds()
	ft := footer{nonce: w.opts.Nonce, version: formatVersion, levels: 1}
	if w.data.entries > 0 {
		w.sep = append(w.sep[:0], w.data.last...)
		if err := w.flushData(0); err != nil {
			return 0, err
		}
	}
	top := &w.index
	if w.top.entries > 0 {
		if err := w.flushIndex(); err != nil {
			return 0, err
		}
		top, ft.levels = &w.top, 2
	} else {
		w.props.IndexBlocks++
	}
	var err error
	if w.opts.BitsPerKey > 0 {
		b := buildFilter(nil, w.hashes, w.opts.BitsPerKey)
		if ft.filter, err = w.writeBlock(b, false); err != nil {
			return 0, err
		}
	}
	if len(w.rangeDels) > 0 {
		if ft.rangeDel, err = w.writeBlock(encodeRangeDels(w.rangeDels), true); err != nil {
			return 0, err
		}
	}
	if ft.props, err = w.writeBlock(w.props.append(nil), true); err != nil {
		return 0, err
	}
	if ft.index, err = w.writeBlock(top.finish(), true); err != nil {
		return 0, err
	}
	ft.fileSize = w.written + uint64(len(w.out)) + footerSize
	w.out = ft.append(w.out)
	return int64(ft.fileSize), w.drain()
}

// bounds sets the bounds of the whole table.
func (w *Writer) bounds() {
	p := &w.props
	if p.Empty() {
		p.SmallestSeq = 0
		return
	}
	if w.started {
		p.Largest = base.InternalKey{UserKey: slices.Clone(w.data.last), Trailer: w.data.lastTr}
	}
	slices.SortFunc(w.rangeDels, base.CompareRangeDel)
	for i, rd := range w.rangeDels {
		if i == 0 && (!w.started || base.Compare(rd.StartKey(), p.Smallest) < 0) {
			p.Smallest = rd.StartKey()
		}
		if (i == 0 && !w.started) || base.Compare(rd.EndKey(), p.Largest) > 0 {
			p.Largest = rd.EndKey()
		}
	}
}

// encodeRangeDels makes a block of the sorted range deletes: start and
// sequence number are the key, end is the value.
func encodeRangeDels(rds []base.RangeDel) []byte {
	bw := blockWriter{interval: 16}
	for _, rd := range rds {
		k := rd.StartKey()
		bw.add(k.UserKey, k.Trailer, rd.End, commonPrefix(bw.last, k.UserKey))
	}
	return bw.finish()
}
