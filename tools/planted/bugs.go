package main

// bug is a change to one file that tests have to notice.
type bug struct {
	name string
	file string
	// old, which is in the file once, is replaced by bad.
	old, bad string
	// tests of pkg, a pattern, have to fail.
	pkg, tests string
}

const (
	simulation = "^TestSimulation$"
	siblings   = "^TestSiblingsSimulation$"
	scans      = "^TestSimulationOfScans$"
)

var bugs = []bug{
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
		"draw no new actor at a restart: dots are used again", "node/replica/replica.go",
		"causal.Dot{Actor: s.opts.Actor,", "causal.Dot{Actor: s.opts.Actor >> 32 << 32,", "coord", simulation,
	},
	{
		"acknowledge a write before it is synced", "node/replica/sync.go",
		"if s.opts.Engine.DurableSeq() >= seq {\n		done(nil)", "if seq > 0 || true {\n		done(nil)", "node/replica", ".",
	},
	{
		"show a read what is not synced yet", "node/replica/replica.go",
		"case s.opts.Engine.DurableSeq() >= seq:\n		done(b, nil)", "case seq > 0:\n		done(b, nil)", "node/replica", ".",
	},
	{
		"bind no context to its key", "coord/token.go",
		"	h.Write(key)\n", "", "coord", "Token|^TestScripts$",
	},
	{
		"give a token the clock of its write, not that of what it covers", "coord/updatecount.go",
		"max(o.mu.claimHLC, o.mu.aboveHLC)),", "max(o.mu.hlc, o.mu.aboveHLC)),", "coord", "^TestScripts$",
	},
	{
		"drop idempotency records that owners may be voting about", "node/replica/recordspace.go",
		"	young := slotOf(now.Add(coord.RecordLife - youngRecord).UnixMilli())\n	for t.bytes", "	young := slotOf(now.Add(coord.RecordLife + youngRecord).UnixMilli())\n	for t.bytes", "node/replica", ".",
	},
	{
		"let the client's deadline end what owners still have to do", "coord/update.go",
		"m.Deadline = o.job.began.Add(c.opts.WriteTimeout)", "m.Deadline = o.job.deadline", "coord", ".",
	},
	{
		"write an idempotency record apart from its write, and first", "node/replica/merge.go",
		"			b.Set(it.recordKey, *vb)\n", "			first := new(engine.Batch)\n			first.Set(it.recordKey, *vb)\n			if _, err := m.s.apply(first, false); err != nil {\n				return 0, err\n			}\n", "node/replica", ".",
	},
	{
		"let an owner change its vote", "node/replica/record.go",
		"!old.GivesWay(r) {", "old.Applied {", "coord", simulation,
	},
	{
		"ask one owner only about an idempotency key", "coord/once.go",
		"return len(o.mu.u.owners) - o.votes() + 1", "return 1", "coord", simulation,
	},
	{
		"be content with one vote", "coord/once.go",
		"return quorum.Need(min(o.job.level, quorum.Quorum), len(o.mu.u.owners))", "return 1", "coord", simulation,
	},
	{
		"hand out a context that covers siblings nobody was shown", "coord/update.go",
		"o.mu.claim = claim(&obj, seen, s.Dot)", "o.mu.claim = obj.Context", "coord", siblings,
	},
	{
		"strip the losers of a tenant that keeps siblings", "coord/update.go",
		"	if !keep {\n		obj.StripLosers()\n	} else {", "	obj.StripLosers()\n	if keep {", "coord", siblings,
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
		"		h.Write(part)\n", "", "coord", "PageToken|^TestScripts$",
	},
	{
		"show a scan what is not synced yet", "node/replica/scan.go",
		"		seq = max(seq, it.Seq())\n", "", "node/replica", ".",
	},
}
