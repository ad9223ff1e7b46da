package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

// transfersEvery is how often --watch looks.
const transfersEvery = time.Second

func (a *app) transfersCommand() *cobra.Command {
	var f clientFlags
	var all, watch bool
	cmd := a.clientCommand(&cobra.Command{
		Use: "transfers", Short: "Show what is being moved between nodes", GroupID: groupCluster, Args: args(),
		Long: `Show what is being moved between nodes, whichever node is asked: what new owners fetch ("gain"),
and what nodes hand over and drop that own it no more ("cleanup").
--watch shows it on a terminal with bars and an estimate until nothing is moved any more and the
ring is stable; with -o jsonl it writes a line each second. Without --all only what has not ended
is listed.`,
	}, &f)
	cmd.Flags().BoolVar(&all, "all", false, "also list what ended last, at most 100 of each node")
	cmd.Flags().BoolVar(&watch, "watch", false, "follow it until nothing is moved any more")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.withClient(func(c *client.Client) error {
			if watch {
				return a.watchTransfers(cmd.Context(), c, f.output, all)
			}
			r, err := c.Transfers(cmd.Context(), all)
			if err != nil {
				return err
			}
			a.noteUnreachable(r.GetUnreachable())
			return a.show(f.output, transfersView(r))
		})
	}
	return cmd
}

