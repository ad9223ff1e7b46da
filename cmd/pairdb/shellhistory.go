package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// historyLines and historyBytes bound what the shell remembers.
	historyLines = 1000
	historyBytes = 1 << 20
)

// history is what was typed into the shell, the last line first to At. It is for
// one goroutine and implements term.History.
type history struct {
	lines []string // the oldest first
	file  *os.File // where new lines go; nil: nowhere
	err   error    // the first failure to write one
}

// historyFile is where the shell's history is kept, "" if there is no place.
func (a *app) historyFile() string {
	dir := a.getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home := a.getenv("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "pairdb", "history")
}

// openHistory reads the history and keeps the file open for more. Nobody else
// may read it: keys and values stand in it. The caller closes it.
func openHistory(path string) (*history, error) {
	h := &history{}
	if path == "" {
		return h, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return h, fmt.Errorf("keep the history: %w", err)
	}
	old, err := readTail(path, historyBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h, fmt.Errorf("read the history: %w", err)
	}
	if text := strings.TrimSuffix(old, "\n"); text != "" {
		h.lines = strings.Split(text, "\n")
	}
	if len(h.lines) > historyLines {
		h.lines = h.lines[len(h.lines)-historyLines:]
		if err := replaceFile(path, strings.Join(h.lines, "\n")+"\n"); err != nil {
			return h, fmt.Errorf("shorten the history: %w", err)
		}
	}
	h.file, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = h.file.Chmod(0o600)
	}
	if err != nil {
		return h, fmt.Errorf("keep the history: %w", err)
	}
	return h, nil
}

// readTail returns the last limit bytes of a file, from the beginning of a line.
func readTail(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read from
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	skip := max(info.Size()-limit, 0)
	b, err := io.ReadAll(io.NewSectionReader(f, skip, limit))
	text := string(b)
	if skip > 0 {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text, err
}

func replaceFile(path, text string) error {
	next := path + ".new"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// Add takes a line in, unless it is empty, the same again, or too long to keep.
func (h *history) Add(line string) {
	if strings.TrimSpace(line) == "" || len(line) > historyBytes/4 || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	h.lines = append(h.lines, line)
	if len(h.lines) > historyLines {
		h.lines = h.lines[1:]
	}
	if h.file != nil && h.err == nil {
		_, h.err = h.file.WriteString(line + "\n")
	}
}

// Len is the number of lines.
func (h *history) Len() int { return len(h.lines) }

// At returns a line; 0 is the last.
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }

func (h *history) close() error {
	if h.file == nil {
		return h.err
	}
	return errors.Join(h.err, h.file.Close())
}
