//go:build !linux

package offheap

// On other systems the memory is the collector's after all.

const hugePage = 1 << 62

func mmap(n int) ([]byte, error) { return make([]byte, n), nil }

func munmap([]byte) error { return nil }

func preferHugePages([]byte) {}
