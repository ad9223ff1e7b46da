// Package sstable writes and reads the engine's immutable sorted tables.
//
// A table is written once by a Writer, in ascending key order, and then read
// by any number of goroutines through a Reader. The format is described in
// docs/format/sstable.md and is permanent. Every block carries a checksum that
// depends on the file and on the block's place in it. A Reader trusts nothing
// it reads: damage is a base.CorruptError, never a panic, and no allocation is
// larger than the file justifies.
package sstable

import (
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
)

// Codec says how a block's bytes are compressed. The values are permanent.
type Codec uint8

// The codecs. s2 decodes a 4 KiB block in about a microsecond; zstd makes
// smaller blocks but needs ten times that, and pays with blocks of 16 KiB or
// more.
const (
	CodecNone Codec = 0
	CodecS2   Codec = 1
	CodecZstd Codec = 2
)

// String names the codec.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "none"
	case CodecS2:
		return "s2"
	case CodecZstd:
		return "zstd"
	default:
		return fmt.Sprintf("codec(%d)", uint8(c))
	}
}

const (
	// MaxBlockBytes bounds a decoded block.
	MaxBlockBytes = 64 << 20
	// MaxEntryBytes bounds user key plus value of one entry.
	MaxEntryBytes = 32 << 20
)

// WriterOptions say how a table is laid out. Zero fields take their defaults.
type WriterOptions struct {
	// BlockSize is the decoded size in bytes at which a data block is cut,
	// default 4 KiB. Smaller makes point reads cheaper and the index larger;
	// larger compresses and scans better.
	BlockSize int
	// RestartInterval is the number of entries that share one restart point,
	// default 16. Smaller makes seeks within a block cheaper and blocks
	// larger.
	RestartInterval int
	// BitsPerKey is the size of the filter, default 10 (about 1 % false
	// positives); negative writes no filter.
	BitsPerKey int
	// Codec is tried on every data and index block; a block that it does not
	// make smaller by more than 12 % is stored as it is. Default none.
	Codec Codec
	// Nonce seeds the checksums of the file. It must not be zero and should
	// be random, so that blocks of different files never pass for each other.
	Nonce uint64
	// IndexBlockSize is the decoded size in bytes at which an index block is
	// cut, default 512 KiB. A table whose index fits in one block has it
	// pinned by the Reader; a larger one has a second level, and only that is
	// pinned.
	IndexBlockSize int
}

// EnsureDefaults fills in the zero fields but Nonce.
func (o *WriterOptions) EnsureDefaults() {
	if o.BlockSize == 0 {
		o.BlockSize = 4 << 10
	}
	if o.RestartInterval == 0 {
		o.RestartInterval = 16
	}
	if o.BitsPerKey == 0 {
		o.BitsPerKey = 10
	}
	if o.IndexBlockSize == 0 {
		o.IndexBlockSize = 512 << 10
	}
}

// Validate checks the fields after EnsureDefaults.
func (o *WriterOptions) Validate() error {
	const maxBlock = 4 << 20
	switch {
	case o.BlockSize < 64 || o.BlockSize > maxBlock:
		return fmt.Errorf("sstable: block size %d is not in [64, %d]", o.BlockSize, maxBlock)
	case o.IndexBlockSize < 64 || o.IndexBlockSize > maxBlock:
		return fmt.Errorf("sstable: index block size %d is not in [64, %d]", o.IndexBlockSize, maxBlock)
	case o.RestartInterval < 1 || o.RestartInterval > 1024:
		return fmt.Errorf("sstable: restart interval %d is not in [1, 1024]", o.RestartInterval)
	case o.BitsPerKey > 64:
		return fmt.Errorf("sstable: %d bits per key is more than 64", o.BitsPerKey)
	case o.Codec > CodecZstd:
		return fmt.Errorf("sstable: unknown %s", o.Codec)
	case o.Nonce == 0:
		return errors.New("sstable: nonce is zero")
	}
	return nil
}

// ReaderOptions say how a table is read.
type ReaderOptions struct {
	// Cache holds decoded blocks, nil for none.
	Cache *cache.Cache
	// FileNum names the file in Cache; see cache.Key.
	FileNum uint64
	// Name is the path used in errors.
	Name string
	// Nonce is what the file must have been written with, 0 for any.
	Nonce uint64
	// Decoder is shared by the readers of an engine; nil gives the reader one
	// of its own.
	Decoder *Decoder
}

// Meta describes a finished table.
type Meta struct {
	Size  int64 // bytes of the file
	Nonce uint64
	Properties
}

// Properties describe the contents of a table.
type Properties struct {
	// Smallest and Largest bound everything in the table, range deletes
	// included. A Largest whose trailer is base.RangeDelSentinel is
	// exclusive. Both are zero in an empty table.
	Smallest, Largest base.InternalKey
	// SmallestSeq and LargestSeq bound the sequence numbers of entries and
	// range deletes.
	SmallestSeq, LargestSeq base.SeqNum

	Entries   uint64 // point entries, deletes included
	Deletes   uint64 // point deletes
	RangeDels uint64

	RawKeyBytes   uint64 // user keys of the entries
	RawValueBytes uint64 // values of the entries
	DataBlocks    uint64
	DataBytes     uint64 // data blocks as stored
	IndexBlocks   uint64 // blocks of the lowest index level
}

// Empty reports whether the table holds nothing.
func (p *Properties) Empty() bool { return p.Entries == 0 && p.RangeDels == 0 }
