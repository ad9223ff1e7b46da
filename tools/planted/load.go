package main

// loadBugs are those of queues, between nodes and in front of a node, and of links under load.
var loadBugs = []bug{
	{
		"queue for a peer without a bound in bytes", "node/rpc/peer.go",
		"o.items >= opts.MaxQueuedItems || (o.items > 0 && o.bytes+size > opts.MaxQueuedBytes):", "o.items >= opts.MaxQueuedItems:", "node/rpc", "^TestFullQueueRefuses$",
	},
	{
		"keep in the queue to a peer what has expired", "node/rpc/peer.go",
		"		if len(over) > 0 {\n", "		if len(over) < 0 {\n", "node/rpc", "^TestExpiredLeaveTheQueue$",
	},
	{
		"let the small lane of a link wait for what the large one holds", "node/rpc/frames.go",
		"s.mu.held[lane] >= s.fs.maxHeld[lane]", "s.mu.held[LaneLarge] >= s.fs.maxHeld[LaneLarge]", "node/rpc", "^TestLanesDoNotWaitForEachOther$",
	},
	{
		"compress on, though no more gets through than before", "node/rpc/squeeze.go",
		"case through < s.before*gainPercent/100:", "case through < 0:", "node/rpc", "^TestSqueeze",
	},
	{
		"an unbounded queue: let any number of operations wait for their turn", "node/admission/limiter.go",
		"	if waiting+w > int64(l.bounds.Queue) {", "	if waiting+w < 0 {", "node/admission", "^TestQueueIsBounded$",
	},
	{
		"shed after the work was done: ask for room once a write has been made", "node/admission/gate.go",
		"	t, err := g.enter(ctx, Writes, 1, r.Deadline)\n	if err != nil {\n		return coord.WriteResponse{}, err\n	}\n	defer t.Release()\n	return g.kv.Put(context.WithoutCancel(ctx), r)",
		"	w, err := g.kv.Put(ctx, r)\n	t, full := g.enter(ctx, Writes, 1, r.Deadline)\n	if full != nil {\n		return coord.WriteResponse{}, full\n	}\n	defer t.Release()\n	return w, err",
		"node/admission", "^TestRefusedBeforeAnyWork$",
	},
}
