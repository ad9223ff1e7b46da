// Package door bounds what clients can take of a node by their connections alone:
// how many there are, and what a client that does not read leaves standing here.
// node/admission/DESIGN.md has the whole picture.
package door

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure a Door. All are required but MaxPerAddress.
type Options struct {
	// Max bounds the connections of each listener, MaxPerAddress those of one
	// address among them; 0: no bound. Loopback addresses have none.
	Max, MaxPerAddress int
	// Stall is how long a client may leave what was written for it unread, and
	// Rate, in bytes a second, the least it has to read at beside.
	Stall time.Duration
	Rate  int64
	// Budget is how many bytes of answers may wait for their readers, over all
	// connections, before those that do not keep up are closed.
	Budget int64
	// CutOff is called, if it is there, for each connection that is closed so. It
	// must not block.
	CutOff func(remote net.Addr, why Reason, held int64)
}

// Reason is why a connection was refused or closed.
type Reason uint8

const (
	// TooMany: the listener has Options.Max connections.
	TooMany Reason = iota
	// TooManyOfOne: the address has Options.MaxPerAddress.
	TooManyOfOne
	// Unread: an answer was not read in time.
	Unread
	// NoRoom: it held most when Options.Budget was spent, and did not keep up.
	NoRoom

	reasons = iota
)

// String returns the reason as a metric's label has it.
func (r Reason) String() string {
	return [...]string{"too_many", "too_many_of_one_address", "unread", "no_room"}[r]
}

// Reasons lists all reasons.
func Reasons() []Reason { return []Reason{TooMany, TooManyOfOne, Unread, NoRoom} }

const (
	// patience is how old the oldest unread answer of a connection must be for it to
	// be closed when the budget is spent: whoever reads is not meant.
	patience = time.Second
	// connShare is the part of the budget that one connection may have.
	connShare = 4
	// fairShare is the part that a connection may have though the budget is spent.
	fairShare = 64
)

// Door counts the connections of clients, and the bytes of answers that wait on
// each for their reader. Call Sweep about once a second. It is safe for concurrent
// use; make one with New.
type Door struct {
	opts   Options
	base   time.Time // the origin of times here
	held   atomic.Int64
	closed [reasons]atomic.Int64
	tight  atomic.Int64 // when the budget was last found spent

	mu struct {
		sync.Mutex
		conns map[*Conn]struct{}
	}
}

// New returns a door without connections.
func New(opts Options) *Door {
	d := &Door{opts: opts, base: time.Now().Add(-time.Hour)}
	d.mu.conns = make(map[*Conn]struct{})
	return d
}

func (d *Door) now() time.Duration { return time.Since(d.base) }

// due is when bytes have to be read that were written now.
func (d *Door) due(now time.Duration, bytes int64) time.Duration {
	return now + d.opts.Stall + time.Duration(float64(bytes)/float64(d.opts.Rate)*float64(time.Second))
}

// Listener returns l with the bounds. A connection too many is closed at once,
// after farewell has been written to it, which may be empty.
func (d *Door) Listener(l net.Listener, farewell []byte) *Listener {
	g := &Listener{Listener: l, door: d, farewell: farewell}
	g.mu.of = make(map[netip.Addr]int)
	return g
}

// Listener is a listener of a Door.
type Listener struct {
	net.Listener
	door     *Door
	farewell []byte

	mu struct {
		sync.Mutex
		open int
		// of has how many each address has, never 0.
		of map[netip.Addr]int
	}
}

// Connections says how many are open.
func (l *Listener) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.open
}

// farewellTime bounds how long a refused client may keep the next one waiting.
const farewellTime = 100 * time.Millisecond

// Accept implements net.Listener. The connections are *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &Conn{Conn: raw, l: l, from: addressOf(raw.RemoteAddr()), reading: newReading(l.door.opts.Budget)}
		c.addr = Addr{raw.RemoteAddr(), c}
		reason, ok := l.enter(c)
		if ok {
			return c, nil
		}
		l.door.closed[reason].Add(1)
		// It is refused whether it hears so or not.
		_ = raw.SetWriteDeadline(time.Now().Add(farewellTime))
		_, _ = raw.Write(l.farewell)
		_ = raw.Close()
	}
}

// enter counts a connection, or says why not.
func (l *Listener) enter(c *Conn) (Reason, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.open >= l.door.opts.Max {
		return TooMany, false
	}
	if most := l.door.opts.MaxPerAddress; most > 0 && !c.from.IsLoopback() && l.mu.of[c.from] >= most {
		return TooManyOfOne, false
	}
	l.mu.open++
	l.mu.of[c.from]++
	l.door.mu.Lock()
	l.door.mu.conns[c] = struct{}{}
	l.door.mu.Unlock()
	return 0, true
}

// leave is enter's other half.
func (l *Listener) leave(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.open--
	if l.mu.of[c.from]--; l.mu.of[c.from] == 0 {
		delete(l.mu.of, c.from)
	}
	l.door.mu.Lock()
	delete(l.door.mu.conns, c)
	l.door.mu.Unlock()
}

// addressOf is the address without the port; the zero Addr if there is none, as
// in a test's pipe.
func addressOf(a net.Addr) netip.Addr {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap()
}

// Sweep closes the connections that do not read.
func (d *Door) Sweep() {
	now := d.now()
	for _, c := range d.all() {
		if c.late(now) {
			d.cutOff(c, Unread)
		}
	}
	d.makeRoom(now)
}

func (d *Door) all() []*Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*Conn, 0, len(d.mu.conns))
	for c := range d.mu.conns {
		all = append(all, c)
	}
	return all
}

// makeRoom closes those that hold most and do not keep up, while the budget is
// spent.
func (d *Door) makeRoom(now time.Duration) {
	for d.held.Load() > d.opts.Budget {
		var worst *Conn
		var most int64
		for _, c := range d.all() {
			if held, since := c.unread(); held > most && now-since >= patience {
				worst, most = c, held
			}
		}
		if worst == nil {
			return
		}
		d.cutOff(worst, NoRoom)
	}
}

func (d *Door) cutOff(c *Conn, why Reason) {
	held, _ := c.unread()
	d.closed[why].Add(1)
	// The error is that it is closed already.
	_ = c.Close()
	if d.opts.CutOff != nil {
		d.opts.CutOff(c.addr.Addr, why, held)
	}
}

// Stats are the figures of a Door.
type Stats struct {
	// Held are the bytes of answers that wait for their readers, Budget how many
	// may.
	Held, Budget int64
	// Closed counts connections refused and closed, by Reason.
	Closed [reasons]int64
}

// Stats returns the figures.
func (d *Door) Stats() Stats {
	s := Stats{Held: d.held.Load(), Budget: d.opts.Budget}
	for i := range s.Closed {
		s.Closed[i] = d.closed[i].Load()
	}
	return s
}

// Addr is the remote address of a Conn, and leads to it.
type Addr struct {
	net.Addr
	conn *Conn
}

// Of returns the connection that an address is of, nil if it is of none of a
// Door.
func Of(a net.Addr) *Conn {
	if d, ok := a.(*Addr); ok {
		return d.conn
	}
	return nil
}

type contextKey struct{}

// NewContext returns a context that leads to c, for http.Server.ConnContext.
func NewContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*Conn); ok {
		return context.WithValue(ctx, contextKey{}, c)
	}
	return ctx
}

// FromContext returns the connection that NewContext put there, or nil.
func FromContext(ctx context.Context) *Conn {
	c, _ := ctx.Value(contextKey{}).(*Conn)
	return c
}
