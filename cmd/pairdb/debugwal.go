package main

import (
	"fmt"
	"iter"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/engine/wal"
)

// segmentJSON is a log segment for programs.
type segmentJSON struct {
	File          string      `json:"file"`
	Size          int64       `json:"size"`
	FormatVersion int         `json:"format_version"`
	Number        uint64      `json:"number"`
	Nonce         string      `json:"nonce"`
	PrevSegment   uint64      `json:"previous_segment"`
	PrevLength    int64       `json:"previous_length"`
	Allocated     int64       `json:"allocated"`
	NextSegment   uint64      `json:"next_segment"` // 0: none continues this one
	Groups        int64       `json:"groups"`
	Records       int64       `json:"records"`
	PayloadBytes  int64       `json:"payload_bytes"`
	Sealed        bool        `json:"sealed"`
	End           int64       `json:"end"`
	Durable       int64       `json:"durable"`
	TornBytes     int64       `json:"torn_bytes"`
	Why           string      `json:"why"` // the log ends there
	Error         string      `json:"error,omitempty"`
	GroupList     []groupJSON `json:"group_list"`
	Operations    []opJSON    `json:"operations,omitempty"`
	Truncated     bool        `json:"truncated"`
}

type groupJSON struct {
	Offset  int64  `json:"offset"`
	Length  int64  `json:"length"`
	Body    int64  `json:"body"`
	Durable int64  `json:"durable"`
	Kind    string `json:"kind"`
	Records int64  `json:"records"`
}

type opJSON struct {
	Group      int64    `json:"group_offset"`
	Seq        uint64   `json:"seq"`
	Kind       string   `json:"kind"`
	Key        keyJSON  `json:"key"`
	End        *keyJSON `json:"end,omitempty"` // of a range delete
	ValueBytes int      `json:"value_bytes"`
}

func (a *app) debugWALCommand() *cobra.Command {
	var f debugFlags
	var batches bool
	cmd := a.withDebugFlags(&cobra.Command{
		Use:   "wal FILE",
		Short: "Show a segment of the log: header, groups, where it ends and why",
		Long: `Show what a segment of the write-ahead log holds, group by group, and where the part
that counts ends: at a seal, where the segment after it says, at a tail that was never
acknowledged, or at damage to what was durable.

The file is only read. That of a running node grows meanwhile, so its end may look
torn. Exit code 1 says that it is damaged or no segment.`,
		Args: args("the segment file"),
	}, &f)
	cmd.Flags().BoolVar(&batches, "batches", false, "list the operations of the batches, in place of the groups")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := regularFile(cmd, args[0]); err != nil {
			return err
		}
		s := &segmentDump{limit: f.limit, batches: batches, stop: cmd.Context().Err}
		err := s.read(args[0])
		if s.out.FormatVersion == 0 {
			return err // nothing to show
		}
		if serr := a.show(f.output, s.view()); serr != nil {
			return serr
		}
		return err
	}
	return cmd
}

// segmentDump gathers what is shown of a segment.
type segmentDump struct {
	limit   int
	batches bool
	stop    func() error // asked for each group
	out     segmentJSON
}

func (s *segmentDump) read(path string) error {
	s.out.File, s.out.GroupList = path, []groupJSON{}
	info, err := wal.Inspect(vfs.OS(), path, s.group)
	if serr := s.stop(); serr != nil {
		return serr
	}
	s.info(info, err)
	if err != nil {
		return debugFailed(path, err)
	}
	return nil
}

func (s *segmentDump) info(i wal.Segment, err error) {
	o := &s.out
	o.Size, o.FormatVersion, o.Number, o.Nonce = i.Size, i.FormatVersion, i.Number, fmt.Sprintf("%016x", i.Nonce)
	o.PrevSegment, o.PrevLength, o.Allocated, o.NextSegment = i.Prev.Segment, i.Prev.Length, i.Allocated, i.Next
	o.Groups, o.Records, o.PayloadBytes, o.Sealed = i.Groups, i.Records, i.Bytes, i.Sealed
	o.End, o.Durable, o.TornBytes = i.End, i.Durable, i.Seen-i.End
	switch {
	case err != nil:
		o.Error = plainError(err)
		o.Why = "DAMAGED: " + o.Error
	case i.Next != 0:
		o.Why = fmt.Sprintf("as segment %d says", i.Next)
	case i.Sealed:
		o.Why = "sealed: the log was closed in order"
	case o.TornBytes > 0:
		o.Why = fmt.Sprintf("torn tail: %d bytes behind it were written and never acknowledged; the next open cuts them", o.TornBytes)
	default:
		o.Why = "nothing is recognised behind it"
	}
}

