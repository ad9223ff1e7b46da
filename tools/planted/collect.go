package main

// collectBugs are those of what owners confirm and collect.
var collectBugs = []bug{
	{
		"collect what all owners have had and not all know to have had", "node/replica/span.go",
		"sweep := release && !c.Within(to.released)",
		"sweep := !c.Within(to.released)", "node/replica", "^Test(Collect|Model)$",
	},
	{
		"take in again what was deleted and collected", "node/replica/merge.go",
		"causal.JoinUnder(&before.object, &it.incoming, c, it.lww)",
		"causal.JoinUnder(&before.object, &it.incoming, &nothing, it.lww)", "node/replica", "^Test(Stripped|Model)$",
	},
	{
		"keep what lost to a delete that was collected, if the context covers that", "coord/causal/confirmed.go",
		"if c.Seen.Covers(s.Dot) && !held.Has(s.Dot) && (winner", "if lacks(held, s, c) && (winner", "coord/causal", "^TestLoserGoesWithItsWinner$",
	},
	{
		"acknowledge a merge of which something was left out", "node/replica/merge.go",
		"it.stripped = stripped && it.record == nil",
		"it.stripped = stripped && it.record == nil && false", "node/replica", "^TestStripped$",
	},
	{
		"write a merged delete without its entry in the index", "node/replica/merge.go",
		"m.entry = putIndex(b, m.entry, it.key, before, &it.object)",
		"m.entry = putIndex(new(engine.Batch), m.entry, it.key, before, &it.object)", "node/replica", "^TestModel$",
	},
	{
		"forget the clock of a delete that was collected", "node/replica/sweep.go",
		"		c.sp.floor.Store(c.floor)\n",
		"", "node/replica", "^TestForgottenClock$",
	},
	{
		"forget it at the next start", "node/replica/span.go",
		"			sp.floor.Store(floor)\n",
		"			_ = floor\n", "node/replica", "^TestForgottenClock$",
	},
	{
		"adopt before it is on disk", "node/replica/known.go",
		"	b.Set(spanKey(h.of)",
		"	h.sp.confirmed.Store(to.confirmed)\n	b.Set(spanKey(h.of)", "node/replica", "^TestAdopt",
	},
	{
		"adopt beside merges that do not know it", "node/replica/known.go",
		"	s.passLocks()\n	if sweep",
		"	if sweep", "node/replica", "^TestAdoptIsDurable$",
	},
	{
		"confirm of a tenant that has left a class what is confirmed of the others later", "node/replica/known.go",
		"	if err := h.part(); err != nil {\n		return err\n	}\n",
		"", "node/replica", "^TestOwnClassParts$",
	},
	{
		"keep what is known of such a tenant in memory only", "node/replica/known.go",
		"		b.Set(spanKey(o.of), appendSpan(nil, o.known.floor, o.known.confirmed, o.known.released))\n",
		"		b.Delete(spanKey(o.of))\n", "node/replica", "^TestOwnClassParts$",
	},
	{
		"have what was dropped of such a tenant count as had at the next start", "node/replica/drop.go",
		"		b.Set(spanKey(d.of), appendSpan(nil, 0, &nothing, &nothing))\n",
		"		b.Delete(spanKey(d.of))\n", "node/replica", "^TestDropOfAnOwnClass$",
	},
	{
		"collect of such a tenant what was released of the others", "node/replica/sweep.go",
		"if t, ok := c.s.opts.Tenant(tenantOf(k.key)); !ok || t.Class != c.of.Class {",
		"if _, ok := c.s.opts.Tenant(tenantOf(k.key)); !ok {", "node/replica", "^TestSweepWhileATenantLeaves$",
	},
	{
		"go by what is known of the others when damage took what was known of such a tenant", "node/replica/known.go",
		"		if !at.lost.Load() {\n",
		"		if true {\n", "node/replica", "^TestLostOwnClass$",
	},
	{
		"confirm a write that idempotency votes are open for", "node/replica/votes.go",
		"Counter: counter - 1}",
		"Counter: counter}", "node/replica", "^TestOpenVotes$",
	},
	{
		"forget open votes at a restart", "node/replica/votes.go",
		"		if r.Applied || !isRecordKey(it.Key()) {",
		"		if !r.Applied || !isRecordKey(it.Key()) {", "node/replica", "^TestOpenVotes$",
	},
	{
		"collect a delete that hides what not all owners have had", "coord/causal/confirmed.go",
		"			d.stays = true // without w, u would win\n",
		"", "coord/causal", "^Test(Shadow|SettledLaws)$",
	},
	{
		"cut down contexts by what is confirmed", "coord/causal/confirmed.go",
		"	out := o.Remaining(c, lww)\n",
		"	out := o.Remaining(c, lww)\n	var kept Context\n	for _, d := range out.Context {\n		used := false\n		for i := range out.Siblings {\n			used = used || out.Siblings[i].Dot.Actor == d.Actor\n		}\n		if used || !c.Seen.Covers(d) {\n			kept = append(kept, d)\n		}\n	}\n	out.Context = kept\n", "coord/causal", "^TestContextsStay$",
	},
}
