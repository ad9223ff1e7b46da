package main

// operationBugs are those of the operations of clients, but for retries.
var operationBugs = []bug{
	{
		"acknowledge a write at W-1", "coord/quorum/quorum.go",
		"return n/2 + 1", "return n / 2", "coord", simulation,
	},
	{
		"answer a read before the owners that lack it have it", "coord/readrepair.go",
		"			r.mu.sent |= 1 << i\n		default:\n", "			r.mu.sent |= 1 << i\n			r.mu.tally.Ack(i)\n		default:\n", "coord", simulation,
	},
	{
		"let the clock decide: no second mint by a stale minter", "coord/updatecount.go",
		"if v == quorum.Reached && o.blind()", "if false && o.blind()", "coord", simulation,
	},
	{
		"bind no context to its key", "coord/token.go",
		"	b = append(b, key...)\n", "", "coord", "Token|^TestScripts$",
	},
	{
		"acknowledge a write that was replaced before what replaced it wins", "coord/update.go",
		"if w := held.Winner(); w == nil || w.HLC <= o.mu.aboveHLC {", "if w := held.Winner(); w == nil {", "coord", "^TestScripts$",
	},
	{
		"take a write for overwritten though what replaced it loses to what was there before", "coord/updatecount.go",
		"if w := held.Winner(); w == nil || held.Saw(w, o.mu.dot) {", "if w := held.Winner(); w != nil || held.Saw(w, o.mu.dot) {", "coord", "^TestScripts$",
	},
	{
		"end the wait of a write for what replaced it, though what wins may have been there before", "coord/rivals.go",
		"case !goal.Met(v.lacked(s.Dot) | 1<<self):", "case len(v.told) > 99:", "coord", "^TestScripts$",
	},
	{
		"forget in a join what the winner has not seen", "coord/causal/join.go",
		"s.Past = o.past(winner, from)", "s.Past = nil", "coord/causal", "^TestSaw$",
	},
	{
		"give a token the clock of its write, not that of what it covers", "coord/updatecount.go",
		"max(o.mu.claimHLC, o.mu.aboveHLC)),", "max(o.mu.hlc, o.mu.aboveHLC)),", "coord", "^TestScripts$",
	},
	{
		"let the client's deadline end what owners still have to do", "coord/update.go",
		"m.Deadline = o.job.began.Add(c.opts.WriteTimeout)", "m.Deadline = o.job.deadline", "coord", ".",
	},
	{
		"hand out a context that covers siblings nobody was shown", "coord/update.go",
		"o.mu.claim = claim(&obj, seen, s.Dot)", "o.mu.claim = obj.Context", "coord", siblings,
	},
	{
		"strip the losers of a tenant that keeps siblings", "coord/update.go",
		"	switch {\n	case keep:\n		o.mu.claim", "	obj.StripLosers()\n	switch {\n	case keep:\n		o.mu.claim", "coord", siblings,
	},
	{
		"let a read take what has expired for gone, and mend it", "coord/read.go",
		"r.heard(q.i, round, answer{state: hasAnswered, object: &o, digest: o.Digest()})", "left, _ := unexpired(&o, 0, r.job.c.opts.Clock.Now())\n		r.heard(q.i, round, answer{state: hasAnswered, object: left, digest: left.Digest()})", "coord", "^TestScripts$|" + expiry,
	},
	{
		"show what owners of a scanned partition differ on", "coord/scanplan.go",
		"same = same && *digest == e.digest", "_ = digest", "coord", scans,
	},
	{
		"go on with a scan behind where one of the owners ended", "coord/scanplan.go",
		"reach == nil || r.Compare(reach) < 0", "reach == nil || r.Compare(reach) > 0", "coord", scans,
	},
	{
		"bind no page token to its scan", "coord/pagetoken.go",
		"		b = append(b, part...)\n", "", "coord", "PageToken|^TestScripts$",
	},
}
