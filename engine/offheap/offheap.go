// Package offheap hands out memory that the garbage collector does not count.
// The engine keeps its large, long-lived bytes there, memtables and cached
// blocks: on the collector's heap each of them would allow as much garbage
// again, so that the process took twice what the engine was told to use.
//
// Whoever gets memory gives it back, once, when nobody looks at it any more.
// Built with the race detector, freed blocks are overwritten, so that tests find
// those who still look; a freed region is gone and a look ends the process.
package offheap

import (
	"fmt"
	"runtime"
	"sync/atomic"
)

// mapped counts the bytes taken from the operating system.
var mapped atomic.Int64

// Mapped returns the bytes that this process has taken from the operating
// system through this package, touched or not.
func Mapped() int64 { return mapped.Load() }

// Region is one large range of zeroed bytes. Free gives it back; one that is
// lost without that goes with the collector's next run.
type Region struct {
	b    []byte
	stop runtime.Cleanup
}

// NewRegion returns a region of n bytes, n > 0. It takes room only as it is
// touched. Like make, it panics when the process may have no more memory.
func NewRegion(n int) *Region {
	r := &Region{b: mustMap(n)}
	if n >= hugePage {
		preferHugePages(r.b)
	}
	r.stop = runtime.AddCleanup(r, release, r.b)
	return r
}

// Bytes returns the region's bytes, which are valid until Free, and only as
// long as the Region is reachable.
func (r *Region) Bytes() []byte { return r.b }

// Free gives the region back. It is idempotent but not safe for concurrent use.
func (r *Region) Free() {
	if r.b == nil {
		return
	}
	r.stop.Stop()
	release(r.b)
	r.b = nil
}

func mustMap(n int) []byte {
	b, err := mmap(n)
	if err != nil {
		panic(fmt.Sprintf("offheap: no memory for %d bytes: %v", n, err))
	}
	mapped.Add(int64(n))
	return b
}

func release(b []byte) {
	if err := munmap(b); err != nil {
		panic(fmt.Sprintf("offheap: give back %d bytes: %v", len(b), err)) // not ours: a broken invariant
	}
	mapped.Add(-int64(len(b)))
}
