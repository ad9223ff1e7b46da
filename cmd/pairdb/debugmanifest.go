package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
)

// manifestJSON is a manifest for programs.
type manifestJSON struct {
	File          string      `json:"file"`
	Size          int64       `json:"size"`
	FormatVersion int         `json:"format_version"`
	Number        uint64      `json:"number"`
	Nonce         string      `json:"nonce"`
	Current       bool        `json:"current"` // CURRENT beside it names it
	Records       int64       `json:"records"`
	End           int64       `json:"end"`
	Torn          bool        `json:"torn"`
	Error         string      `json:"error,omitempty"`
	NextFile      uint64      `json:"next_file"`
	FlushedSeq    uint64      `json:"flushed_seq"`
	LogNumber     uint64      `json:"log_number"`
	LogEndSegment uint64      `json:"log_end_segment"`
	LogEndLength  int64       `json:"log_end_length"`
	Levels        []levelJSON `json:"levels"`
	Edits         []editJSON  `json:"edits"`
	Tables        []metaJSON  `json:"tables"`
	Truncated     bool        `json:"truncated"`
}

type levelJSON struct {
	Level  int   `json:"level"`
	Tables int   `json:"tables"`
	Bytes  int64 `json:"bytes"`
}

type editJSON struct {
	Offset        int64        `json:"offset"`
	Length        int64        `json:"length"`
	NextFile      uint64       `json:"next_file,omitempty"`
	FlushedSeq    uint64       `json:"flushed_seq,omitempty"`
	LogNumber     uint64       `json:"log_number,omitempty"`
	LogEndSegment uint64       `json:"log_end_segment,omitempty"`
	LogEndLength  int64        `json:"log_end_length,omitempty"`
	Deleted       []levelTable `json:"deleted"`
	Added         []levelTable `json:"added"`
	// DeletedCount and AddedCount count also what --limit left out.
	DeletedCount int `json:"deleted_count"`
	AddedCount   int `json:"added_count"`
}

type levelTable struct {
	Level  int    `json:"level"`
	Number uint64 `json:"number"`
}

func (t levelTable) String() string { return fmt.Sprintf("L%d/%06d", t.Level, t.Number) }

type metaJSON struct {
	Level        int     `json:"level"`
	Number       uint64  `json:"number"`
	Size         int64   `json:"size"`
	Nonce        string  `json:"nonce"`
	Entries      uint64  `json:"entries"`
	Deletes      uint64  `json:"deletes"`
	RangeDeletes uint64  `json:"range_deletes"`
	SmallestSeq  uint64  `json:"smallest_seq"`
	LargestSeq   uint64  `json:"largest_seq"`
	Smallest     keyJSON `json:"smallest"`
	Largest      keyJSON `json:"largest"`
	LargestIsEnd bool    `json:"largest_is_exclusive"`
}

func (a *app) debugManifestCommand() *cobra.Command {
	var f debugFlags
	var tables bool
	cmd := a.withDebugFlags(&cobra.Command{
		Use:   "manifest FILE",
		Short: "Show a manifest: its edits one by one, and the tables by level",
		Long: `Show a manifest: each edit with what it changes, and the state they make together.
The edits before damage are shown with it.

The file is only read, and may be that of a running node. Exit code 1 says that it is
damaged or no manifest.`,
		Args: args("the manifest file"),
	}, &f)
	cmd.Flags().BoolVar(&tables, "tables", false, "list the tables of the final state by level, in place of the edits")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := regularFile(cmd, args[0]); err != nil {
			return err
		}
		m := &manifestDump{limit: f.limit, tables: tables, stop: cmd.Context().Err}
		err := m.read(args[0])
		if m.out.FormatVersion == 0 {
			return err // nothing to show
		}
		if serr := a.show(f.output, m.view()); serr != nil {
			return serr
		}
		return err
	}
	return cmd
}

// manifestDump gathers what is shown of a manifest.
type manifestDump struct {
	limit  int
	tables bool
	stop   func() error // asked for each edit
	out    manifestJSON
}

func (m *manifestDump) read(path string) error {
	o := &m.out
	o.Edits, o.Tables, o.Levels = []editJSON{}, []metaJSON{}, []levelJSON{}
	info, err := manifest.Inspect(vfs.OS(), path, m.edit)
	if serr := m.stop(); serr != nil {
		return serr
	}
	o.File, o.Size, o.FormatVersion, o.Number, o.Nonce = path, info.Size, info.FormatVersion, info.Number, fmt.Sprintf("%016x", info.Nonce)
	o.Records, o.End, o.Torn = info.Records, info.End, info.Torn
	current, cerr := manifest.Current(vfs.OS(), filepath.Dir(path))
	o.Current = cerr == nil && manifest.Name(current) == filepath.Base(path)
	m.state(&info.State)
	if err != nil {
		o.Error = plainError(err)
		return debugFailed(path, err)
	}
	return nil
}

