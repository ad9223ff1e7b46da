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
// jobs are finite. Unlike a sync.WaitGroup it bears a job that begins while
// somebody waits: a timer may begin one at any time.
type goroutines struct {
	mu      sync.Mutex
	running int
	idle    chan struct{} // closed when running is 0 again; nil if nobody waits
}

// Go runs f in a goroutine of its own.
func (g *goroutines) Go(_ string, f func()) {
	g.mu.Lock()
	g.running++
	g.mu.Unlock()
	go func() {
		defer g.end()
		f()
	}()
}

func (g *goroutines) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	if g.running == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// wait returns when no job runs.
func (g *goroutines) wait() {
	g.mu.Lock()
	if g.running == 0 {
		g.mu.Unlock()
		return
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	<-idle
}
