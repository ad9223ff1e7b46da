package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// Error is the failure of one call.
type Error struct {
	// Op is the call: "put", "get", "tenant create", ….
	Op string
	// Endpoint is where the last attempt went; empty if the call failed before
	// one was chosen.
	Endpoint string
	// Code says why. It is never empty.
	Code errcode.Code
	// Outcome says what happened to a write; empty for a read.
	Outcome errcode.Outcome
	// Acks and Need are the replicas that acknowledged and those the level
	// needs; both 0 where the node did not say.
	Acks, Need int
	// Causes says what became of the other replicas: "name: reason".
	Causes []string
	// Meta is all that the node sent beside the code. Do not change it.
	Meta map[string]string
	// Message is one sentence for people.
	Message string
	// NotConnected says that no endpoint could be reached: the request never
	// left this process.
	NotConnected bool
	// Err is the cause below, where there is one: a gRPC status, or the error
	// of the call's context.
	Err error

	// answered is true if a node sent this error, false if it was made here.
	answered bool
	// retryDelay is how long a node asks to wait in the error of an item.
	retryDelay time.Duration
}

// Error says what failed and why, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s", e.Op, e.Code, e.Message)
	if e.Outcome == errcode.Indeterminate {
		b.WriteString(" (the write may have been applied)")
	}
	return b.String()
}

// Context returns the context of what is stored, if the node sent it with a
// PRECONDITION_FAILED; else the zero Context. A write that carries it replaces
// values that its caller may never have seen: read first.
func (e *Error) Context() Context {
	seen, err := ParseContext(e.Meta[errcode.MetaContext])
	if err != nil {
		return Context{}
	}
	return seen
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is match the sentinels of this package, such as
// ErrKeyNotFound, by code.
func (e *Error) Is(target error) bool {
	if target == ErrNotConnected {
		return e.NotConnected
	}
	s, ok := target.(*sentinel)
	return ok && s.code == e.Code
}

// sentinel is matched by Error.Is and never returned by a call.
type sentinel struct {
	code errcode.Code
	text string
}

func (s *sentinel) Error() string { return s.text }

// Sentinels for errors.Is. For a code that has none, use CodeOf.
var (
	ErrKeyNotFound        error = &sentinel{errcode.KeyNotFound, "key not found"}
	ErrKeyTooLarge        error = &sentinel{errcode.KeyTooLarge, "key too large"}
	ErrInvalidKey         error = &sentinel{errcode.InvalidKey, "invalid key"}
	ErrValueTooLarge      error = &sentinel{errcode.ValueTooLarge, "value too large"}
	ErrTenantNotFound     error = &sentinel{errcode.TenantNotFound, "tenant not found"}
	ErrTenantExists       error = &sentinel{errcode.TenantExists, "tenant exists"}
	ErrQuorumNotReached   error = &sentinel{errcode.QuorumNotReached, "quorum not reached"}
	ErrPreconditionFailed error = &sentinel{errcode.PreconditionFailed, "precondition failed"}
	ErrUnavailable        error = &sentinel{errcode.Unavailable, "unavailable"}
	ErrTimeout            error = &sentinel{errcode.Timeout, "timeout"}

	ErrIdempotencyKeyConflict error = &sentinel{errcode.IdempotencyKeyConflict, "idempotency key conflict"}

	// ErrNotConnected matches an Error whose request never left this process
	// because no endpoint could be reached.
	ErrNotConnected = errors.New("no endpoint could be reached")
	// ErrThrottled is in the chain of the error of a call that was not sent, since
	// the cluster lately refused most of the tenant's. Its code is that of the last
	// refusal.
	ErrThrottled = errors.New("not sent, since the cluster refuses most calls")
	// ErrClosed is in the chain of the error of a call on a closed Client.
	ErrClosed = errors.New("client is closed")
)

// CodeOf returns the code of an error of this package, errcode.OK for nil, and
// errcode.Internal for an error that did not come from a call.
func CodeOf(err error) errcode.Code {
	if err == nil {
		return errcode.OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return errcode.Internal
}

// kind says what sending a call twice may do.
type kind int

const (
	reads  kind = iota // no effect: may always be sent again
	writes             // may be sent again only if it is known to have had no effect
	// keyedWrites carry an idempotency key: to send one again has no further
	// effect.
	keyedWrites
)

// localError is a failure found before anything was sent.
func localError(op string, k kind, code errcode.Code, format string, args ...any) *Error {
	e := &Error{Op: op, Code: code, Message: fmt.Sprintf(format, args...)}
	if k != reads {
		e.Outcome = errcode.NotApplied
	}
	return e
}

// decodeError turns the error of one attempt into an Error. sent is false if
// the request is known not to have left this process.
func decodeError(op string, k kind, endpoint string, sent bool, err error) *Error {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	e := &Error{Op: op, Endpoint: endpoint, Message: st.Message(), Err: err}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errcode.Domain && info.GetReason() != "" {
			e.fromInfo(info)
			break
		}
	}
	if !e.answered {
		e.fromStatus(st, sent)
	}
	if k == reads {
		e.Outcome = ""
	} else if e.Outcome != errcode.NotApplied {
		e.Outcome = assumeOutcome(e, st.Code(), sent)
	}
	return e
}

func (e *Error) fromInfo(info *errdetails.ErrorInfo) {
	e.fromMeta(info.GetReason(), info.GetMetadata())
}

// itemError is the error of one of several requests that a node answered.
func itemError(op string, k kind, endpoint string, ie *pairdbv1.ItemError) *Error {
	e := &Error{Op: op, Endpoint: endpoint, Message: ie.GetMessage(), retryDelay: ie.GetRetryDelay().AsDuration()}
	e.fromMeta(ie.GetCode(), ie.GetMetadata())
	if e.Code == "" {
		e.Code = errcode.Internal
	}
	if k == reads {
		e.Outcome = ""
	} else if e.Outcome != errcode.NotApplied {
		e.Outcome = assumeOutcome(e, codes.Code(errcode.Lookup(e.Code).GRPC), true)
	}
	return e
}

// fromMeta takes what a node says in an ErrorInfo or an ItemError.
func (e *Error) fromMeta(code string, meta map[string]string) {
	e.answered = true
	e.Code = errcode.Code(code)
	e.Meta = meta
	e.Outcome = errcode.Outcome(e.Meta[errcode.MetaOutcome])
	e.Acks = smallNumber(e.Meta[errcode.MetaAcks])
	e.Need = smallNumber(e.Meta[errcode.MetaNeed])
	if causes := e.Meta[errcode.MetaCauses]; causes != "" {
		e.Causes = strings.Split(causes, "; ")
	}
}

// smallNumber reads a count of replicas; anything else is 0.
func smallNumber(s string) int {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0
	}
	return int(n)
}

