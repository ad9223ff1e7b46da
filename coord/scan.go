package coord

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Limits of a page of a scan.
const (
	// MaxPageKeys is how many keys a page can have, DefaultPageKeys how many it
	// has at most if the request does not say.
	MaxPageKeys     = 10_000
	DefaultPageKeys = 1000
	// MaxPageBytes bounds a page of more than one key on its way to the client.
	MaxPageBytes = 4 << 20
	// MaxPageTokenSize bounds a page token, in bytes.
	MaxPageTokenSize = 1536
	// pageBudget is how many entries of the engine are looked at for a page. One
	// that has done so, or has taken a third of the read timeout, ends early.
	pageBudget = 50_000
	// maxPages bounds the pages that are made at once, and with them the memory
	// they take; maxWaitingPages those that wait for their turn.
	maxPages        = 16
	maxWaitingPages = 1024
)

// ScanRequest asks for one page of the keys of a tenant that meet all of Prefix,
// Start and End. The slices must not change until the call has answered.
type ScanRequest struct {
	Tenant string
	// Prefix, Start and End have up to 1024 bytes. Keys begin with Prefix, are at
	// or behind Start and before End, byte by byte; empty is no condition.
	Prefix, Start, End []byte
	// MaxKeys is how many keys the page has at most, 1..MaxPageKeys; zero means
	// DefaultPageKeys.
	MaxKeys int
	// KeysOnly leaves the values out.
	KeysOnly bool
	// Level is how many owners of each partition must agree on a key before it is
	// shown; zero means quorum.Quorum.
	Level quorum.Level
	// PageToken is that of an earlier page of the same scan, which this one goes
	// on behind, or empty.
	PageToken []byte
	// Deadline is when the caller gives up.
	Deadline time.Time
}

// ScanItem is a key with a live value.
type ScanItem struct {
	Key []byte
	// Siblings, Token and Context are those of GetResponse.
	Siblings []causal.Sibling
	Token    []byte
	Context  causal.Context
}

// ScanResponse is a page. It may have no items and a token all the same.
type ScanResponse struct {
	Items []ScanItem
	// PageToken goes on behind the page; empty if nothing is there.
	PageToken []byte
	// Scanned is how many entries of engines were looked at, in each partition
	// by the owner that looked at most.
	Scanned int
}

// scanWant is what a scan asks for, taken apart.
type scanWant struct {
	prefix, start, end []byte
	keysOnly           bool
	// low and high are the bounds of the keys; an empty high is none.
	low, high []byte
	// group, if not nil, is what all the keys begin with, a whole {tag} among it:
	// they have one token.
	group     []byte
	maxKeys   int
	pageToken []byte
}

// Scan returns one page of a scan. Any node may be asked.
func (c *Coordinator) Scan(ctx context.Context, r ScanRequest) (ScanResponse, error) {
	return await(ctx, "", func(done func(ScanResponse, error)) { c.StartScan(r, done) })
}

// StartScan starts a Scan; see StartPut.
func (c *Coordinator) StartScan(r ScanRequest, done func(ScanResponse, error)) {
	c.start(request{
		kind: KindScan, tenant: r.Tenant, level: cmp.Or(r.Level, quorum.Quorum), deadline: r.Deadline, scan: newScanWant(&r),
	}, func(b result, err error) { done(b.scan, err) })
}

func newScanWant(r *ScanRequest) *scanWant {
	w := &scanWant{
		prefix: r.Prefix, start: r.Start, end: r.End, keysOnly: r.KeysOnly,
		maxKeys: r.MaxKeys, pageToken: r.PageToken,
	}
	if w.maxKeys == 0 {
		w.maxKeys = DefaultPageKeys
	}
	w.low, w.high = r.Start, r.End
	if bytes.Compare(w.prefix, w.low) > 0 {
		w.low = w.prefix
	}
	if s := Successor(w.prefix); len(s) > 0 && (len(w.high) == 0 || bytes.Compare(s, w.high) < 0) {
		w.high = s
	}
	// All keys between two that begin alike begin so, too.
	for _, p := range [][]byte{w.prefix, commonPrefix(w.start, w.end)} {
		if len(ring.KeyTag(p)) < len(p) {
			w.group = p
			break
		}
	}
	return w
}

// empty reports whether no key can meet the bounds.
func (w *scanWant) empty() bool { return len(w.high) > 0 && bytes.Compare(w.low, w.high) >= 0 }

func commonPrefix(a, b []byte) []byte {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// validateScan checks what is special in a scan against the limits.
func validateScan(w *scanWant) *Error {
	bad := func(code errcode.Code, format string, args ...any) *Error {
		return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
	}
	for _, f := range []struct {
		name string
		key  []byte
	}{{"prefix", w.prefix}, {"start", w.start}, {"end", w.end}} {
		if len(f.key) > MaxKeySize {
			return bad(errcode.KeyTooLarge, "%s has %d bytes, at most %d are allowed", f.name, len(f.key), MaxKeySize)
		}
	}
	switch {
	case w.maxKeys < 1 || w.maxKeys > MaxPageKeys:
		return bad(errcode.InvalidArgument, "a page of %d keys is asked for, 1 to %d are possible", w.maxKeys, MaxPageKeys)
	case len(w.pageToken) > MaxPageTokenSize:
		return bad(errcode.InvalidArgument, "%v", errPageTokenSize)
	}
	return nil
}
