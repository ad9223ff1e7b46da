package client

import (
	"fmt"
	"testing"
)

// TestPreferring: nodes that are not fine come last and are not left out.
func TestPreferring(t *testing.T) {
	c, err := New(Options{Endpoints: []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	order := func() (s string) {
		for _, cn := range c.candidates(nil, place{class: getClass}) {
			s += fmt.Sprint(cn.seed)
		}
		return s
	}
	set := func(i int, st standing, trial bool) {
		c.conns[i].lanes[getClass].standing.Store(uint32(st))
		c.conns[i].lanes[getClass].trial.Store(trial)
	}
	for _, tc := range []struct {
		standings [3]standing
		trial     bool // of the first
		want      [2]string
	}{
		{[3]standing{}, false, [2]string{"012", "012"}},
		{[3]standing{silent}, false, [2]string{"120", "120"}},
		{[3]standing{slow}, true, [2]string{"012", "120"}}, // one trial
		{[3]standing{fine, failing}, true, [2]string{"021", "021"}},
		{[3]standing{silent, fine, slow}, false, [2]string{"102", "102"}},
		{[3]standing{silent, silent, slow}, false, [2]string{"012", "012"}},
	} {
		for i, st := range tc.standings {
			set(i, st, tc.trial && i == 0)
		}
		if got := [2]string{order(), order()}; got != tc.want {
			t.Errorf("%v: %v, want %v", tc.standings, got, tc.want)
		}
	}

	// A call that says nothing of a node takes no trial.
	set(0, silent, true)
	set(1, fine, false)
	if to := c.candidates(nil, place{}); to[0].seed != 1 {
		t.Errorf("a call without a class goes to node %d", to[0].seed)
	}
	if got := order(); got[0] != '0' {
		t.Errorf("the trial is gone: %v", got)
	}
}
