package rpc

import "encoding/binary"

// Farewell is what a client hears whose connection is one too many: a GOAWAY of
// HTTP/2 that says so, which its library may show in the error of its calls.
// Behind TLS nobody can read it; the connection is closed all the same.
func Farewell() []byte {
	const (
		frameSettings, frameGoAway = 0x4, 0x7
		enhanceYourCalm            = 0xb
		why                        = "this node has as many connections as it takes; use fewer, or another node"
	)
	header := func(b []byte, length int, kind byte) []byte {
		b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, 0)
		return binary.BigEndian.AppendUint32(b, 0) // the connection's own stream
	}
	b := header(nil, 0, frameSettings)
	b = header(b, 8+len(why), frameGoAway)
	b = binary.BigEndian.AppendUint32(b, 0) // no stream was looked at
	b = binary.BigEndian.AppendUint32(b, enhanceYourCalm)
	return append(b, why...)
}
