package coord

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/gossip/ring"
)

// ErrNotSent marks the error of a Transport that knows that the peer never saw
// the message.
var ErrNotSent = errors.New("not sent")

// strippedText tells ErrStripped from other errors: it travels.
const strippedText = "some of what came was superseded by writes that all owners have had, and was left out"

// ErrStripped is the error of a merge that left something out because this node
// knows that all owners have had what superseded it, or, of what a read found
// (MergeItem.Found), because it has seen that itself; the rest is on disk. Whoever
// brings owners level is done then; a write or a read that counts on what it sent is
// not. IsStripped recognises it after it has travelled, too.
var ErrStripped error = &Error{Code: errcode.Unavailable, Outcome: errcode.Indeterminate, Message: strippedText}

// ErrMoved is the error of a write whose partition has another ring version by the
// time that it would change anything; nothing was changed.
var ErrMoved error = &Error{Code: errcode.StaleRing, Outcome: errcode.NotApplied, Message: "the ring has changed meanwhile"}

// IsStripped reports whether err is ErrStripped, of this node or of another.
func IsStripped(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == errcode.Unavailable && e.Message == strippedText
}

// Stripped reports whether a peer answered with ErrStripped.
func (r *Reply) Stripped() bool {
	if r.Status != StatusError {
		return false
	}
	e, err := DecodeError(r.Body)
	return err == nil && IsStripped(e)
}

// Cause says why one node did not do its part.
type Cause struct {
	Node ring.NodeID
	// Name is the node's name, empty if unknown.
	Name string
	// Reason is one short phrase.
	Reason string
}

// Error is the form of every error of this package.
type Error struct {
	Code errcode.Code
	// Outcome says what happened to a write; empty for reads.
	Outcome errcode.Outcome
	// Acks is how many owners answered and Need how many had to; both are 0
	// where the failure is not about owners.
	Acks, Need int
	Causes     []Cause
	// Token is the context of what is stored, for a PRECONDITION_FAILED that
	// a write with a context would not have met; else empty.
	Token []byte
	// RetryAfter is how long a client should wait before it sends the request
	// again; 0: whatever is usual for the code.
	RetryAfter time.Duration
	// Message is one sentence without the code.
	Message string
	// Err is the cause within this process, if any. It does not travel.
	Err error
}

// Error formats the code, the message, the count and the causes.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Code))
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Need > 0 {
		fmt.Fprintf(&b, " (%d of %d)", e.Acks, e.Need)
	}
	for i, c := range e.Causes {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		name := c.Name
		if name == "" {
			name = c.Node.Short()
		}
		b.WriteString(sep + name + " " + c.Reason)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// asError returns err as an *Error that the caller may change.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		copied := *e
		return &copied
	}
	return &Error{Code: errcode.Internal, Outcome: errcode.Indeterminate, Message: "the node's own replica failed", Err: err}
}

// reason is the error as a cause's phrase.
func (e *Error) reason() string {
	why := "failed with " + string(e.Code)
	if e.Message != "" {
		why += ": " + e.Message
	}
	return why
}

// tryElsewhere reports whether another owner may do better than one that
// answered code and did nothing.
func tryElsewhere(k Kind, code errcode.Code) bool {
	switch code {
	case errcode.QuorumNotReached, // an owner that was cut off takes the others for dead for a while
		errcode.Unavailable, errcode.StaleRing, errcode.ResourceExhausted,
		errcode.CommitLogFailed, errcode.DiskFull, errcode.DiskThrottled, errcode.InsufficientSpace,
		errcode.ChecksumFailed, errcode.CorruptedData: // damage is of one copy
		return true
	case errcode.Internal, errcode.SSTableFailed:
		return k == KindGet
	default:
		return false
	}
}
