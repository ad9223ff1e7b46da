package main

// damageBugs are those of damaged tables, and of partitions under quarantine.
var damageBugs = []bug{
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
}
