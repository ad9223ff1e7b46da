package main

const healing = "^TestRepairSimulation$"

// healBugs are those of replicas that heal, and of what they collect.
var healBugs = []bug{
	{
		"drop deletes by a timer", "node/replica/sweep.go",
		"	left := o.Settled(c.released, k.lww)\n",
		"	old := *c.released\n	for i := range o.Siblings {\n		if t := &o.Siblings[i]; t.Tombstone() && t.WrittenAt().UnixMilli()+1000 < c.s.opts.Records.now().UnixMilli() {\n			old.Seen = causal.JoinContext(old.Seen, causal.Context{t.Dot})\n		}\n	}\n	left := o.Settled(&old, k.lww)\n",
		"coord", "^TestKeptSimulations$",
	},
	{
		"leave deletes out of the sums", "node/replica/sums/leaf.go",
		"	var b [32]byte\n	copy(b[:], h[:])\n", "	if s.Tombstone() {\n		return repair.Sum{}\n	}\n	var b [32]byte\n	copy(b[:], h[:])\n",
		"coord", healing,
	},
	{
		"compare all of the ring but the tokens of the last partition", "coord/repair/tell.go",
		"		return first, ^ring.Token(0)\n", "		return first, first\n",
		"coord/repair", "^TestTokens$",
	},
	{
		"leave what a sweep collects in the sums", "node/replica/sweep.go",
		"		c.s.count(ch.key, &ch.before, &ch.after, seq, err)\n", "		_, _ = ch, seq\n",
		"coord", healing,
	},
	{
		"leave what peers send out of the sums", "node/replica/merge.go",
		"			m.s.count(it.key, &m.items[it.first].before.object, &it.object, seq, err)\n", "",
		"coord", healing,
	},
	{
		"confirm what was drawn when the round had waited, too", "coord/repair/confirm.go",
		"	c.Seen = horizonOf(first)\n", "	c.Seen = horizonOf(second)\n",
		"coord", healing,
	},
	{
		"confirm what has expired by the fastest clock", "coord/repair/confirm.go",
		"first[i].Now < c.Expired", "first[i].Now > c.Expired",
		"coord", healing,
	},
	{
		"confirm what an owner has never had, if what superseded it is under way", "coord/repair/plan.go",
		"				lacksOld = lacksOld || horizon.Covers(f.dot)\n", "",
		"coord/repair", "^TestPlanTellsWhatIsGone$",
	},
}
