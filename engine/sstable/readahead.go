package sstable

const (
	minAhead = 32 << 10
	maxAhead = 256 << 10
)

// readahead turns the block reads of a scan into fewer, larger ones. It reads
// just the block asked for until the reads turn out to be sequential, and then
// twice as much each time.
type readahead struct {
	lent *[]byte // the reader's, holds buf
	buf  []byte  // bytes of the file from off on
	off  uint64
	next uint64 // end of the block read last
	size int    // bytes to read at the next miss, if it goes on from next
}

// read returns the stored bytes of a block, valid until the next call.
func (a *readahead) read(r *Reader, h handle) ([]byte, error) {
	n := h.length + trailerSize
	if h.offset >= a.off && h.offset+n <= a.off+uint64(len(a.buf)) {
		a.next = h.offset + n
		return a.buf[h.offset-a.off:][:n], nil
	}
	want := n
	if a.lent == nil || (h.offset >= a.next && h.offset-a.next < maxAhead) {
		// Blocks of the index may lie between two of data.
		want = min(max(n, uint64(a.size)), r.limit-h.offset)
		a.size = min(max(2*a.size, minAhead), maxAhead)
	} else {
		a.size = 0
	}
	if a.lent == nil {
		a.lent = r.dec.buffer(int(want))
	}
	if uint64(cap(*a.lent)) < want {
		*a.lent = make([]byte, want)
	}
	a.buf = (*a.lent)[:want]
	if err := r.readAt(a.buf, int64(h.offset)); err != nil {
		a.buf = nil
		return nil, err
	}
	a.off, a.next = h.offset, h.offset+n
	return a.buf[:n], nil
}

func (a *readahead) close(r *Reader) {
	if a.lent != nil {
		r.dec.release(a.lent)
	}
	*a = readahead{}
}