func (m *manifestDump) state(s *manifest.State) {
	o := &m.out
	o.NextFile, o.FlushedSeq, o.LogNumber = s.NextFile, uint64(s.FlushedSeq), s.LogNumber
	o.LogEndSegment, o.LogEndLength = s.LogEnd.Segment, s.LogEnd.Length
	if s.Version == nil {
		return // not even the first edit is sound
	}
	for level, files := range s.Version.Levels {
		o.Levels = append(o.Levels, levelJSON{Level: level, Tables: len(files), Bytes: manifest.Bytes(files)})
		for _, f := range files {
			if len(o.Tables) == m.limit {
				o.Truncated = o.Truncated || m.tables
				break
			}
			o.Tables = append(o.Tables, metaJSON{
				Level: level, Number: f.Num, Size: f.Size, Nonce: fmt.Sprintf("%016x", f.Nonce),
				Entries: f.Entries, Deletes: f.Deletes, RangeDeletes: f.RangeDels,
				SmallestSeq: uint64(f.SmallestSeq), LargestSeq: uint64(f.LargestSeq),
				Smallest: newKeyJSON(f.Smallest.UserKey), Largest: newKeyJSON(f.Largest.UserKey), LargestIsEnd: f.ExclusiveEnd(),
			})
		}
	}
}

func (m *manifestDump) edit(r manifest.Record) error {
	if err := m.stop(); err != nil {
		return err
	}
	o := &m.out
	if len(o.Edits) == m.limit {
		o.Truncated = o.Truncated || !m.tables
		return nil
	}
	e := editJSON{
		Offset: r.Offset, Length: r.Length, NextFile: r.Edit.NextFile, FlushedSeq: uint64(r.Edit.FlushedSeq), LogNumber: r.Edit.LogNumber,
		LogEndSegment: r.Edit.LogEnd.Segment, LogEndLength: r.Edit.LogEnd.Length,
		Deleted: []levelTable{}, Added: []levelTable{}, DeletedCount: len(r.Edit.Deleted), AddedCount: len(r.Edit.Added),
	}
	for _, d := range r.Edit.Deleted[:min(m.limit, len(r.Edit.Deleted))] {
		e.Deleted = append(e.Deleted, levelTable{d.Level, d.Num})
	}
	for _, d := range r.Edit.Added[:min(m.limit, len(r.Edit.Added))] {
		e.Added = append(e.Added, levelTable{d.Level, d.Num})
	}
	o.Edits = append(o.Edits, e)
	return nil
}

// shownTables is how many tables of an edit fit on its line.
const shownTables = 8

func tableList(list []levelTable, count int) string {
	var names []string
	for _, t := range list[:min(len(list), shownTables)] {
		names = append(names, t.String())
	}
	text := strings.Join(names, " ")
	if count > len(names) {
		text += fmt.Sprintf(" and %d more", count-len(names))
	}
	return text
}

func zeroEmpty(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func (m *manifestDump) view() view {
	o := &m.out
	v := view{data: o, items: []any{}, head: m.head()}
	if m.tables {
		v.columns = []string{"LEVEL", "TABLE", "BYTES", "ENTRIES", "DELETES", "RANGE DELETES", "SEQUENCE", "SMALLEST", "LARGEST"}
		for _, t := range o.Tables {
			end := ""
			if t.LargestIsEnd {
				end = " (excluded)"
			}
			v.items = append(v.items, t)
			v.rows = append(v.rows, []string{
				strconv.Itoa(t.Level), fmt.Sprintf("%06d", t.Number), strconv.FormatInt(t.Size, 10), strconv.FormatUint(t.Entries, 10),
				strconv.FormatUint(t.Deletes, 10), strconv.FormatUint(t.RangeDeletes, 10), fmt.Sprintf("%d-%d", t.SmallestSeq, t.LargestSeq),
				keyText(t.Smallest.Bytes), keyText(t.Largest.Bytes) + end,
			})
		}
		return v
	}
	v.columns = []string{"OFFSET", "LENGTH", "NEXT FILE", "FLUSHED", "LOG", "CLOSED AT", "REMOVES", "ADDS"}
	for _, e := range o.Edits {
		closed := ""
		if e.LogEndSegment != 0 {
			closed = fmt.Sprintf("%d:%d", e.LogEndSegment, e.LogEndLength)
		}
		v.items = append(v.items, e)
		v.rows = append(v.rows, []string{
			strconv.FormatInt(e.Offset, 10), strconv.FormatInt(e.Length, 10), zeroEmpty(e.NextFile), zeroEmpty(e.FlushedSeq), zeroEmpty(e.LogNumber),
			closed, tableList(e.Deleted, e.DeletedCount), tableList(e.Added, e.AddedCount),
		})
	}
	return v
}

func (m *manifestDump) head() []string {
	o := &m.out
	current := "CURRENT beside it does not name it"
	if o.Current {
		current = "CURRENT beside it names it"
	}
	ends := fmt.Sprintf("ends      at %d", o.End)
	switch {
	case o.Error != "":
		ends += ": DAMAGED: " + o.Error
	case o.Torn:
		ends += ": what lies behind it is an edit that nobody was told of"
	}
	head := []string{
		"file      " + visible(o.File) + ", " + sizeText(o.Size),
		fmt.Sprintf("header    format %d, manifest %d, nonce %s; %s", o.FormatVersion, o.Number, o.Nonce, current),
		fmt.Sprintf("holds     %d edits", o.Records),
		ends,
		fmt.Sprintf("state     next file %d, flushed up to sequence %d, log from segment %d", o.NextFile, o.FlushedSeq, o.LogNumber),
	}
	if o.LogEndSegment != 0 {
		head = append(head, fmt.Sprintf("closed    in order, with the log at %d of segment %d", o.LogEndLength, o.LogEndSegment))
	}
	for _, l := range o.Levels {
		head = append(head, fmt.Sprintf("level %d   %d tables, %s", l.Level, l.Tables, sizeText(l.Bytes)))
	}
	if o.Truncated {
		head = append(head, "cut       the list is longer than --limit "+strconv.Itoa(m.limit))
	}
	return head
}
