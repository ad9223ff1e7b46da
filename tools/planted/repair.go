package main

// repairBugs are those of the rounds that keep owners equal.
var repairBugs = []bug{
	{
		"in a round, skip the last of the ranges", "coord/repair/compare.go",
		"\t\tfor x := range parts {\n\t\t\tif parts[x].mask != 0 {", "\t\tfor x := range parts[:len(parts)-1] {\n\t\t\tif parts[x].mask != 0 {", "coord/repair", "^(TestLastToken)$",
	},
	{
		"in a round, leave out deletes that are not confirmed", "coord/repair/plan.go",
		"\t\t\tif agreed.Collectable(&views[i].object.Siblings[k]) {", "\t\t\tif views[i].object.Siblings[k].Tombstone() {", "coord/repair", "^(TestRoundMakesOwnersEqual)$",
	},
	{
		"confirm what is equal at the owners that are there", "coord/repair/round.go",
		"\t\tcase !j.complete():\n\t\t\tj.fail(endPartial, r.away(j))\n", "", "coord/repair", "^(TestOwnerAway)$",
	},
	{
		"confirm dots that were drawn after the round had begun", "coord/repair/confirm.go",
		"\t\tif !mints(first, d.Actor) {", "\t\tif true {", "coord/repair", "^(TestConfirm)$",
	},
	{
		"confirm what the owners have when it ends", "coord/repair/round.go",
		"confirm(j.first, j.second, &j.agreed)", "confirm(j.second, j.second, &j.agreed)", "coord/repair", "^(TestConfirmWhatBegan)$",
	},
	{
		"acknowledge what was adopted though the ring has moved meanwhile", "coord/repair/ledger.go",
		"\t\treturn s.admit(it, fenced)\n", "\t\treturn nil\n", "coord/repair", "^(TestAdoptIsOvertakenByTheRing)$",
	},
	{
		"confirm dots above an open vote", "coord/repair/confirm.go",
		"\t\t\t\td.Counter = min(d.Counter, vote.Counter)\n", "", "coord/repair", "^(TestConfirm|TestVotesHoldBackConfirmation)$",
	},
	{
		"take for lost by an owner what a quarantined one has lost", "coord/repair/plan.go",
		"v.object.Context.Covers(d) || v.vouches && seen.Covers(d)", "v.object.Context.Covers(d) || seen.Covers(d)", "coord/repair", "^(TestPlanConfirmed|TestRefetch)$",
	},
	{
		"remove what an owner has nothing of", "coord/repair/plan.go",
		"\t\treturn verdict{damaged: true}\n", "\t\treturn v\n", "coord/repair", "^(TestPlanConfirmed|TestDamageIsLeft)$",
	},
	{
		"tell of a partition under quarantine", "coord/repair/service.go",
		"\tcase s.opts.Quarantined(it.Partition):\n\t\treturn errQuarantined\n", "", "coord/repair", "^(TestQuarantineVoidsRound)$",
	},
	{
		"fetch a partition again from too few owners", "coord/repair/round.go",
		"j.need = r.view.Sources(j.owners)", "j.need = min(len(j.owners), 1)", "coord/repair", "^(TestRefetchNeedsOwners)$",
	},
	{
		"take a frame that lay in a stopped process for a new one's", "coord/repair/session.go",
		"\t\ts.mu.pauses++\n", "", "coord/repair", "^(TestPauseIsAnotherSession)$",
	},
	{
		"compare everybody's data after one tenant's replication factor was changed", "coord/repair/manager.go",
		"if all || m.moves(v, span) {", "if true {", "coord/repair", "^(TestFactorChanges)$",
	},
}
