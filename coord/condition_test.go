package coord_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// TestConditionIsJudgedByTheRead: this node's own copy waits for its disk, so that
// the other owners answer the read before the write, and nothing of it is in this
// copy yet. What they hold counts, and a write that is made covers it.
func TestConditionIsJudgedByTheRead(t *testing.T) {
	there := causal.Dot{Actor: 9, Counter: 1}
	for name, c := range map[string]struct {
		flags causal.Flags
		until time.Duration
		want  errcode.Code
	}{
		"a value":          {want: errcode.PreconditionFailed},
		"one for a while":  {flags: causal.FlagExpiry, until: time.Second, want: errcode.PreconditionFailed},
		"one that expires": {flags: causal.FlagExpiry, until: 50 * time.Millisecond, want: errcode.OK},
		"a tombstone":      {flags: causal.FlagTombstone, want: errcode.OK},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 3, coord.Metrics{})
				var made causal.Object
				r.onUpdate = func(object []byte, durable func(error)) {
					var err error
					if made, err = causal.Decode(object); err != nil {
						t.Error(err)
					}
					durable(nil)
				}
				s := causal.Sibling{Dot: there, HLC: causal.HLCAt(time.Now()), Flags: c.flags, ExpiresAt: time.Now().Add(c.until).UnixMilli()}
				held := causal.Object{Context: causal.NewContext(there), Siblings: []causal.Sibling{s}}
				got := errcode.Code("")
				r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: r.key(true), IfAbsent: true}, func(w coord.WriteResponse, err error) {
					got = errcode.OK
					if err != nil {
						e := err.(*coord.Error)
						if got = e.Code; e.Outcome != errcode.NotApplied || len(e.Token) == 0 {
							t.Errorf("%v %s, %d bytes of context", e, e.Outcome, len(e.Token))
						}
					}
				})
				time.Sleep(150 * time.Millisecond) // the read asks one more owner
				synctest.Wait()
				for _, s := range r.sends() {
					rep := coord.Reply{Status: coord.StatusOK, Digest: held.Digest()}
					if s.m.Op == coord.OpRead {
						rep.Body = held.Append(nil)
					}
					s.reply(rep, nil)
				}
				for _, s := range r.sends() {
					s.reply(coord.Reply{Status: coord.StatusOK}, nil)
				}
				if got != c.want {
					t.Errorf("answered %q, want %s", got, c.want)
				}
				if wrote := len(made.Siblings) > 0; wrote != (c.want == errcode.OK) || wrote && (len(made.Siblings) > 1 || !made.Context.Covers(there)) {
					t.Errorf("made %+v", made)
				}
				r.mu.Lock()
				reads := r.mu.reads
				r.mu.Unlock()
				for _, done := range reads {
					done(nil, nil)
				}
				wantClosed(t, r.close())
			})
		})
	}
}

// TestRequestsWithConditionsAreChecked: what a peer forwards is checked as what a
// client sends.
func TestRequestsWithConditionsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		seen, dot := []byte("token"), causal.Dot{Actor: 1, Counter: 1}
		for name, p := range map[string]coord.PutRequest{
			"absent and match": {IfAbsent: true, IfMatch: seen},
			"absent and dot":   {IfAbsent: true, IfDot: dot},
			"match and dot":    {IfMatch: seen, IfDot: dot},
			"match and token":  {IfMatch: seen, Token: seen},
			"absent and token": {IfAbsent: true, Token: seen},
			"dot and token":    {IfDot: dot, Token: seen},
			"no span":          {Expiry: causal.ExpiresAfter(0)},
			"no kind":          {Expiry: causal.Expiry{Millis: 1}},
			"said twice":       {Expiry: causal.Expiry{Kind: causal.ExpiryUnclear}},
			"another kind":     {Expiry: causal.Expiry{Kind: 9, Millis: 1}},
			"past":             {Expiry: causal.ExpiresAt(time.Now())},
		} {
			p.Tenant, p.Key, p.Level = simTenant, r.key(true), quorum.One
			called := 0
			r.coord.StartPut(p, func(_ coord.WriteResponse, err error) {
				called++
				wantCode(t, err, errcode.InvalidArgument, errcode.NotApplied)
			})
			if called != 1 || len(r.sends()) != 0 {
				t.Errorf("%s: %d answers", name, called)
			}
		}
		wantClosed(t, r.close())
	})
}
