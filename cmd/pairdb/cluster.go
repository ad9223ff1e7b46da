package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

func (a *app) statusCommand() *cobra.Command {
	var f clientFlags
	cmd := a.clientCommand(&cobra.Command{
		Use: "status", Short: "Show how the cluster is", GroupID: groupCluster, Args: args(),
	}, &f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.withClient(func(c *client.Client) error {
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			a.noteUnreachable(st.GetUnreachable())
			return a.show(f.output, statusView(st))
		})
	}
	return cmd
}

func statusView(st *pairdbv1.StatusResponse) view {
	ring := ringText(st.GetRing())
	v := view{
		data: st,
		head: []string{
			"cluster  " + st.GetClusterId(),
			"verdict  " + visible(st.GetVerdict()) + ": " + visible(st.GetReason()),
			"ring     " + ring,
		},
		items:   []any{},
		columns: []string{"NAME", "STATE", "ZONE", "CAPACITY", "PARTITIONS", "BYTES", "INCARNATION", "GRPC", "HTTP", "NODE ID", "REPAIRED", "HINTS", "QUARANTINED"},
	}
	now := time.Now()
	for _, n := range st.GetNodes() {
		zone := n.GetZone()
		if zone != "" {
			zone = visible(zone)
		}
		v.items = append(v.items, n)
		v.rows = append(v.rows, []string{
			visible(n.GetName()), stateText(n), zone, number(n.GetCapacity()), number(n.GetPartitions()), bytesText(n.GetBytes()),
			strconv.FormatUint(n.GetIncarnation(), 10), n.GetAddresses().GetGrpc(), n.GetAddresses().GetHttp(), n.GetNodeId(),
			agoText(n.GetRepairedAt(), now), strconv.FormatUint(n.GetHints(), 10), number(n.GetQuarantinedPartitions()),
		})
	}
	return v
}

// ringText is how the ring is, in a line.
func ringText(r *pairdbv1.RingStatus) string {
	s := "version " + strconv.FormatUint(r.GetVersion(), 10)
	if !r.GetChanging() {
		s += ", stable"
	} else {
		s += ", changing; complete up to version " + strconv.FormatUint(r.GetFinalizedVersion(), 10)
		if r.GetStage() != "" {
			s += "; " + visible(r.GetStage())
		}
		if names := r.GetWaitingFor(); len(names) > 0 {
			s += "; waits for " + visible(strings.Join(names, ", "))
		}
	}
	if n := r.GetOpenIntents(); n > 0 {
		s += "; " + number(n) + " changes wait (pairdb cluster plan)"
	}
	return s
}

// stateText is a node's state, and how much of its data is damaged.
func stateText(n *pairdbv1.NodeStatus) string {
	if k := n.GetQuarantinedPartitions(); k > 0 {
		return visible(n.GetState()) + ", " + number(k) + " partitions damaged"
	}
	return visible(n.GetState())
}

func (a *app) membersCommand() *cobra.Command {
	var f clientFlags
	cmd := a.clientCommand(&cobra.Command{
		Use: "members", Short: "List the members as gossip sees them", GroupID: groupCluster, Args: args(),
	}, &f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.withClient(func(c *client.Client) error {
			m, err := c.Members(cmd.Context())
			if err != nil {
				return err
			}
			a.noteUnreachable(m.GetUnreachable())
			v := view{data: m, items: []any{}, columns: []string{"NAME", "LIVENESS", "ADDRESS", "NODE ID"}}
			for _, n := range m.GetMembers() {
				v.items = append(v.items, n)
				v.rows = append(v.rows, []string{visible(n.GetName()), visible(n.GetLiveness()), visible(n.GetAddress()), n.GetNodeId()})
			}
			return a.show(f.output, v)
		})
	}
	return cmd
}

func (a *app) ringCommand() *cobra.Command {
	var f clientFlags
	var key string
	cmd := a.clientCommand(&cobra.Command{
		Use: "ring [--key K]", Short: "Show how the partitions are spread, or where a key lives", GroupID: groupCluster, Args: args(),
	}, &f)
	tenantFlag(cmd, &f)
	cmd.Flags().StringVar(&key, "key", "", "show the owners of this key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.withClient(func(c *client.Client) error {
			if !cmd.Flags().Changed("key") {
				r, err := c.Layout(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(f.output, layoutView(r))
			}
			r, err := c.Locate(cmd.Context(), key)
			if err != nil {
				return err
			}
			return a.show(f.output, ownersView(f.tenant, key, r))
		})
	}
	return cmd
}

func layoutView(r *pairdbv1.RingResponse) view {
	v := view{
		data:    r,
		head:    []string{fmt.Sprintf("ring version %d, %d partitions over %d nodes", r.GetRingVersion(), r.GetPartitions(), len(r.GetNodes()))},
		items:   []any{},
		columns: []string{"NAME", "FIRST OWNER OF", "OWNER OF", "NODE ID"},
	}
	for _, n := range r.GetNodes() {
		v.items = append(v.items, n)
		v.rows = append(v.rows, []string{visible(n.GetName()), number(n.GetFirstPartitions()), number(n.GetPartitions()), n.GetNodeId()})
	}
	return v
}

func ownersView(tenant, key string, r *pairdbv1.RingResponse) view {
	v := view{
		data: r,
		head: []string{
			"key        " + visible(key) + " of tenant " + visible(tenant),
			fmt.Sprintf("token      %016x", r.GetToken()),
			fmt.Sprintf("partition  %d of %d, ring version %d", r.GetPartition(), r.GetPartitions(), r.GetRingVersion()),
		},
		columns: []string{"OWNER", "NAME", "NODE ID"},
	}
	for i, n := range r.GetOwners() {
		v.rows = append(v.rows, []string{strconv.Itoa(i + 1), visible(n.GetName()), n.GetNodeId()})
	}
	if next := r.GetNextOwners(); len(next) > 0 {
		var names []string
		for _, n := range next {
			names = append(names, visible(n.GetName()))
		}
		v.head = append(v.head, "next       "+strings.Join(names, ", "))
	}
	return v
}

// noteUnreachable tells people whose figures are old.
func (a *app) noteUnreachable(nodes []*pairdbv1.UnreachableNode) {
	for _, n := range nodes {
		a.note("pairdb: no answer from %s: %s", visible(n.GetName()), visible(n.GetReason()))
	}
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
