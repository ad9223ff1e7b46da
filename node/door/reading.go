package door

import (
	"context"

	"golang.org/x/sync/semaphore"
)

const (
	// readingShare is the part of the budget that what is being read for one
	// connection may take, by what its answers have been like.
	readingShare = 16
	// smallAnswer is the size below which answers are bounded by their number alone.
	smallAnswer = 64 << 10
	// firstReads is how many reads go at a time on a connection that has had no answer.
	firstReads = 16
)

// Reading is a read for a connection whose answer is being made. End it once.
type Reading struct {
	conn   *Conn
	weight int64
}

// Begin begins a read for the connection. If its answers are large, it waits until
// those that are being made leave room for one more of the kind, in the order of the
// callers, or fails with ctx's error: what is read for a client has to be held before
// it is known whether the client takes it.
func (c *Conn) Begin(ctx context.Context) (Reading, error) {
	if c == nil {
		return Reading{}, nil
	}
	usual := c.usual.Load()
	if usual > 0 && usual < smallAnswer {
		return Reading{conn: c}, nil
	}
	most := readingBytes(c.l.door.opts.Budget)
	weight := min(usual, most)
	if usual == 0 {
		weight = max(most/firstReads, 1)
	}
	if err := c.reading.Acquire(ctx, weight); err != nil {
		return Reading{}, err
	}
	return Reading{c, weight}, nil
}

// End ends a read with the size of its answer in bytes, 0 if there is none.
func (r Reading) End(size int) {
	c := r.conn
	if c == nil {
		return
	}
	// A large answer is remembered at once and forgotten slowly. That of another may
	// be lost where two end together; one that is as large will come.
	if old, s := c.usual.Load(), int64(size)+1; s > old {
		c.usual.Store(s)
	} else if old >= smallAnswer {
		c.usual.Store(max(s, old-old/8))
	}
	if r.weight > 0 {
		c.reading.Release(r.weight)
	}
}

func newReading(budget int64) *semaphore.Weighted { return semaphore.NewWeighted(readingBytes(budget)) }

func readingBytes(budget int64) int64 { return max(budget/readingShare, 1) }
