package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

// changeNote is what the help of commands that change the ring has in common.
const changeNote = `Any node takes this, from its own machine only until there are credentials.`

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Plan, begin and abort changes of the ring, recover from lost voters", groupCluster,
		a.clusterPlanCommand(), a.clusterCommitCommand(), a.clusterAbortCommand(), a.clusterRecoverCommand())
}

func (a *app) clusterPlanCommand() *cobra.Command {
	var f clientFlags
	cmd := a.clientCommand(&cobra.Command{
		Use: "plan", Short: "Show what would move if all that is asked for were begun now", Args: args(),
		Long: `Show the nodes that wait to join and the changes that were asked for, and how many copies of
partitions and bytes each node would fetch and hand over. It changes nothing. Bytes are an
estimate. Unless ring.auto_apply is off, nodes begin it by themselves a few seconds after the
last one came.`,
	}, &f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.withClient(func(c *client.Client) error {
			p, err := c.PlanChange(cmd.Context())
			if err != nil {
				return err
			}
			a.noteUnreachable(p.GetUnreachable())
			return a.show(f.output, planView(p))
		})
	}
	return cmd
}

func planView(p *pairdbv1.PlanChangeResponse) view {
	v := view{data: p, items: []any{}}
	switch {
	case p.GetChanging():
		v.head = []string{"A change is under way (pairdb transfers); what waits for its end:"}
	case len(p.GetCarries()) == 0 && len(p.GetNodes()) == 0:
		v.head = []string{"There is nothing to do."}
	case p.GetAutoApply():
		v.head = []string{"The nodes begin this by themselves:"}
	default:
		v.head = []string{"pairdb cluster commit begins this:"}
	}
	for _, c := range p.GetCarries() {
		v.head = append(v.head, "  "+changeText(c)+"  "+c.GetId())
	}
	if len(p.GetCannot()) > 0 {
		v.head = append(v.head, "What cannot be done now:")
	}
	for _, c := range p.GetCannot() {
		v.head = append(v.head, "  "+changeText(c)+"  "+c.GetId()+": "+visibleText(c.GetWaitsFor()))
	}
	if len(p.GetNodes()) == 0 {
		return v
	}
	v.head = append(v.head, fmt.Sprintf("%d copies of partitions move, about %s", p.GetMovingCopies(), bytesText(p.GetMovingBytes())))
	v.columns = []string{"NODE", "ZONE", "CAPACITY", "COPIES NOW", "THEN", "FETCHES", "HANDS OVER", "BYTES TO FETCH", "NODE ID"}
	for _, n := range p.GetNodes() {
		zone := n.GetZone()
		if zone != "" {
			zone = visible(zone)
		}
		v.items = append(v.items, n)
		v.rows = append(v.rows, []string{
			visible(n.GetName()), zone, number(n.GetCapacity()), number(n.GetBefore()), number(n.GetAfter()), number(n.GetGains()), number(n.GetGives()),
			bytesText(n.GetGainsBytes()), n.GetNodeId(),
		})
	}
	return v
}

// changeText says in words what is to become of a node or tenant.
func changeText(c *pairdbv1.NodeChange) string {
	name := visible(c.GetName())
	switch c.GetVerb() {
	case "replicate":
		return "tenant " + visible(c.GetTenantId()) + " gets " + number(c.GetReplicationFactor()) + " replicas"
	case "join":
		return name + " joins"
	case "leave":
		return name + " leaves"
	case "remove":
		return name + " is removed"
	case "replace":
		return visible(c.GetByName()) + " replaces " + name
	case "weigh":
		return name + " gets capacity " + number(c.GetCapacity())
	}
	return name + ": " + visible(c.GetVerb())
}

func (a *app) clusterCommitCommand() *cobra.Command {
	var f clientFlags
	cmd := a.clientCommand(&cobra.Command{
		Use: "commit", Short: "Begin what pairdb cluster plan shows", Args: args(),
		Long: `Begin what pairdb cluster plan shows, where nodes do not begin it by themselves because
ring.auto_apply is off. pairdb transfers --watch shows how far it is.
` + changeNote,
	}, &f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.withClient(func(c *client.Client) error {
			r, err := c.CommitChange(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(f.output, view{data: r, head: []string{"begun; ring " + ringText(r.GetRing())}, rows: [][]string{{ringText(r.GetRing())}}})
		})
	}
	return cmd
}

func (a *app) clusterAbortCommand() *cobra.Command {
	var f clientFlags
	var reason string
	cmd := a.clientCommand(&cobra.Command{
		Use: "abort [ID]", Short: "End the change of the ring that is under way, or take back one that waits",
		Long: `End the change of the ring that is under way: all partitions stay with the owners they had. Once
new owners are read it is too late, and the change can only be finished. With the ID of a change
that pairdb cluster plan lists, that one alone is taken back before it is begun.
` + changeNote,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 1 {
				return nil
			}
			return args()(cmd, given)
		},
	}, &f)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at events later")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &pairdbv1.AbortChangeRequest{Reason: reason}
		if len(args) == 1 {
			if req.Id = args[0]; req.GetId() == "" {
				return usagef("%s: the id is empty", cmd.CommandPath())
			}
		}
		return f.withClient(func(c *client.Client) error {
			r, err := c.AbortChange(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.show(f.output, view{data: r, head: []string{"ended; ring " + ringText(r.GetRing())}, rows: [][]string{{ringText(r.GetRing())}}})
		})
	}
	return cmd
}

// mayAsk refuses a dangerous command that nobody can be asked about.
func (a *app) mayAsk(cmd *cobra.Command, yes bool) error {
	if yes || a.session == nil && isTerminal(a.stdin) && isTerminal(a.stderr) {
		return nil
	}
	f := usagef("%s asks before it does this, and there is no terminal to ask on", cmd.CommandPath())
	f.next = "Give --yes if you are sure."
	return f
}

// confirm asks for a yes, unless it was given.
func (a *app) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if _, err := fmt.Fprintf(a.stderr, "%s [y/N] ", question); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer := make(chan string, 1)
	// It ends with the process if nobody answers: a read of a terminal cannot be
	// taken back.
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n') // what was not typed is no yes
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case word := <-answer:
		if word == "y" || word == "yes" {
			return nil
		}
	}
	return &failure{exit: errcode.ExitFailed, what: "nothing was done"}
}
