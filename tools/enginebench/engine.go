package main

// Engine is what every engine under test does. It is safe for concurrent use.
type Engine interface {
	// Put stores one pair, durably if the engine was opened with Sync.
	Put(k, v []byte) error
	// Get reports whether k is there and copies its value to dst, which it
	// returns grown.
	Get(k, dst []byte) ([]byte, bool, error)
	// Scan seeks to start and visits up to n pairs. It returns how many there
	// were, and their bytes.
	Scan(start []byte, n int) (pairs, bytes int, err error)
	// Settle flushes what is in memory and waits, a minute at most, until
	// compaction is done.
	Settle() error
	Close() error
}

// Config is what all engines are given alike.
type Config struct {
	Dir              string
	Sync             bool
	CacheMiB, MemMiB int64
	BloomBits        int // per key
	Jobs             int // background compactions
}

// engines opens an engine by its name.
var engines = map[string]func(Config) (Engine, error){}
