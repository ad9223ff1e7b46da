package rpc

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/coord/causal"
)

// expiryOf reads when a value is to expire from a request that may say it in
// either way.
func expiryOf(ttl *durationpb.Duration, at *timestamppb.Timestamp) (causal.Expiry, error) {
	switch {
	case ttl != nil && at != nil:
		return causal.Expiry{}, invalid("ttl and expires_at: give one of them")
	case ttl != nil:
		if err := ttl.CheckValid(); err != nil {
			return causal.Expiry{}, invalid("ttl: it is no duration")
		}
		return causal.ExpiresAfter(ttl.AsDuration()), nil
	case at != nil:
		if err := at.CheckValid(); err != nil {
			return causal.Expiry{}, invalid("expires_at: it is no instant of the years 1 to 9999")
		}
		return causal.ExpiresAt(at.AsTime()), nil
	}
	return causal.Expiry{}, nil
}

// expiresAt is when a sibling expires, nil for never.
func expiresAt(s *causal.Sibling) *timestamppb.Timestamp {
	if t, ok := s.Expiry(); ok {
		return timestamppb.New(t)
	}
	return nil
}
