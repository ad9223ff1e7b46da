package vfs

import "io"

// pageSize is the unit in which MemFS shares bytes between a file, its durable
// state and crashed copies, and in which a crash may lose them.
const pageSize = 4096

// token stands for the right to write to pages in place. It has a size so that
// two tokens have two addresses.
type token struct{ _ byte }

type page struct {
	owner *token
	data  [pageSize]byte
}

// content is the bytes of a file at one moment, cheap to copy: pages are shared
// until one side writes to them.
//
// Invariant: bytes of pages at and beyond size are zero; a nil or missing page
// is all zeros.
type content struct {
	size  int64
	pages []*page
	// own marks the pages that nobody else has seen.
	own *token
	// shared says that the slice, not only the pages, belongs to several.
	shared bool
}

// share returns a copy. Both sides copy a page before they write to it again.
func (c *content) share() content {
	c.own, c.shared = nil, true
	return content{size: c.size, pages: c.pages, shared: true}
}

// ownSlice makes the slice of pages private with at least n entries.
func (c *content) ownSlice(n int) {
	if c.shared {
		c.pages = append(make([]*page, 0, max(n, len(c.pages))), c.pages...)
		c.shared = false
	}
	for len(c.pages) < n {
		c.pages = append(c.pages, nil)
	}
}

// writable returns page i for writing in place.
func (c *content) writable(i int) *page {
	c.ownSlice(i + 1)
	if c.own == nil {
		c.own = new(token)
	}
	p := c.pages[i]
	if p != nil && p.owner == c.own {
		return p
	}
	fresh := &page{owner: c.own}
	if p != nil {
		fresh.data = p.data
	}
	c.pages[i] = fresh
	return fresh
}

// page returns page i, nil if it is all zeros.
func (c *content) page(i int) *page {
	if i < len(c.pages) {
		return c.pages[i]
	}
	return nil
}

// adopt replaces page i by p, which is another content's.
func (c *content) adopt(i int, p *page) {
	if c.page(i) == p {
		return
	}
	c.ownSlice(i + 1)
	c.pages[i] = p
}

// grow extends the size over end with zeros.
func (c *content) grow(end int64) { c.size = max(c.size, end) }

// writeAt writes b at off and grows the content over it.
func (c *content) writeAt(b []byte, off int64) {
	c.grow(off + int64(len(b)))
	for len(b) > 0 {
		n := copy(c.writable(int(off / pageSize)).data[off%pageSize:], b)
		b, off = b[n:], off+int64(n)
	}
}

// readAt has the semantics of io.ReaderAt.
func (c *content) readAt(b []byte, off int64) (int, error) {
	if off >= c.size {
		return 0, io.EOF
	}
	var err error
	if rest := c.size - off; int64(len(b)) > rest {
		b, err = b[:rest], io.EOF
	}
	total := len(b)
	for len(b) > 0 {
		at := int(off % pageSize)
		n := min(len(b), pageSize-at)
		if p := c.page(int(off / pageSize)); p != nil {
			copy(b[:n], p.data[at:])
		} else {
			clear(b[:n])
		}
		b, off = b[n:], off+int64(n)
	}
	return total, err
}

// resize sets the size; bytes cut off are zero should they come back.
func (c *content) resize(size int64) {
	if size < c.size {
		keep := int((size + pageSize - 1) / pageSize)
		if keep < len(c.pages) {
			c.ownSlice(len(c.pages))
			clear(c.pages[keep:])
			c.pages = c.pages[:keep]
		}
		if at := size % pageSize; at != 0 && c.page(int(size/pageSize)) != nil {
			clear(c.writable(int(size / pageSize)).data[at:])
		}
	}
	c.size = size
}
