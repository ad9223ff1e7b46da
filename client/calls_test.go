package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
)

// TestCallsOnAConnectionAreBounded: of many more calls than one connection may have
// under way the others wait for their turn; one whose time is over by then was never
// sent, and says so.
func TestCallsOnAConnectionAreBounded(t *testing.T) {
	c, servers := three(t, Options{NoRouting: true, NoNodeHealth: true, NoHedging: true, Retries: -1})
	stalls := make([]*stall, len(servers))
	for i, s := range servers {
		stalls[i] = newStall(s, "")
		stalls[i].begin()
	}
	asked := func() (n int64) {
		for _, st := range stalls {
			n += st.asked.Load()
		}
		return n
	}
	const more = 200
	var wg sync.WaitGroup
	errs := make([]error, maxCalls+more)
	for i := range errs {
		wg.Go(func() { _, errs[i] = c.Put(t.Context(), "key", []byte("v")) })
	}
	eventually(t, "a connection is full", func() bool { return asked() == maxCalls })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Put(ctx, "key", []byte("late"))
	var e *Error
	if !errors.As(err, &e) || e.Code != errcode.Timeout || e.Outcome != errcode.NotApplied {
		t.Errorf("a call that had no turn: %v", err)
	}
	if n := asked(); n != maxCalls {
		t.Errorf("%d calls were sent", n)
	}
	for _, st := range stalls {
		st.end()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := asked(); n != maxCalls+more {
		t.Errorf("%d calls were sent in the end", n)
	}
}
