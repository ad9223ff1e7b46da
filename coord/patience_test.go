package coord_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
)

// TestOwnersOutlastTheClient: a write that its coordinator has minted is for all
// owners, however little time its client has: they are given the time of a write,
// not the client's.
func TestOwnersOutlastTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		r.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
		began := time.Now()
		answers := 0
		r.coord.StartPut(coord.PutRequest{
			Tenant: simTenant, Key: r.key(true), Deadline: began.Add(100 * time.Millisecond),
		}, func(coord.WriteResponse, error) { answers++ })
		sends := r.sends()
		if len(sends) != 2 {
			t.Fatalf("sent to %d owners", len(sends))
		}
		for _, s := range sends {
			if left := s.m.Deadline.Sub(began); left < time.Second {
				t.Errorf("owner %x has %v for a write whose client waits 100ms", s.to[0], left)
			}
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if answers != 1 {
			t.Errorf("the client had %d answers within its time", answers)
		}
		for _, s := range sends {
			s.reply(coord.Reply{Status: coord.StatusOK}, nil)
		}
		wantClosed(t, r.close())
	})
}
