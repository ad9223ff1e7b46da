package rpc

import (
	"fmt"
	"net"
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
