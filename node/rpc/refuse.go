package rpc

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/pairdb/pairdb/coord"
)

// refusing returns the service with calls that are refused before their message
// is decoded, as far as it is known by then. node/admission/DESIGN.md has what
// this costs, and why it is no tap of gRPC's transport.
func (s *Server) refusing(desc *grpc.ServiceDesc) *grpc.ServiceDesc {
	d := *desc
	d.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	statuses := new(refusalStatuses)
	for i, m := range desc.Methods {
		full := "/" + desc.ServiceName + "/" + m.MethodName
		short, write, serve := shortMethod(full), isWrite(full), m.Handler
		m.Handler = func(srv any, ctx context.Context, dec func(any) error, next grpc.UnaryServerInterceptor) (any, error) {
			if e := s.opts.Refuse(write); e != nil {
				s.opts.Observe(short, string(e.Code), time.Duration(0))
				return nil, statuses.of(e)
			}
			return serve(srv, ctx, dec, next)
		}
		d.Methods[i] = m
	}
	return &d
}

// refusalStatuses are the statuses of errors that never change, each made once:
// encoding the details takes longer than all the rest of a refusal.
type refusalStatuses struct{ known sync.Map }

func (r *refusalStatuses) of(e *coord.Error) error {
	if err, ok := r.known.Load(e); ok {
		return err.(error)
	}
	err, _ := r.known.LoadOrStore(e, statusOf(e).Err())
	return err.(error)
}
