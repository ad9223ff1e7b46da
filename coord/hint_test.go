package coord_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func status(s coord.Status) coord.Reply { return coord.Reply{Status: s} }

func refusal(code errcode.Code) coord.Reply {
	return coord.Reply{Status: coord.StatusError, Body: coord.EncodeError(&coord.Error{Code: code, Outcome: errcode.NotApplied})}
}

// TestHintsForOwnersThatLackAWrite: whatever keeps an owner from acknowledging a
// write makes a hint, and nothing else does, however late it is.
func TestHintsForOwnersThatLackAWrite(t *testing.T) {
	ok := status(coord.StatusOK)
	for _, c := range []struct {
		name string
		r    coord.Reply
		err  error
		hint bool
	}{
		{"acknowledged", ok, nil, false},
		{"silent", coord.Reply{}, errors.New("deadline passed"), true},
		{"not sent", coord.Reply{}, coord.ErrNotSent, true},
		{"overloaded", status(coord.StatusOverloaded), nil, true},
		{"expired", status(coord.StatusExpired), nil, true},
		{"no owner", status(coord.StatusNotOwner), nil, true},
		{"disk full", refusal(errcode.DiskFull), nil, true},
		{"unavailable", refusal(errcode.Unavailable), nil, true},
		{"behind the ring", status(coord.StatusStale), nil, true},
	} {
		for _, late := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 3, coord.Metrics{})
				r.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
				key := r.key(true)
				var answers []error
				r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, Value: []byte("v"), Level: quorum.Quorum}, func(_ coord.WriteResponse, err error) {
					answers = append(answers, err)
				})
				sends := r.sends()
				if len(sends) != 2 || len(answers) != 0 {
					t.Fatalf("%d sends, answers %v", len(sends), answers)
				}
				if late {
					sends[1].reply(ok, nil)
				}
				sends[0].reply(c.r, c.err)
				if !late {
					sends[1].reply(ok, nil)
				}
				for _, cu := range r.catchUps() {
					cu.done(errors.New("nothing newer"))
				}
				var want []hinted
				if c.hint {
					want = []hinted{{sends[0].to, string(key), ""}}
				}
				if got := r.hints(); !slices.Equal(got, want) {
					t.Errorf("%s, late %v: hints %v, want %v", c.name, late, got, want)
				}
				if !slices.Equal(answers, []error{nil}) {
					t.Errorf("%s, late %v: answers %v", c.name, late, answers)
				}
			})
		}
	}
}

// TestAHintIsNoAck: with hints for both others a write is not acknowledged above
// ONE.
func TestAHintIsNoAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		r.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
		var got error
		r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: r.key(true), Value: []byte("v"), Level: quorum.Quorum}, func(_ coord.WriteResponse, err error) { got = err })
		for _, s := range r.sends() {
			s.reply(coord.Reply{}, coord.ErrNotSent)
		}
		var e *coord.Error
		if n := len(r.hints()); n != 2 || !errors.As(got, &e) || e.Code != errcode.QuorumNotReached || e.Acks != 1 {
			t.Fatalf("%d hints, answered %v", n, got)
		}
	})
}

// TestHintsForOwnersThatAreDown, which nothing is sent to.
func TestHintsForOwnersThatAreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		r.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
		r.dies(ring.NodeID{3})
		key := r.key(true)
		var got error
		r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: key, Value: []byte("v"), Level: quorum.Quorum}, func(_ coord.WriteResponse, err error) { got = err })
		sends := r.sends()
		if len(sends) != 1 {
			t.Fatalf("%d sends", len(sends))
		}
		sends[0].reply(status(coord.StatusOK), nil)
		if h := r.hints(); got != nil || !slices.Equal(h, []hinted{{ring.NodeID{3}, string(key), ""}}) {
			t.Fatalf("hints %v, answered %v", h, got)
		}
	})
}

// dies makes gossip say that a member is dead.
func (r *rig) dies(id ring.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.mu.view
	r.mu.view = schema.Build(schema.Snapshot{
		Version: v.Version, Layout: v.Layout, Ready: true, TokenKeys: []schema.TokenKey{{ID: 1}},
		Members: []schema.Member{{ID: id, Name: "gone", Liveness: schema.Dead}},
	}, []*schema.Tenant{{Number: 7, Name: simTenant, RF: 3, Policy: schema.PolicyLWW, Version: v.Version}})
}

