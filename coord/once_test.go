package coord_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// TestLiveAttemptsAreOneWrite: goroutines send the same writes through all
// coordinators at the same time.
func TestLiveAttemptsAreOneWrite(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		t.Run(fmt.Sprint("lossy ", lossy), func(t *testing.T) {
			_, all := newLive(t, lossy)
			for i := range 40 {
				var mu sync.Mutex
				dots, first := map[causal.Dot]bool{}, 0
				var attempts sync.WaitGroup
				for a := range 6 {
					attempts.Go(func() {
						r, err := all[a%len(all)].Put(t.Context(), coord.PutRequest{
							Tenant: simTenant, Key: []byte("k"), Value: fmt.Append(nil, i), IdempotencyKey: fmt.Append(nil, "id", i),
						})
						var e *coord.Error
						if lossy && errors.As(err, &e) && e.Code == errcode.QuorumNotReached {
							return
						}
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						defer mu.Unlock()
						dots[r.Dot] = true
						if !r.Duplicate {
							first++
						}
					})
				}
				attempts.Wait()
				if len(dots) > 1 || first > 1 || !lossy && first != 1 {
					t.Fatalf("write %d has the dots %v, begun %d times", i, dots, first)
				}
				if lossy {
					continue
				}
				got, err := all[i%len(all)].Get(t.Context(), coord.GetRequest{Tenant: simTenant, Key: []byte("k")})
				if err != nil || string(got.Siblings[0].Value) != fmt.Sprint(i) || !dots[got.Siblings[0].Dot] {
					t.Fatalf("read %+v, %v", got.Siblings, err)
				}
			}
		})
	}
}

// answerOnce answers what was sent as an owner would that holds nothing.
func answerOnce(t *testing.T, s sentMessage) {
	t.Helper()
	body := []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0} // no object, no record
	switch s.m.Op {
	case coord.OpClaim:
		// Format, length and idempotency key, length of the record.
		body = s.m.Body[1+1+2+1:]
	case coord.OpApply, coord.OpMerge:
		body = nil
	}
	s.reply(coord.Reply{Status: coord.StatusOK, Body: body}, nil)
}

// TestNothingIsWrittenBeforeTheVote holds the steps apart: no object leaves this
// node, and no owner is asked to vote, before the step before has its quorum.
func TestNothingIsWrittenBeforeTheVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		var got []coord.WriteResponse
		r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: r.key(true), Value: []byte("v"), IdempotencyKey: []byte("id")},
			func(w coord.WriteResponse, err error) {
				if err != nil {
					t.Error(err)
				}
				got = append(got, w)
			})
		var late []sentMessage
		for _, op := range []coord.Op{coord.OpLookup, coord.OpClaim, coord.OpApply} {
			sends := r.sends()
			if len(sends) != 2 || len(got) != 0 {
				t.Fatalf("op %d: %d messages, %d answers", op, len(sends), len(got))
			}
			for _, s := range sends {
				if s.m.Op != op {
					t.Fatalf("sent op %d in the step of %d", s.m.Op, op)
				}
			}
			// This node and one other are a quorum.
			answerOnce(t, sends[0])
			late = append(late, sends[1])
		}
		if len(got) != 1 || got[0].Acks != 2 || got[0].Duplicate || got[0].Dot.Counter != 1 || len(got[0].Token) == 0 {
			t.Fatalf("answered %+v", got)
		}
		closed := r.close()
		synctest.Wait()
		if len(closed) != 0 {
			t.Error("Close did not wait for the late owner")
		}
		for _, s := range late {
			answerOnce(t, s)
		}
		wantClosed(t, closed)
		if len(got) != 1 || len(r.sends()) != 0 {
			t.Error("late answers had an effect")
		}
	})
}

// TestMintsAreAboveReservedDots: a later mint of the same node covers a dot that
// is reserved, so its clock is higher, whatever this node's own clock says.
func TestMintsAreAboveReservedDots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		key := r.key(true)
		ahead := causal.NextHLC(time.Now().Add(time.Hour), 0)
		r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, IdempotencyKey: []byte("id"), Deadline: time.Now().Add(time.Second)},
			func(_ coord.WriteResponse, err error) { wantCode(t, err, errcode.Timeout, errcode.Indeterminate) })
		looks := r.sends()
		body := binary.BigEndian.AppendUint64([]byte{1}, ahead) // and no context, no record
		looks[0].reply(coord.Reply{Status: coord.StatusOK, Body: append(body, 1, 0, 0)}, nil)
		claims := r.sends()
		reserved, err := causal.DecodeRecord(claims[0].m.Body[5:])
		if err != nil || reserved.HLC <= ahead {
			t.Fatalf("reserved %+v, %v", reserved, err)
		}
		r.onUpdate = func(object []byte, durable func(error)) {
			o, err := causal.Decode(object)
			if err != nil || !o.Context.Covers(reserved.Dot) || o.Siblings[0].HLC <= reserved.HLC {
				t.Errorf("minted %+v over the reserved %+v, %v", o, reserved, err)
			}
			durable(nil)
		}
		r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, Value: []byte("later")}, func(_ coord.WriteResponse, err error) {
			if err != nil {
				t.Error(err)
			}
		})
		rest := append(looks[1:], claims...)
		for _, s := range r.sends() {
			answerOnce(t, s)
		}
		time.Sleep(2 * time.Second)
		for _, s := range rest {
			answerOnce(t, s)
		}
		wantClosed(t, r.close())
	})
}

