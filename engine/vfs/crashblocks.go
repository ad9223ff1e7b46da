package vfs

import "encoding/binary"

// blocks returns the content of a file whose dirty blocks were written back
// one by one at random moments: each holds what it held after some number of
// the writes to it. The size is the final one.
func (c *crash) blocks(ino *inode) content {
	// How many pending changes touch a block, and in which order blocks were
	// first touched.
	touches := map[int64]int{}
	var order []int64
	c.eachTouch(ino, func(_ *pendingOp, block int64) {
		if touches[block] == 0 {
			order = append(order, block)
		}
		touches[block]++
	})
	for _, block := range order {
		n := touches[block]
		switch c.rng.IntN(3) {
		case 0:
			touches[block] = 0
		case 1:
			touches[block] = c.rng.IntN(n + 1)
		}
	}
	got := ino.synced.share()
	c.eachTouch(ino, func(op *pendingOp, block int64) {
		if touches[block] == 0 {
			return
		}
		touches[block]--
		from, to := block*pageSize, (block+1)*pageSize
		if op.kind == pendingWrite {
			lo, hi := max(from, op.off), min(to, op.end())
			got.writeAt(op.data[lo-op.off:hi-op.off], lo)
			return
		}
		if p := got.page(int(block)); p != nil {
			clear(got.writable(int(block)).data[max(op.off-from, 0):])
		}
	})
	// Bytes that land beyond the end of the file do not exist.
	final := c.finalSize(ino)
	got.size = max(got.size, final)
	got.resize(final)
	return got
}

// eachTouch calls fn for every block that each pending change writes to or
// cuts off.
func (c *crash) eachTouch(ino *inode, fn func(op *pendingOp, block int64)) {
	size := ino.synced.size
	for i := range ino.pending {
		op := &ino.pending[i]
		first, end := op.off/pageSize, op.end()
		switch op.kind {
		case pendingGrow:
			size = max(size, op.off)
			continue
		case pendingResize:
			end, size = size, op.off
		case pendingWrite:
			size = max(size, end)
		}
		for block := first; block*pageSize < end; block++ {
			fn(op, block)
		}
	}
}

// finalSize returns the size after every pending change.
func (c *crash) finalSize(ino *inode) int64 {
	size := ino.synced.size
	for i := range ino.pending {
		op := &ino.pending[i]
		if op.kind == pendingResize {
			size = op.off
		} else {
			size = max(size, op.end())
		}
	}
	return size
}

// sizeOnly returns the durable bytes under the final size. With
// CrashSizeGarbage the blocks that were written to and never synced hold what
// the disk held there for somebody else.
func (c *crash) sizeOnly(ino *inode) content {
	got := ino.synced.share()
	final := c.finalSize(ino)
	if c.mode == CrashSizeGarbage {
		fresh := map[int64]bool{}
		c.eachTouch(ino, func(op *pendingOp, block int64) {
			if op.kind != pendingWrite || fresh[block] {
				return
			}
			fresh[block] = true
			from := int64(0)
			if ino.synced.page(int(block)) != nil {
				from = max(ino.synced.size-block*pageSize, 0)
			}
			if from < pageSize {
				c.garbage(got.writable(int(block)).data[from:])
			}
		})
		got.size = max(got.size, int64(len(got.pages))*pageSize)
	}
	got.resize(final)
	return got
}

// garbage fills b with random bytes.
func (c *crash) garbage(b []byte) {
	var word [8]byte
	for len(b) > 0 {
		binary.LittleEndian.PutUint64(word[:], c.rng.Uint64())
		b = b[copy(b, word[:]):]
	}
}
