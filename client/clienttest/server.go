// Package clienttest has a node that is none: it speaks the client API, keeps
// its data in memory and replicates nothing. It is for the tests of programs
// that use the SDK, which can make it fail as a real node would.
package clienttest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const maxMessage = 16<<20 + 256<<10

// Hook is asked before each request. A non-nil error is the answer, and nothing
// is done. method is the full gRPC method, such as "/pairdb.v1.KV/Put". req is nil
// for a call that is answered by a stream; a scan asks again before each page behind
// its first, with its request. For calls that hold several requests it is asked for
// each of these as well, whose answer its error then is.
type Hook func(ctx context.Context, method string, req any) error

// Server is one such node. It is safe for concurrent use.
type Server struct {
	store  *Store
	addr   string
	grpc   *grpc.Server
	health *health.Server
	served chan struct{}

	mu struct {
		sync.Mutex
		hook   Hook
		damage []*pairdbv1.Damage
		// ends are the pipelines that are open.
		ends map[*context.CancelCauseFunc]struct{}
	}
}

// Start serves store at a free port on loopback. Several servers may share a
// store, as the nodes of a cluster would. End it with Close.
func Start(store *Store) (*Server, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s := &Server{store: store, addr: lis.Addr().String(), health: health.NewServer(), served: make(chan struct{})}
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.UnaryInterceptor(s.intercept), grpc.StreamInterceptor(s.interceptStream))
	pairdbv1.RegisterKVServer(s.grpc, kvService{store: store, server: s})
	pairdbv1.RegisterTenantsServer(s.grpc, tenantService{store: store})
	pairdbv1.RegisterClusterServer(s.grpc, clusterService{store: store})
	pairdbv1.RegisterAdminServer(s.grpc, adminService{server: s})
	pairdbv1.RegisterObserveServer(s.grpc, observeService{server: s})
	healthpb.RegisterHealthServer(s.grpc, s.health)
	s.mu.ends = make(map[*context.CancelCauseFunc]struct{})
	store.addNode(s.addr)
	go func() {
		defer close(s.served)
		// Serve returns once the server is stopped; there is nobody to tell.
		_ = s.grpc.Serve(lis)
	}()
	return s, nil
}

// Addr returns the endpoint, host:port.
func (s *Server) Addr() string { return s.addr }

// SetHook sets the hook; nil takes it away.
func (s *Server) SetHook(h Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.hook = h
}

// SetDamage says what a verification finds from now on.
func (s *Server) SetDamage(d ...*pairdbv1.Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.damage = d
}

func (s *Server) damage() []*pairdbv1.Damage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.damage
}

// SetServing says what the health service answers from now on.
func (s *Server) SetServing(serving bool) {
	st := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		st = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", st)
}

// EndStreams ends the pipelines that are open with err. What they have under way
// ends with its context, unanswered.
func (s *Server) EndStreams(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for end := range s.mu.ends {
		(*end)(err)
	}
}

// open returns a context of a stream's that EndStreams ends.
func (s *Server) open(ctx context.Context) (open context.Context, shut func()) {
	open, end := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ends[&end] = struct{}{}
	return open, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.mu.ends, &end)
		end(nil)
	}
}

// Close stops the server and cuts off what is under way.
func (s *Server) Close() {
	s.grpc.Stop()
	<-s.served
}

func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := s.ask(ctx, info.FullMethod, req); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Server) interceptStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := s.ask(stream.Context(), info.FullMethod, nil); err != nil {
		return err
	}
	return handler(srv, stream)
}

// ask asks the hook, if there is one.
func (s *Server) ask(ctx context.Context, method string, req any) error {
	s.mu.Lock()
	hook := s.mu.hook
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, method, req)
}

// Fail returns an error as a node sends it: the gRPC status of the code's row,
// and an ErrorInfo with meta.
func Fail(code errcode.Code, message string, meta map[string]string) error {
	st := status.New(codes.Code(errcode.Lookup(code).GRPC), message)
	detailed, err := st.WithDetails(&errdetails.ErrorInfo{Domain: errcode.Domain, Reason: string(code), Metadata: meta})
	if err != nil {
		return st.Err()
	}
	return detailed.Err()
}

// FailWrite is Fail for a write that not enough replicas acknowledged.
func FailWrite(code errcode.Code, outcome errcode.Outcome, acks, need int, message string) error {
	return Fail(code, message, map[string]string{
		errcode.MetaOutcome: string(outcome),
		errcode.MetaAcks:    strconv.Itoa(acks),
		errcode.MetaNeed:    strconv.Itoa(need),
		errcode.MetaCauses:  "n2: connection refused; n3: timed out",
	})
}
