package coord_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

// TestHedgesHaveABudget: where every read is slow, few of them ask one more.
func TestHedgesHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hedges, refused, answers atomic.Int64
		r := newRig(t, 3, coord.Metrics{Hedge: func() { hedges.Add(1) }, HedgeRefused: func() { refused.Add(1) }})
		key, o := r.key(true), held(1, "v")
		r.onSend = func(s sentMessage) {
			answer := digested(o)
			if s.m.Op == coord.OpRead {
				answer = whole(o)
			}
			time.AfterFunc(250*time.Millisecond, func() { s.reply(answer, nil) })
		}
		const reads = 300
		for range reads {
			r.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: key}, func(_ coord.GetResponse, err error) {
				if err != nil {
					t.Errorf("a read failed: %v", err)
				}
				answers.Add(1)
			})
		}
		elapse(240 * time.Millisecond)
		if n := hedges.Load(); n < 20 || n > 20+reads/10+1 || refused.Load() < reads-n {
			t.Errorf("%d reads asked one more %d times, and %d times did not", reads, n, refused.Load())
		}
		r.mu.Lock()
		own := r.mu.reads
		r.mu.Unlock()
		for _, read := range own {
			read(o.Append(nil), nil)
		}
		elapse(time.Second)
		if n := answers.Load(); n != reads {
			t.Errorf("%d of %d reads were answered", n, reads)
		}
	})
}

// TestForwardRetriesHaveABudget: where owners refuse, few operations are handed to a
// second one.
func TestForwardRetriesHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var retried, refused, failed atomic.Int64
		r := newRig(t, 5, coord.Metrics{ForwardRetry: func() { retried.Add(1) }, ForwardRefused: func() { refused.Add(1) }})
		key := r.key(false)
		r.onSend = func(s sentMessage) { go s.reply(coord.Reply{Status: coord.StatusOverloaded}, nil) }
		const puts = 500
		for range puts {
			r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, Value: []byte("v")}, func(_ coord.WriteResponse, err error) {
				var e *coord.Error
				if errors.As(err, &e) && e.Outcome == errcode.NotApplied {
					failed.Add(1)
				}
			})
			synctest.Wait()
		}
		if retried, refused := retried.Load(), refused.Load(); failed.Load() != puts || retried < 100 || retried > 100+puts/10+1 || refused < puts/2 {
			t.Errorf("%d of %d failed; %d were retried, %d not", failed.Load(), puts, retried, refused)
		}
	})
}
