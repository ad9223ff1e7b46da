// Package good goes through its seams: nothing in it is to be found.
package good

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Clock is a seam.
type Clock interface {
	Now() time.Time
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

func through(ctx context.Context, c Clock, r *rand.Rand, m map[string]int) (sum int) {
	_ = c.Now().Add(time.Second)
	c.AfterFunc(time.Second, func() {})
	_ = r.IntN(5)
	_ = netip.Addr{}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cancel()
	for _, k := range slices.Sorted(maps.Keys(m)) {
		_ = k
	}
	_ = slices.SortedFunc(maps.Values(m), func(a, b int) int { return a - b })
	for range m {
		sum++
	}
	//seams:ordered the sum is the same in any order
	for _, n := range m {
		sum += n
	}
	for _, n := range m { //seams:ordered so is this one
		sum += n
	}
	<-ctx.Done()
	return sum
}
