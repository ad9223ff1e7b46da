package main

import (
	"bytes"
	"io"
	"sync"
)

// lockedWriter lets steps that run beside one another write to the same place.
type lockedWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// maxLine bounds what is kept of a line that does not end.
const maxLine = 64 << 10

// lineWriter hands on whole lines, with their ends. One that is too long is cut.
type lineWriter struct {
	each func(line []byte) error
	line []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n') + 1
		whole := end > 0
		if !whole {
			end = len(rest)
		}
		w.line = append(w.line, rest[:end]...)
		rest = rest[end:]
		if whole || len(w.line) > maxLine {
			if err := w.put(whole); err != nil {
				return len(p) - len(rest), err
			}
		}
	}
	return len(p), nil
}

// put hands on what there is of a line, and ends it if it has no end.
func (w *lineWriter) put(whole bool) error {
	if !whole {
		w.line = append(w.line, '\n')
	}
	err := w.each(w.line)
	w.line = w.line[:0]
	return err
}

// flush hands on the last line, if it has no end.
func (w *lineWriter) flush() error {
	if len(w.line) == 0 {
		return nil
	}
	return w.put(false)
}

const (
	// digestLines and digestLine bound what is said again of a step that failed, in
	// lines and in bytes of each.
	digestLines = 60
	digestLine  = 400
	// digestBefore and digestAfter are how many lines around a failure belong to it:
	// go test prints what a test logged after its failure, and with -v before it.
	digestBefore = 8
	digestAfter  = 12
)

// digest picks the lines around failures out of what a step prints. Whoever reads only
// the end of a long run finds them there.
type digest struct {
	picked [][]byte
	// before are the lines since the last that was picked, no more than digestBefore.
	before [][]byte
	// after is how many more lines belong to the last failure.
	after int
}

// failures are how lines begin, behind spaces, that tell of one.
var failures = [][]byte{[]byte("--- FAIL"), []byte("panic: "), []byte("fatal error: "), []byte("WARNING: DATA RACE"), []byte("--> "), []byte("FAIL\t")}

func (d *digest) add(line []byte) {
	if len(d.picked) >= digestLines {
		return
	}
	text := bytes.TrimSpace(line)
	failure := false
	for _, mark := range failures {
		failure = failure || bytes.HasPrefix(text, mark)
	}
	text = bytes.TrimRight(line, "\n")
	text = bytes.Clone(text[:min(len(text), digestLine)])
	switch {
	case failure:
		d.picked = append(append(d.picked, d.before...), text)
		d.before, d.after = nil, digestAfter
	case d.after > 0:
		d.after--
		d.picked = append(d.picked, text)
	default:
		if len(d.before) == digestBefore {
			d.before = d.before[1:]
		}
		d.before = append(d.before, text)
	}
}
