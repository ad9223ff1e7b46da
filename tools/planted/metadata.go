package main

// metadataBugs are those of the actors that name writes, and of the log that a node keeps of its cluster.
var metadataBugs = []bug{
	{
		"go on with the actor of the start before, from the disk: dots are used again", "gossip/meta/load.go",
		"			c.inc = binary.BigEndian.Uint64(b)\n", "			c.inc, c.actor = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])\n", "coord", simulation,
	},
	{
		"make the actor of the node's id and its count of starts: dots are used again after a disk was set back or cloned", "gossip/meta/core.go",
		"c.actor = binary.BigEndian.Uint64(b[:])", "c.actor = binary.BigEndian.Uint64(c.self[:]) + c.inc", "coord", forgetful,
	},
	{
		"the same, of its name: dots are used again after a wipe", "gossip/meta/core.go",
		"c.actor = binary.BigEndian.Uint64(b[:])", "c.actor = uint64(c.info.Name[0])<<32 + c.inc + 0*binary.BigEndian.Uint64(b[:])", "gossip/meta", ".",
	},
	{
		"announce an actor whose start could not be written down", "gossip/meta/core.go",
		"	return c.write(records)\n", "	_ = c.store.Write(records)\n	return nil\n", "gossip/meta", ".",
	},
	{
		"announce an actor before its start is written down, with the next change", "gossip/meta/core.go",
		"	return c.write(records)\n", "	if len(records) == 2 {\n		return nil\n	}\n	return c.write(records)\n", "gossip/meta", ".",
	},
	{
		"announce an actor before its start is synced", "gossip/badger.go",
		"WithSyncWrites(true)", "WithSyncWrites(false)", "cmd/pairdb/e2e", "^TestPowerCutAfterAStart$",
	},
	{
		"make a new node of one whose metadata is gone and whose data is there", "gossip/meta/damage.go",
		" || hasData ||", " ||", "gossip/meta", "^TestStoreGone$",
	},
	{
		"found another cluster where the log is damaged", "gossip/meta/found.go",
		"	if c.Founded() || c.floor > 0 {\n		return nil //", "	if c.Founded() {\n		return nil //", "gossip/meta", "^TestAnyRecordLost$",
	},
	{
		"serve before the log is fetched again", "gossip/meta/core.go",
		"return c.ready && c.state.Version() >= c.floor", "return c.ready", "gossip/meta", "^TestLogIsFetchedAgain$",
	},
	{
		"vote again in the slot of a promise that is lost", "gossip/meta/vote.go",
		"slot <= c.abstain || ", "", "gossip/meta", "^TestForgottenVotesAreNotCast$",
	},
	{
		"trim the log without a snapshot that is durable", "gossip/meta/trim.go",
		"err := c.writeBase(h, encoded, nil); err != nil", "err := error(nil); err != nil", "gossip/meta", "^TestLogIsTrimmed$",
	},
	{
		"take a snapshot of the log that is older than the log", "gossip/meta/trim.go",
		"if h.version <= c.state.Version() {", "if h.version == 0 {", "gossip/meta", "^TestSnapshotIsRefused$",
	},
	{
		"take the snapshot of another cluster's log", "gossip/meta/trim.go",
		"	case own != id:\n", "	case own != id && c.fatal != nil:\n", "gossip/meta", "^TestSnapshotIsRefused$",
	},
	{
		"say of a proposal in entries that were skipped that it was not made", "gossip/meta/propose.go",
		"pr.result == nil && pr.spoken {", "pr.result == nil && pr.spoken && c.fatal != nil {", "gossip/meta", "^TestProposalInSkippedEntries$",
	},
	{
		"hold a log that was fetched again against nothing, if a snapshot stands for it", "gossip/meta/trim.go",
		"case state.Version() == c.floor && t.base.log != c.floorLog:", "case state.Version() == c.floor && t.base.log == 0:", "gossip/meta", "^TestTrimmedLogOfAnother$",
	},
}
