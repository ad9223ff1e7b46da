package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const (
	// scanAttempts is how often a scan asks for a page in a row without getting
	// one.
	scanAttempts = 8
)

// Scanner goes through the keys of a scan:
//
//	s := c.Scan(ctx, client.ScanOptions{Prefix: "user/"})
//	defer s.Close()
//	for s.Next() {
//		use(s.Item())
//	}
//	if err := s.Err(); err != nil { ... }
//
// When a connection or a node is lost it goes on at the next endpoint behind the
// last page it has; no key is missed or returned twice for that. One goroutine
// uses it.
type Scanner struct {
	c   *Client
	ctx context.Context
	req *pairdbv1.ScanRequest
	// limited says that req.Limit counts, and is what is left.
	limited bool

	stream *scanStream // nil: to be opened behind req.PageToken
	page   []*pairdbv1.ScanItem
	at     int
	token  []byte
	item   ScanItem

	scanned uint64
	ended   bool
	err     error
}

// scanStream is one stream from one endpoint.
type scanStream struct {
	endpoint string
	ctx      context.Context
	cancel   context.CancelCauseFunc
	pages    grpc.ServerStreamingClient[pairdbv1.ScanResponse] // nil until it is open
	to       peer.Peer
}

// errSlowPage ends a stream whose next page does not come.
var errSlowPage = errors.New("no page in time")

// Scan starts a scan; nothing is sent before the first Next. WithLevel and
// WithTenant apply. The client's Timeout bounds the wait for each page, all
// attempts included, and ctx the whole scan.
func (c *Client) Scan(ctx context.Context, o ScanOptions, opts ...CallOption) *Scanner {
	co := c.callOptions(opts)
	s := &Scanner{c: c, ctx: ctx, token: bytes.Clone(o.PageToken), limited: o.Limit > 0}
	s.req = &pairdbv1.ScanRequest{
		TenantId: co.tenant, Prefix: []byte(o.Prefix), Start: []byte(o.Start), End: []byte(o.End),
		Limit: uint64(max(o.Limit, 0)), PageSize: uint32(max(o.PageSize, 0)), KeysOnly: o.KeysOnly,
		Consistency: co.level.wire(), PageToken: s.token,
	}
	s.err = o.validate()
	return s
}

// Next moves to the next key and reports whether there is one. After false, Err
// says whether the scan ended or failed.
func (s *Scanner) Next() bool {
	for s.err == nil {
		if s.at < len(s.page) {
			s.take(s.page[s.at])
			s.page[s.at] = nil
			s.at++
			return true
		}
		if s.ended {
			break
		}
		s.nextPage()
	}
	s.item = ScanItem{}
	return false
}

func (s *Scanner) take(w *pairdbv1.ScanItem) {
	s.item = ScanItem{
		Key: string(w.GetKey()), Siblings: siblingsFromWire(w.GetSiblings()), Context: contextFromWire(w.GetContext()), wire: w,
	}
	if len(s.item.Siblings) > 0 {
		s.item.Value = s.item.Siblings[0].Value
	}
}

// Item returns the current key. What it has is the caller's to keep.
func (s *Scanner) Item() *ScanItem {
	i := s.item
	return &i
}

// Err returns what ended the scan early, an *Error, nil at a plain end.
func (s *Scanner) Err() error { return s.err }

// PageToken returns what ScanOptions.PageToken of another scan takes to go on
// behind the page of the current key, in this process or another. It is exact
// once Next has returned false, also because of the limit; before, keys of the
// page that were not yet returned are left out. It is empty if there is nothing
// behind the page.
func (s *Scanner) PageToken() []byte { return bytes.Clone(s.token) }

// Scanned returns how many entries the nodes looked at for the pages so far,
// deleted keys and those outside the range included.
func (s *Scanner) Scanned() uint64 { return s.scanned }

// Close ends the scan and frees what it holds. It may be called again.
func (s *Scanner) Close() {
	s.closeStream()
	s.page, s.ended = nil, true
}

func (s *Scanner) closeStream() {
	if s.stream != nil {
		s.stream.cancel(nil)
		s.stream = nil
	}
}

