package rpc

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// limitUnsent bounds the bytes that the socket takes and has not sent yet.
func limitUnsent(c *net.TCPConn, n int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("limit what a connection has unsent: %w", err)
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
	})
	if err := errors.Join(err, set); err != nil {
		return fmt.Errorf("limit what a connection has unsent: %w", err)
	}
	return nil
}
