package main

// onceBugs are those of idempotency keys and conditions: what a retry may do.
var onceBugs = []bug{
	{
		"let an owner change its vote", "node/replica/record.go",
		"!old.GivesWay(r) {", "old.Applied {", "coord", simulation,
	},
	{
		"ask one owner only about an idempotency key", "coord/once.go",
		"return o.mu.u.meeting()", "return o.mu.u.read(quorum.One)", "coord", simulation,
	},
	{
		"be content with one vote", "coord/once.go",
		"return o.mu.u.written(min(o.job.level, quorum.Quorum))", "return o.mu.u.written(quorum.One)", "coord", simulation,
	},
	{
		"drop idempotency records that owners may be voting about", "node/replica/recordspace.go",
		"	young := slotOf(now.Add(coord.RecordLife - youngRecord).UnixMilli())\n	for t.bytes", "	young := slotOf(now.Add(coord.RecordLife + youngRecord).UnixMilli())\n	for t.bytes", "node/replica", ".",
	},
	{
		"write an idempotency record apart from its write, and first", "node/replica/merge.go",
		"			b.Set(it.recordKey, m.value)\n", "			first := new(engine.Batch)\n			first.Set(it.recordKey, m.value)\n			if _, err := m.s.apply(first, false); err != nil {\n				return 0, err\n			}\n", "node/replica", ".",
	},
	{
		"judge a condition by the minter's copy alone", "coord/condition.go",
		"func (r *request) looks() bool { return r.cond&(ifAbsent|ifMatch|ifDot) != 0 }", "func (r *request) looks() bool { return false }", "coord", expiry,
	},
	{
		"refuse a retry for what its own first attempt has written", "coord/once.go",
		"case e.Code == errcode.PreconditionFailed && o.mu.refused == nil:", "case false && o.mu.refused == nil:", "coord", expiry,
	},
	{
		"give a retry a new expiry", "coord/onceapply.go",
		"	r := *agreed\n", "	r := *agreed\n	r.ExpiresAt, _ = o.job.instant()\n", "coord", expiry,
	},
}
