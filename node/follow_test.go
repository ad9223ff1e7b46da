package node

import (
	"context"
	"testing"
)

// TestWheneverMissesNothing: what changes while the last change is dealt with is dealt with
// after it.
func TestWheneverMissesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	next, version := make(chan struct{}), 1
	var seen []int
	whenever(ctx, func() <-chan struct{} { return next }, func() {
		seen = append(seen, version)
		if version < 3 {
			version++
			close(next)
			next = make(chan struct{})
			return
		}
		cancel()
	})
	if len(seen) != 3 || seen[2] != 3 {
		t.Errorf("saw the versions %v of 3", seen)
	}
}
