package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

func (a *app) tenantUpdateCommand() *cobra.Command {
	var f clientFlags
	var rf uint32
	var wait bool
	cmd := &cobra.Command{
		Use:   "update ID --rf N",
		Short: "Give a tenant another number of replicas",
		Args:  args("the tenant's id"),
		Long: `Give a tenant another number of replicas. The data moves in the background, as when a node joins
or leaves; until it has moved the old number holds. It goes on by itself unless ring.auto_apply is
off (then pairdb cluster commit begins it). pairdb cluster abort ends it before the new replicas are
read, and another pairdb tenant update asks for another number.
` + changeNote + `
--wait shows how far it is until it is done, without a time limit unless --timeout is given.
Ctrl-C ends the waiting, not the change.`,
	}
	a.clientCommand(cmd, &f)
	cmd.Flags().Uint32Var(&rf, "rf", 0, "replicas of each key, 1 to 7")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("rf") {
			return usagef("%s: --rf is missing: the new number of replicas", cmd.CommandPath())
		}
		ctx := cmd.Context()
		return f.withClient(func(c *client.Client) error {
			u, err := c.UpdateTenant(ctx, args[0], rf)
			if err != nil {
				return keyed(err, args[0])
			}
			if !wait || u.GetChangeId() == "" {
				head := fmt.Sprintf("tenant %s has %d replicas already", visible(args[0]), rf)
				if u.GetChangeId() != "" {
					head = fmt.Sprintf("tenant %s gets %d replicas instead of %d: asked for; pairdb transfers --watch shows how far it is", visible(args[0]), rf, u.GetOldReplicationFactor())
				}
				return a.show(f.output, view{
					data: u, head: []string{head}, columns: []string{"TENANT", "RF", "THEN", "ID"},
					rows: [][]string{{visible(args[0]), number(u.GetOldReplicationFactor()), number(rf), u.GetChangeId()}},
				})
			}
			if cmd.Flags().Changed("timeout") {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, f.timeout)
				defer cancel()
			}
			// Also if the first node asked has not heard of it yet, or does not answer.
			m, err := a.waitForChange(ctx, c, &pairdbv1.NodeChange{Id: u.GetChangeId(), Verb: "replicate", TenantId: args[0], ReplicationFactor: rf, State: "waiting"})
			if err != nil {
				return err
			}
			return a.showEndedChange(f.output, m, true)
		})
	}
	return cmd
}

func (a *app) tenantDeleteCommand() *cobra.Command {
	var f clientFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "End a tenant with all its data",
		Args:  args("the tenant's id"),
		Long: `End a tenant with all its data, on all nodes and for good; a node that is down drops it when it
is back. The name may be used again at once, for another tenant.
` + changeNote,
	}
	a.clientCommand(cmd, &f)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.mayAsk(cmd, yes); err != nil {
			return err
		}
		ctx := cmd.Context()
		return f.withClient(func(c *client.Client) error {
			t, err := c.GetTenant(ctx, args[0])
			if err != nil {
				return keyed(err, args[0])
			}
			question := fmt.Sprintf("Delete tenant %s, created %s, with all its data, for good?", visible(t.GetTenantId()), secondText(t.GetCreatedAt()))
			if err := a.confirm(ctx, yes, question); err != nil {
				return err
			}
			d, err := c.DeleteTenant(ctx, args[0])
			if err != nil {
				return keyed(err, args[0])
			}
			return a.show(f.output, view{
				data: d, head: []string{"tenant " + visible(args[0]) + " is no more; the nodes drop its data"},
				columns: []string{"TENANT", "STATE"}, rows: [][]string{{visible(args[0]), "deleted"}},
			})
		})
	}
	return cmd
}
