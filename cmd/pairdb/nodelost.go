package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

// What becomes of nodes that are lost: another takes their place, or nobody does, and
// what only they had is given up.

// lostNote is what the help of commands that give nodes up has in common.
const lostNote = `A node that is given up can never come back. It has to be stopped for good first: if it is only
cut off, it goes on answering at level one, and to clients and nodes that have not heard of this.`

func (a *app) nodeReplaceCommand() *cobra.Command {
	var f nodeFlags
	var dead, by string
	var accept bool
	cmd := a.nodeChangeCommand(&cobra.Command{
		Use: "replace --dead NODE [--by NODE]", Short: "Have a new node take the place of one that is lost", Args: args(),
		Long: `Have a node that waits to join take the partitions of one that is lost, whose disk is gone, say. Its
data is fetched from the other owners. If they do not have all of it, as with one copy, that is
refused unless --accept-loss gives up what only the lost node had. The lost node can never come
back: its data directory is refused from then on. Start the new node with --join first; with one
that waits --by is not needed.
` + nodeNote,
	}, &f, true)
	cmd.Flags().StringVar(&dead, "dead", "", "the node that is lost")
	cmd.Flags().StringVar(&by, "by", "", "the node that takes its place (default the only one that waits to join)")
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "what only the lost node had may be given up")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if dead == "" {
			fail := usagef("%s: --dead is missing: the node that is lost", cmd.CommandPath())
			fail.next = "See pairdb status for the nodes that are down."
			return fail
		}
		return a.change(cmd, &f, func(ctx context.Context, c *client.Client, checked *pairdbv1.NodeChange) (*pairdbv1.NodeChange, error) {
			return c.ReplaceNode(ctx, &pairdbv1.ReplaceRequest{
				Dead: cmp.Or(checked.GetNodeId(), dead), By: cmp.Or(checked.GetByNodeId(), by), AcceptLoss: accept, CheckOnly: checked == nil,
			})
		}, func(m *pairdbv1.NodeChange) string {
			return fmt.Sprintf("%s%s takes the place of %s (%s), which can never come back. Go on?", givenUpText(m.GetGivenUp()), visible(m.GetByName()), visible(m.GetName()), m.GetNodeId())
		})
	}
	return cmd
}

func (a *app) nodeRemoveCommand() *cobra.Command {
	var f nodeFlags
	var accept bool
	cmd := a.nodeChangeCommand(&cobra.Command{
		Use: "remove NODE... --accept-loss", Short: "Give up nodes that are lost; the others take their partitions",
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return nil
			}
			return args("the node")(cmd, given)
		},
		Long: `Give up a node that is lost: the other nodes take its partitions and fetch the data from each other.
What it alone had, such as writes at level one that reached no other owner, is lost. A node that is
alive is refused: decommission it.
Where too few other owners are left to have all that was acknowledged, with one copy or with several
nodes lost, what only the lost ones had is given up: partitions and tenants are named before anybody
is asked, and in the answer. Name all nodes that are lost: whoever is not named is waited for. It
also ends the waiting of a change that is under way.
` + lostNote + `
` + nodeNote,
	}, &f, true)
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "what the nodes alone had may be lost")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !accept {
			fail := usagef("%s: --accept-loss is missing: what the node alone had is lost when it is removed", cmd.CommandPath())
			fail.next = "Start the node again and use pairdb node decommission if its disk is sound; else add --accept-loss."
			return fail
		}
		return a.removeNodes(cmd, &f, args)
	}
	return cmd
}

// removeNodes gives up nodes: all are checked before one of them goes, and all are gone
// before any is waited for, since each may be needed until it is given up.
func (a *app) removeNodes(cmd *cobra.Command, f *nodeFlags, nodes []string) error {
	if err := a.mayAsk(cmd, f.yes); err != nil {
		return err
	}
	ctx, limited := cmd.Context(), cmd.Flags().Changed("timeout")
	return f.withClient(func(c *client.Client) error {
		var checked, asked []*pairdbv1.NodeChange
		for i, node := range nodes {
			m, err := c.RemoveNode(ctx, &pairdbv1.RemoveRequest{Node: node, AcceptLoss: true, AlsoLost: without(nodes, i), CheckOnly: true})
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(checked, func(o *pairdbv1.NodeChange) bool { return o.GetNodeId() == m.GetNodeId() }) {
				checked = append(checked, m)
			}
		}
		var who []string
		for _, m := range checked {
			who = append(who, fmt.Sprintf("%s (%s)", visible(m.GetName()), m.GetNodeId()))
		}
		lost := checked[0].GetGivenUp() // what goes with all of them
		question := fmt.Sprintf("%s%s is given up: it can never come back, and what it alone had is lost. Go on?", givenUpText(lost), strings.Join(who, ", "))
		if err := a.confirm(ctx, f.yes, question); err != nil {
			return err
		}
		for i, m := range checked {
			var next []string
			for _, o := range checked[i+1:] {
				next = append(next, o.GetNodeId())
			}
			m, err := c.RemoveNode(ctx, &pairdbv1.RemoveRequest{Node: m.GetNodeId(), AcceptLoss: true, AlsoLost: next})
			if err != nil {
				return err
			}
			asked = append(asked, m)
		}
		asked[0].GivenUp = lost
		return a.showRemoved(ctx, c, f, asked, limited)
	})
}

