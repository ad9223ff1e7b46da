package coord_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
)

// short is the answer of an owner that had one of two.
func short(o errcode.Outcome) coord.Reply {
	return coord.Reply{Status: coord.StatusError, Body: coord.EncodeError(&coord.Error{
		Code: errcode.QuorumNotReached, Outcome: o, Acks: 1, Need: 2, Message: "too few",
	})}
}

// TestShortOfOwners: an owner that was cut off takes the others for dead for a while. What
// it did not do for want of them is given to another owner; if that one says the same, so
// does the answer, with the count. What it may have done is given to nobody else.
func TestShortOfOwners(t *testing.T) {
	for name, start := range map[string]func(r *rig, done func(error)){
		"put": func(r *rig, done func(error)) {
			r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: r.key(false), Value: []byte("v")}, func(_ coord.WriteResponse, err error) { done(err) })
		},
		"get": func(r *rig, done func(error)) {
			r.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: r.key(false)}, func(_ coord.GetResponse, err error) { done(err) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				outcome := errcode.NotApplied
				if name == "get" {
					outcome = ""
				}
				r := newRig(t, 5, coord.Metrics{})
				var got []error
				again := func() sentMessage {
					t.Helper()
					s := r.sends()
					if len(s) != 1 || s[0].m.Op != coord.OpForward || len(got) > 0 {
						t.Fatalf("sent %v, answered %v", s, got)
					}
					return s[0]
				}
				begin := func() sentMessage {
					got = nil
					start(r, func(err error) { got = append(got, err) })
					return again()
				}
				wantShort := func(o errcode.Outcome) {
					t.Helper()
					var e *coord.Error
					if len(got) != 1 || !errors.As(got[0], &e) || e.Code != errcode.QuorumNotReached || e.Outcome != o || e.Acks != 1 || e.Need != 2 {
						t.Fatalf("answered %v", got)
					}
				}

				first := begin()
				first.reply(short(outcome), nil)
				second := again()
				if second.to == first.to {
					t.Fatal("the same owner got it again")
				}
				second.reply(short(outcome), nil)
				again().reply(coord.Reply{}, coord.ErrNotSent)
				wantShort(outcome)

				if name == "put" {
					begin().reply(short(errcode.Indeterminate), nil)
					if s := r.sends(); len(s) > 0 {
						t.Fatalf("sent %v", s)
					}
					wantShort(errcode.Indeterminate)
				}
			})
		})
	}
}
