//go:build !linux

package rpc

import "net"

// limitUnsent does nothing where there is no such limit.
func limitUnsent(*net.TCPConn, int) error { return nil }
