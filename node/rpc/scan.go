package rpc

import (
	"fmt"

	"google.golang.org/grpc"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
)

// Scan implements pairdbv1.KVServer. Send waits when the client does not read, so
// that one page is made ahead at most.
func (k *kvService) Scan(req *pairdbv1.ScanRequest, stream grpc.ServerStreamingServer[pairdbv1.ScanResponse]) error {
	level, err := levelOf(req.GetConsistency())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	r := coord.ScanRequest{
		Tenant: tenantOf(ctx, req.GetTenantId()), Prefix: req.GetPrefix(), Start: req.GetStart(), End: req.GetEnd(),
		KeysOnly: req.GetKeysOnly(), Level: level, PageToken: req.GetPageToken(),
	}
	size := req.GetPageSize()
	switch {
	case size == 0:
		size = coord.DefaultPageKeys
	case size > coord.MaxPageKeys:
		return invalid(fmt.Sprintf("page_size is %d, at most %d are allowed", size, coord.MaxPageKeys))
	}
	left := req.GetLimit()
	for {
		select {
		case <-k.stopping:
			return &coord.Error{Code: errcode.Unavailable, Message: "the node is shutting down; the scan goes on at another one"}
		default:
		}
		if r.MaxKeys = int(size); req.GetLimit() > 0 {
			r.MaxKeys = int(min(uint64(size), left))
		}
		if d, ok := ctx.Deadline(); ok {
			r.Deadline = k.deadlineOf(d)
		}
		if err := unread(ctx); err != nil {
			return err
		}
		p, err := k.coord.Scan(ctx, r)
		if err != nil {
			return err
		}
		if err := sendCounted(stream, pageOf(&p)); err != nil {
			return err
		}
		left -= min(left, uint64(len(p.Items)))
		if r.PageToken = p.PageToken; len(r.PageToken) == 0 || req.GetLimit() > 0 && left == 0 {
			return nil
		}
	}
}

func pageOf(p *coord.ScanResponse) *pairdbv1.ScanResponse {
	page := &pairdbv1.ScanResponse{
		Items: make([]*pairdbv1.ScanItem, len(p.Items)), NextPageToken: p.PageToken, Scanned: uint64(p.Scanned),
	}
	for i := range p.Items {
		it := &p.Items[i]
		page.Items[i] = &pairdbv1.ScanItem{Key: it.Key, Siblings: siblingsOf(it.Siblings), Context: it.Token}
	}
	return page
}
