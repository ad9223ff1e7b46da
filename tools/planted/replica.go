package main

// replicaBugs are those of what a replica calls written, and counts in its range sums.
var replicaBugs = []bug{
	{
		"acknowledge a write before it is synced", "node/replica/sync.go",
		"if s.opts.Engine.DurableSeq() >= seq {\n		done(nil)", "if seq > 0 || true {\n		done(nil)", "node/replica", ".",
	},
	{
		"show a read what is not synced yet", "node/replica/replica.go",
		"case s.opts.Engine.DurableSeq() >= seq:\n		done(b, nil)", "case seq > 0:\n		done(b, nil)", "node/replica", ".",
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
}
