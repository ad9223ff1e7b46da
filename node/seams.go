package node

import (
	"sync"
	"time"
)

// wallClock is the real time seam, shifted by a fixed skew in tests.
type wallClock struct{ skew time.Duration }

func (c wallClock) Now() time.Time { return time.Now().Add(c.skew) }

func (c wallClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// goroutines is the scheduler seam of a real process: a goroutine a job. Its
// jobs are finite; wait returns when the last has ended.
type goroutines struct{ wg sync.WaitGroup }

func (g *goroutines) Go(_ string, f func()) { g.wg.Go(f) }

func (g *goroutines) wait() { g.wg.Wait() }
