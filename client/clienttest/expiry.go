package clienttest

import (
	"encoding/base64"
	"slices"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

// Advance moves the clock by which values expire, for tests that do not wait.
func (s *Store) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ahead += d
}

func (s *Store) nowLocked() time.Time { return time.Now().Add(s.mu.ahead) }

// liveLocked returns the values of a key that have not expired.
func (s *Store) liveLocked(tenant, key string) []stored {
	now := s.nowLocked()
	return slices.DeleteFunc(slices.Clone(s.mu.values[tenant+"\x00"+key]), func(v stored) bool {
		return !v.expires.IsZero() && !v.expires.After(now)
	})
}

// expiryLocked is when the value of a put expires, the zero time for never.
func (s *Store) expiryLocked(req *pairdbv1.PutRequest) (time.Time, error) {
	var at time.Time
	switch ttl, now := req.GetTtl(), s.nowLocked(); {
	case ttl != nil && req.GetExpiresAt() != nil:
		return at, Fail(errcode.InvalidArgument, "ttl and expires_at: give one of them", nil)
	case ttl != nil && ttl.AsDuration() < time.Millisecond:
		return at, Fail(errcode.InvalidArgument, "the time to live is too short", nil)
	case ttl != nil:
		at = now.Add(ttl.AsDuration())
	case req.GetExpiresAt() != nil:
		if at = req.GetExpiresAt().AsTime(); !at.After(now) {
			return at, Fail(errcode.InvalidArgument, "the value would expire in the past", nil)
		}
	default:
		return at, nil
	}
	return at.Truncate(time.Millisecond), nil
}

// judgeLocked refuses a write whose condition does not hold; covered is what its
// context covers.
func (s *Store) judgeLocked(req interface {
	GetTenantId() string
	GetKey() []byte
	GetContext() []byte
	GetIfMatch() []byte
}, absent bool, covered uint64,
) error {
	live := s.liveLocked(req.GetTenantId(), string(req.GetKey()))
	matching := len(req.GetIfMatch()) > 0
	if matching && absent || len(req.GetContext()) > 0 && (matching || absent) {
		return Fail(errcode.InvalidArgument, "the write has conditions that exclude one another", nil)
	}
	newer := func(v stored) bool { return v.dot.GetCounter() > covered }
	if absent && len(live) > 0 || matching && slices.ContainsFunc(live, newer) {
		return Fail(errcode.PreconditionFailed, "the condition does not hold", map[string]string{
			errcode.MetaOutcome: string(errcode.NotApplied),
			errcode.MetaContext: base64.StdEncoding.EncodeToString(token(live[0].dot)),
		})
	}
	return nil
}