// showRemoved tells what was asked for, or waits for it.
func (a *app) showRemoved(ctx context.Context, c *client.Client, f *nodeFlags, asked []*pairdbv1.NodeChange, limited bool) error {
	for i, m := range asked {
		if i > 0 {
			m.GivenUp = nil // told with the first
		}
		if err := a.showChange(ctx, c, f, m, limited); err != nil {
			return err
		}
	}
	return nil
}

// without is a list without one of its items.
func without(list []string, i int) []string { return slices.Delete(slices.Clone(list), i, i+1) }

func (a *app) clusterRecoverCommand() *cobra.Command {
	var f clientFlags
	var accept, yes bool
	cmd := a.clientCommand(&cobra.Command{
		Use: "recover NODE... --accept-loss", Short: "Go on after a majority of the voting nodes was lost for good",
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return nil
			}
			return args("all nodes that are lost")(cmd, given)
		},
		Long: `Give the vote to the nodes that are left, after a majority of the voting nodes was lost for good, so
that the ring and the tenants can be changed again. Name ALL nodes that are lost: all others have to
answer and to agree. It is given up what only the lost nodes had (partitions and tenants are named),
and whatever they had decided of ring and tenants that no other node has heard of. The lost nodes
are taken out of the ring then, and new ones can join.
Refused while one of the lost answers, and while a majority of the voting nodes is left.
Give it ONCE, on ONE side: if the lost nodes are only cut off and run on, or if somebody recovers
them, too, there are two clusters with one name from then on, and what the other one is told is
lost. Stop them for good first.
` + lostNote + `
` + changeNote,
	}, &f)
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "what only the lost nodes had, and had decided, is given up")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !accept {
			fail := usagef("%s: --accept-loss is missing: what only the lost nodes had, and had decided, is given up", cmd.CommandPath())
			fail.next = "Start the nodes again if their disks are sound; a majority of the voting ones is enough. Else add --accept-loss."
			return fail
		}
		if err := a.mayAsk(cmd, yes); err != nil {
			return err
		}
		return f.withClient(func(c *client.Client) error {
			ctx := cmd.Context()
			req := &pairdbv1.RecoverRequest{Lost: args, AcceptLoss: true, CheckOnly: true}
			checked, err := c.Recover(ctx, req)
			if err != nil {
				return err
			}
			question := fmt.Sprintf("%s%s would be given up for ever, and %s would vote. They must be stopped for good: if they run on there are two clusters. Go on?",
				givenUpText(checked.GetGivenUp()), names(checked.GetLost()), names(checked.GetVoters()))
			if err := a.confirm(ctx, yes, question); err != nil {
				return err
			}
			req.CheckOnly = false
			r, err := c.Recover(ctx, req)
			if err != nil {
				return err
			}
			head := fmt.Sprintf("given up for ever: %s; these vote now: %s", names(r.GetLost()), names(r.GetVoters()))
			return a.show(f.output, view{data: r, head: append([]string{head}, givenUpLines(r.GetGivenUp())...), rows: [][]string{{head}}})
		})
	}
	return cmd
}

func names(nodes []*pairdbv1.TransferNode) string {
	var all []string
	for _, n := range nodes {
		all = append(all, visible(n.GetName()))
	}
	return strings.Join(all, ", ")
}

// givenUpText is what comes before a question.
func givenUpText(lost []*pairdbv1.GivenUp) string {
	s := ""
	for _, line := range givenUpLines(lost) {
		s += line + "\n"
	}
	return s
}

// givenUpLines say what is lost, a line for each replication factor.
func givenUpLines(lost []*pairdbv1.GivenUp) (lines []string) {
	for _, g := range lost {
		var tenants []string
		for _, t := range g.GetTenantIds() {
			tenants = append(tenants, visible(t))
		}
		line := fmt.Sprintf("given up of %d tenants with %d copies (%s): in %d partitions (%s) the newest acknowledged writes",
			len(tenants), g.GetReplicationFactor(), strings.Join(tenants, ", "), len(g.GetPartitions()), spansText(g.GetPartitions()))
		if empty := g.GetEmptyPartitions(); len(empty) > 0 {
			line += fmt.Sprintf("; in %d of them (%s) everything", len(empty), spansText(empty))
		}
		lines = append(lines, line)
	}
	return lines
}

// maxSpans bounds the runs that people are shown; --output json has all.
const maxSpans = 16

// spansText lists rising numbers, runs of them as "0-7".
func spansText(list []uint32) string {
	var parts []string
	for i := 0; i < len(list); {
		if len(parts) == maxSpans {
			parts = append(parts, fmt.Sprintf("and %d more; all with --output json", len(list)-i))
			break
		}
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		part := strconv.FormatUint(uint64(list[i]), 10)
		if j > i {
			part += "-" + strconv.FormatUint(uint64(list[j]), 10)
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ", ")
}
