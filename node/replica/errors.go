package replica

import (
	"errors"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/engine/base"
)

// errDeleted is the error of what is asked for a tenant that was deleted meanwhile;
// nothing was changed.
var errDeleted error = &coord.Error{
	Code: errcode.TenantNotFound, Outcome: errcode.NotApplied, Message: "the tenant was deleted meanwhile",
}

// readError gives a failed engine read its code. A read changes nothing.
func readError(err error) error {
	e := &coord.Error{Code: errcode.Internal, Outcome: errcode.NotApplied, Message: "the engine failed to read", Err: err}
	switch {
	case errors.Is(err, base.ErrCorrupt):
		e.Code, e.Message = errcode.ChecksumFailed, "data on disk is damaged"
	case errors.Is(err, base.ErrClosed):
		e.Code, e.Message = errcode.Unavailable, "the node is shutting down"
	}
	return e
}

// writeError gives a failed engine write its code; applied says that it may be
// seen again all the same.
func writeError(err error, applied bool) error {
	e := &coord.Error{Code: errcode.Internal, Outcome: errcode.NotApplied, Message: "the engine failed to write", Err: err}
	if applied {
		e.Outcome = errcode.Indeterminate
	}
	switch {
	case errors.Is(err, base.ErrDiskFull):
		e.Code, e.Message = errcode.DiskFull, "the disk is full: writes are refused until space is freed; reads and deletes go on"
	case errors.Is(err, base.ErrDiskThrottled):
		e.Code, e.Message = errcode.DiskThrottled, "the disk is nearly full: large values are refused until space is freed"
	case errors.Is(err, base.ErrNoSpace):
		e.Code, e.Message = errcode.InsufficientSpace, "the write needs more space than the disk has"
	case errors.Is(err, base.ErrReadOnly):
		e.Code, e.Message = errcode.CommitLogFailed, "the log could not be written or synced"
	case errors.Is(err, base.ErrClosed):
		e.Code, e.Message = errcode.Unavailable, "the node is shutting down"
	case errors.Is(err, base.ErrStalled):
		e.Code, e.Message = errcode.Unavailable, stalledText
	case errors.Is(err, base.ErrCorrupt):
		e.Code, e.Message = errcode.ChecksumFailed, "data on disk is damaged"
	}
	return e
}

// isClosed reports whether the engine was closed, which ends whatever goes on in the
// background.
func isClosed(err error) bool { return errors.Is(err, base.ErrClosed) }

// isMissing reports whether the engine has nothing at a key.
func isMissing(err error) bool { return errors.Is(err, base.ErrNotFound) }
