package client

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

// The calls of a Node go to its endpoint alone.
func TestNodes(t *testing.T) {
	c, _, servers := start(t, 2, Options{})
	servers[1].SetDamage(&pairdbv1.Damage{File: "1.sst", Offset: 5, Reason: "bad"})
	for i, n := range c.Nodes() {
		if n.Endpoint() != servers[i].Addr() {
			t.Errorf("endpoint %s", n.Endpoint())
		}
		mine := func(name *pairdbv1.NodeName) bool { return strings.HasSuffix(name.GetName(), servers[i].Addr()) }
		f, err := n.Flush(t.Context())
		if err != nil || !mine(f.GetNode()) || f.GetFlushedSeq() != 42 {
			t.Errorf("%v, %v", f, err)
		}
		s, err := n.Stats(t.Context())
		if err != nil || !mine(s.GetNode()) || len(s.GetLevels()) != 2 {
			t.Errorf("%v, %v", s, err)
		}
		var seen int
		p, err := n.Compact(t.Context(), &pairdbv1.PartitionRange{First: 2, Last: 4}, func(p *pairdbv1.CompactResponse) {
			seen++
			if p.GetDone() {
				t.Error("the result is no progress")
			}
		})
		if err != nil || !p.GetDone() || p.GetMerges() != 3 || seen != 1 || !mine(p.GetNode()) {
			t.Errorf("%v, %v after %d", p, err, seen)
		}
		v, err := n.Verify(t.Context(), nil)
		if err != nil || !v.GetDone() || len(v.GetDamage()) != i {
			t.Errorf("%v, %v", v, err)
		}
	}
	servers[0].Close()
	if _, err := c.Nodes()[0].Flush(t.Context()); CodeOf(err) != errcode.Unavailable {
		t.Errorf("a node that is down: %v", err)
	}
	if _, err := c.Nodes()[1].Flush(t.Context()); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

func TestNodeErrors(t *testing.T) {
	c, _, servers := start(t, 1, Options{})
	n := c.Nodes()[0]
	calls := func(ctx context.Context) []error {
		_, ferr := n.Flush(ctx)
		_, cerr := n.Compact(ctx, nil, nil)
		_, verr := n.Verify(ctx, nil)
		_, serr := n.Stats(ctx)
		return []error{ferr, cerr, verr, serr}
	}
	servers[0].SetHook(func(context.Context, string, any) error {
		return clienttest.Fail(errcode.Forbidden, "not from here", nil)
	})
	for i, err := range calls(t.Context()) {
		if CodeOf(err) != errcode.Forbidden {
			t.Errorf("call %d: %v", i, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	servers[0].SetHook(func(rctx context.Context, _ string, _ any) error {
		cancel()
		<-rctx.Done() // the node learns of it
		return rctx.Err()
	})
	if _, err := n.Compact(ctx, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for i, err := range calls(t.Context()) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("closed, call %d: %v", i, err)
		}
	}
}
