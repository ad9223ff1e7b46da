package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/sstable"
)

// tableJSON is a table for programs.
type tableJSON struct {
	File          string           `json:"file"`
	Size          int64            `json:"size"`
	FormatVersion int              `json:"format_version"`
	IndexLevels   int              `json:"index_levels"`
	Nonce         string           `json:"nonce"`
	Properties    tableProperties  `json:"properties"`
	Filter        *tableFilter     `json:"filter"`
	BlockTotals   []blockTotals    `json:"block_totals"`
	Damaged       int64            `json:"damaged_blocks"`
	Contents      string           `json:"contents_error,omitempty"`
	RangeDeletes  []rangeDelJSON   `json:"range_deletes"`
	Blocks        []tableBlockJSON `json:"blocks"`
	Entries       []tableEntryJSON `json:"entries,omitempty"`
	Truncated     bool             `json:"truncated"` // a list is longer than --limit
}

type tableProperties struct {
	Entries       uint64   `json:"entries"`
	Deletes       uint64   `json:"deletes"`
	RangeDeletes  uint64   `json:"range_deletes"`
	Smallest      *keyJSON `json:"smallest"`
	Largest       *keyJSON `json:"largest"`
	LargestIsEnd  bool     `json:"largest_is_exclusive"`
	SmallestSeq   uint64   `json:"smallest_seq"`
	LargestSeq    uint64   `json:"largest_seq"`
	RawKeyBytes   uint64   `json:"raw_key_bytes"`
	RawValueBytes uint64   `json:"raw_value_bytes"`
	DataBlocks    uint64   `json:"data_blocks"`
	DataBytes     uint64   `json:"data_bytes"`
	IndexBlocks   uint64   `json:"index_blocks"`
}

type tableFilter struct {
	Lines  uint64 `json:"lines"`
	Probes int    `json:"probes"`
	Bytes  uint64 `json:"bytes"`
}

// blockTotals sums up the blocks of a kind and codec.
type blockTotals struct {
	Kind    string `json:"kind"`
	Codec   string `json:"codec"`
	Blocks  int64  `json:"blocks"`
	Stored  int64  `json:"stored_bytes"`
	Decoded int64  `json:"decoded_bytes"`
	Damaged int64  `json:"damaged"`
}

type rangeDelJSON struct {
	Start keyJSON `json:"start"`
	End   keyJSON `json:"end"`
	Seq   uint64  `json:"seq"`
}

type tableBlockJSON struct {
	Kind    string   `json:"kind"`
	Offset  int64    `json:"offset"`
	Length  int64    `json:"length"` // of the payload; codec and checksum take 5 more
	Codec   string   `json:"codec"`
	Decoded int64    `json:"decoded"`
	Entries int64    `json:"entries"`
	First   *keyJSON `json:"first,omitempty"`
	Last    *keyJSON `json:"last,omitempty"`
	Error   string   `json:"error,omitempty"`
}

type tableEntryJSON struct {
	Block      int64   `json:"block_offset"`
	Key        keyJSON `json:"key"`
	Seq        uint64  `json:"seq"`
	Kind       string  `json:"kind"`
	ValueBytes int     `json:"value_bytes"`
}

func (a *app) debugSSTCommand() *cobra.Command {
	var f debugFlags
	var blocks, keys bool
	cmd := a.withDebugFlags(&cobra.Command{
		Use:   "sst FILE",
		Short: "Show a table: footer, properties, filter, range deletes, blocks, keys",
		Long: `Show what a table file holds. Every block is read and its checksum is held against
it; a damaged block is shown and does not hide the others. Without --blocks the list
has the blocks that hold no data, and those that are damaged. Keys are escaped; where
a key is that of an object, partition, tenant number and key are shown beside it.

The file is only read, and may be that of a running node. Exit code 1 says that it is
damaged or no table.`,
		Args: args("the table file"),
	}, &f)
	cmd.Flags().BoolVar(&blocks, "blocks", false, "list the data blocks too")
	cmd.Flags().BoolVar(&keys, "keys", false, "list keys with sequence number and kind, in place of the blocks")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := regularFile(cmd, args[0]); err != nil {
			return err
		}
		t := &tableDump{limit: f.limit, blocks: blocks, keys: keys, stop: cmd.Context().Err}
		if err := t.read(args[0]); err != nil {
			return err
		}
		if err := a.show(f.output, t.view()); err != nil {
			return err
		}
		return foundDamage(args[0], len(t.why)+t.omitted, t.why)
	}
	return cmd
}

