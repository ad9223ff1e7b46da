package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryPercent is how much of the memory there is this process may use. The
// rest is for what Go does not count: the program itself, mapped files, and what
// the kernel holds for sockets and files, some 70 MiB of a loaded node. The heap goes
// beyond its limit for a moment, too, when many values of the largest size come at
// once: so as much as that is left at the least, though no more than half.
const (
	memoryPercent = 80
	memoryLeft    = 184 << 20
)

// usableOf is how much of the memory there is this process may use, in bytes.
func usableOf(there uint64) int64 {
	n := int64(min(there, math.MaxInt64))
	return min(n/100*memoryPercent, max(n-memoryLeft, n/2))
}

// memoryLimit is how much memory this process may use. All are bytes.
type memoryLimit struct {
	// usable is what the sizes of the engine are fitted to.
	usable int64
	// goLimit is what the garbage collector keeps below, math.MaxInt64 for
	// nothing.
	goLimit int64
	// from says what limits: cgroup, machine or GOMEMLIMIT.
	from string
}

// decideMemory decides by what the cgroup and the machine have (0: unknown or
// unlimited), and by what GOMEMLIMIT says, if it is set: then it is obeyed,
// math.MaxInt64 for off, but can make no more memory than there is.
func decideMemory(cgroup, machine uint64, goSet bool, goLimit int64) memoryLimit {
	l := memoryLimit{usable: math.MaxInt64, goLimit: math.MaxInt64}
	for _, there := range []struct {
		bytes uint64
		from  string
	}{{machine, "machine"}, {cgroup, "cgroup"}} {
		if there.bytes == 0 {
			continue
		}
		if usable := usableOf(there.bytes); usable < l.usable {
			l.usable, l.from = usable, there.from
		}
	}
	l.goLimit = l.usable
	if goSet {
		l.goLimit = goLimit
		if goLimit < l.usable {
			l.usable, l.from = goLimit, "GOMEMLIMIT"
		}
	}
	return l
}

const (
	// memtables is how many of them there are at once: one takes writes while two
	// more may wait for their flush.
	memtables = 3
	// leastCollected is the part of the usable memory that the collector is left
	// at the least, whatever the engine was given.
	leastCollected = 4
)

// collected is what the garbage collector keeps below: the limit without what
// the engine has outside its heap, which are cache and memtables. A limit that
// was set for the collector stays as it is.
func (l memoryLimit) collected(cache, memtable int64) int64 {
	if l.goLimit == math.MaxInt64 || l.goLimit != l.usable || l.from == "GOMEMLIMIT" {
		return l.goLimit
	}
	return max(l.goLimit-cache-memtables*memtable, l.goLimit/leastCollected)
}

const (
	// defaultPercent is Go's own: the heap is collected when it has doubled.
	defaultPercent = 100
	// roomyPercent lets it grow to five times what is live. Cache and memtables
	// are outside the heap, so that what is live is a few ten MiB: at 100 % a
	// loaded node collects several times a second, which is a tenth of its CPU.
	// More than 400 % saves little more.
	roomyPercent = 400
	// roomyLimit is the limit of the collector from which there is room for that.
	// Whatever is live then, the limit still holds.
	roomyLimit = 1 << 30
)

// gcPercent is how much the heap may grow, in percent of what is live, until it
// is collected, where the collector keeps below goLimit bytes.
func gcPercent(goLimit int64) int {
	if goLimit < roomyLimit || goLimit == math.MaxInt64 {
		return defaultPercent
	}
	return roomyPercent
}

// readMemory finds out how much memory this process may use. An error says what
// could not be read; the limit then is that of the rest.
func readMemory() (memoryLimit, error) {
	cgroup, err := memlimit.FromCgroup()
	switch {
	case errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
		cgroup, err = 0, nil
	case err != nil:
		cgroup, err = 0, fmt.Errorf("read the memory limit of the cgroup: %w; set GOMEMLIMIT if there is one", err)
	}
	machine, merr := memlimit.FromSystem()
	if merr != nil {
		machine, err = 0, errors.Join(err, fmt.Errorf("read the machine's memory: %w", merr))
	}
	set := os.Getenv("GOMEMLIMIT") != "" // empty is the same as not set to Go, too
	return decideMemory(cgroup, machine, set, debug.SetMemoryLimit(-1)), err
}
