package client

import "slices"

// prefer moves nodes that are to be avoided behind the others, where they are what
// is left when those fail. The first one stays first if a trial is due, which calls
// without a class are no use for: what becomes of them is noted nowhere.
func (c *Client) prefer(to []*conn, cl class) {
	tells := cl != noClass
	if !tells {
		cl = getClass
	}
	bad := 0
	for _, cn := range to {
		if cn.lanes[cl].rank() > 0 {
			bad++
		}
	}
	if bad == 0 || bad == len(to) {
		return
	}
	if l := &to[0].lanes[cl]; tells && !l.is(fine) && l.trial.Load() && l.trial.CompareAndSwap(true, false) {
		return
	}
	slices.SortStableFunc(to, func(a, b *conn) int {
		return a.lanes[cl].rank() - b.lanes[cl].rank()
	})
}
