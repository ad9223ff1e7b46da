package rpc

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pairdb/pairdb/coord/causal"
)

// expiryOf reads when a value is to expire from a request that may say it in
// either way. What cannot be meant is left to the coordinator to refuse, as it
// refuses what is out of bounds.
func expiryOf(ttl *durationpb.Duration, at *timestamppb.Timestamp) causal.Expiry {
	switch {
	case ttl == nil && at == nil:
		return causal.Expiry{}
	case at == nil && ttl.CheckValid() == nil:
		return causal.ExpiresAfter(ttl.AsDuration())
	case ttl == nil && at.CheckValid() == nil:
		return causal.ExpiresAt(at.AsTime())
	}
	return causal.Expiry{Kind: causal.ExpiryUnclear}
}

// expiresAt is when a sibling expires, nil for never.
func expiresAt(s *causal.Sibling) *timestamppb.Timestamp {
	if t, ok := s.Expiry(); ok {
		return timestamppb.New(t)
	}
	return nil
}