// watchTransfers follows what is moved until nothing is, and shows what was last.
func (a *app) watchTransfers(ctx context.Context, c *client.Client, output string, all bool) error {
	block := a.liveBlock()
	defer block.clear()
	tick := time.NewTicker(transfersEvery)
	defer tick.Stop()
	var pace pace
	for {
		r, err := c.Transfers(ctx, all)
		if err != nil {
			return err
		}
		if output == formatJSONL {
			if err := a.show(output, view{data: r}); err != nil {
				return err
			}
		}
		if !r.GetRing().GetChanging() && r.GetRing().GetOpenIntents() == 0 && r.GetRunning()+r.GetWaiting() == 0 {
			block.clear()
			if output == formatJSONL {
				return nil
			}
			a.noteUnreachable(r.GetUnreachable())
			return a.show(output, transfersView(r))
		}
		block.show(transferLines(r, pace.left(r, time.Now())))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// pace estimates when what is moved will have been.
type pace struct {
	began time.Time
	done  uint64 // when it was begun to look
	spans uint64
}

// left is how long it will go on, 0 for not known.
func (p *pace) left(r *pairdbv1.TransfersResponse, now time.Time) time.Duration {
	if r.GetSpans() != p.spans || r.GetSpansDone() < p.done {
		*p = pace{began: now, done: r.GetSpansDone(), spans: r.GetSpans()}
	}
	moved, took := r.GetSpansDone()-p.done, now.Sub(p.began)
	if moved == 0 || took <= 0 {
		return 0
	}
	left := float64(r.GetSpans()-min(r.GetSpansDone(), r.GetSpans())) / float64(moved) * float64(took)
	if left > float64(365*24*time.Hour) {
		return 0
	}
	return time.Duration(left)
}

// transferLines are what a person watches: the change, and a line for each node that
// moves something.
func transferLines(r *pairdbv1.TransfersResponse, left time.Duration) []string {
	lines := []string{"ring  " + ringText(r.GetRing())}
	if n := r.GetSpans(); n > 0 {
		line := fmt.Sprintf("moved %s %d/%d spans", bar(r.GetSpansDone(), n), r.GetSpansDone(), n)
		if left > 0 {
			line += ", about " + max(left, time.Second).Round(time.Second).String() + " left"
		}
		lines = append(lines, line)
	}
	type sum struct {
		name             string
		running, waiting int
		done, total      uint64
		known            bool
	}
	var sums []*sum
	for _, t := range r.GetTransfers() {
		if t.GetState() == "done" {
			continue
		}
		name := visible(t.GetTo().GetName()) + " fetches"
		if t.GetKind() != "gain" {
			name = nodesText(t.GetFrom()) + " hands over"
		}
		var s *sum
		for _, known := range sums {
			if known.name == name {
				s = known
			}
		}
		if s == nil {
			s = &sum{name: name, known: true}
			sums = append(sums, s)
		}
		if t.GetState() == "running" {
			s.running++
		} else {
			s.waiting++
		}
		s.done += t.GetBytesDone()
		s.total += t.GetBytesTotal()
		s.known = s.known && t.GetBytesTotal() > 0
	}
	for _, s := range sums {
		line := fmt.Sprintf("  %s: %d run, %d wait, %s", s.name, s.running, s.waiting, bytesText(s.done))
		if s.known {
			line += " of " + bytesText(s.total) + " " + bar(s.done, s.total)
		}
		lines = append(lines, line)
	}
	return lines
}

// bar is how much of something is done.
func bar(done, of uint64) string {
	full := 0
	if of > 0 {
		full = int(float64(min(done, of)) / float64(of) * progressWidth)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", progressWidth-full) + "]"
}

func transfersView(r *pairdbv1.TransfersResponse) view {
	v := view{data: r, items: []any{}, head: []string{"ring  " + ringText(r.GetRing())}, columns: []string{"KIND", "PARTITION", "RF", "FROM", "TO", "KEYS", "BYTES", "OF ABOUT", "STATE", "ERROR", "ID"}}
	if n := r.GetSpans(); n > 0 {
		v.head = append(v.head, fmt.Sprintf("moved %d of %d spans; %d run, %d wait", r.GetSpansDone(), n, r.GetRunning(), r.GetWaiting()))
	}
	switch {
	case len(r.GetTransfers()) > 0:
	case r.GetRunning()+r.GetWaiting() > 0:
		v.head = append(v.head, "Nodes look for what they own no more.")
	default:
		v.head = append(v.head, "Nothing is being moved.")
	}
	for _, t := range r.GetTransfers() {
		to, total, why := "all owners", "", ""
		if t.GetTo() != nil {
			to = visible(t.GetTo().GetName())
		}
		if t.GetBytesTotal() > 0 {
			total = bytesText(t.GetBytesTotal())
		}
		if t.GetError() != "" {
			why = visible(t.GetError())
		}
		v.items = append(v.items, t)
		v.rows = append(v.rows, []string{
			visible(t.GetKind()), number(t.GetPartition()), number(t.GetReplicationFactor()), nodesText(t.GetFrom()), to,
			strconv.FormatUint(t.GetKeysDone(), 10), bytesText(t.GetBytesDone()), total, visible(t.GetState()), why, visible(t.GetId()),
		})
	}
	return v
}

func nodesText(nodes []*pairdbv1.TransferNode) string {
	var names []string
	for _, n := range nodes {
		names = append(names, visible(n.GetName()))
	}
	return strings.Join(names, ", ")
}

// liveBlock keeps some lines of a terminal up to date. It does nothing elsewhere.
type liveBlock struct {
	w    io.Writer // nil: no terminal
	rows int       // that stand there
}

func (a *app) liveBlock() *liveBlock {
	if !isTerminal(a.stderr) {
		return &liveBlock{}
	}
	return &liveBlock{w: a.stderr}
}

// maxBlock bounds the lines of a block: what does not fit on the screen cannot be taken
// back.
const maxBlock = 20

// show replaces the lines. Lines that cannot be drawn are no reason to stop.
func (b *liveBlock) show(lines []string) {
	if b.w == nil {
		return
	}
	if len(lines) > maxBlock {
		lines = append(lines[:maxBlock-1:maxBlock-1], fmt.Sprintf("  and %d more", len(lines)-maxBlock+1))
	}
	b.clear()
	b.rows = len(lines)
	// A terminal that is gone shows nothing more; what is asked for goes on.
	_, _ = io.WriteString(b.w, strings.Join(lines, "\x1b[K\n")+"\x1b[K\n")
}

// clear takes the lines away.
func (b *liveBlock) clear() {
	if b.w != nil && b.rows > 0 {
		// As above.
		_, _ = fmt.Fprintf(b.w, "\x1b[%dA\x1b[J", b.rows)
		b.rows = 0
	}
}
