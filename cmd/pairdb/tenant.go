package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

func (a *app) tenantCommand() *cobra.Command {
	return group("tenant", "Create, show, change and delete tenants", groupData,
		a.tenantCreateCommand(), a.tenantListCommand(), a.tenantShowCommand(), a.tenantUpdateCommand(), a.tenantDeleteCommand())
}

func (a *app) tenantCreateCommand() *cobra.Command {
	var f clientFlags
	var rf uint32
	var policy string
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Create a tenant",
		Args:  args("the tenant's id"),
	}
	a.clientCommand(cmd, &f)
	cmd.Flags().Uint32Var(&rf, "rf", 3, "replicas of each key, 1 to 7")
	cmd.Flags().StringVar(&policy, "conflict-policy", "lww", "what becomes of concurrent writes: lww (the latest wins) or siblings (all are kept)")
	suggest(cmd, "conflict-policy", "lww", "siblings")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t := client.NewTenant{ID: args[0], ReplicationFactor: &rf}
		switch policy {
		case "lww":
			t.ConflictPolicy = pairdbv1.ConflictPolicy_CONFLICT_POLICY_LWW
		case "siblings":
			t.ConflictPolicy = pairdbv1.ConflictPolicy_CONFLICT_POLICY_SIBLINGS
		default:
			return wordError(cmd, "--conflict-policy", policy, []string{"lww", "siblings"})
		}
		return f.withClient(func(c *client.Client) error {
			created, err := c.CreateTenant(cmd.Context(), t)
			if err != nil {
				return keyed(err, args[0])
			}
			return a.showTenants(f.output, created, created)
		})
	}
	return cmd
}

func (a *app) tenantListCommand() *cobra.Command {
	var f clientFlags
	cmd := a.clientCommand(&cobra.Command{Use: "list", Short: "List all tenants", Args: args()}, &f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.withClient(func(c *client.Client) error {
			list, err := c.ListTenants(cmd.Context())
			if err != nil {
				return err
			}
			return a.showTenants(f.output, list, list.GetTenants()...)
		})
	}
	return cmd
}

func (a *app) tenantShowCommand() *cobra.Command {
	var f clientFlags
	cmd := a.clientCommand(&cobra.Command{Use: "show ID", Short: "Show a tenant", Args: args("the tenant's id")}, &f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.withClient(func(c *client.Client) error {
			t, err := c.GetTenant(cmd.Context(), args[0])
			if err != nil {
				return keyed(err, args[0])
			}
			return a.showTenants(f.output, t, t)
		})
	}
	return cmd
}

func (a *app) showTenants(format string, whole any, tenants ...*pairdbv1.Tenant) error {
	v := view{
		data:    whole,
		items:   []any{},
		columns: []string{"TENANT", "RF", "CONFLICTS", "CREATED", "UPDATED", "STATE"},
	}
	for _, t := range tenants {
		state := "ok"
		if t.GetUnderReplicated() {
			state = "under-replicated"
		}
		rf := number(t.GetReplicationFactor())
		if next := t.GetNextReplicationFactor(); next > 0 {
			rf += " -> " + number(next)
		}
		v.items = append(v.items, t)
		v.rows = append(v.rows, []string{
			visible(t.GetTenantId()), rf, policyText(t.GetConflictPolicy()),
			secondText(t.GetCreatedAt()), secondText(t.GetUpdatedAt()), state,
		})
	}
	return a.show(format, v)
}

func policyText(p pairdbv1.ConflictPolicy) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "CONFLICT_POLICY_"))
}

func secondText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