// TestHintsOfIdempotentWrites name the idempotency key, and only the write itself
// makes them.
func TestHintsOfIdempotentWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		key := r.key(true)
		failing := ring.NodeID{2}
		r.onSend = func(s sentMessage) {
			switch {
			case s.to == failing && s.m.Op != coord.OpApply:
				go s.reply(status(coord.StatusOverloaded), nil)
			case s.to == failing:
				go s.reply(coord.Reply{}, errors.New("lost"))
			case s.m.Op == coord.OpLookup:
				go s.reply(coord.Reply{Status: coord.StatusOK, Body: coord.EncodeHeld(&coord.Held{})}, nil)
			case s.m.Op == coord.OpClaim:
				go s.reply(coord.Reply{Status: coord.StatusOK, Body: coord.ClaimedRecord(s.m.Body)}, nil)
			default:
				go s.reply(status(coord.StatusOK), nil)
			}
		}
		_, err := r.coord.Put(t.Context(), coord.PutRequest{Tenant: simTenant, Key: key, Value: []byte("v"), IdempotencyKey: []byte("id"), Level: quorum.Quorum})
		synctest.Wait()
		if h := r.hints(); err != nil || !slices.Equal(h, []hinted{{failing, string(key), "id"}}) {
			t.Fatalf("hints %v, answered %v", h, err)
		}
	})
}

// deliver is what became of an attempt.
type deliver struct {
	how  coord.Delivered
	sent int
	why  string
}

func (r *rig) deliver(to ring.NodeID, key, id []byte) *[]deliver {
	ends := new([]deliver)
	m := r.message(coord.OpMerge, key, 1)
	at := coord.Address{Partition: m.Partition, Tenant: m.Tenant, Token: m.Token, Key: key}
	r.coord.Deliver(to, at, id, func(how coord.Delivered, sent int, why string) { *ends = append(*ends, deliver{how, sent, why}) })
	return ends
}

// TestDeliver: what this node holds goes to the target in the background, and the
// target's answer says what becomes of the hint.
func TestDeliver(t *testing.T) {
	for _, c := range []struct {
		name string
		r    coord.Reply
		err  error
		want coord.Delivered
	}{
		{"acknowledged", status(coord.StatusOK), nil, coord.DeliveryAcked},
		{"no owner", status(coord.StatusNotOwner), nil, coord.DeliveryNotOwner},
		{"overloaded", status(coord.StatusOverloaded), nil, coord.DeliveryOverloaded},
		{"throttled", refusal(errcode.DiskThrottled), nil, coord.DeliveryOverloaded},
		{"full", refusal(errcode.DiskFull), nil, coord.DeliveryFailed},
		{"silent", coord.Reply{}, errors.New("lost"), coord.DeliveryFailed},
		{"behind the ring", status(coord.StatusStale), nil, coord.DeliveryFailed},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, 3, coord.Metrics{})
			key := r.key(true)
			ends := r.deliver(ring.NodeID{2}, key, nil)
			object := held(1, "value").Append(nil)
			r.reads1(t)(object, nil)
			sends := r.sends()
			if len(sends) != 1 || sends[0].to != (ring.NodeID{2}) || sends[0].m.Op != coord.OpMerge || !sends[0].m.Background || !slices.Equal(sends[0].m.Body, object) {
				t.Fatalf("sent %+v", sends)
			}
			sends[0].reply(c.r, c.err)
			if len(*ends) != 1 || (*ends)[0].how != c.want || (*ends)[0].sent != len(key)+len(object) {
				t.Errorf("%s: ended as %+v", c.name, *ends)
			}
			for _, cu := range r.catchUps() {
				cu.done(nil)
			}
			if h := r.hints(); len(h) > 0 {
				t.Errorf("%s: hints %v", c.name, h)
			}
			if err := r.coord.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// reads1 returns what waits for the one read of this node's replica.
func (r *rig) reads1(t *testing.T) func([]byte, error) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.reads) != 1 {
		t.Fatalf("%d reads", len(r.mu.reads))
	}
	f := r.mu.reads[0]
	r.mu.reads = nil
	return f
}