// fromStatus fills the code where gRPC itself failed, not a node.
func (e *Error) fromStatus(st *status.Status, sent bool) {
	switch st.Code() {
	case codes.Unavailable:
		e.Code = errcode.Unavailable
		if sent {
			e.Message = "the connection to " + e.Endpoint + " broke before the answer came: " + st.Message()
		} else {
			e.NotConnected = true
			e.Message = "cannot connect to " + e.Endpoint + ": " + connectReason(st.Message())
		}
	case codes.DeadlineExceeded:
		e.Code = errcode.Timeout
		e.Message = "no answer from " + e.Endpoint + " before the deadline"
		e.Err = errors.Join(context.DeadlineExceeded, e.Err)
	case codes.Canceled:
		e.Code = errcode.Unavailable
		e.Message = "the call was cancelled"
		e.Err = errors.Join(context.Canceled, e.Err)
	case codes.ResourceExhausted:
		e.Code = errcode.ResourceExhausted
	case codes.InvalidArgument:
		e.Code = errcode.InvalidArgument
	case codes.Unauthenticated:
		e.Code = errcode.Unauthorized
	case codes.PermissionDenied:
		e.Code = errcode.Forbidden
	case codes.Unimplemented:
		e.Code = errcode.Internal
		e.Message = e.Endpoint + " does not know this call; is it the client gRPC listener of a pairdb node? (" + st.Message() + ")"
	default:
		e.Code = errcode.Internal
		e.Message = "gRPC " + st.Code().String() + ": " + st.Message()
	}
}

// connectReason cuts the words of gRPC around the reason a dial failed.
func connectReason(msg string) string {
	for _, mark := range []string{"while dialing: ", "desc = "} {
		if i := strings.LastIndex(msg, mark); i >= 0 {
			msg = msg[i+len(mark):]
		}
	}
	return strings.Trim(msg, "\" ")
}

// assumeOutcome is the outcome of a write whose error carries none. Doubt is
// Indeterminate.
func assumeOutcome(e *Error, code codes.Code, sent bool) errcode.Outcome {
	if !sent {
		return errcode.NotApplied
	}
	if e.Outcome != "" { // a word that a newer node knows
		return errcode.Indeterminate
	}
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.OutOfRange:
		return errcode.NotApplied
	}
	return errcode.Indeterminate
}
