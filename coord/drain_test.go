package coord_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// wantOpen fails the test if Close has returned.
func wantOpen(t *testing.T, closed <-chan error, when string) {
	t.Helper()
	synctest.Wait()
	if len(closed) > 0 {
		t.Errorf("Close returned %s", when)
	}
}

func wantClosed(t *testing.T, closed <-chan error) {
	t.Helper()
	synctest.Wait()
	if len(closed) != 1 {
		t.Fatal("Close did not return")
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestCloseWaitsForTheMint: the write is durable, and at ONE answered, before
// its minter has sent it to anybody.
func TestCloseWaitsForTheMint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		var closed <-chan error
		answered := false
		r.onUpdate = func(_ []byte, durable func(error)) {
			closed = r.close()
			synctest.Wait()
			durable(nil)
			if !answered {
				t.Error("a write at ONE that is durable has not answered")
			}
			wantOpen(t, closed, "before the write was sent to the other owners")
		}
		r.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: r.key(true), Level: quorum.One}, func(_ coord.WriteResponse, err error) {
			if err != nil {
				t.Error(err)
			}
			answered = true
		})
		sends := r.sends()
		if len(sends) != 2 {
			t.Fatalf("sent to %d owners", len(sends))
		}
		for _, s := range sends {
			wantOpen(t, closed, "before every owner had answered")
			s.reply(coord.Reply{Status: coord.StatusOK}, nil)
		}
		wantClosed(t, closed)
	})
}

// TestCloseWaitsForTheForwardHedge: the first owner answers while the hedge is
// about to send to the second.
func TestCloseWaitsForTheForwardHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hedging, goOn := make(chan struct{}), make(chan struct{})
		forwards := 0
		r := newRig(t, 5, coord.Metrics{Forward: func() {
			if forwards++; forwards == 2 {
				close(hedging)
				<-goOn
			}
		}})
		var got error
		r.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: r.key(false)}, func(_ coord.GetResponse, err error) { got = err })
		<-hedging
		closed := r.close()
		wantOpen(t, closed, "with a read under way")
		first := r.sends()
		if len(first) != 1 {
			t.Fatalf("sent to %d owners", len(first))
		}
		none := coord.EncodeError(&coord.Error{Code: errcode.KeyNotFound})
		first[0].reply(coord.Reply{Status: coord.StatusError, Body: none}, nil)
		wantCode(t, got, errcode.KeyNotFound, "")
		wantOpen(t, closed, "while the hedge was about to send")
		close(goOn)
		wantOpen(t, closed, "before the second owner had answered")
		second := r.sends()
		if len(second) != 1 {
			t.Fatalf("the hedge sent to %d owners", len(second))
		}
		second[0].reply(coord.Reply{}, errSimLost)
		wantClosed(t, closed)
	})
}

// TestCloseWaitsForTheReadHedge: the hedge's question is refused, and the read
// answered, before the hedge has come back from the transport.
func TestCloseWaitsForTheReadHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		hedging, goOn := make(chan struct{}), make(chan struct{})
		r.onSend = func(s sentMessage) {
			s.reply(coord.Reply{}, fmt.Errorf("dial: %w", coord.ErrNotSent))
			close(hedging)
			<-goOn
		}
		var got error
		r.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: r.key(true), Level: quorum.One}, func(_ coord.GetResponse, err error) { got = err })
		<-hedging
		closed := r.close()
		wantOpen(t, closed, "with a read under way")
		r.mu.reads[0](nil, nil)
		wantCode(t, got, errcode.KeyNotFound, "")
		wantOpen(t, closed, "while the hedge was in the transport")
		close(goOn)
		wantClosed(t, closed)
	})
}
