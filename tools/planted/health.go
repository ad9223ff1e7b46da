package main

// healthBugs are those of peers and disks that are slow or silent.
var healthBugs = []bug{
	{
		"take a node for dead that only gossip does not hear", "coord/unit.go",
		"c.opts.Linked(id) {", "c.opts.Linked(id) && false {", "coord", "^TestDeadButLinked$",
	},
	{
		"count the answer to a hedge twice", "coord/read.go",
		"		case hasAnswered:\n			answers |= 1 << i\n", "		case hasAnswered:\n			answers |= 1 << i\n			if r.mu.hedged>>i&1 == 1 {\n				answers = ^uint16(0)\n			}\n", "coord", "^TestHedge",
	},
	{
		"never close a breaker", "coord/peerhealth/breaker.go",
		"	if b.state != Open && b.state != HalfOpen {\n		return false\n	}\n	b.close(now)\n", "	if b.state < Closed {\n		b.close(now)\n	}\n", "coord/peerhealth", "^TestOpensAndRecovers$",
	},
	{
		"blame peers for what is overdue because this node was stopped", "coord/peerhealth/breaker.go",
		"	case paused:\n", "	case paused && step < 0:\n", "coord/peerhealth", "^TestOwnPause$",
	},
	{
		"hedge whatever it costs", "coord/health.go",
		"if !free && !c.health.hedges.Take() {", "if !free && c.health.hedges == nil {", "coord", "^TestHedgesHaveABudget$",
	},
	{
		"mint a write though nothing gets to this node's disk", "coord/health.go",
		"if !disk.Shut() || j.kind.reads() || j.forwarded {", "if !disk.Shut() || j.kind.reads() || !j.forwarded {", "coord", "^TestOwnDiskHangs$",
	},
	{
		"let whoever waits for a disk that hangs go on waiting", "node/replica/sync.go",
		"	q.mu.group, q.mu.waiting = nil, nil\n", "	failed = nil\n", "node/replica", ".",
	},
	{
		"take a disk back only when the process starts again", "engine/stalled.go",
		"r.out, r.trial = false, now.Add(trialFactor*r.slow)", "r.trial = now.Add(trialFactor*r.slow)", "engine", "^TestStallRule$",
	},
	{
		"take a disk that is slow each time back each time", "engine/stalled.go",
		"			r.pause = r.slow\n", "", "engine", "^TestStallRule$",
	},
	{
		"ask an owner first that has withdrawn", "coord/unit.go",
		" && !m.Withdrawn && ", " && ", "coord", "^TestOrderOfOwners$",
	},
}
