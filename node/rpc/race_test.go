//go:build race

package rpc

// raced says that the race detector makes everything slow.
const raced = true
