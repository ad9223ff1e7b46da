package clienttest

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// itemError is the form in which one of several requests fails with err.
func itemError(err error) *pairdbv1.ItemError {
	st := status.Convert(err)
	e := &pairdbv1.ItemError{Code: string(errcode.Internal), Message: st.Message()}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			e.Code, e.Metadata = info.GetReason(), info.GetMetadata()
		}
	}
	return e
}

// item asks the hook for an item and does it. The hook gets the item's own
// request under the method of the call it came in.
func (k kvService) item(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
	if err := k.server.ask(ctx, method, req); err != nil {
		return nil, err
	}
	switch r := req.(type) {
	case *pairdbv1.PutRequest:
		return k.Put(ctx, r)
	case *pairdbv1.GetRequest:
		return k.Get(ctx, r)
	case *pairdbv1.DeleteRequest:
		return k.Delete(ctx, r)
	}
	return nil, Fail(errcode.InvalidArgument, "the request asks for nothing", map[string]string{errcode.MetaOutcome: string(errcode.NotApplied)})
}

func (k kvService) Batch(ctx context.Context, req *pairdbv1.BatchRequest) (*pairdbv1.BatchResponse, error) {
	resp := &pairdbv1.BatchResponse{}
	for _, it := range req.GetItems() {
		out := &pairdbv1.BatchResult{}
		var write proto.Message
		if p := it.GetPut(); p != nil {
			p.TenantId, p.Consistency = req.GetTenantId(), req.GetConsistency()
			write = p
		} else if d := it.GetDelete(); d != nil {
			d.TenantId, d.Consistency = req.GetTenantId(), req.GetConsistency()
			write = d
		}
		r, err := k.item(ctx, pairdbv1.KV_Batch_FullMethodName, write)
		switch r := r.(type) {
		case *pairdbv1.PutResponse:
			out.Result = &pairdbv1.BatchResult_Put{Put: r}
		case *pairdbv1.DeleteResponse:
			out.Result = &pairdbv1.BatchResult_Delete{Delete: r}
		}
		if err != nil {
			out.Result = &pairdbv1.BatchResult_Error{Error: itemError(err)}
		}
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}

func (k kvService) MultiGet(ctx context.Context, req *pairdbv1.MultiGetRequest) (*pairdbv1.MultiGetResponse, error) {
	resp := &pairdbv1.MultiGetResponse{}
	for _, key := range req.GetKeys() {
		get := &pairdbv1.GetRequest{TenantId: req.GetTenantId(), Key: key, Consistency: req.GetConsistency()}
		out := &pairdbv1.MultiGetResult{}
		if r, err := k.item(ctx, pairdbv1.KV_MultiGet_FullMethodName, get); err != nil {
			out.Result = &pairdbv1.MultiGetResult_Error{Error: itemError(err)}
		} else {
			out.Result = &pairdbv1.MultiGetResult_Get{Get: r.(*pairdbv1.GetResponse)}
		}
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}

// Pipeline does each request in a goroutine of its own, so that a hook that
// blocks holds up that one only.
func (k kvService) Pipeline(stream grpc.BidiStreamingServer[pairdbv1.PipelineRequest, pairdbv1.PipelineResponse]) error {
	ctx, shut := k.server.open(stream.Context())
	requests := make(chan *pairdbv1.PipelineRequest)
	over := make(chan error, 1)
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				over <- err
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer shut()
	var mu sync.Mutex // of Send
	for {
		select {
		case req := <-requests:
			for _, it := range req.GetItems() {
				wg.Go(func() {
					out := k.pipelined(ctx, it)
					mu.Lock()
					defer mu.Unlock()
					if ctx.Err() == nil {
						// A client that is gone does not mind.
						_ = stream.Send(&pairdbv1.PipelineResponse{Results: []*pairdbv1.PipelineResult{out}})
					}
				})
			}
		case err := <-over:
			if errors.Is(err, io.EOF) {
				wg.Wait()
				return nil
			}
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (k kvService) pipelined(ctx context.Context, it *pairdbv1.PipelineItem) *pairdbv1.PipelineResult {
	var req proto.Message
	switch r := it.GetRequest().(type) {
	case *pairdbv1.PipelineItem_Put:
		req = r.Put
	case *pairdbv1.PipelineItem_Get:
		req = r.Get
	case *pairdbv1.PipelineItem_Delete:
		req = r.Delete
	}
	out := &pairdbv1.PipelineResult{Id: it.GetId()}
	r, err := k.item(ctx, pairdbv1.KV_Pipeline_FullMethodName, req)
	switch r := r.(type) {
	case *pairdbv1.PutResponse:
		out.Result = &pairdbv1.PipelineResult_Put{Put: r}
	case *pairdbv1.GetResponse:
		out.Result = &pairdbv1.PipelineResult_Get{Get: r}
	case *pairdbv1.DeleteResponse:
		out.Result = &pairdbv1.PipelineResult_Delete{Delete: r}
	}
	if err != nil {
		out.Result = &pairdbv1.PipelineResult_Error{Error: itemError(err)}
	}
	return out
}
