package door

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Conn is a client's connection. All methods may be called on nil, a connection
// that nobody counts.
type Conn struct {
	net.Conn
	l    *Listener
	from netip.Addr
	addr Addr
	// writing is when the Write under way has to be over, 0 if none is.
	writing atomic.Int64
	// held are the bytes in the list; changed with mu held.
	held atomic.Int64
	// usual is about how large its answers are, in bytes and one more, 0 before the
	// first; reading bounds what is being read for it.
	usual   atomic.Int64
	reading *semaphore.Weighted

	mu struct {
		sync.Mutex
		closed bool
		// oldest and newest are the ends of the list of what is held.
		oldest, newest *Hold
	}
}

// Hold is an answer that waits for its reader. Release it once.
type Hold struct {
	conn       *Conn
	size       int64
	since, due time.Duration
	prev, next *Hold
}

// RemoteAddr implements net.Conn with an *Addr.
func (c *Conn) RemoteAddr() net.Addr { return &c.addr }

// Write implements net.Conn. One that lasts too long is found by Sweep.
func (c *Conn) Write(b []byte) (int, error) {
	c.writing.Store(int64(c.l.door.due(c.l.door.now(), int64(len(b)))))
	n, err := c.Conn.Write(b)
	c.writing.Store(0)
	return n, err
}

// Close implements net.Conn. What was held counts no more.
func (c *Conn) Close() error {
	c.mu.Lock()
	first := !c.mu.closed
	c.mu.closed = true
	c.l.door.held.Add(-c.held.Swap(0))
	c.mu.oldest, c.mu.newest = nil, nil
	c.mu.Unlock()
	if first {
		c.l.leave(c)
	}
	return c.Conn.Close()
}

// Full says that so much waits to be read on this connection that no more should
// be read for it.
func (c *Conn) Full() bool {
	if c == nil {
		return false
	}
	d := c.l.door
	held := c.held.Load()
	return held > d.opts.Budget/connShare || held > d.opts.Budget/fairShare && d.held.Load() > d.opts.Budget
}

// Hold counts an answer of a size in bytes until Release. It never waits.
func (c *Conn) Hold(size int) *Hold {
	if c == nil {
		return nil
	}
	d := c.l.door
	h := &Hold{conn: c, size: int64(size), since: d.now()}
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return nil
	}
	h.due = d.due(h.since, c.held.Add(h.size))
	if h.prev = c.mu.newest; h.prev != nil {
		h.prev.next = h
	} else {
		c.mu.oldest = h
	}
	c.mu.newest = h
	total := d.held.Add(h.size)
	c.mu.Unlock()
	// Whoever spends the budget makes room, but not each of many at once.
	if last := d.tight.Load(); total > d.opts.Budget && int64(h.since)-last > int64(10*time.Millisecond) && d.tight.CompareAndSwap(last, int64(h.since)) {
		d.makeRoom(h.since)
	}
	return h
}

// Release says that the answer has left, or never will.
func (h *Hold) Release() {
	if h == nil {
		return
	}
	c := h.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return // Close has counted it
	}
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		c.mu.oldest = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		c.mu.newest = h.prev
	}
	h.prev, h.next = nil, nil
	c.held.Add(-h.size)
	c.l.door.held.Add(-h.size)
}

// unread is how much waits to be read, and since when the oldest of it does.
func (c *Conn) unread() (held int64, since time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.oldest == nil {
		return 0, 0
	}
	return c.held.Load(), c.mu.oldest.since
}

// late says that something should have been read by now.
func (c *Conn) late(now time.Duration) bool {
	if due := time.Duration(c.writing.Load()); due != 0 && now > due {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.oldest != nil && now > c.mu.oldest.due
}
