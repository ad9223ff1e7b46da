package rpc

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// probeAfter and probeEach say when the kernel asks whether the other side
	// is still there; with peerSilence two probes are lost before it gives up.
	probeAfter = 2 * time.Second
	probeEach  = time.Second
	// unsentBytes bounds what a socket takes beyond what is under way. More
	// would be of no use: it waits there, where nobody can drop it when it
	// expires, and hides from its sender that the network is slow. Its unit is
	// bytes. It must be above peerBufferBytes, or each write would wait.
	unsentBytes = 256 << 10
)

// tunePeerConn sets up a connection between nodes.
func tunePeerConn(c net.Conn) error {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	if err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeEach, Count: 3}); err != nil {
		return fmt.Errorf("set the probes of the connection: %w", err)
	}
	return limitUnsent(tcp, unsentBytes)
}

// peerListener tunes what it accepts.
type peerListener struct{ net.Listener }

// Accept implements net.Listener.
func (l peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		// Without it the connection works, if not as well; one that is broken
		// already says so at the first read.
		_ = tunePeerConn(c)
	}
	return c, err
}

// sockets are the connections that gRPC was given for a link, so that they can
// be closed without its leave. The zero value is ready.
type sockets struct {
	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

// dialer is dial, and keeps what it returns.
func (s *sockets) dialer(dial func(context.Context, string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			// Of an attempt that was given up; whatever else closing says is
			// of no interest.
			_ = c.Close()
			return nil, net.ErrClosed
		}
		s.conns = append(s.conns, c)
		return c, nil
	}
}

// close closes all of them, those that gRPC has closed once more.
func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.conns {
		// They are closed, or broken, or are to be.
		_ = c.Close()
	}
}
