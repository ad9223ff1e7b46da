package main

func init() { bugs = append(bugs, ringBugs...) }

const (
	model     = "gossip/ring/ringmodel"
	scripts   = "^TestScripts$"
	schedules = "^(TestScripts|TestEachRuleIsMissed|TestSchedules)$"
)

// ringBugs are those of the log that changes the layout, and of what is decided by it.
var ringBugs = []bug{
	{
		"in the ring, commit a change when nobody has fetched anything", "gossip/ring/change.go",
		"if report(n.ID).Synced < c.ProposedAt && s.gainsAny(n.ID, &factors) {", "if false && s.gainsAny(n.ID, &factors) {", model, scripts,
	},
	{
		"in the ring, commit a change that the voters to be have not heard of", "gossip/ring/change.go",
		"if acked < Majority(len(c.Next.voters)) {", "if acked < 0 {", model, scripts,
	},
	{
		"in the ring, let owners that stay when there are fewer fetch nothing", "gossip/ring/change.go",
		"return !l.IsOwner(id, p, rf) || len(c.Next.row(p, rf)) < len(l.row(p, rf))", "return !l.IsOwner(id, p, rf)", model, scripts,
	},
	{
		"in the ring, finalise a change that old owners have not heard of", "gossip/ring/change.go",
		"if known < Meeting(len(row)) {", "if known < 0 {", model, scripts,
	},
	{
		"in the ring, have one old owner too few know of COMMIT", "gossip/ring/change.go",
		"func Meeting(n int) int { return n - n/2 }", "func Meeting(n int) int { return n - n/2 - 1 }", model, schedules,
	},
	{
		"in the ring, read the old owners after COMMIT", "gossip/ring/change.go",
		"\tif c.Stage == Committed {\n\t\tfirst, second = second, first\n\t}\n", "", model, schedules,
	},
	{
		"in the ring, read the new owners before COMMIT", "gossip/ring/change.go",
		"\tif c.Stage == Committed {\n\t\tfirst, second = second, first\n\t}\n", "\tfirst, second = second, first\n", model, schedules,
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
