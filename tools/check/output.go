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
