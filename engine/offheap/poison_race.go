//go:build race

package offheap

// poison makes what is read from freed memory visibly wrong.
//
//go:norace
func poison(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
