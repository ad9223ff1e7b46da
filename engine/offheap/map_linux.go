package offheap

import "golang.org/x/sys/unix"

// hugePage is the size from which the kernel may back memory by large pages,
// which saves page faults and misses of the address cache.
const hugePage = 2 << 20

func mmap(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

func munmap(b []byte) error { return unix.Munmap(b) }

func preferHugePages(b []byte) {
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a wish; without it all works as well
}
