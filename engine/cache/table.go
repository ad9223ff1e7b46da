package cache

import "sync/atomic"

// table is an open-addressing hash table of entries. One goroutine at a time
// changes it; any number may call find meanwhile. A find that runs beside a
// removal may miss an entry that is being moved: for a cache that is a miss
// too many, nothing worse.
type table struct {
	slots []atomic.Pointer[Block] // a power of two, at most half full
	used  int
}

func newTable(size int) *table { return &table{slots: make([]atomic.Pointer[Block], size)} }

// at returns the slot index i stands for. The shard took the high bits of the
// hash, so the low ones are fresh.
func (t *table) at(i uint64) uint64 { return i & uint64(len(t.slots)-1) }

func (t *table) find(k Key, h uint64) *Block {
	for i := h; ; i++ {
		e := t.slots[t.at(i)].Load()
		if e == nil || e.key == k {
			return e
		}
		if i-h > uint64(len(t.slots)) { // entries moving under our feet
			return nil
		}
	}
}

// insert adds an entry whose key is not there. The caller keeps the table at
// most half full.
func (t *table) insert(e *Block) {
	i := e.hash
	for t.slots[t.at(i)].Load() != nil {
		i++
	}
	t.slots[t.at(i)].Store(e)
	t.used++
}

// replace puts e in the place of old, which has the same key.
func (t *table) replace(old, e *Block) { t.slots[t.slotOf(old)].Store(e) }

func (t *table) slotOf(e *Block) uint64 {
	i := e.hash
	for t.slots[t.at(i)].Load() != e {
		i++
	}
	return t.at(i)
}

// remove takes e out and closes the gap, so that no tombstones pile up.
func (t *table) remove(e *Block) {
	gap := t.slotOf(e)
	for i := gap + 1; ; i++ {
		next := t.slots[t.at(i)].Load()
		if next == nil {
			break
		}
		// next may fill the gap unless its own place lies behind the gap.
		if t.at(t.at(i)-next.hash) >= t.at(t.at(i)-gap) {
			t.slots[gap].Store(next)
			gap = t.at(i)
		}
	}
	t.slots[gap].Store(nil)
	t.used--
}
