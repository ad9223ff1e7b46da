package ringmodel

// rule is one rule of the protocol. All are in force but where a test switches one
// off, to see that something notices.
type rule int

const (
	fence           rule = iota // a replica serves a request of its own version of the partition only
	sources                     // a gainer fetches from so many old owners that every quorum is met
	fencedSources               // a source knows of the change before it is read
	commitGuard                 // COMMIT waits for all that gain
	finalizeGuard               // FINALIZE waits until no quorum of old owners can be ignorant of COMMIT
	newVoters                   // COMMIT waits for a majority of the voters to be
	votersInForce               // who votes says the layout in force, not the one to be
	shrinkSync                  // with fewer owners to come those that stay are levelled, too
	jointReads                  // while owners move, both sets hold what a read returns
	writeBoth                   // while owners move, both sets are written
	seqSurvives                 // a node goes on counting its dots when it has dropped a range
	actorPerStart               // each start of a node is another actor
	pushFirst                   // a range is dropped when its owners have what was in it
	abortPush                   // ... also by those whose gain was aborted
	recheckDrop                 // ... and only if it is as it was when they were sent it
	retireGuard                 // a leaver is retired when it is clean
	cleanGate                   // nothing is confirmed while somebody else may hold something
	roundsRest                  // nothing is confirmed while owners move
	strip                       // what was confirmed and is not held is left out of what arrives
	stripRows                   // ... also of the rows of a round
	refuseStripped              // a write that was left out is not acknowledged, nor what a read writes back
	refuseFound                 // ... nor what a read found and was replaced here, if somebody may not have shown that
	inherit                     // a gainer learns what was confirmed, and before it serves
	gainerWhole                 // a gainer leaves nothing out before a source has told it what there is
	gainerSilent                // what a gainer holds is not read before COMMIT
	entryBytes                  // a voter accepts what it holds only
	uniqueBallots               // no two starts of a node use one ballot
	durableVotes                // a vote is on disk before it is spoken
	durableAck                  // a version is on disk before it is acknowledged
	freshTally                  // acknowledgements of another version do not count
	readRepair                  // a read returns what a quorum holds
	hintsDoNotCount             // a hint is no acknowledgement
	hintsFenced                 // a hint is fenced like a write
	restamp                     // a blind write goes above what its owners report
	fallBack                    // of a tenant that has left the others holds what was confirmed of all before
	copyOnWrite                 // ... and nothing that is confirmed of the others afterwards
	staysParted                 // ... also where it was dropped
	classFenced                 // a change of replication factors moves the versions of all partitions
	gainCopies                  // who gains is said by the replication factor that is to be
	adoptStands                 // what is adopted when the version has moved meanwhile is not acknowledged
	forgetDeleted               // a replica takes nothing of a tenant that was deleted
	freshNumbers                // a tenant that is made again has a number of its own
	ruleCount
)

func (r rule) String() string {
	return [ruleCount]string{
		"fence", "sources", "fenced sources", "commit guard", "finalize guard", "new voters", "voters in force", "shrink sync",
		"joint reads", "write both", "sequence survives", "actor per start", "push first", "abort push",
		"re-check before drop", "retire guard", "clean gate", "rounds rest", "strip", "strip rows", "refuse stripped",
		"refuse found", "inherit",
		"gainer whole", "gainer silent", "entry bytes", "unique ballots", "durable votes", "durable ack", "fresh tally",
		"read repair", "hints do not count", "hints fenced", "restamp",
		"fall back", "copy on write", "stays parted", "class fenced", "gain copies", "adopt stands", "forget deleted", "fresh numbers",
	}[r]
}

// ruleSet is the rules that are switched off.
type ruleSet uint64

func without(rs ...rule) (off ruleSet) {
	for _, r := range rs {
		off |= 1 << r
	}
	return off
}

func (off ruleSet) String() string {
	s := ""
	for r := range ruleCount {
		if off>>r&1 == 1 {
			s += " without " + r.String()
		}
	}
	return s
}

// in says whether a rule is in force.
func (w *world) in(r rule) bool { return w.off>>r&1 == 0 }
