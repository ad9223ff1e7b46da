package vfs

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// CrashMode says what of the unsynced changes a power cut leaves on the disk.
// Synced changes survive in every mode.
type CrashMode uint8

// The modes. "Pending" is what was not synced, in the order it was done.
const (
	// CrashDropUnsynced keeps nothing pending.
	CrashDropUnsynced CrashMode = iota
	// CrashKeepAll keeps everything.
	CrashKeepAll
	// CrashPrefix keeps a random prefix of all that is pending, over all
	// files and directories.
	CrashPrefix
	// CrashTorn512 and CrashTorn4K keep what was pending before a random
	// write, and that write up to a random 512 byte or 4 KiB boundary of its
	// file.
	CrashTorn512
	CrashTorn4K
	// CrashBlocks keeps all names and, of each 4 KiB block that was written
	// to, what it was after a random number of the writes; a block that never
	// reached the disk is what it was before, zeros if it did not exist.
	CrashBlocks
	// CrashSizeZero keeps all names and sizes and no pending bytes: new parts
	// of files read as zeros.
	CrashSizeZero
	// CrashSizeGarbage is CrashSizeZero with random bytes in place of the
	// zeros in every block that was written to for the first time.
	CrashSizeGarbage
	// CrashNamesOnly keeps all names and no pending bytes or sizes.
	CrashNamesOnly
	// CrashDataOnly keeps all bytes and sizes and no pending names.
	CrashDataOnly
	// CrashReordered keeps, of each file and each directory on its own, a
	// random prefix of what is pending, so that renames in different
	// directories swap places. A file renamed between directories keeps at
	// least one of the names.
	CrashReordered

	crashModes
)

var crashNames = [crashModes]string{
	"drop-unsynced", "keep-all", "prefix", "torn-512", "torn-4k", "blocks",
	"size-zero", "size-garbage", "names-only", "data-only", "reordered",
}

// String returns the mode's name, for the names of subtests.
func (m CrashMode) String() string {
	if m < crashModes {
		return crashNames[m]
	}
	return fmt.Sprintf("crash(%d)", uint8(m))
}

// CrashModes returns every mode.
func CrashModes() []CrashMode {
	modes := make([]CrashMode, crashModes)
	for i := range modes {
		modes[i] = CrashMode(i)
	}
	return modes
}

// Crash returns the disk as a power cut at this moment would leave it. m itself
// stays as it is, open files included, and the two share nothing that either
// can change. The result has m's limit, no locks and nothing pending. The same
// history, mode and state of rng give the same disk. It costs the number of
// files and what is pending, not the bytes stored.
func (m *MemFS) Crash(mode CrashMode, rng *rand.Rand) *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{
		mode: mode, rng: rng, cut: ^uint64(0),
		from:  m,
		to:    &MemFS{locks: map[string]int{}, limit: m.limit},
		dirs:  map[*memDir]*memDir{},
		files: map[*inode]*inode{},
		names: map[*memDir]map[string]node{},
		bytes: map[*inode]content{},
	}
	c.collect()
	c.plan()
	c.to.root = c.copyDir(m.root)
	for _, ino := range c.files {
		c.to.used += ino.live.size
	}
	c.to.seq = m.seq
	return c.to
}

// crash is the state of one Crash.
type crash struct {
	mode     CrashMode
	rng      *rand.Rand
	from, to *MemFS

	// What is reachable in any outcome, by id, so that the order of draws
	// from rng does not depend on the order of maps.
	allDirs  []*memDir
	allFiles []*inode

	// What the modes decide: the last change kept of a global prefix, the
	// write torn and how much of it stays.
	cut, torn uint64
	tornLen   int

	names map[*memDir]map[string]node // the surviving names
	bytes map[*inode]content          // the surviving bytes
	dirs  map[*memDir]*memDir         // the copies
	files map[*inode]*inode
}

// collect finds every directory and file that can have a name after the crash.
func (c *crash) collect() {
	seen := map[node]bool{}
	var visit func(n node)
	visit = func(n node) {
		if seen[n] {
			return
		}
		seen[n] = true
		switch n := n.(type) {
		case *inode:
			c.allFiles = append(c.allFiles, n)
		case *memDir:
			c.allDirs = append(c.allDirs, n)
			for _, sub := range n.synced {
				visit(sub)
			}
			for i := range n.pending {
				if op := &n.pending[i]; op.add != "" {
					visit(op.to)
				}
			}
		}
	}
	visit(c.from.root)
	slices.SortFunc(c.allDirs, func(a, b *memDir) int { return cmp.Compare(a.id, b.id) })
	slices.SortFunc(c.allFiles, func(a, b *inode) int { return cmp.Compare(a.id, b.id) })
}

// plan decides what survives.
func (c *crash) plan() {
	switch c.mode {
	case CrashPrefix:
		c.planPrefix()
	case CrashTorn512:
		c.planTorn(512)
	case CrashTorn4K:
		c.planTorn(pageSize)
	}
	for _, d := range c.allDirs {
		c.names[d] = c.survivingNames(d)
	}
	if c.mode == CrashReordered {
		c.keepRenamed()
	}
	for _, ino := range c.allFiles {
		c.bytes[ino] = c.survivingBytes(ino)
	}
}

