package vfs

import "io"

// windowAhead is the least that a Window reads at once, in bytes.
const windowAhead = 256 << 10

// Window reads a file mostly front to back: it fetches ahead and keeps what it
// fetched last. One goroutine uses it. Its memory is the largest piece asked
// for, which is never more than the file has.
type Window struct {
	r    io.ReaderAt
	size int64
	// buf holds the bytes of the file from off on.
	buf []byte
	off int64
}

// NewWindow returns a window on the first size bytes of r.
func NewWindow(r io.ReaderAt, size int64) *Window { return &Window{r: r, size: size} }

// Size returns the bytes that can be read.
func (w *Window) Size() int64 { return w.size }

// Bytes returns the n bytes at off, valid until the next call, or nil when the
// file ends before that. A file that has lost bytes since its size was taken is
// io.ErrUnexpectedEOF.
func (w *Window) Bytes(off int64, n int) ([]byte, error) {
	if n < 0 || off < 0 || off > w.size || int64(n) > w.size-off {
		return nil, nil
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		want := int(min(max(int64(n), windowAhead), w.size-off))
		if cap(w.buf) < want {
			w.buf = make([]byte, want)
		}
		w.buf, w.off = w.buf[:want], off
		// ReadAt may return io.EOF with a full read at the end of the file.
		if got, err := w.r.ReadAt(w.buf, off); got < want {
			w.buf = w.buf[:0]
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	at := int(off - w.off)
	return w.buf[at : at+n], nil
}
