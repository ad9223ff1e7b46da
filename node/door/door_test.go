package door

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hall is a net.Listener that hands out what is sent to it.
type hall struct {
	conns chan net.Conn
	once  sync.Once
}

func newHall() *hall { return &hall{conns: make(chan net.Conn)} }

func (h *hall) Accept() (net.Conn, error) {
	c, ok := <-h.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (h *hall) Close() error   { h.once.Do(func() { close(h.conns) }); return nil }
func (h *hall) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection from an address.
type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", f.addr)
	if err != nil {
		panic(err)
	}
	return a
}

// TestConnectionsAreBounded, all of a listener and those of one address; loopback
// has only the first bound. What is one too many hears why.
func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{Max: 4, MaxPerAddress: 2, Stall: time.Second, Rate: 1, Budget: 1})
		h := newHall()
		l := d.Listener(h, []byte("full"))
		accepted := make(chan net.Conn, 10)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					close(accepted)
					return
				}
				accepted <- c
			}
		}()
		come := func(addr string) (net.Conn, string) {
			there, here := net.Pipe()
			h.conns <- from{here, addr}
			synctest.Wait()
			select {
			case c := <-accepted:
				return c, ""
			default:
				b, err := io.ReadAll(there)
				if err != nil {
					t.Error(err)
				}
				return nil, string(b)
			}
		}
		var open []net.Conn
		for _, tc := range []struct {
			addr string
			in   bool
		}{
			{"10.0.0.1:1", true},
			{"10.0.0.1:2", true},
			{"10.0.0.1:3", false},
			{"127.0.0.1:1", true},
			{"127.0.0.1:2", true},
			{"127.0.0.1:3", false},
			{"10.0.0.2:1", false},
		} {
			c, told := come(tc.addr)
			if (c != nil) != tc.in || c == nil && told != "full" {
				t.Errorf("%s: let in is %v, told %q; want %v", tc.addr, c != nil, told, tc.in)
			}
			if c != nil {
				open = append(open, c)
			}
		}
		s := d.Stats()
		if l.Connections() != 4 || s.Closed[TooManyOfOne] != 1 || s.Closed[TooMany] != 2 {
			t.Errorf("%d connections, closed %v", l.Connections(), s.Closed)
		}
		for range 2 { // a second Close is no second leave
			for _, c := range open {
				_ = c.Close() // the second time it says that it is closed
			}
		}
		if c, told := come("10.0.0.1:9"); c == nil {
			t.Errorf("with room again it heard %q", told)
		} else {
			_ = c.Close() // of a pipe: it fails only if it was closed before
		}
		if n := l.Connections(); n != 0 || len(d.mu.conns) != 0 || len(l.mu.of) != 0 {
			t.Errorf("%d connections are counted that are closed", n)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, ok := <-accepted; ok {
			t.Error("accepted after the end")
		}
	})
}

// connected is a connection of d, and its other end.
func connected(d *Door) (*Conn, net.Conn) {
	there, here := net.Pipe()
	h := newHall()
	l := d.Listener(h, nil)
	go func() { h.conns <- here }()
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	return c.(*Conn), there
}

// TestUnreadIsCutOff: an answer that is not read in time closes the connection,
// one that is read in time does not, and large ones have longer.
func TestUnreadIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut []Reason
		d := New(Options{Max: 10, Stall: 10 * time.Second, Rate: 1000, Budget: 1 << 30, CutOff: func(_ net.Addr, why Reason, held int64) {
			if held != 5000 {
				t.Errorf("%d bytes were held", held)
			}
			cut = append(cut, why)
		}})
		good, _ := connected(d)
		bad, _ := connected(d)
		defer good.Close()
		sweep := func(d2 time.Duration) {
			time.Sleep(d2)
			d.Sweep()
		}
		var holds []*Hold
		for range 5 {
			holds = append(holds, bad.Hold(1000))
		}
		for range 30 {
			h := good.Hold(1000)
			sweep(400 * time.Millisecond)
			h.Release()
		}
		// The first of bad has had 12 s of the 10 s and 1 s that were its own.
		if len(cut) != 1 || cut[0] != Unread {
			t.Errorf("cut off: %v", cut)
		}
		for _, h := range holds {
			h.Release() // late, which counts nothing twice
		}
		if s := d.Stats(); s.Held != 0 {
			t.Errorf("%d bytes are held by nobody", s.Held)
		}
		if bad.Hold(5) != nil {
			t.Error("a closed connection holds")
		}
	})
}

