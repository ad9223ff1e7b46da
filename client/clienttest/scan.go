package clienttest

import (
	"bytes"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// defaultPage is how many keys a page has if nothing else is asked for.
const defaultPage = 1000

// Scan returns keys in the order of their bytes. A page token is "after-" and a
// key.
func (k kvService) Scan(req *pairdbv1.ScanRequest, stream grpc.ServerStreamingServer[pairdbv1.ScanResponse]) error {
	after, size := "", int(req.GetPageSize())
	if t := string(req.GetPageToken()); t != "" {
		var ok bool
		if after, ok = strings.CutPrefix(t, "after-"); !ok {
			return Fail(errcode.InvalidArgument, "the page token is not one of this scan", nil)
		}
	}
	if size == 0 {
		size = defaultPage
	}
	left := req.GetLimit()
	for pages := 0; ; pages++ {
		if pages > 0 {
			if err := k.server.ask(stream.Context(), pairdbv1.KV_Scan_FullMethodName, req); err != nil {
				return err
			}
		}
		n := size
		if req.GetLimit() > 0 {
			n = int(min(uint64(n), left))
		}
		page, err := k.store.page(req, after, n)
		if err != nil {
			return err
		}
		if err := stream.Send(page); err != nil {
			return err
		}
		left -= min(left, uint64(len(page.GetItems())))
		if len(page.GetNextPageToken()) == 0 || req.GetLimit() > 0 && left == 0 {
			return nil
		}
		after = string(page.GetItems()[len(page.GetItems())-1].GetKey())
	}
}

// page returns up to n keys behind after.
func (s *Store) page(req *pairdbv1.ScanRequest, after string, n int) (*pairdbv1.ScanResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLocked(req.GetTenantId(), []byte("any")); err != nil {
		return nil, err
	}
	var keys []string
	for id := range s.mu.values {
		tenant, key, _ := strings.Cut(id, "\x00")
		b := []byte(key)
		if tenant == req.GetTenantId() && key > after && bytes.HasPrefix(b, req.GetPrefix()) && bytes.Compare(b, req.GetStart()) >= 0 &&
			(len(req.GetEnd()) == 0 || bytes.Compare(b, req.GetEnd()) < 0) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	page := &pairdbv1.ScanResponse{}
	for _, key := range keys[:min(n, len(keys))] {
		values := s.mu.values[req.GetTenantId()+"\x00"+key]
		page.Items = append(page.Items, &pairdbv1.ScanItem{
			Key: []byte(key), Siblings: siblings(values, !req.GetKeysOnly()), Context: token(values[0].dot),
		})
		page.Scanned++
	}
	if n < len(keys) {
		page.NextPageToken = []byte("after-" + keys[n-1])
	}
	return page, nil
}
