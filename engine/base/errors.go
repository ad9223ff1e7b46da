package base

import (
	"errors"
	"fmt"
)

// Sentinels a caller branches on, with errors.Is.
var (
	// ErrNotFound says that a key has no value.
	ErrNotFound = errors.New("engine: not found")
	// ErrClosed says that the engine or iterator was closed before the call.
	ErrClosed = errors.New("engine: closed")
	// ErrReadOnly says that an earlier failure of the log or the manifest
	// ended all writing for the life of the process.
	ErrReadOnly = errors.New("engine: read-only after a failed write or sync")
	// ErrDiskFull says that a write was refused for lack of space. Nothing of
	// it was applied and it may be retried when space returns.
	ErrDiskFull = errors.New("engine: disk full")
	// ErrDiskThrottled says that a write was refused because it is large and
	// the disk nearly full. Nothing of it was applied; it may be retried, and
	// smaller ones are taken.
	ErrDiskThrottled = errors.New("engine: disk nearly full, too large a write")
	// ErrNoSpace says that an operation was refused because it needs more
	// space than there is. Nothing of it was done; smaller ones may go on.
	ErrNoSpace = errors.New("engine: not enough disk space")
	// ErrStalled says that a write was refused because the disk does not answer.
	// Nothing of it was applied, and it may be retried when the disk does.
	ErrStalled = errors.New("engine: the disk does not answer")
	// ErrCorrupt marks every CorruptError.
	ErrCorrupt = errors.New("engine: corrupt data")
	// ErrFormat says that a file was written by a newer or a foreign program.
	ErrFormat = errors.New("engine: unsupported format")
)

// CorruptError says which file is damaged and where. It matches ErrCorrupt.
type CorruptError struct {
	// File is the path as given to the file system.
	File string
	// Offset is the byte offset of the damaged unit, -1 when the whole file
	// is meant.
	Offset int64
	// Err says what is wrong.
	Err error
}

// Error names the file, the offset and the cause.
func (e *CorruptError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("corrupt file %s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("corrupt file %s at offset %d: %v", e.File, e.Offset, e.Err)
}

// Unwrap returns the cause and the mark ErrCorrupt.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// Corruptf returns a CorruptError whose cause is formatted from format and args.
func Corruptf(file string, offset int64, format string, args ...any) error {
	return &CorruptError{File: file, Offset: offset, Err: fmt.Errorf(format, args...)}
}
