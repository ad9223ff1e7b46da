package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

// followEvery is how often --follow looks.
const followEvery = time.Second

// nodeFlag adds --node.
func nodeFlag(cmd *cobra.Command, node *string) {
	cmd.Flags().StringVar(node, "node", "", "name or id of one node (default all)")
}

func (a *app) eventsCommand() *cobra.Command {
	var (
		f      clientFlags
		req    pairdbv1.EventsRequest
		since  string
		follow bool
	)
	cmd := a.clientCommand(&cobra.Command{
		Use: "events", Short: "Show what happened to the nodes, the newest last", GroupID: groupLook, Args: args(),
		Long: `Show what happened to the nodes: who came, went and died, what disks and engines did, what was
switched on and off to protect a node. Each node keeps its last 1024 events in memory since it
started. Any node answers for all, to callers on its own machine, until there are credentials.
--follow goes on until Ctrl-C.`,
	}, &f)
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "only what happened since: a time such as 2026-11-26T20:00:00Z, or how long ago, such as 10m")
	fs.Uint32Var(&req.Limit, "limit", 1000, "the most events of each node, 1 to 1000")
	fs.BoolVar(&follow, "follow", false, "go on with what happens from now on")
	nodeFlag(cmd, &req.Node)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if req.GetLimit() < 1 || req.GetLimit() > 1000 {
			return usagef("%s: --limit %d is not 1 to 1000", cmd.CommandPath(), req.GetLimit())
		}
		if follow && (f.output == formatJSON || f.output == formatYAML) {
			return usagef("%s: --follow has no end, so it goes with -o table, jsonl or plain", cmd.CommandPath())
		}
		if since != "" {
			at, err := sinceTime(since, time.Now())
			if err != nil {
				return usagef("%s: --since %q is neither a time nor how long ago", cmd.CommandPath(), since)
			}
			req.Since = timestamppb.New(at)
		}
		return f.withClient(func(c *client.Client) error {
			if follow {
				return a.followEvents(cmd.Context(), c, &req, f.output)
			}
			r, err := c.Events(cmd.Context(), &req)
			if err != nil {
				return err
			}
			a.noteUnreachable(r.GetUnreachable())
			return a.show(f.output, eventsView(r))
		})
	}
	return cmd
}

// sinceTime reads a time, or how long before now.
func sinceTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Parse(time.RFC3339Nano, s)
}

func eventsView(r *pairdbv1.EventsResponse) view {
	v := view{data: r, items: []any{}, columns: []string{"TIME", "NODE", "SEVERITY", "KIND", "EVENT"}}
	for _, e := range r.GetEvents() {
		v.items = append(v.items, e)
		v.rows = append(v.rows, eventCells(e))
	}
	return v
}

func eventCells(e *pairdbv1.Event) []string {
	text := visible(e.GetText())
	for _, d := range e.GetDetails() {
		text += " " + visible(d.GetKey()) + "=" + visible(d.GetValue())
	}
	if n := e.GetCount(); n > 1 {
		text += fmt.Sprintf(" (%d times, last at %s)", n, e.GetLast().AsTime().Format(time.TimeOnly))
	}
	if n := e.GetLeftOut(); n > 0 {
		text += fmt.Sprintf(" (%d before it were left out)", n)
	}
	return []string{
		e.GetTime().AsTime().Format(time.RFC3339), nodeText(e.GetNode()), visible(e.GetSeverity()), visible(e.GetKind()), text,
	}
}

// followEvents shows the events and looks for more until ctx ends, which is no
// failure. Nodes that do not answer are named once, until they do.
func (a *app) followEvents(ctx context.Context, c *client.Client, req *pairdbv1.EventsRequest, format string) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	silent, failing := map[string]bool{}, false
	for first := true; ; first = false {
		r, err := c.Events(ctx, req)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			if !failing {
				a.note("pairdb: no answer: %s; trying on", plainError(err))
			}
			failing = true
		default:
			failing = false
			if err := a.showEvents(r, format); err != nil {
				return err
			}
			now := map[string]bool{}
			for _, n := range r.GetUnreachable() {
				now[n.GetNodeId()] = true
				if !silent[n.GetNodeId()] {
					a.noteUnreachable([]*pairdbv1.UnreachableNode{n})
				}
			}
			silent = now
			req.Cursor, req.Since = r.GetNextCursor(), nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// showEvents shows the events a line each, as they come.
func (a *app) showEvents(r *pairdbv1.EventsResponse, format string) error {
	v := eventsView(r)
	if format != "" && format != formatTable {
		return a.show(format, v)
	}
	var out strings.Builder
	for _, row := range v.rows {
		fmt.Fprintf(&out, "%s  %-12s  %-8s  %-9s  %s\n", row[0], row[1], row[2], row[3], row[4])
	}
	return a.write([]byte(out.String()))
}
