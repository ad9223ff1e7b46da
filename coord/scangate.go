package coord

import "sync"

// pageGate lets a bounded number of pages be made at once; the others wait.
type pageGate struct {
	mu struct {
		sync.Mutex
		running int
		waiting []func()
	}
}

// enter runs begin now or when it has its turn; false if too many wait. Each begin
// is followed by a leave.
func (g *pageGate) enter(begin func()) bool {
	g.mu.Lock()
	switch {
	case g.mu.running < maxPages:
		g.mu.running++
		g.mu.Unlock()
		begin()
		return true
	case len(g.mu.waiting) >= maxWaitingPages:
		g.mu.Unlock()
		return false
	}
	g.mu.waiting = append(g.mu.waiting, begin)
	g.mu.Unlock()
	return true
}

// leave gives the turn to the next.
func (g *pageGate) leave() {
	g.mu.Lock()
	if len(g.mu.waiting) == 0 {
		g.mu.running--
		g.mu.Unlock()
		return
	}
	next := g.mu.waiting[0]
	g.mu.waiting[0] = nil
	g.mu.waiting = g.mu.waiting[1:]
	g.mu.Unlock()
	next()
}
