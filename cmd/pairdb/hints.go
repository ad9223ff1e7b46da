package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

func (a *app) hintsCommand() *cobra.Command {
	var f clientFlags
	cmd := a.clientCommand(&cobra.Command{
		Use: "hints", Short: "Show the nodes that writes did not reach, and what is kept for them", GroupID: groupUpkeep, Args: args(),
		Long: `Show the nodes that writes did not reach, and what the others keep for them. A hint names a key
that a node lacks a write of; it is delivered as soon as the node is back. Hints that were dropped,
see hints.max_bytes and hints.window, are not shown: repair finds what they were for.`,
	}, &f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.withClient(func(c *client.Client) error {
			r, err := c.Hints(cmd.Context())
			if err != nil {
				return err
			}
			a.noteUnreachable(r.GetUnreachable())
			return a.show(f.output, hintsView(r, time.Now()))
		})
	}
	return cmd
}

func hintsView(r *pairdbv1.HintsResponse, now time.Time) view {
	v := view{data: r, items: []any{}, columns: []string{"FOR", "HINTS", "BYTES", "OLDEST", "KEPT BY", "NODE ID"}}
	if len(r.GetTargets()) == 0 {
		v.head = []string{"There are no hints: as far as is known, every write has reached all owners."}
	}
	for _, t := range r.GetTargets() {
		by := ""
		for i, h := range t.GetHolders() {
			if i > 0 {
				by += ", "
			}
			by += visible(h.GetName()) + " " + strconv.FormatUint(h.GetCount(), 10)
		}
		v.items = append(v.items, t)
		v.rows = append(v.rows, []string{
			visible(t.GetName()), strconv.FormatUint(t.GetCount(), 10), bytesText(t.GetBytes()), agoText(t.GetOldestAt(), now), by, t.GetNodeId(),
		})
	}
	return v
}

// agoText is how long ago something was; "-" if that is not known.
func agoText(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return "-"
	}
	return max(now.Sub(t.AsTime()), 0).Round(time.Second).String() + " ago"
}
