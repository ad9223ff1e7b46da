package rpc

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

const (
	// maxCauseBytes bounds one cause in an error's metadata, which travels in
	// a header.
	maxCauseBytes = 200
	// maxMessageBytes bounds the message for the same reason.
	maxMessageBytes = 1024
	// maxContextBytes is the longest context that is sent along: an error of
	// more than 8 KiB does not reach the clients of every language.
	maxContextBytes = 2048
)

// Classify turns any error into the typed form: a *coord.Error as it is, the
// errors of validation and of contexts into their codes, everything else into
// INTERNAL with a message that tells nothing. It returns nil for nil only. A
// node wraps it with what its own parts fail with.
func Classify(err error) *coord.Error {
	var typed *coord.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typed):
		return typed
	case errors.Is(err, schema.ErrTenantID):
		return &coord.Error{Code: errcode.InvalidTenantID, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, schema.ErrRF):
		return &coord.Error{Code: errcode.InvalidReplicationFactor, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, schema.ErrPolicy):
		return &coord.Error{Code: errcode.InvalidArgument, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, ring.ErrLastCopies), errors.Is(err, ring.ErrNodeAlive), errors.Is(err, ring.ErrReplacement), errors.Is(err, ring.ErrJoiner):
		return &coord.Error{Code: errcode.NodeInUse, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, ring.ErrUnknownTenant):
		return &coord.Error{Code: errcode.TenantNotFound, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, ring.ErrUnknownNode), errors.Is(err, ring.ErrDefaultTenant), errors.Is(err, ring.ErrInvalidEntry):
		return &coord.Error{Code: errcode.InvalidArgument, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, ring.ErrNoChange), errors.Is(err, ring.ErrChangeOpen), errors.Is(err, ring.ErrSourcesLost), errors.Is(err, ring.ErrNotWaiting), errors.Is(err, ring.ErrVotersLeft), errors.Is(err, ring.ErrNobodyLeft):
		return &coord.Error{Code: errcode.PreconditionFailed, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, ring.ErrTooManyIntents), errors.Is(err, ring.ErrOwnClasses):
		return &coord.Error{Code: errcode.ResourceExhausted, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, ring.ErrNotFounded):
		return &coord.Error{Code: errcode.Unavailable, Message: err.Error(), Outcome: errcode.NotApplied}
	case errors.Is(err, context.DeadlineExceeded):
		return &coord.Error{Code: errcode.Timeout, Message: "the deadline passed", Err: err}
	case errors.Is(err, context.Canceled):
		return &coord.Error{Code: errcode.Unavailable, Message: "the call was cancelled", Err: err}
	}
	return &coord.Error{Code: errcode.Internal, Message: "internal error; the node's log has more", Err: err}
}

// statusOf is the one mapping of an error to a gRPC status: the code by the
// table, a google.rpc.ErrorInfo with the reason and what is known of the
// outcome, and a RetryInfo where a retry can help. Err does not travel.
func statusOf(e *coord.Error) *status.Status {
	info := infoOf(e)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: string(info.Code), Domain: errcode.Domain, Metadata: errorMetadata(e),
	}}
	if info.Retryable {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(cmp.Or(e.RetryAfter, retryDelay(info.Code)))})
	}
	st := status.New(codes.Code(info.GRPC), messageOf(e, info))
	if full, err := st.WithDetails(details...); err == nil {
		return full
	}
	// Not reached with details of known types; the code alone is still true.
	return st
}

// infoOf is the row of the error's code. An error is never a success, whatever
// its code says.
func infoOf(e *coord.Error) errcode.Info {
	info := errcode.Lookup(e.Code)
	if codes.Code(info.GRPC) == codes.OK {
		return errcode.Lookup(errcode.Internal)
	}
	return info
}

func messageOf(e *coord.Error, info errcode.Info) string {
	return clip(cmp.Or(e.Message, info.Meaning), maxMessageBytes)
}

// itemErrorOf is statusOf for one of several requests.
func itemErrorOf(e *coord.Error) *pairdbv1.ItemError {
	info := infoOf(e)
	item := &pairdbv1.ItemError{Code: string(info.Code), Message: messageOf(e, info), Metadata: errorMetadata(e)}
	if info.Retryable {
		item.RetryDelay = durationpb.New(cmp.Or(e.RetryAfter, retryDelay(info.Code)))
	}
	return item
}

// errorMetadata is the metadata of the ErrorInfo.
func errorMetadata(e *coord.Error) map[string]string {
	m := make(map[string]string, 4)
	if e.Outcome != "" {
		m[errcode.MetaOutcome] = string(e.Outcome)
	}
	if e.Need > 0 {
		m[errcode.MetaAcks] = strconv.Itoa(e.Acks)
		m[errcode.MetaNeed] = strconv.Itoa(e.Need)
	}
	if len(e.Causes) > 0 {
		causes := make([]string, 0, len(e.Causes))
		for _, c := range e.Causes {
			name := c.Name
			if name == "" {
				name = c.Node.Short()
			}
			causes = append(causes, clip(name+": "+c.Reason, maxCauseBytes))
		}
		m[errcode.MetaCauses] = strings.Join(causes, "; ")
	}
	if n := len(e.Token); n > 0 && n <= maxContextBytes {
		m[errcode.MetaContext] = base64.StdEncoding.EncodeToString(e.Token)
	}
	return m
}

// retryDelay is how long a client should wait at least before it sends again.
func retryDelay(code errcode.Code) time.Duration {
	switch code {
	case errcode.StaleRing, errcode.ChecksumFailed:
		return 20 * time.Millisecond // another node or another moment will do
	case errcode.DiskThrottled, errcode.CommitLogFailed:
		return time.Second
	}
	return 100 * time.Millisecond
}

// clip cuts s to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// invalid is an INVALID_ARGUMENT of this edge: nothing was tried.
func invalid(message string) error {
	return &coord.Error{Code: errcode.InvalidArgument, Outcome: errcode.NotApplied, Message: message}
}
