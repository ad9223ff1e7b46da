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
	expiry     = "^TestTTLSimulation$"
	scans      = "^TestScanSimulation$"
	forgetful  = "^TestForgetfulSimulation$"
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
		"go on with the actor of the start before, from the disk: dots are used again", "gossip/meta/load.go",
		"			c.inc = binary.BigEndian.Uint64(b)\n", "			c.inc, c.actor = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])\n", "coord", simulation,
	},
	{
		"make the actor of the node's id and its count of starts: dots are used again after a disk was set back or cloned", "gossip/meta/core.go",
		"c.actor = binary.BigEndian.Uint64(b[:])", "c.actor = binary.BigEndian.Uint64(c.self[:]) + c.inc", "coord", forgetful,
	},
	{
		"the same, of its name: dots are used again after a wipe", "gossip/meta/core.go",
		"c.actor = binary.BigEndian.Uint64(b[:])", "c.actor = uint64(c.info.Name[0])<<32 + c.inc", "gossip/meta", ".",
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
		"take the data of a tenant that is not known for garbage", "node/replica/recordspace.go",
		"	if !isRecordKey(key) {\n		return false\n", "	if !isRecordKey(key) {\n		return s.tenants[tenantOf(key)] == nil\n", "node/replica", "^TestUnknownTenantsKeepTheirData$",
	},
	{
		"drop what comes for a tenant that is not known, and acknowledge it", "coord/peer.go",
		"		case verdict == fenceBehind:\n", "		case verdict == fenceBehind && t == nil:\n			f.reply(i, Reply{Status: StatusOK})\n		case verdict == fenceBehind:\n", "coord", "^TestUnknownTenantIsNotAcknowledged$",
	},
	{
		"have whoever asks for a deleted tenant catch up", "coord/peer.go",
		"	case !ok && s.Deleted(m.Tenant): // which nothing newer changes\n		return fenceDeleted, nil, false\n", "", "coord", "^TestDeletedTenantIsFinal$",
	},
	{
		"go on with an operation in another tenant that has the name by now", "coord/unit.go",
		"	if j.number != 0 && j.number != t.Number {\n", "	if j.number != 0 && j.number > t.Number {\n", "coord", "^TestTenantDeletedMeanwhile$",
	},
	{
		"go on with a scan by the class that the tenant had", "coord/scanpiece.go",
		"	s.ask.Class = u.Class\n", "", "coord", "^TestEverybodyCatchesUp$",
	},
	{
		"say that there is no such tenant though nobody was asked", "coord/unit.go",
		"if !ok && c.opts.Informed != nil && !c.opts.Informed() {", "if !ok && c.opts.Informed != nil && false {", "coord", "^TestTenantNobodyWasAskedAbout$",
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
	{
		"take a node for dead that only gossip does not hear", "coord/unit.go",
		"c.opts.Linked(id) {", "c.opts.Linked(id) && false {", "coord", "^TestDeadButLinked$",
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
		"	b = append(b, key...)\n", "", "coord", "Token|^TestScripts$",
	},
	{
		"begin a batch though two of its items have one key", "coord/batchcheck.go",
		"if i, k, ok := sameKey(requests); ok {", "if i, k, ok := sameKey(requests); ok && i == k {", "coord", "^TestBatch",
	},
	{
		"send what a batch has for a peer one by one", "coord/bundle.go",
		"	if b.mu.closed {", "	if b.mu.closed || len(m.Key) > 0 {", "coord", "^TestBatch",
	},
	{
		"keep all values that a batch has read, however large", "coord/batch.go",
		"if size > 0 && b.answer > 0 && b.answer+size > MaxBatchAnswer {", "if size < 0 {", "coord", "^TestBatch",
	},
	{
		"end a pipeline at a shutdown before what it has begun is answered", "node/rpc/pipeline.go",
		"p.mu.broken || p.mu.ended && p.mu.inFlight == 0", "p.mu.broken || p.mu.ended", "node/rpc", "^TestPipeline",
	},
	{
		"take an id of a pipeline again that is in flight", "node/rpc/pipelineitem.go",
		"if _, ok := p.mu.ids[id]; ok {", "if _, ok := p.mu.ids[id]; ok && id == 0 {", "node/rpc", "^TestPipeline",
	},
	{
		"queue for a peer without a bound in bytes", "node/rpc/peer.go",
		"o.items >= opts.MaxQueuedItems || (o.items > 0 && o.bytes+size > opts.MaxQueuedBytes):", "o.items >= opts.MaxQueuedItems:", "node/rpc", "^TestFullQueueRefuses$",
	},
	{
		"keep in the queue to a peer what has expired", "node/rpc/peer.go",
		"		if len(over) > 0 {\n", "		if len(over) < 0 {\n", "node/rpc", "^TestExpiredLeaveTheQueue$",
	},
	{
		"let the small lane of a link wait for what the large one holds", "node/rpc/frames.go",
		"s.mu.held[lane] >= s.fs.maxHeld[lane]", "s.mu.held[LaneLarge] >= s.fs.maxHeld[LaneLarge]", "node/rpc", "^TestLanesDoNotWaitForEachOther$",
	},
	{
		"compress on, though no more gets through than before", "node/rpc/squeeze.go",
		"case through < s.before*gainPercent/100:", "case through < 0:", "node/rpc", "^TestSqueeze",
	},
	{
		"send every request of a broken pipeline again, also a write that may have been done", "client/pipelinestream.go",
		"safe := !sent || mayMove && (untouched || q.kind != writes || e.Outcome == errcode.NotApplied)", "safe := true", "client", "^TestPipeline",
	},
	{
		"acknowledge a write that was replaced before what replaced it wins", "coord/update.go",
		"if w := held.Winner(); w == nil || w.HLC <= o.mu.aboveHLC {", "if w := held.Winner(); w == nil {", "coord", "^TestScripts$",
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
		"			b.Set(it.recordKey, m.value)\n", "			first := new(engine.Batch)\n			first.Set(it.recordKey, m.value)\n			if _, err := m.s.apply(first, false); err != nil {\n				return 0, err\n			}\n", "node/replica", ".",
	},
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
		"hand out a context that covers siblings nobody was shown", "coord/update.go",
		"o.mu.claim = claim(&obj, seen, s.Dot)", "o.mu.claim = obj.Context", "coord", siblings,
	},
	{
		"strip the losers of a tenant that keeps siblings", "coord/update.go",
		"	if !keep {\n		obj.StripLosers()\n	} else {", "	obj.StripLosers()\n	if keep {", "coord", siblings,
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
	{
		"let a read take what has expired for gone, and mend it", "coord/read.go",
		"r.heard(q.i, round, answer{state: hasAnswered, object: &o, digest: o.Digest()})", "left, _ := unexpired(&o, 0, r.job.c.opts.Clock.Now())\n		r.heard(q.i, round, answer{state: hasAnswered, object: left, digest: left.Digest()})", "coord", "^TestScripts$|" + expiry,
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
		"		b = append(b, part...)\n", "", "coord", "PageToken|^TestScripts$",
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
		"count no merge in the range sums", "node/replica/merge.go",
		"			m.s.count(it.key, &m.items[it.first].before.object, &it.object, seq, err)\n", "", "node/replica", "Sums",
	},
	{
		"leave out the last leaf of a range that is computed anew", "node/replica/sums/work.go",
		"for n = 0; first+n <= hi && n < limit", "for n = 0; first+n < max(hi, 1) && n < limit", "node/replica/sums", ".",
	},
	{
		"count in the range sums what the snapshot of their leaf has", "node/replica/sums/sums.go",
		"; seq > l.base {", "; seq > 0 {", "node/replica/sums", ".",
	},
	{
		"write a file of sums without waiting for who is about to count", "node/replica/sums/file.go",
		"	s.Drain()\n", "", "node/replica/sums", ".",
	},
	{
		"merge a delete away that the file of sums does not know", "engine/compaction/iter.go",
		"return it.opts.KeepDeletesAfter == 0 || ", "return true || ", "engine", "^TestKeysSince$",
	},
	{
		"show a scan what is not synced yet", "node/replica/scan.go",
		"		seq = max(seq, it.Seq())\n", "", "node/replica", ".",
	},
	{
		"hold a key's lock while its write is synced", "node/replica/replica.go",
		"	object, seq, err := s.update(&at, w, edit)\n",
		"	object, seq, err := s.update(&at, w, edit)\n	if err == nil {\n		_ = s.opts.Engine.WaitDurable(seq)\n	}\n", "cmd/pairdb/e2e", "^TestHotKeySharesSyncs$",
	},
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
		"write of a tenant that was deleted, if that was let through before", "node/replica/replica.go",
		"	if s.gone(at.Tenant) {\n",
		"	if false {\n", "node/replica", "^TestWritesOfADeletedTenant$",
	},
	{
		"leave what is known of the class of a tenant that was deleted", "node/replica/tenantdrop.go",
		"		if seq, err = s.apply(b, true); err == nil {\n",
		"		if err == nil {\n", "node/replica", "^TestDropTenant$",
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
		"	out := o.Remaining(c, lww)\n	out.Context = slices.DeleteFunc(slices.Clone(out.Context), func(d Dot) bool {\n		return c.Seen.Covers(d) && !slices.ContainsFunc(out.Siblings, func(s Sibling) bool { return s.Dot.Actor == d.Actor })\n	})\n", "coord/causal", "^TestContextsStay$",
	},
	{
		"let whoever waits for a disk that hangs go on waiting", "node/replica/sync.go",
		"	q.mu.group, q.mu.waiting = nil, nil\n", "	failed = nil\n", "node/replica", ".",
	},
	{
		"write what fails its checksum: blocks are not checked in a compaction", "engine/sstable/iter.go",
		"	payload, codec, err := r.verify(h, raw)\n	if err != nil {\n		return block{}, nil, err\n	}\n	// The block lives", "	payload, codec, _ := raw[:len(raw)-trailerSize], Codec(raw[len(raw)-trailerSize]), error(nil)\n	// The block lives", "engine", "^TestCompactionMeetsDamage$",
	},
	{
		"take a damaged table out of the version before the caller has noted it", "engine/quarantine.go",
		"	if err := db.opts.Salvage(lost); err != nil {\n		return fmt.Errorf(\"go on without %d tables: %w\", len(lost), err)\n	}\n", "	defer db.opts.Salvage(lost)\n", "engine", "^TestSalvage$",
	},
	{
		"remove the file of a damaged table", "engine/quarantine.go",
		"		if err := setAside(db.fs, db.dir, tableName(f.Num)); err != nil {\n			return err\n		}\n", "", "engine", "^TestCrashAtEveryCallOfQuarantine$",
	},
	{
		"read a partition whose copy is damaged", "node/replica/replica.go",
		"	if unsound := s.sound(p); unsound != nil {\n		return held{}, unsound\n	}\n", "", "node/replica", "^TestQuarantinedIsRefused$",
	},
	{
		"look at the marks of damage before the read, not after it", "node/replica/replica.go",
		"	b, seq, err := s.opts.Engine.GetSeq(nil, *kb)\n	var damage error\n	if err == nil {\n		b, damage = s.settle(*kb, b, s.confirmed(at.Partition, at.Class), at.LWW)\n	}\n	s.release(kb)\n	unsound := s.sound(at.Partition)\n",
		"	unsound := s.sound(at.Partition)\n	b, seq, err := s.opts.Engine.GetSeq(nil, *kb)\n	var damage error\n	if err == nil {\n		b, damage = s.settle(*kb, b, s.confirmed(at.Partition, at.Class), at.LWW)\n	}\n	s.release(kb)\n", "node/replica", "^TestMarkedAfterTheCheck$",
	},
	{
		"mark damage in memory only", "node/replica/marks.go",
		"	err = m.write()\n", "	err = nil\n", "node/replica", "^TestMarksSurvive$",
	},
	{
		"serve a partition of which more was lost while it was fetched", "node/replica/marks.go",
		"		if !m.Has(p) || m.held[p] > 0 || m.again[p] {\n", "		if !m.Has(p) {\n", "node/replica", "^TestMarksMetAgain$",
	},
	{
		"move a damaged engine aside before its partitions are marked", "node/replaceengine.go",
		"	// First, since an empty engine would deny everything.\n	if _, err := marks.Add(all); err != nil {\n		return \"\", err\n	}\n", "	defer marks.Add(all)\n", "node", "^TestEngineSetAsideAtEveryCall$",
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
	{
		"an unbounded queue: let any number of operations wait for their turn", "node/admission/limiter.go",
		"	if waiting+w > int64(l.bounds.Queue) {", "	if waiting+w < 0 {", "node/admission", "^TestQueueIsBounded$",
	},
	{
		"shed after the work was done: ask for room once a write has been made", "node/admission/gate.go",
		"	t, err := g.enter(ctx, Writes, 1, r.Deadline)\n	if err != nil {\n		return coord.WriteResponse{}, err\n	}\n	defer t.Release()\n	return g.kv.Put(context.WithoutCancel(ctx), r)",
		"	w, err := g.kv.Put(ctx, r)\n	t, full := g.enter(ctx, Writes, 1, r.Deadline)\n	if full != nil {\n		return coord.WriteResponse{}, full\n	}\n	defer t.Release()\n	return w, err",
		"node/admission", "^TestRefusedBeforeAnyWork$",
	},
	{
		"in the SDK, never use a node again that was silent", "client/health.go",
		"	case answered:\n		v.turn(fine)\n", "	case answered && false:\n		v.turn(fine)\n", "client", "^TestBackWithinSeconds$",
	},
	{
		"in the SDK, blame the nodes for a pause of its own", "client/watch.go",
		"return min(now.Sub(last), 2*lookEach)", "return now.Sub(last)", "client", "^TestOwnPause$",
	},
	{
		"in the SDK, hedge writes that have an idempotency key", "client/hedge.go",
		"k == reads && (cl == getClass || cl == multiGetClass)", "true", "client", "^TestWritesAreNotHedged$",
	},
	{
		"in the SDK, hedge whatever was hedged before", "client/hedge.go",
		"if !c.hedges.spend() {", "if false {", "client", "^TestHedgesHaveABudget$",
	},
	{
		"in the SDK, refuse nearly all once all was refused", "client/throttle.go",
		"random >= min(p, throttleMost)", "random >= p", "client", "^TestThrottle$",
	},
	{
		"count a hint as an acknowledgement", "coord/updatecount.go",
		"	o.job.c.hint(u, i, nil)\n	o.mu.Lock()\n	if round == o.mu.round {\n		o.mu.tally.Fail(i, reason)\n", "	o.job.c.hint(u, i, nil)\n	o.mu.Lock()\n	if round == o.mu.round {\n		o.mu.tally.Ack(i)\n", "coord", simulation,
	},
	{
		"make no hint for an owner that fails to answer", "coord/updatecount.go",
		"		// Whether it still counts or not.\n		o.job.c.hint(u, i, nil)\n", "", "coord", "Hint",
	},
	{
		"deliver a hint to another node if its target is no owner", "coord/hint.go",
		"i := u.index(target)", "i := max(u.index(target), 0)", "coord", "Deliver",
	},
	{
		"drop hints at a bound and say nothing", "hints/store.go",
		"	s.mu.dirty[partitionOf(key)] = struct{}{}\n", "", "hints", "Overflow",
	},
	{
		"take a hint away although another write came during its delivery", "hints/batch.go",
		"again := t.inFlight[key]", "again := false && t.inFlight[key]", "hints", "AWriteDuring",
	},
}

// realBugs are those that the gate's clusters of real processes show.
func realBugs() []bug {
	var found []bug
	for _, b := range bugs {
		switch b.name {
		case "acknowledge a write at W-1", "acknowledge a write before it is synced", "be content with one vote",
			"hand out a context that covers siblings nobody was shown", "strip the losers of a tenant that keeps siblings":
			b.pkg, b.tests = "cmd/pairdb/e2e", "^TestNemesis$"
			found = append(found, b)
		}
	}
	return found
}
