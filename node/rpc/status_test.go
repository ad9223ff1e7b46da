package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// details of a status, as a client sees them.
func details(t *testing.T, err error) (*errdetails.ErrorInfo, *errdetails.RetryInfo) {
	t.Helper()
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		default:
			t.Errorf("detail %T", d)
		}
	}
	if info == nil {
		t.Fatalf("no ErrorInfo in %v", err)
	}
	return info, retry
}

// TestStatusOfEveryCode walks the table of codes there and back.
func TestStatusOfEveryCode(t *testing.T) {
	for _, row := range errcode.All() {
		if row.Code == errcode.OK {
			continue
		}
		t.Run(string(row.Code), func(t *testing.T) {
			e := &coord.Error{
				Code: row.Code, Outcome: errcode.Indeterminate, Acks: 1, Need: 2,
				Causes: []coord.Cause{
					{Node: ring.NodeID{1}, Name: "b", Reason: "timed out"},
					{Node: ring.NodeID{0xab, 0xcd}, Reason: "down"},
				},
				Token: []byte("\xff\xfe"),
				Err:   errors.New("a secret of this process"),
			}
			st := statusOf(e)
			info, retry := details(t, st.Err())
			if st.Code() != codes.Code(row.GRPC) || st.Code() == codes.OK {
				t.Errorf("code %v", st.Code())
			}
			if st.Message() != row.Meaning {
				t.Errorf("message %q", st.Message())
			}
			if info.GetDomain() != errcode.Domain || errcode.Code(info.GetReason()) != row.Code {
				t.Errorf("info %v", info)
			}
			for key, want := range map[string]string{
				errcode.MetaOutcome: "indeterminate", errcode.MetaAcks: "1", errcode.MetaNeed: "2",
				errcode.MetaCauses: "b: timed out; abcd0000: down", errcode.MetaContext: "//4=",
			} {
				if got := info.GetMetadata()[key]; got != want {
					t.Errorf("%s = %q, want %q", key, got, want)
				}
			}
			if (retry != nil) != row.Retryable {
				t.Errorf("retry info %v, the table says %v", retry, row.Retryable)
			}
			if retry != nil && retry.GetRetryDelay().AsDuration() <= 0 {
				t.Errorf("retry after %v", retry.GetRetryDelay().AsDuration())
			}
			if strings.Contains(fmt.Sprint(st.Proto()), "secret") {
				t.Error("the inner error travels")
			}
			if got := codeOf(st.Err()); got != string(row.Code) {
				t.Errorf("label %q", got)
			}
		})
	}
}

func TestStatusEdges(t *testing.T) {
	// An error is never a success.
	if st := statusOf(&coord.Error{Code: errcode.OK}); st.Code() != codes.Internal {
		t.Errorf("OK became %v", st.Code())
	}
	// A code of a newer node keeps its name.
	st := statusOf(&coord.Error{Code: "BRAND_NEW", Message: "hello"})
	if info, _ := details(t, st.Err()); st.Code() != codes.Internal || info.GetReason() != "BRAND_NEW" || st.Message() != "hello" {
		t.Errorf("got %v", st)
	}
	// Nothing known of acks: nothing is said of them.
	info, _ := details(t, statusOf(&coord.Error{Code: errcode.KeyNotFound}).Err())
	if len(info.GetMetadata()) != 0 {
		t.Errorf("metadata %v", info.GetMetadata())
	}
	// What travels in a header is bounded, and valid.
	long := &coord.Error{Code: errcode.Internal, Message: strings.Repeat("ä", 5000) + "\xff"}
	for range 7 {
		long.Causes = append(long.Causes, coord.Cause{Name: "n", Reason: strings.Repeat("\xffä", 500)})
	}
	long.Token = make([]byte, maxContextBytes+1)
	st = statusOf(long)
	info, _ = details(t, st.Err())
	if n := len(st.Message()); n > maxMessageBytes || !utf8.ValidString(st.Message()) {
		t.Errorf("message of %d bytes", n)
	}
	if n := len(info.GetMetadata()[errcode.MetaCauses]); n > 7*(maxCauseBytes+2) {
		t.Errorf("causes of %d bytes", n)
	}
	if seen, ok := info.GetMetadata()[errcode.MetaContext]; ok {
		t.Errorf("a context of %d characters", len(seen))
	}
}

func TestClassify(t *testing.T) {
	typed := &coord.Error{Code: errcode.TenantExists}
	for _, c := range []struct {
		err  error
		want errcode.Code
	}{
		{typed, errcode.TenantExists},
		{fmt.Errorf("create: %w", typed), errcode.TenantExists},
		{schema.ValidateTenantID("ABC"), errcode.InvalidTenantID},
		{schema.ValidateRF(8), errcode.InvalidReplicationFactor},
		{schema.ValidatePolicy(9), errcode.InvalidArgument},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), errcode.Timeout},
		{context.Canceled, errcode.Unavailable},
		{errors.New("anything"), errcode.Internal},
	} {
		if got := Classify(c.err); got.Code != c.want {
			t.Errorf("%v: %s, want %s", c.err, got.Code, c.want)
		}
	}
	if Classify(nil) != nil {
		t.Error("nil became an error")
	}
	if e := Classify(errors.New("path /etc/secret")); strings.Contains(e.Message, "secret") {
		t.Errorf("message %q", e.Message)
	}
}

// TestRingErrorsHaveTheirCode: whatever a change of the ring is refused for reaches users
// under a code of which meaning and advice are about that.
func TestRingErrorsHaveTheirCode(t *testing.T) {
	for _, x := range []struct {
		err    error
		code   errcode.Code
		advice string
	}{
		{ring.ErrLastCopies, errcode.NodeInUse, "join another one first"},
		{ring.ErrNodeAlive, errcode.NodeInUse, "stop the node"},
		{ring.ErrReplacement, errcode.NodeInUse, "use another node"},
		{ring.ErrNotWaiting, errcode.PreconditionFailed, "pairdb status"},
		{ring.ErrSourcesLost, errcode.PreconditionFailed, "pairdb status"},
		{ring.ErrNoChange, errcode.PreconditionFailed, "pairdb status"},
		{ring.ErrChangeOpen, errcode.PreconditionFailed, "pairdb status"},
		{ring.ErrVotersLeft, errcode.PreconditionFailed, "decide anew"},
		{ring.ErrNobodyLeft, errcode.PreconditionFailed, "decide anew"},
		{ring.ErrUnknownNode, errcode.InvalidArgument, "Correct the request"},
		{ring.ErrInvalidEntry, errcode.InvalidArgument, "Correct the request"},
		{ring.ErrDefaultTenant, errcode.InvalidArgument, "Correct the request"},
		{ring.ErrUnknownTenant, errcode.TenantNotFound, "Create the tenant"},
		{ring.ErrTooManyIntents, errcode.ResourceExhausted, "back-off"},
		{ring.ErrOwnClasses, errcode.ResourceExhausted, "back-off"},
		{ring.ErrNotFounded, errcode.Unavailable, "back-off"},
	} {
		e := Classify(fmt.Errorf("replace: %w: why", x.err))
		if e.Code != x.code || e.Outcome != errcode.NotApplied || !strings.Contains(e.Message, "why") {
			t.Errorf("%v: %s, %q, %q, want %s", x.err, e.Code, e.Outcome, e.Message, x.code)
		}
		if advice := errcode.Lookup(e.Code).Action; !strings.Contains(advice, x.advice) {
			t.Errorf("%v: the advice of %s does not speak of %q: %s", x.err, e.Code, x.advice, advice)
		}
	}
}