// tableDump gathers what is shown of a table.
type tableDump struct {
	limit        int
	blocks, keys bool
	stop         func() error // asked for each block

	out     tableJSON
	why     []string // the damage, as far as the limit goes
	omitted int
}

func (t *tableDump) read(path string) error {
	file, size, err := openFile(path)
	if err != nil {
		return debugFailed(path, err)
	}
	v := sstable.Visitor{Block: t.block}
	if t.keys {
		v.Entry = t.entry
	}
	t.out = tableJSON{File: path, Blocks: []tableBlockJSON{}, RangeDeletes: []rangeDelJSON{}, BlockTotals: []blockTotals{}}
	info, err := sstable.Inspect(file, size, path, v)
	if err = errors.Join(err, file.Close()); err != nil {
		if serr := t.stop(); serr != nil {
			return serr
		}
		return debugFailed(path, err)
	}
	t.info(info)
	return nil
}

// info takes over what Inspect says of the whole.
func (t *tableDump) info(i sstable.Info) {
	p := &i.Properties
	o := &t.out
	o.Size, o.FormatVersion, o.IndexLevels, o.Nonce = i.Size, i.FormatVersion, i.IndexLevels, fmt.Sprintf("%016x", i.Nonce)
	o.Properties = tableProperties{
		Entries: p.Entries, Deletes: p.Deletes, RangeDeletes: p.RangeDels,
		SmallestSeq: uint64(p.SmallestSeq), LargestSeq: uint64(p.LargestSeq),
		RawKeyBytes: p.RawKeyBytes, RawValueBytes: p.RawValueBytes,
		DataBlocks: p.DataBlocks, DataBytes: p.DataBytes, IndexBlocks: p.IndexBlocks,
	}
	if !p.Empty() {
		s, l := newKeyJSON(p.Smallest.UserKey), newKeyJSON(p.Largest.UserKey)
		o.Properties.Smallest, o.Properties.Largest = &s, &l
		o.Properties.LargestIsEnd = p.Largest.Trailer == base.RangeDelSentinel
	}
	if i.Filter != (sstable.FilterInfo{}) {
		o.Filter = &tableFilter{Lines: i.Filter.Lines, Probes: i.Filter.Probes, Bytes: i.Filter.Lines*64 + 1}
	}
	for _, rd := range i.RangeDels {
		if len(o.RangeDeletes) == t.limit {
			o.Truncated = true
			break
		}
		o.RangeDeletes = append(o.RangeDeletes, rangeDelJSON{Start: newKeyJSON(rd.Start), End: newKeyJSON(rd.End), Seq: uint64(rd.Seq)})
	}
	o.Damaged = i.Damaged
	if i.Contents != nil {
		o.Contents = plainError(i.Contents)
		t.damage(o.Contents)
	}
}

func (t *tableDump) damage(text string) {
	if len(t.why) == t.limit {
		t.omitted++
		return
	}
	t.why = append(t.why, text)
}

// block takes a block into the totals and, if it is to be shown, into the list.
func (t *tableDump) block(b sstable.BlockInfo) error {
	if err := t.stop(); err != nil {
		return err
	}
	t.total(b)
	if b.Err != nil {
		t.damage(plainError(b.Err))
	}
	if b.Kind == sstable.BlockData && !t.blocks && b.Err == nil {
		return nil
	}
	if len(t.out.Blocks) == t.limit {
		t.out.Truncated = true
		return nil
	}
	j := tableBlockJSON{
		Kind: b.Kind.String(), Offset: b.Offset, Length: b.Length, Codec: b.Codec.String(), Decoded: b.Decoded, Entries: b.Entries,
	}
	if b.Err != nil {
		j.Error = plainError(b.Err)
	}
	if b.Kind == sstable.BlockData && b.Entries > 0 {
		first, last := newKeyJSON(b.First.UserKey), newKeyJSON(b.Last.UserKey)
		j.First, j.Last = &first, &last
	}
	t.out.Blocks = append(t.out.Blocks, j)
	return nil
}

func (t *tableDump) total(b sstable.BlockInfo) {
	kind, codec := b.Kind.String(), b.Codec.String()
	totals := t.out.BlockTotals
	i := 0
	for i < len(totals) && (totals[i].Kind != kind || totals[i].Codec != codec) {
		i++
	}
	if i == len(totals) {
		t.out.BlockTotals = append(totals, blockTotals{Kind: kind, Codec: codec})
	}
	s := &t.out.BlockTotals[i]
	s.Blocks++
	s.Stored += b.Length + 5
	s.Decoded += b.Decoded
	if b.Err != nil {
		s.Damaged++
	}
}

