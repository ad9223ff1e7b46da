package rpc

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
)

// unary wraps every call of a client: it turns errors into statuses, a panic
// into INTERNAL, and tells the observer.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, s.panicked(info.FullMethod, r)
		}
		code := codeOf(err)
		took := time.Since(start)
		s.opts.Observe(shortMethod(info.FullMethod), code, took)
		if s.opts.Logger.Enabled(ctx, slog.LevelDebug) {
			// Neither key nor value, here or anywhere.
			s.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "call", slog.String("method", info.FullMethod),
				slog.String("code", code), slog.Duration("took", took))
		}
	}()
	_, kv := info.Server.(*kvService)
	if !kv {
		// The coordinator keeps the deadlines of KV itself.
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, s.opts.DefaultTimeout)
			defer cancel()
		}
	}
	resp, err = next(ctx, req)
	if err != nil {
		return nil, s.wireError(info.FullMethod, err)
	}
	if kv {
		resp = countedAnswer(ctx, resp)
	}
	return resp, nil
}

// wireError is the status that a client gets for err. A status that gRPC or one
// of its services made stays as it is.
func (s *Server) wireError(method string, err error) error {
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	return statusOf(s.typed(method, err, isWrite(method))).Err()
}

// typed is err as a client is to see it. What is not known is logged.
func (s *Server) typed(method string, err error, write bool) *coord.Error {
	e := s.opts.Classify(err)
	if e.Code == errcode.Internal {
		s.opts.Logger.Error("call failed", "method", method, "err", err)
	}
	if e.Outcome == "" && write {
		known := *e
		known.Outcome = WriteOutcome(e.Code)
		e = &known
	}
	return e
}

// itemError is wireError for one of several requests.
func (s *Server) itemError(method string, err error, write bool) *pairdbv1.ItemError {
	return itemErrorOf(s.typed(method, err, write))
}

// WriteOutcome is the outcome of a failed write when whoever made the error did
// not say: indeterminate, for a client must not read silence as "not applied",
// and none where the code is a refusal. Both edges follow it.
func WriteOutcome(code errcode.Code) errcode.Outcome {
	switch codes.Code(errcode.Lookup(code).GRPC) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated:
		return ""
	}
	return errcode.Indeterminate
}

// isWrite says whether a failed call may have changed something.
func isWrite(method string) bool {
	switch method {
	case pairdbv1.KV_Put_FullMethodName, pairdbv1.KV_Delete_FullMethodName, pairdbv1.KV_Batch_FullMethodName, pairdbv1.Tenants_Create_FullMethodName,
		pairdbv1.Tenants_Delete_FullMethodName:
		return true
	}
	return false
}

// peerUnary wraps the unary calls of other nodes.
func (s *Server) peerUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, s.panicked(info.FullMethod, r)
		}
	}()
	return next(ctx, req)
}

// clientStream wraps every stream of a client. Those of KV and Admin are told to
// the observer; the others belong to gRPC and last as long as a client likes.
func (s *Server) clientStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	start := time.Now()
	err := s.stream(srv, ss, info, next)
	if err != nil {
		err = s.wireError(info.FullMethod, err)
	}
	switch srv.(type) {
	case *kvService, *adminService:
		s.opts.Observe(shortMethod(info.FullMethod), codeOf(err), time.Since(start))
	}
	return err
}

// stream wraps every stream of both listeners.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(info.FullMethod, r)
		}
	}()
	return next(srv, ss)
}

// panicked logs a panic, stack and all, and gives the caller neither.
func (s *Server) panicked(method string, r any) error {
	s.opts.Logger.Error("handler panicked", "method", method, "panic", r, "stack", string(debug.Stack()))
	e := &coord.Error{Code: errcode.Internal, Message: "internal error; the node's log has more"}
	if isWrite(method) {
		e.Outcome = errcode.Indeterminate
	}
	return statusOf(e).Err()
}

// shortMethod makes "KV.Put" of "/pairdb.v1.KV/Put".
func shortMethod(full string) string {
	service, method, ok := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	if !ok {
		return full
	}
	return service[strings.LastIndexByte(service, '.')+1:] + "." + method
}

// codeOf is the label of an error: our code, else gRPC's.
func codeOf(err error) string {
	if err == nil {
		return string(errcode.OK)
	}
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errcode.Domain {
			return info.GetReason()
		}
	}
	if st.Code() == codes.Unknown {
		return string(errcode.Internal)
	}
	return st.Code().String()
}