// TestDeliverARecord: a write with an idempotency key takes its record along once it
// was made; a mere vote is no business of a hint.
func TestDeliverARecord(t *testing.T) {
	for _, applied := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, 3, coord.Metrics{})
			key := r.key(true)
			o := held(1, "value")
			r.mu.record = &causal.Record{Dot: o.Siblings[0].Dot, HLC: 1, Applied: applied, Context: o.Context}
			ends := r.deliver(ring.NodeID{2}, key, []byte("id"))
			r.reads1(t)(o.Append(nil), nil)
			sends := r.sends()
			want := coord.OpMerge
			if applied {
				want = coord.OpApply
			}
			if len(sends) != 1 || sends[0].m.Op != want {
				t.Fatalf("applied %v: sent %+v", applied, sends)
			}
			if applied {
				id, rec, object, err := coord.DecodeClaim(sends[0].m.Body)
				if err != nil || string(id) != "id" || !rec.Applied || !slices.Equal(object, o.Append(nil)) {
					t.Errorf("sent the key %q, the record %+v and %d bytes: %v", id, rec, len(object), err)
				}
			}
			sends[0].reply(status(coord.StatusOK), nil)
			if len(*ends) != 1 || (*ends)[0].how != coord.DeliveryAcked {
				t.Errorf("ended as %+v", *ends)
			}
		})
	}
}

// TestDeliverNothing: nothing is sent when there is nothing to send, or nobody to
// send it to.
func TestDeliverNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 5, coord.Metrics{})
		key := r.key(true)
		m := r.message(coord.OpMerge, key, 1)
		owners := r.view().Layout.Owners(nil, m.Partition, 3)
		var other ring.NodeID
		for i := range 5 {
			if id := (ring.NodeID{byte(i + 1)}); !slices.Contains(owners, id) {
				other = id
			}
		}
		owner := owners[0]
		if owner == r.self {
			owner = owners[1]
		}
		if ends := r.deliver(other, key, nil); len(*ends) != 1 || (*ends)[0].how != coord.DeliveryNotOwner {
			t.Errorf("to no owner: %+v", *ends)
		}
		ends := r.deliver(owner, key, nil)
		r.reads1(t)(nil, nil)
		if len(*ends) != 1 || (*ends)[0].how != coord.DeliveryGone {
			t.Errorf("of nothing: %+v", *ends)
		}
		at := coord.Address{Partition: m.Partition, Tenant: 99, Token: m.Token, Key: key}
		var unknown []coord.Delivered
		r.coord.Deliver(owner, at, nil, func(how coord.Delivered, _ int, _ string) { unknown = append(unknown, how) })
		if !slices.Equal(unknown, []coord.Delivered{coord.DeliveryFailed}) {
			t.Errorf("of a tenant that is not known yet: %v", unknown)
		}
		r.dies(owner)
		if ends := r.deliver(owner, key, nil); len(*ends) != 1 || (*ends)[0].how != coord.DeliveryFailed {
			t.Errorf("to the dead: %+v", *ends)
		}
		if s := r.sends(); len(s) > 0 {
			t.Errorf("sent %+v", s)
		}
	})
}

// TestDeliverFindsThatATargetIsBack: nothing but a probe goes to a target that does
// not answer, and once it does deliveries go on, without any operation of a client.
func TestDeliverFindsThatATargetIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		key := r.key(true)
		object := held(1, "value").Append(nil)
		target := ring.NodeID{2}
		var first *[]deliver
		for range 6 {
			ends := r.deliver(target, key, nil)
			r.reads1(t)(object, nil)
			if first == nil {
				first = ends
			}
		}
		silent := r.sends() // stay without an answer
		elapse(4 * time.Second)
		ends := r.deliver(target, key, nil)
		if len(*ends) != 1 || (*ends)[0].how != coord.DeliveryFailed {
			t.Fatalf("to a silent target: %+v", *ends)
		}
		probes := r.sends()
		if len(probes) != 1 || probes[0].m.Op != coord.OpDigest {
			t.Fatalf("sent %+v", probes)
		}
		probes[0].reply(status(coord.StatusOK), nil)
		ends = r.deliver(target, key, nil)
		r.reads1(t)(object, nil)
		s := r.sends()
		if len(s) != 1 {
			t.Fatalf("%d sends to a target that is back", len(s))
		}
		s[0].reply(status(coord.StatusOK), nil)
		if len(*ends) != 1 || (*ends)[0].how != coord.DeliveryAcked {
			t.Fatalf("ended as %+v", *ends)
		}
		for _, m := range silent {
			m.reply(coord.Reply{}, errors.New("lost"))
		}
		if len(*first) != 1 || (*first)[0].how != coord.DeliveryFailed {
			t.Fatalf("the silent one ended as %+v", *first)
		}
	})
}
