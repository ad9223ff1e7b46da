package client

import "sync/atomic"

// counters are what Stats shows.
type counters struct {
	retries, redirects, hedges, hedgesWon, hedgesRefused, throttled, avoided, probes, budgetsEmpty atomic.Uint64
}

// Stats are counts since a Client was made, and how its nodes do.
type Stats struct {
	// Retries is how many times a call was sent to all endpoints again.
	Retries uint64
	// Redirects is how many calls left a node that was found to be silent.
	Redirects uint64
	// Hedges is how many reads were sent to a second node, HedgesWon how many of
	// those it answered first, and HedgesRefused how many more there would have been
	// without the budget.
	Hedges, HedgesWon, HedgesRefused uint64
	// Throttled is how many calls were not sent, with ErrThrottled.
	Throttled uint64
	// Avoided is how many times a node and a class of calls came to be avoided,
	// and Probes how many probes of silent nodes ended.
	Avoided, Probes uint64
	// BudgetsEmpty is how many times a call failed that might have been sent once
	// more, had others not used that up.
	BudgetsEmpty uint64
	// Nodes are the endpoints, in the order of Options.Endpoints, and then the
	// nodes that were found by their routes.
	Nodes []NodeStats
}

// NodeStats say how a node does.
type NodeStats struct {
	Endpoint string
	// Gets, MultiGets, Writes and Batches say how it does with these: "fine",
	// "silent", "slow" or "failing". All but the first are avoided.
	Gets, MultiGets, Writes, Batches string
	// Outstanding is how many calls wait for its answer.
	Outstanding int64
}

// Stats returns the present counts.
func (c *Client) Stats() Stats {
	n := &c.counters
	s := Stats{
		Retries: n.retries.Load(), Redirects: n.redirects.Load(), Hedges: n.hedges.Load(), HedgesWon: n.hedgesWon.Load(), HedgesRefused: n.hedgesRefused.Load(),
		Throttled: n.throttled.Load(), Avoided: n.avoided.Load(), Probes: n.probes.Load(), BudgetsEmpty: n.budgetsEmpty.Load(),
	}
	c.watcher.mu.Lock()
	defer c.watcher.mu.Unlock()
	for _, cn := range c.watcher.mu.nodes {
		is := func(cl class) string { return standing(cn.lanes[cl].standing.Load()).String() }
		ns := NodeStats{Endpoint: cn.endpoint, Gets: is(getClass), MultiGets: is(multiGetClass), Writes: is(writeClass), Batches: is(batchClass)}
		for i := range cn.lanes {
			ns.Outstanding += cn.lanes[i].outstanding.Load()
		}
		s.Nodes = append(s.Nodes, ns)
	}
	return s
}
