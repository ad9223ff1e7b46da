package coord_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// TestLiveConditions: of puts if absent that goroutines send at the same time at
// least one succeeds, and what stays is one of these; and writes one after the other
// through all coordinators are each judged by the one before, in both kinds of
// tenants.
func TestLiveConditions(t *testing.T) {
	for _, tenant := range []string{simTenant, simKeeper} {
		t.Run(tenant, func(t *testing.T) {
			_, all := newLive(t, false)
			for i := range 30 {
				key := fmt.Appendf(nil, "lock/%d", i)
				var mu sync.Mutex
				made := map[causal.Dot]bool{}
				var writers sync.WaitGroup
				for w := range 6 {
					writers.Go(func() {
						r, err := all[w%len(all)].Put(t.Context(), coord.PutRequest{Tenant: tenant, Key: key, Value: fmt.Append(nil, w), IfAbsent: true})
						var e *coord.Error
						if errors.As(err, &e) && e.Code == errcode.PreconditionFailed && e.Outcome == errcode.NotApplied && len(e.Token) > 0 {
							return
						}
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						defer mu.Unlock()
						made[r.Dot] = true
					})
				}
				writers.Wait()
				got, err := all[i%len(all)].Get(t.Context(), coord.GetRequest{Tenant: tenant, Key: key})
				if err != nil || len(made) == 0 {
					t.Fatalf("%d of the puts were made, %v", len(made), err)
				}
				for _, s := range got.Siblings {
					if !made[s.Dot] {
						t.Errorf("%s: read %q, whose put was refused", key, s.Value)
					}
				}
			}

			var turn sync.Mutex
			seen, last := []byte(nil), 0
			var clients sync.WaitGroup
			for range 6 {
				clients.Go(func() {
					for range 20 {
						turn.Lock()
						r := coord.PutRequest{Tenant: tenant, Key: []byte("n"), Value: fmt.Append(nil, last+1), IfAbsent: last == 0, IfMatch: seen}
						w, err := all[last%len(all)].Put(t.Context(), r)
						if err != nil {
							t.Errorf("step %d: %v", last+1, err)
						}
						seen, last = w.Token, last+1
						turn.Unlock()
					}
				})
			}
			clients.Wait()
			got, err := all[0].Get(t.Context(), coord.GetRequest{Tenant: tenant, Key: []byte("n")})
			if err != nil || len(got.Siblings) != 1 || string(got.Siblings[0].Value) != "120" {
				t.Errorf("read %+v, %v", got.Siblings, err)
			}
		})
	}
}
