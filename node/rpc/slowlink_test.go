package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// slowLink carries TCP connections to an address of this machine at a limited
// rate, as a network with hardly a queue of its own would: what waits, waits at
// the sender. All connections share the rate, one for each direction.
type slowLink struct {
	t        testing.TB
	listener net.Listener
	to       string
	// open counts the connections that were accepted so far.
	accepted atomic.Int64
	ways     [2]bucket // there and back

	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// bucket hands out turns to send.
type bucket struct {
	bytesPerSecond atomic.Int64 // 0 is no limit, below 0 nothing passes
	bytes          atomic.Int64 // that passed

	mu   sync.Mutex
	next time.Time
}

// slowLinkBuffer is also the window that the link opens to a sender (the kernel
// doubles it, and offers half). It must take the largest packet of loopback, 64 KiB:
// once a sender had to probe a closed window, the kernel has TCP_USER_TIMEOUT run
// until its next packet fits as a whole, however much passes meanwhile. With 32 KiB
// two standstills of 0.2 s that were 4 s apart ended the connection.
const slowLinkBuffer = 64 << 10

// newSlowLink carries connections to the address to until the test ends.
func newSlowLink(t testing.TB, to string, bytesPerSecond int64) *slowLink {
	t.Helper()
	small := func(_, _ string, c syscall.RawConn) error {
		var err error
		ctl := c.Control(func(fd uintptr) {
			// Accepted connections have what the listener has.
			err = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, slowLinkBuffer),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, slowLinkBuffer))
		})
		return errors.Join(ctl, err)
	}
	l, err := (&net.ListenConfig{Control: small}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &slowLink{t: t, listener: l, to: to, conns: make(map[net.Conn]bool)}
	s.rate(bytesPerSecond)
	dialer := &net.Dialer{Control: small}
	s.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return // closed
			}
			s.accepted.Add(1)
			out, err := dialer.DialContext(context.Background(), "tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			s.mu.Lock()
			s.conns[in], s.conns[out] = true, true
			s.mu.Unlock()
			for way, ends := range [2][2]net.Conn{{in, out}, {out, in}} {
				s.wg.Go(func() { s.carry(&s.ways[way], ends[0], ends[1]) })
			}
		}
	})
	t.Cleanup(s.close)
	return s
}

func (s *slowLink) addr() string { return s.listener.Addr().String() }

// rate changes the limit of both ways.
func (s *slowLink) rate(bytesPerSecond int64) {
	for i := range s.ways {
		s.ways[i].bytesPerSecond.Store(bytesPerSecond)
	}
}

// carry copies from one end to the other until either is closed.
func (s *slowLink) carry(b *bucket, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			b.wait(n)
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
			b.bytes.Add(int64(n))
		}
		if err != nil {
			if err != io.EOF && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
				s.t.Logf("slow link: %v", err)
			}
			return
		}
	}
}

// wait takes the next turn for n bytes.
func (b *bucket) wait(n int) {
	for b.bytesPerSecond.Load() < 0 {
		<-time.After(time.Millisecond)
	}
	rate := b.bytesPerSecond.Load()
	if rate == 0 {
		return
	}
	b.mu.Lock()
	now := time.Now()
	// What a late timer lost may be made up for, within limits.
	if earliest := now.Add(-20 * time.Millisecond); b.next.Before(earliest) {
		b.next = earliest
	}
	b.next = b.next.Add(time.Duration(n) * time.Second / time.Duration(rate))
	at := b.next
	b.mu.Unlock()
	if d := at.Sub(now); d > 0 {
		<-time.After(d)
	}
}

// close ends the connections.
func (s *slowLink) close() {
	s.rate(0)
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
