package repair

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Figures are what rounds that this node drove have come to since it started.
type Figures struct {
	// Rounds that ended. Confirmed spans are those that ended with all owners equal,
	// Partial those of which an owner was not there, Void those whose owners or ring
	// changed meanwhile, and Failed the others.
	Rounds, Confirmed, Partial, Void, Failed uint64
	// Differing counts the ranges of about 32 keys that were not equal, and Differed
	// the keys.
	Differing, Differed uint64
	// Sent are objects brought to other owners, Received those brought here, and
	// Refetched those fetched for partitions under quarantine.
	Sent, Received, Refetched                uint64
	SentBytes, ReceivedBytes, RefetchedBytes uint64
	// ComparedBytes is what comparisons sent and got.
	ComparedBytes uint64
	// Gained are objects fetched for partitions that this node is about to own, and
	// GainedSpans how many spans it has got all of.
	Gained, GainedBytes, GainedSpans uint64
	// Handed are objects that this node handed over before it dropped them, each counted
	// for every owner that got it, and CleanedSpans the spans that it has dropped.
	Handed, HandedBytes, CleanedSpans uint64
	// Damaged counts keys of which an owner lacks what all had.
	Damaged uint64
}

type figures struct {
	mu sync.Mutex
	f  Figures
	// refetched, gained and handed are what was brought.
	refetched, gained, handed traffic
}

// traffic counts objects.
type traffic struct{ keys, bytes atomic.Uint64 }

func (t *traffic) add(keys, size int) {
	t.keys.Add(uint64(keys))
	t.bytes.Add(uint64(size))
}

func (g *figures) change(f func(*Figures)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.f)
}

func (g *figures) get() Figures {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.f
	f.Refetched, f.RefetchedBytes = g.refetched.keys.Load(), g.refetched.bytes.Load()
	f.Gained, f.GainedBytes = g.gained.keys.Load(), g.gained.bytes.Load()
	f.Handed, f.HandedBytes = g.handed.keys.Load(), g.handed.bytes.Load()
	return f
}

func (g *figures) compared(n int) {
	g.change(func(f *Figures) { f.ComparedBytes += uint64(n) })
}

// Run is a demand for rounds, and how far it has come.
type Run struct {
	ID string
	// Tenant and Partition are what was asked for: "" and -1 are all.
	Tenant    string
	Partition int
	Started   time.Time
	// Ended is zero while the run is under way.
	Ended time.Time
	// Spans are those that this node drives of what was asked for, Done those that a
	// round has dealt with since, and Confirmed those of which all owners are equal.
	Spans, Done, Confirmed int
	// KeysDiffered between owners; RowsSent were brought to those that lacked them,
	// this node included, with Bytes.
	KeysDiffered, RowsSent, Bytes uint64
	// Error is why spans were not confirmed, for one of them; empty if all were.
	Error string

	pending map[Span]bool
}

// maxRuns bounds the runs that are remembered.
const maxRuns = 16

// countOf is "1 key" or "2 keys", with a comma between thousands.
func countOf(n int, what string) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if n != 1 {
		what += "s"
	}
	return s + " " + what
}

// sizeOf is a number of bytes for people.
func sizeOf(n int) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
}
