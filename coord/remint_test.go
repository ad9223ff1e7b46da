package coord_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestRingChangesWhileMintingAgain: the ring that one owner knows arrives when
// the second mint is made but not yet known to the write. Nothing of the first
// mint may count for the second.
func TestRingChangesWhileMintingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		var learned func(error)
		var objects [][]byte
		var durable [2]func(error)
		r.onUpdate = func(object []byte, done func(error)) {
			durable[len(objects)] = done
			objects = append(objects, object)
			if len(objects) == 2 {
				r.learn(3)
				learned(nil)
			}
		}
		var got []coord.WriteResponse
		r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: r.key(true), Value: []byte("v")}, func(w coord.WriteResponse, err error) {
			if err != nil {
				t.Error(err)
			}
			got = append(got, w)
		})
		first := r.sends()
		first[0].reply(coord.Reply{Status: coord.StatusStale, Version: 3}, nil)
		learned = r.catchUps()[0].done
		// The other owner held a write from a clock an hour ahead.
		ahead := causal.Dot{Actor: 9, Counter: 1}
		held := causal.Object{Context: causal.NewContext(ahead), Siblings: []causal.Sibling{
			{Dot: ahead, HLC: causal.NextHLC(time.Now().Add(time.Hour), 0), Flags: causal.FlagStripped},
		}}
		first[1].reply(coord.Reply{Status: coord.StatusOK, Body: held.Append(nil)}, nil)
		durable[0](nil)
		if len(objects) != 2 {
			t.Fatalf("minted %d times", len(objects))
		}

		sends := r.sends()
		for _, s := range sends {
			if !bytes.Equal(s.m.Body, objects[1]) {
				t.Errorf("%s was sent the first mint after the second was made", s.to.Short())
			}
			if s.m.TenantVersion != 3 {
				t.Errorf("%s was sent the second mint at version %d", s.to.Short(), s.m.TenantVersion)
			}
		}
		acked := map[ring.NodeID]bool{}
		for _, s := range sends {
			s.reply(coord.Reply{Status: coord.StatusOK}, nil)
			if bytes.Equal(s.m.Body, objects[1]) {
				acked[s.to] = true
			}
			if len(got) > 0 && len(acked) < 2 {
				t.Fatalf("answered %d acks when %d owners had the second mint", got[0].Acks, len(acked))
			}
		}
		durable[1](nil)
		if len(got) != 1 || got[0].Acks != 2 || got[0].Dot.Counter != 2 {
			t.Errorf("answered %+v", got)
		}
		closed := r.close()
		wantClosed(t, closed)
	})
}