// planPrefix draws the last pending change that is kept.
func (c *crash) planPrefix() {
	seqs := []uint64{0}
	for _, d := range c.allDirs {
		for i := range d.pending {
			seqs = append(seqs, d.pending[i].seq)
		}
	}
	for _, ino := range c.allFiles {
		for i := range ino.pending {
			seqs = append(seqs, ino.pending[i].seq)
		}
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs) // the halves of a rename
	c.cut = seqs[c.rng.IntN(len(seqs))]
}

// planTorn draws the write that is torn and where; without a pending write
// nothing pending is kept.
func (c *crash) planTorn(unit int64) {
	var writes []*pendingOp
	for _, ino := range c.allFiles {
		for i := range ino.pending {
			if ino.pending[i].kind == pendingWrite {
				writes = append(writes, &ino.pending[i])
			}
		}
	}
	if len(writes) == 0 {
		c.cut = 0
		return
	}
	op := writes[c.rng.IntN(len(writes))]
	c.cut, c.torn = op.seq, op.seq
	// The boundaries strictly inside the write; without one none of it stays.
	first := op.off/unit + 1
	if n := (op.end()-1)/unit - first + 1; n > 0 {
		c.tornLen = int((first+c.rng.Int64N(n))*unit - op.off)
	}
}

// survivingNames returns the names in d after the crash. The map may be d's own.
func (c *crash) survivingNames(d *memDir) map[string]node {
	if len(d.pending) == 0 {
		return d.synced
	}
	var n int
	switch c.mode {
	case CrashDropUnsynced, CrashDataOnly:
		return d.synced
	case CrashPrefix, CrashTorn512, CrashTorn4K:
		n, _ = slices.BinarySearchFunc(d.pending, c.cut, func(op dirOp, cut uint64) int {
			return cmp.Compare(op.seq, cut+1)
		})
	case CrashReordered:
		n = c.rng.IntN(len(d.pending) + 1)
	default:
		return d.live
	}
	names := maps.Clone(d.synced)
	for i := range n {
		d.pending[i].apply(names)
	}
	return names
}

// keepRenamed gives the old name back to files whose new one, in another
// directory, did not survive.
func (c *crash) keepRenamed() {
	named := map[node]bool{}
	for _, names := range c.names {
		for _, n := range names {
			named[n] = true
		}
	}
	for _, d := range c.allDirs {
		for i := range d.pending {
			op := &d.pending[i]
			if op.dst == nil || named[op.to] {
				continue
			}
			if _, taken := c.names[d][op.del]; taken {
				continue
			}
			c.names[d] = maps.Clone(c.names[d])
			c.names[d][op.del] = op.to
			named[op.to] = true
		}
	}
}

// survivingBytes returns the content of ino after the crash.
func (c *crash) survivingBytes(ino *inode) content {
	if len(ino.pending) == 0 {
		return ino.synced.share()
	}
	switch c.mode {
	case CrashDropUnsynced, CrashNamesOnly:
		return ino.synced.share()
	case CrashKeepAll, CrashDataOnly:
		if !ino.lossy {
			return ino.live.share()
		}
		return c.prefix(ino, len(ino.pending))
	case CrashPrefix, CrashTorn512, CrashTorn4K:
		n, _ := slices.BinarySearchFunc(ino.pending, c.cut, func(op pendingOp, cut uint64) int {
			return cmp.Compare(op.seq, cut+1)
		})
		return c.prefix(ino, n)
	case CrashBlocks:
		return c.blocks(ino)
	case CrashSizeZero, CrashSizeGarbage:
		return c.sizeOnly(ino)
	case CrashReordered:
		return c.prefix(ino, c.rng.IntN(len(ino.pending)+1))
	default:
		panic("vfs: crash mode " + c.mode.String() + " does not exist")
	}
}

// prefix returns the durable content after the first n pending changes, the
// torn one cut short.
func (c *crash) prefix(ino *inode, n int) content {
	if n == len(ino.pending) && !ino.lossy && c.torn == 0 {
		return ino.live.share()
	}
	got := ino.synced.share()
	for i := range n {
		op := ino.pending[i]
		if c.torn != 0 && op.seq == c.torn {
			op.data = op.data[:c.tornLen]
			if c.tornLen == 0 {
				continue
			}
		}
		op.apply(&got)
	}
	return got
}

// copyDir returns d with what survives in and below it.
func (c *crash) copyDir(d *memDir) *memDir {
	if got, ok := c.dirs[d]; ok {
		return got
	}
	got := &memDir{id: d.id, live: make(map[string]node, len(c.names[d]))}
	c.dirs[d] = got
	for name, n := range c.names[d] {
		switch n := n.(type) {
		case *memDir:
			got.live[name] = c.copyDir(n)
		case *inode:
			ino := c.copyFile(n)
			ino.links++
			got.live[name] = ino
		}
	}
	got.synced = maps.Clone(got.live)
	return got
}

// copyFile returns ino with what survives of it, the same for all its names.
func (c *crash) copyFile(ino *inode) *inode {
	if got, ok := c.files[ino]; ok {
		return got
	}
	got := &inode{id: ino.id, live: c.bytes[ino]}
	got.synced = got.live.share()
	c.files[ino] = got
	return got
}