// nextPage gets the next page, or ends or fails the scan.
func (s *Scanner) nextPage() {
	c := s.c
	var deadline time.Time
	if c.opts.Timeout > 0 {
		deadline = time.Now().Add(c.opts.Timeout)
	}
	if d, ok := s.ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	to := c.candidates(nil, place{})
	var failed *Error
	for i := range scanAttempts {
		if c.closed.Load() {
			e := localError("scan", reads, errcode.Unavailable, "the client is closed")
			e.Err = ErrClosed
			s.err = e
			return
		}
		// Each endpoint once, and then again after pauses.
		if n := i - len(to) + 1; n > 0 && !s.pause(delay(n, maxDelay, failed, rand.Int64N), deadline) {
			break
		}
		cn := to[i%len(to)]
		resp, e := s.attempt(cn, share(deadline, len(to)-i))
		if e == nil {
			c.current.Store(uint32(cn.seed))
			c.budget.earn()
			c.moves.earn()
			s.accept(resp)
			return
		}
		failed = worse(failed, e)
		if s.ctx.Err() != nil || !mayMoveOn(reads, e) && !mayRepeat(reads, e) {
			break
		}
		if i+1 < len(to) && !e.NotConnected && !c.moves.spend() {
			c.counters.budgetsEmpty.Add(1)
			break
		}
	}
	s.err = failed
}

// share is the time that one of left endpoints has until the deadline, 0 for no
// bound.
func share(deadline time.Time, left int) time.Duration {
	if deadline.IsZero() {
		return 0
	}
	return max(time.Until(deadline)/time.Duration(max(left, 1)), time.Millisecond)
}

// pause waits for d before another attempt; false says that the deadline or the
// end of the context comes first, or that the client has sent enough again.
func (s *Scanner) pause(d time.Duration, deadline time.Time) bool {
	if !deadline.IsZero() && time.Until(deadline) <= d || !s.c.budget.spend() {
		return false
	}
	return sleep(s.ctx, d)
}

// attempt gets a page from one endpoint, nil at the end of the stream, within wait
// if that is not 0. A stream that is open is used, whatever its endpoint.
func (s *Scanner) attempt(cn *conn, wait time.Duration) (*pairdbv1.ScanResponse, *Error) {
	st := s.stream
	if st == nil {
		st = &scanStream{endpoint: cn.endpoint}
		st.ctx, st.cancel = context.WithCancelCause(s.ctx)
		s.stream = st
	}
	if wait > 0 {
		t := time.AfterFunc(wait, func() { st.cancel(errSlowPage) })
		defer t.Stop()
	}
	var err error
	if st.pages == nil {
		st.pages, err = cn.kv.Scan(st.ctx, s.req, grpc.Peer(&st.to))
	}
	var resp *pairdbv1.ScanResponse
	if err == nil {
		resp, err = st.pages.Recv()
	}
	switch {
	case err == nil:
		return resp, nil
	case errors.Is(err, io.EOF):
		return nil, nil
	}
	slow := errors.Is(context.Cause(st.ctx), errSlowPage)
	s.closeStream()
	e := decodeError("scan", reads, st.endpoint, st.to.Addr != nil, err)
	if slow {
		e.Code, e.Message, e.answered = errcode.Timeout, "no page from "+st.endpoint+" in time", false
	}
	return nil, e
}

// accept takes a page in; nil is the end.
func (s *Scanner) accept(resp *pairdbv1.ScanResponse) {
	if resp == nil {
		// The stream ends after a page without a token, or at the limit, as
		// accept knows; an earlier end would hide keys.
		s.closeStream()
		s.err = localError("scan", reads, errcode.Internal, "the node ended the scan before its last page")
		return
	}
	n := uint64(len(resp.GetItems()))
	s.scanned += resp.GetScanned()
	s.page, s.at, s.token = resp.GetItems(), 0, resp.GetNextPageToken()
	s.ended = len(s.token) == 0
	if s.limited {
		s.ended = s.ended || n >= s.req.Limit
		s.req.Limit -= min(n, s.req.Limit)
	}
	// A new stream would begin here; the one that is open has its request.
	s.req.PageToken = s.token
	if s.ended {
		s.closeStream()
	}
}
