package main

const (
	model     = "gossip/ring/ringmodel"
	scripts   = "^TestScripts$"
	schedules = "^(TestScripts|TestEachRuleIsMissed|TestSchedules)$"
)

// ringBugs are those of the log that changes the layout, and of what is decided by it.
var ringBugs = []bug{
	{
		"in the ring, commit a change when nobody has fetched anything", "gossip/ring/change.go",
		"if report(n.ID).Synced < c.ProposedAt && s.gainsAny(n.ID, copies) {", "if false && s.gainsAny(n.ID, copies) {", model, scripts,
	},
	{
		"in the ring, commit a change that the voters to be have not heard of", "gossip/ring/change.go",
		"if acked < Majority(len(c.Next.voters)) {", "if acked < 0 {", model, scripts,
	},
	{
		"in the ring, let owners that stay when there are fewer fetch nothing", "gossip/ring/change.go",
		"return !l.IsOwner(id, p, n.From) || len(c.Next.row(p, n.To)) < len(l.row(p, n.From))", "return !l.IsOwner(id, p, n.From)", model, scripts,
	},
	{
		"in the ring, finalise a change that old owners have not heard of", "gossip/ring/change.go",
		"if known < min(Meeting(len(row)), left) {", "if known < 0 {", model, scripts,
	},
	{
		"in the ring, have one old owner too few know of COMMIT", "gossip/ring/change.go",
		"func Meeting(n int) int { return n - n/2 }", "func Meeting(n int) int { return n - n/2 - 1 }", model, schedules,
	},
	{
		"in the ring, read the old owners after COMMIT", "gossip/ring/change.go",
		"\tif c.Stage == Committed {\n\t\tfirst, second = second, first\n\t\tn.From, n.To = n.To, n.From\n\t}\n", "", model, schedules,
	},
	{
		"in the ring, read the new owners before COMMIT", "gossip/ring/change.go",
		"\tif c.Stage == Committed {\n\t\tfirst, second = second, first\n\t\tn.From, n.To = n.To, n.From\n\t}\n", "\tfirst, second = second, first\n\tn.From, n.To = n.To, n.From\n", model, schedules,
	},
	{
		"in the ring, write the new owners only", "gossip/ring/change.go",
		"\ts.W1, s.W2 = a, b\n", "\ts.W1, s.W2 = b, 0\n", model, schedules,
	},
	{
		"in the ring, retire a leaver that holds what nobody else has", "gossip/ring/change.go",
		"s.outside[i].Leaving && report(id).Clean >= s.outside[i].Since", "s.outside[i].Leaving", model, scripts,
	},
	{
		"in the ring, call a partition clean while a node that lost it is not", "gossip/ring/change.go",
		"!s.layout.IsOwner(n.ID, p, rf) && report(n.ID).Clean < pv {", "!s.layout.IsOwner(n.ID, p, rf) && report(n.ID).Clean < 0 {", model, scripts,
	},
	{
		"in the ring, leave the version of a partition as it is at COMMIT", "gossip/ring/state.go",
		"n.change, n.layout = &next, n.layout.withPV(c.touched, e.Version)", "n.change = &next", model, schedules,
	},
	{
		"in the ring, leave the version of a partition as it is at ABORT", "gossip/ring/state.go",
		"n.change, n.layout = nil, n.layout.withPV(c.touched, e.Version)\n\t\t\tn.settleOutside(c.Next", "n.change = nil\n\t\t\tn.settleOutside(c.Next", model, schedules,
	},
	{
		"in the ring, leave the version of a partition as it is at FINALIZE", "gossip/ring/state.go",
		"n.change, n.layout = nil, next.withPV(c.touched, e.Version)", "n.change, n.layout = nil, &next", model, schedules,
	},
	{
		"in the ring, give a tenant as many new owners as it had old ones", "gossip/ring/change.go",
		"range second.row(p, n.To)", "range second.row(p, n.From)", "gossip/ring", "^TestQuorumsMeetForAllFactors$",
	},
	{
		"in the ring, leave the version of partitions as it is though a class splits", "gossip/ring/state.go",
		"\t\t\tc.touched[part] = true\n", "\t\t\t_ = part\n", "gossip/ring", "^TestFactorChanges$",
	},
	{
		"in the ring, leave a tenant in its class though its replication factor changes", "gossip/ring/tenants.go",
		"\t\t\tt.Born = t.RF\n", "\t\t\tt.Born = 0\n", "gossip/ring", "^TestFactorChanges$",
	},
	{
		"in the ring, give up who alone has the data of a tenant that gets more copies", "gossip/ring/intent.go",
		"return n.From == n.To })\n\treturn s.checkSources(s.layout", "return true })\n\treturn s.checkSources(s.layout", "gossip/ring", "^TestSourcesOfAFactorChange$",
	},
	{
		"in the ring, open what was wanted of a deleted tenant again", "gossip/ring/state.go",
		"return s.Deleted(i.Tenant) })", "return false })", "gossip/ring", "^TestDeleteInAnOpenChange$",
	},
	{
		"in a snapshot of the log, refuse partitions that an abort has touched", "gossip/ring/statecodec.go",
		"decodeLayout(b, s.version); err", "decodeLayout(b, 0); err", "gossip/ring", "^TestStateAndTailAreTheLog$",
	},
	{
		"in a snapshot of the log, forget that a joiner was turned away by nobody's will", "gossip/ring/statecodec.go",
		"	case o.Reopened:\n		dst = append(dst, outsiderReopened)\n", "", "gossip/ring", "^TestStateAndTailAreTheLog$",
	},
	{
		"in a vote, promise less than was promised", "gossip/ring/votes.go",
		"\tif b.Compare(r.Promised) < 0 {\n\t\treturn r, ErrOutbid\n\t}\n\tr.Promised, r.Accepted", "\tr.Promised, r.Accepted", model, schedules,
	},
	{
		"in a vote, propose one's own entry though another may be chosen", "gossip/ring/votes.go",
		"\t\tif ok && r.Accepted.Compare(best) > 0 {", "\t\tif false && ok && r.Accepted.Compare(best) > 0 {", model, schedules,
	},
	{
		"in a vote, take one vote too few for a majority", "gossip/ring/votes.go",
		"func Majority(n int) int { return n/2 + 1 }", "func Majority(n int) int { return max(1, n/2) }", model, schedules,
	},
}