func (s *segmentDump) group(g wal.Group, records iter.Seq[[]byte]) error {
	if err := s.stop(); err != nil {
		return err
	}
	o := &s.out
	if s.batches {
		for record := range records {
			err := engine.ReadBatch(record, func(op engine.Op) error { return s.op(g.Offset, op) })
			if err != nil {
				return base.Corruptf(o.File, g.Offset, "%w", err)
			}
		}
		return nil
	}
	if len(o.GroupList) == s.limit {
		o.Truncated = true
		return nil
	}
	kind := "records"
	if g.Seal {
		kind = "seal"
	}
	o.GroupList = append(o.GroupList, groupJSON{Offset: g.Offset, Length: g.Length, Body: g.Body, Durable: g.Durable, Kind: kind, Records: g.Records})
	return nil
}

func (s *segmentDump) op(group int64, op engine.Op) error {
	o := &s.out
	if len(o.Operations) == s.limit {
		o.Truncated = true
		return nil
	}
	j := opJSON{Group: group, Seq: uint64(op.Seq), Kind: op.Kind.String(), Key: newKeyJSON(op.Key)}
	if op.Kind == base.KindRangeDelete {
		end := newKeyJSON(op.Value)
		j.End = &end
	} else {
		j.ValueBytes = len(op.Value)
	}
	o.Operations = append(o.Operations, j)
	return nil
}

func (s *segmentDump) view() view {
	o := &s.out
	v := view{data: o, items: []any{}, head: []string{
		"file      " + visible(o.File) + ", " + sizeText(o.Size),
		fmt.Sprintf("header    format %d, segment %d, nonce %s, allocated %d bytes", o.FormatVersion, o.Number, o.Nonce, o.Allocated),
	}}
	if o.PrevSegment == 0 {
		v.head = append(v.head, "before    none: this segment starts a log")
	} else {
		v.head = append(v.head, fmt.Sprintf("before    segment %d, of which %d bytes count", o.PrevSegment, o.PrevLength))
	}
	v.head = append(
		v.head,
		fmt.Sprintf("holds     %d groups, %d records, payload %s", o.Groups, o.Records, sizeText(o.PayloadBytes)),
		fmt.Sprintf("durable   %d bytes at least", o.Durable),
		fmt.Sprintf("ends      at %d: %s", o.End, o.Why),
	)
	if o.Truncated {
		v.head = append(v.head, "cut       the list is longer than --limit "+strconv.Itoa(s.limit))
	}
	if s.batches {
		v.columns = []string{"GROUP", "SEQ", "KIND", "VALUE BYTES", "KEY", "OBJECT", "END"}
		for _, op := range o.Operations {
			end := ""
			if op.End != nil {
				end = keyText(op.End.Bytes)
			}
			v.items = append(v.items, op)
			v.rows = append(v.rows, []string{
				strconv.FormatInt(op.Group, 10), strconv.FormatUint(op.Seq, 10), op.Kind, strconv.Itoa(op.ValueBytes),
				keyText(op.Key.Bytes), objectText(op.Key.Bytes), end,
			})
		}
		return v
	}
	v.columns = []string{"OFFSET", "LENGTH", "DURABLE", "KIND", "RECORDS"}
	for _, g := range o.GroupList {
		v.items = append(v.items, g)
		v.rows = append(v.rows, []string{
			strconv.FormatInt(g.Offset, 10), strconv.FormatInt(g.Length, 10), strconv.FormatInt(g.Durable, 10), g.Kind, strconv.FormatInt(g.Records, 10),
		})
	}
	return v
}