func (t *tableDump) entry(at int64, k base.InternalKey, value []byte) error {
	if len(t.out.Entries) == t.limit {
		t.out.Truncated = true
		return nil
	}
	t.out.Entries = append(t.out.Entries, tableEntryJSON{
		Block: at, Key: newKeyJSON(k.UserKey), Seq: uint64(k.SeqNum()), Kind: k.Kind().String(), ValueBytes: len(value),
	})
	return nil
}

func (t *tableDump) view() view {
	o := &t.out
	v := view{data: o, head: t.head()}
	if t.keys {
		v.items = []any{}
		v.columns = []string{"BLOCK", "SEQ", "KIND", "VALUE BYTES", "KEY", "OBJECT"}
		for _, e := range o.Entries {
			v.items = append(v.items, e)
			v.rows = append(v.rows, []string{
				strconv.FormatInt(e.Block, 10), strconv.FormatUint(e.Seq, 10), e.Kind, strconv.Itoa(e.ValueBytes),
				keyText(e.Key.Bytes), objectText(e.Key.Bytes),
			})
		}
		return v
	}
	v.items = []any{}
	v.columns = []string{"KIND", "OFFSET", "STORED", "DECODED", "CODEC", "ENTRIES", "CHECKSUM", "FIRST KEY", "LAST KEY"}
	for _, b := range o.Blocks {
		v.items = append(v.items, b)
		state, first, last := "ok", "", ""
		if b.Error != "" {
			state = "DAMAGED"
		}
		if b.First != nil {
			first, last = keyText(b.First.Bytes), keyText(b.Last.Bytes)
		}
		v.rows = append(v.rows, []string{
			b.Kind, strconv.FormatInt(b.Offset, 10), strconv.FormatInt(b.Length+5, 10), strconv.FormatInt(b.Decoded, 10),
			b.Codec, strconv.FormatInt(b.Entries, 10), state, first, last,
		})
	}
	return v
}

// head is what stands above the list.
func (t *tableDump) head() []string {
	o := &t.out
	p := &o.Properties
	head := []string{
		"file      " + visible(o.File) + ", " + sizeText(o.Size),
		fmt.Sprintf("footer    format %d, index levels %d, nonce %s", o.FormatVersion, o.IndexLevels, o.Nonce),
		fmt.Sprintf("entries   %d, of which deletes %d; range deletes %d", p.Entries, p.Deletes, p.RangeDeletes),
		fmt.Sprintf("sequence  %d to %d", p.SmallestSeq, p.LargestSeq),
	}
	if p.Smallest != nil {
		end := ""
		if p.LargestIsEnd {
			end = ", which is excluded"
		}
		head = append(head, "from      "+fullKeyText(p.Smallest.Bytes), "to        "+fullKeyText(p.Largest.Bytes)+end)
	}
	head = append(head, fmt.Sprintf("raw       keys %d bytes, values %d bytes", p.RawKeyBytes, p.RawValueBytes))
	if o.Filter == nil {
		head = append(head, "filter    none")
	} else {
		head = append(head, fmt.Sprintf("filter    %d lines of 512 bits, %d probes", o.Filter.Lines, o.Filter.Probes))
	}
	for _, s := range o.BlockTotals {
		line := fmt.Sprintf("blocks    %d %s, %s: stored %d bytes, decoded %d", s.Blocks, s.Kind, s.Codec, s.Stored, s.Decoded)
		if s.Damaged > 0 {
			line += fmt.Sprintf("; DAMAGED %d", s.Damaged)
		}
		head = append(head, line)
	}
	switch {
	case o.Damaged > 0:
		head = append(head, fmt.Sprintf("verdict   DAMAGED: %d blocks", o.Damaged))
	case o.Contents != "":
		head = append(head, "verdict   DAMAGED: "+o.Contents)
	default:
		head = append(head, "verdict   sound: every checksum matches, the contents are what the properties say")
	}
	for _, rd := range o.RangeDeletes {
		head = append(head, fmt.Sprintf("deleted   %s up to %s, older than %d", fullKeyText(rd.Start.Bytes), fullKeyText(rd.End.Bytes), rd.Seq))
	}
	if o.Truncated {
		head = append(head, "cut       a list is longer than --limit "+strconv.Itoa(t.limit))
	}
	return head
}