// TestBlockedWriteIsCutOff: whoever does not read from the network at all.
func TestBlockedWriteIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{Max: 10, Stall: 10 * time.Second, Rate: 1000, Budget: 1 << 30})
		c, there := connected(d)
		err := make(chan error, 1)
		go func() {
			_, e := c.Write(make([]byte, 1000))
			err <- e
		}()
		time.Sleep(10 * time.Second)
		d.Sweep()
		synctest.Wait()
		select {
		case e := <-err:
			t.Fatalf("cut off too early: %v", e)
		default:
		}
		time.Sleep(2 * time.Second)
		d.Sweep()
		if e := <-err; !errors.Is(e, io.ErrClosedPipe) {
			t.Errorf("the write ended with %v", e)
		}
		_ = there.Close()
		if d.Stats().Closed[Unread] != 1 {
			t.Errorf("closed %v", d.Stats().Closed)
		}
	})
}

// TestBudgetIsKept: when the budget is spent, whoever holds most and does not keep
// up is closed, and nobody else; meanwhile only those are full that have their
// share.
func TestBudgetIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{Max: 100, Stall: time.Hour, Rate: 1 << 30, Budget: 64_000})
		small, _ := connected(d)
		small.Hold(500)
		var hogs []*Conn
		for i := range 4 {
			c, _ := connected(d)
			c.Hold(10_000 + i)
			hogs = append(hogs, c)
		}
		hogs[0].Hold(7000)
		if !hogs[0].Full() || hogs[1].Full() || small.Full() {
			t.Errorf("full: %v %v %v, want only the one with more than a quarter", hogs[0].Full(), hogs[1].Full(), small.Full())
		}
		fresh, _ := connected(d)
		time.Sleep(2 * time.Second)
		fresh.Hold(20_000) // 67,506 in all
		if s := d.Stats(); s.Closed[NoRoom] != 1 || s.Held != 67_506-17_000 {
			t.Errorf("closed %v, %d held", s.Closed, s.Held)
		}
		if hogs[0].Hold(1) != nil || hogs[1].Hold(1) == nil || fresh.Hold(1) == nil {
			t.Error("it was not the one that held most and did not keep up")
		}
		time.Sleep(2 * time.Second)
		small.Hold(20_000)
		if !hogs[1].Full() && d.held.Load() > 64_000 {
			t.Error("the budget is spent, and a connection with its share is not full")
		}
		d.Sweep()
		if s := d.Stats(); s.Held > s.Budget {
			t.Errorf("%d bytes are held, the budget is %d", s.Held, s.Budget)
		}
		for _, c := range append(hogs, small, fresh) {
			_ = c.Close() // of a pipe: it fails only if it was closed before
		}
		if s := d.Stats(); s.Held != 0 {
			t.Errorf("%d bytes are held by nobody", s.Held)
		}
	})
}

// TestHoldsInAnyOrder: the list is right whatever order they end in.
func TestHoldsInAnyOrder(t *testing.T) {
	d := New(Options{Max: 10, Stall: time.Second, Rate: 1000, Budget: 1 << 30})
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}} {
		c, _ := connected(d)
		holds := []*Hold{c.Hold(1), c.Hold(2), c.Hold(4)}
		for _, i := range order {
			holds[i].Release()
		}
		if c.mu.oldest != nil || c.mu.newest != nil || c.held.Load() != 0 {
			t.Errorf("%v: something is left", order)
		}
		_ = c.Close() // of a pipe: it fails only if it was closed before
	}
	var nobody *Conn
	nobody.Hold(1).Release()
	if nobody.Full() || d.Stats().Held != 0 {
		t.Error("nobody's connection counts")
	}
}
