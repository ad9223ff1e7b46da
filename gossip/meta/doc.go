// Package meta is the core of a node's metadata: its identity, the copy of the
// gossiped state it holds, the log it has learned, its vote, and how a cluster
// is founded. It is a step machine: it starts no goroutine, reads no clock and
// opens no file or socket. The owner hands it messages, ticks and liveness, and
// carries out what it asks for (Take). What must not be forgotten goes through
// Store and is durable before it is spoken.
//
// A Core is not safe for concurrent use; gossip guards it with a mutex.
package meta
