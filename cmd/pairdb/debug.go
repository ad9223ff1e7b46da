package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/node"
)

const (
	// defaultRows and maxRows bound the lists of the debug commands.
	defaultRows = 1000
	maxRows     = 1_000_000
	// maxWhy bounds the findings that a failure repeats.
	maxWhy = 10
)

func (a *app) debugCommand() *cobra.Command {
	return group("debug", "Look into the files of a node", groupTrouble,
		a.debugSSTCommand(), a.debugWALCommand(), a.debugManifestCommand(), a.debugVerifyCommand(), a.debugDumpCommand())
}

// debugFlags are the flags of a debug command.
type debugFlags struct {
	output string
	limit  int
}

// withDebugFlags adds the flags that the debug commands have to cmd.
func (a *app) withDebugFlags(cmd *cobra.Command, f *debugFlags) *cobra.Command {
	outputFlag(cmd, &f.output)
	cmd.Flags().IntVar(&f.limit, "limit", defaultRows, "how many lines a list has at most")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, f.output); err != nil {
			return err
		}
		if f.limit < 1 || f.limit > maxRows {
			return usagef("%s: --limit is %d; it has to be 1 to %d", cmd.CommandPath(), f.limit, maxRows)
		}
		return nil
	}
	return cmd
}

// regularFile makes sure that a path names a file that can be looked at.
func regularFile(cmd *cobra.Command, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &failure{exit: errcode.ExitNotFound, what: fmt.Sprintf("%s: there is no file %s", cmd.CommandPath(), visible(path)), err: err}
	case err != nil:
		return &failure{exit: errcode.ExitFailed, what: fmt.Sprintf("%s: %v", cmd.CommandPath(), err), err: err}
	case info.IsDir():
		f := usagef("%s: %s is a directory", cmd.CommandPath(), visible(path))
		f.next = "Name one of its files, or check all of them with pairdb debug verify."
		return f
	case !info.Mode().IsRegular():
		return usagef("%s: %s is no regular file", cmd.CommandPath(), visible(path))
	}
	return nil
}

// debugFailed makes a failure of what the engine says of a file: which one, where
// and why.
func debugFailed(path string, err error) error {
	f := &failure{exit: errcode.ExitFailed, what: fmt.Sprintf("debug: cannot read %s", visible(path)), why: []string{plainError(err)}, err: err}
	switch {
	case errors.Is(err, base.ErrFormat):
		f.next = "It was written by a newer version of pairdb; use that one."
	case errors.Is(err, base.ErrCorrupt):
		f.what = fmt.Sprintf("debug: %s is damaged, or not what it was taken for", visible(path))
		f.next = "If the file is what its name says, replace it from a backup or rebuild the node from its peers."
	}
	return f
}

// plainError writes an error on one line that cannot drive a terminal.
func plainError(err error) string { return visibleText(err.Error()) }

// visibleText is visible for a sentence, which needs no quotes.
func visibleText(s string) string {
	s = strings.TrimSpace(s)
	if visible(s) == s {
		return s
	}
	return strings.Trim(visible(s), `"`)
}

// foundDamage is the failure that ends a command which showed damage.
func foundDamage(path string, n int, why []string) error {
	if n == 0 {
		return nil
	}
	f := &failure{
		exit: errcode.ExitFailed, what: fmt.Sprintf("debug: %s has %d damaged places", visible(path), n), why: why,
		next: "Replace what is damaged from a backup, or rebuild the node from its peers.",
	}
	if len(why) > maxWhy {
		f.why = append(slices.Clone(why[:maxWhy]), fmt.Sprintf("and %d more", n-maxWhy))
	}
	return f
}

// openFile opens a file for an inspection.
func openFile(path string) (vfs.File, int64, error) {
	f, err := vfs.OS().Open(path)
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

// keyJSON is a key of the engine for programs: its bytes, and what PairDB stored
// under it if it is an object's.
type keyJSON struct {
	Bytes     []byte  `json:"bytes"`
	Partition *uint16 `json:"partition,omitempty"`
	Tenant    *uint32 `json:"tenant_number,omitempty"`
	Token     string  `json:"token,omitempty"`
	Key       []byte  `json:"key,omitempty"`
}

func newKeyJSON(b []byte) keyJSON {
	k := keyJSON{Bytes: slices.Clone(b)}
	if s, ok := node.ParseStorageKey(k.Bytes); ok {
		partition, tenant := uint16(s.Partition), uint32(s.Tenant)
		k.Partition, k.Tenant, k.Token, k.Key = &partition, &tenant, fmt.Sprintf("%016x", uint64(s.Token)), s.Key
	}
	return k
}

// keyText is a key of the engine for people, escaped.
func keyText(b []byte) string { return visible(string(b)) }

// objectText says which object a key of the engine is of; empty if it is none's.
func objectText(b []byte) string {
	s, ok := node.ParseStorageKey(b)
	if !ok {
		return ""
	}
	return fmt.Sprintf("partition %d tenant %d key %s", s.Partition, s.Tenant, visible(string(s.Key)))
}

// fullKeyText is keyText with objectText behind it.
func fullKeyText(b []byte) string {
	if o := objectText(b); o != "" {
		return keyText(b) + " (" + o + ")"
	}
	return keyText(b)
}

// sizeText writes a size exactly and for people.
func sizeText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d bytes (%s)", n, bytesText(uint64(n)))
}

// liveLine keeps one line of a terminal up to date. It does nothing elsewhere.
type liveLine struct {
	w    io.Writer // nil: no terminal
	last time.Time
}

func (a *app) liveLine() *liveLine {
	if !isTerminal(a.stderr) {
		return &liveLine{}
	}
	return &liveLine{w: a.stderr}
}

// show replaces the line, unless that was done a moment ago. A line that cannot
// be drawn is no reason to stop.
func (l *liveLine) show(format string, args ...any) {
	if l.w == nil || time.Since(l.last) < progressEvery {
		return
	}
	l.last = time.Now()
	_, _ = fmt.Fprintf(l.w, "\r"+format+"\x1b[K", args...)
}

// clear takes the line away.
func (l *liveLine) clear() {
	if l.w != nil {
		_, _ = io.WriteString(l.w, "\r\x1b[K")
	}
}
