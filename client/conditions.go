package client

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// MaxTTL is the longest time to live: 100 years.
const MaxTTL = 100 * 365 * 24 * time.Hour

// conditions are what options say of a write beside its level, tenant and
// context.
type conditions struct {
	ttl       time.Duration
	expiresAt time.Time
	// mortal, instant, absent and matching say that WithTTL, WithExpiry, IfAbsent
	// and IfMatch were given.
	mortal, instant, absent, matching bool
	match                             Context
}

// WithTTL makes the value of a Put expire ttl after it is written, 1 ms to MaxTTL;
// less than a millisecond is cut off. The instant is fixed once, by the clock of
// the replica that mints the write, and is the same on all replicas. It does not go
// with WithExpiry. Get ignores it.
func WithTTL(ttl time.Duration) CallOption {
	return func(o *callOptions) { o.ttl, o.mortal = ttl, true }
}

// WithExpiry makes the value of a Put expire at an instant, in whole milliseconds,
// up to the end of the year 9999. One that is past by the clock of the replica that
// mints the write fails with the code INVALID_ARGUMENT. It does not go with WithTTL.
// Get ignores it.
func WithExpiry(at time.Time) CallOption {
	return func(o *callOptions) { o.expiresAt, o.instant = at, true }
}

// IfAbsent makes a Put fail with ErrPreconditionFailed if there is a value. Absent,
// deleted and expired are the same to it. The context of what there is comes with
// the error. It is judged by what a read at the same level sees and what the replica
// that mints the write holds: of Puts made at the same time several may succeed. It
// does not go with WithContext or IfMatch. Get ignores it.
func IfAbsent() CallOption { return func(o *callOptions) { o.absent = true } }

// IfMatch makes a Put or Delete supersede what the answer that returned seen had
// seen, and fail with ErrPreconditionFailed if anything was written since; a value
// that has expired since is no change. It is judged as IfAbsent is. It does not go
// with WithContext or IfAbsent. Get ignores it.
func IfMatch(seen Context) CallOption {
	return func(o *callOptions) { o.match, o.matching = seen, true }
}

// check refuses what no node would take; put says that the write stores a value.
func (c *conditions) check(op string, put, seen bool) error {
	bad := func(format string, args ...any) error {
		return localError(op, writes, errcode.InvalidArgument, format, args...)
	}
	switch {
	case !put && (c.mortal || c.instant || c.absent):
		return bad("an expiry and the condition that there is no value are for puts")
	case c.mortal && c.instant:
		return bad("a time to live and an instant of expiry exclude one another")
	case c.mortal && (c.ttl < time.Millisecond || c.ttl > MaxTTL):
		return bad("the time to live is %v, it must be 1 ms to %v", c.ttl, MaxTTL)
	case c.instant && (c.expiresAt.Year() < 1970 || c.expiresAt.UTC().Year() > 9999):
		return bad("the expiry is %v, it must be an instant of the years 1970 to 9999", c.expiresAt)
	case c.absent && c.matching, seen && (c.absent || c.matching):
		return bad("a context, the condition that there is no value and a context to match exclude one another")
	case c.matching && c.match.IsZero():
		return bad("the context to match is empty; the condition that there is no value is another one")
	}
	return nil
}

// fill says in req what the options do.
func (c *conditions) fill(req *pairdbv1.PutRequest) {
	if c.mortal {
		req.Ttl = durationpb.New(c.ttl)
	}
	if c.instant {
		req.ExpiresAt = timestamppb.New(c.expiresAt)
	}
	req.IfAbsent, req.IfMatch = c.absent, c.match.Bytes()
}
