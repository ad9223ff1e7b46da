package main

// hintsBugs are those of writes owed to nodes that are down.
var hintsBugs = []bug{
	{
		"count a hint as an acknowledgement", "coord/updatecount.go",
		"	o.job.c.hint(u, i, nil)\n	o.mu.Lock()\n	if round == o.mu.round {\n		o.mu.tally.Fail(i, reason)\n", "	o.job.c.hint(u, i, nil)\n	o.mu.Lock()\n	if round == o.mu.round {\n		o.mu.tally.Ack(i)\n", "coord", simulation,
	},
	{
		"make no hint for an owner that fails to answer", "coord/updatecount.go",
		"		// Whether it still counts or not.\n		o.job.c.hint(u, i, nil)\n", "", "coord", "Hint",
	},
	{
		"deliver a hint to another node if its target is no owner", "coord/hint.go",
		"i := u.index(target)", "i := max(u.index(target), 0)", "coord", "Deliver",
	},
	{
		"drop hints at a bound and say nothing", "hints/store.go",
		"	s.mu.dirty[partitionOf(key)] = struct{}{}\n", "", "hints", "Overflow",
	},
	{
		"take a hint away although another write came during its delivery", "hints/batch.go",
		"again := t.inFlight[key]", "again := false && t.inFlight[key]", "hints", "AWriteDuring",
	},
}