// TestFailuresSayWhatMayHaveHappened: before the vote nothing, after it
// anything.
func TestFailuresSayWhatMayHaveHappened(t *testing.T) {
	for name, c := range map[string]struct {
		fails coord.Op
		level quorum.Level
		want  errcode.Outcome
	}{
		"lookup": {coord.OpLookup, quorum.Quorum, errcode.NotApplied},
		"vote":   {coord.OpClaim, quorum.Quorum, errcode.Indeterminate},
		"apply":  {coord.OpApply, quorum.Quorum, errcode.Indeterminate},
		"one":    {coord.OpApply, quorum.All, errcode.Indeterminate},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 3, coord.Metrics{})
				var errs []error
				r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: r.key(true), Value: []byte("v"), IdempotencyKey: []byte("id"), Level: c.level},
					func(_ coord.WriteResponse, err error) { errs = append(errs, err) })
				for sends := r.sends(); len(sends) > 0; sends = r.sends() {
					for _, s := range sends {
						if s.m.Op == c.fails {
							s.reply(coord.Reply{Status: coord.StatusOverloaded}, nil)
						} else {
							answerOnce(t, s)
						}
					}
				}
				if len(errs) != 1 {
					t.Fatalf("answered %v", errs)
				}
				wantCode(t, errs[0], errcode.QuorumNotReached, c.want)
				wantClosed(t, r.close())
			})
		})
	}
}

// TestPeersThatTalkNonsense: what does not decode, and a vote that should have
// given way, count as failures.
func TestPeersThatTalkNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fails := range []coord.Op{coord.OpLookup, coord.OpClaim} {
			r := newRig(t, 3, coord.Metrics{})
			var errs []error
			r.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: r.key(true), IdempotencyKey: []byte("id")},
				func(_ coord.WriteResponse, err error) { errs = append(errs, err) })
			for sends := r.sends(); len(sends) > 0; sends = r.sends() {
				for _, s := range sends {
					if s.m.Op == fails {
						s.reply(coord.Reply{Status: coord.StatusOK, Body: []byte{9}}, nil)
					} else {
						answerOnce(t, s)
					}
				}
			}
			if len(errs) != 1 {
				t.Fatalf("op %d: answered %v", fails, errs)
			}
			var e *coord.Error
			if !errors.As(errs[0], &e) || e.Code != errcode.QuorumNotReached || len(e.Causes) != 2 {
				t.Errorf("op %d: %v", fails, errs[0])
			}
			wantClosed(t, r.close())
		}
	})
}

// TestNonsenseOfPeersIsRefused: bodies about idempotency keys are held to their
// limits before the replica sees them.
func TestNonsenseOfPeersIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		key := r.key(true)
		var msgs []coord.Message
		for _, c := range []struct {
			op   coord.Op
			body []byte
		}{
			{coord.OpLookup, nil},
			{coord.OpLookup, make([]byte, causal.MaxIdempotencyKey+1)},
			{coord.OpClaim, nil},
			{coord.OpClaim, []byte{1, 1, 'k', 1, 9}},
			{coord.OpApply, []byte{1, 1, 'k', 1, 9}},
		} {
			m := r.message(c.op, key, 1)
			m.Body = c.body
			msgs = append(msgs, m)
		}
		refused := 0
		r.coord.HandlePeer([16]byte{2}, msgs, func(i int, rep coord.Reply) {
			e, err := coord.DecodeError(rep.Body)
			if rep.Status != coord.StatusError || err != nil || e.Code != errcode.InvalidArgument || e.Outcome != errcode.NotApplied {
				t.Errorf("message %d: status %d, %v", i, rep.Status, e)
			}
			refused++
		})
		if refused != len(msgs) {
			t.Errorf("%d of %d answered", refused, len(msgs))
		}
		wantClosed(t, r.close())
	})
}
