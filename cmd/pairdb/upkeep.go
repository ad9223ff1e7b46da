package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

// upkeepNote is what the help of these commands has in common.
const upkeepNote = `Acts on the node at each --endpoint, one after the other, and shows what became of each.
A node takes this from its own machine only, until there are credentials.`

// slowNote belongs to the commands that may take long.
const slowNote = `
There is no time limit unless --timeout is given. Ctrl-C stops it on the node as well.`

// flushNote is slowNote for what cannot be stopped on the node.
const flushNote = `
There is no time limit unless --timeout is given. After Ctrl-C the node goes on writing what
it has begun.`

// upkeepCommand adds the flags of a client command to cmd. If slow is set the
// command has no time limit of its own.
func (a *app) upkeepCommand(cmd *cobra.Command, f *clientFlags, slow bool) *cobra.Command {
	a.clientCommand(cmd, f)
	if !slow {
		return cmd
	}
	fl := cmd.Flags().Lookup("timeout")
	fl.Usage, fl.DefValue = "how long one node may take at most (default no limit)", "0s"
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return err
		}
		if !cmd.Flags().Changed("timeout") {
			f.timeout = -1 // the SDK's word for none
		}
		return nil
	}
	return cmd
}

// onEachNode calls do for each endpoint. A node that fails does not keep the
// others from their turn; the errors of all are returned.
func onEachNode(ctx context.Context, f *clientFlags, do func(*client.Node) error) error {
	return f.withClient(func(c *client.Client) error {
		var errs []error
		for _, n := range c.Nodes() {
			err := do(n)
			if ctx.Err() != nil {
				return cmp.Or(err, context.Cause(ctx)) // the others are not begun
			}
			if err != nil {
				errs = append(errs, atNode(n, len(f.endpoints) > 1, err))
			}
		}
		if len(errs) == 1 {
			return errs[0]
		}
		return errors.Join(errs...)
	})
}

// atNode says which of several nodes an error is of.
func atNode(n *client.Node, several bool, err error) error {
	var ce *client.Error
	if !several || !errors.As(err, &ce) {
		return err
	}
	f := describeClient(ce)
	f.what = n.Endpoint() + ": " + f.what
	return f
}

// nodeRows gathers the answers of several nodes. One node's answer is shown as it
// is in JSON, those of several as a list.
type nodeRows struct {
	view
	several bool
}

func newNodeRows(f *clientFlags, columns ...string) *nodeRows {
	return &nodeRows{view: view{items: []any{}, columns: columns}, several: len(f.endpoints) > 1}
}

func (r *nodeRows) add(answer any, cells ...string) {
	r.items = append(r.items, answer)
	r.rows = append(r.rows, cells)
}

// show shows what was gathered; nothing if no node answered.
func (r *nodeRows) show(a *app, format string, err error) error {
	if len(r.items) == 0 {
		return err
	}
	r.data = r.items[0]
	if r.several {
		r.data = nodeList{r.items}
	}
	if serr := a.show(format, r.view); serr != nil {
		return serr
	}
	return err
}

// nodeList is the answers of several nodes as JSON.
type nodeList struct{ items []any }

// MarshalJSON implements json.Marshaler.
func (l nodeList) MarshalJSON() ([]byte, error) {
	out := []byte(`{"nodes":[`)
	for i, item := range l.items {
		b, err := marshal(item)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}
	return append(out, `]}`...), nil
}

func nodeText(n *pairdbv1.NodeName) string { return visible(n.GetName()) }

func (a *app) flushCommand() *cobra.Command {
	var f clientFlags
	cmd := a.upkeepCommand(&cobra.Command{
		Use: "flush", Short: "Write what nodes have in memory to tables", Long: "Write what nodes have in memory to tables.\n" + upkeepNote + flushNote,
		GroupID: groupUpkeep, Args: args(),
	}, &f, true)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		rows := newNodeRows(&f, "NODE", "ENDPOINT", "FLUSHED UP TO")
		err := onEachNode(cmd.Context(), &f, func(n *client.Node) error {
			r, err := n.Flush(cmd.Context())
			if err == nil {
				rows.add(r, nodeText(r.GetNode()), n.Endpoint(), strconv.FormatUint(r.GetFlushedSeq(), 10))
			}
			return err
		})
		return rows.show(a, f.output, err)
	}
	return cmd
}

func (a *app) compactCommand() *cobra.Command {
	var f clientFlags
	var partitions string
	cmd := a.upkeepCommand(&cobra.Command{
		Use:   "compact [--range FIRST-LAST]",
		Short: "Merge the tables of nodes, which drops what is overwritten or deleted",
		Long: `Merge all data of nodes, or that of some partitions, down to the lowest level that has
any of it. What was overwritten or deleted is dropped there. It takes disk bandwidth and,
for a while, room for what is being merged. Tables that hold any data of the range are
merged whole; pairdb ring --key K says which partition a key is in.
` + upkeepNote + slowNote + " Merges that are done stay.",
		GroupID: groupUpkeep, Args: args(),
	}, &f, true)
	cmd.Flags().StringVar(&partitions, "range", "", "partitions: one number, or the first and the last, such as 16-31 (default all)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var r *pairdbv1.PartitionRange
		if cmd.Flags().Changed("range") {
			var err error
			if r, err = parsePartitions(partitions); err != nil {
				fail := usagef("%s: --range %q: %v", cmd.CommandPath(), partitions, err)
				fail.next = "Name one partition, or the first and the last, such as --range 16-31."
				return fail
			}
		}
		line := a.liveLine()
		defer line.clear()
		rows := newNodeRows(&f, "NODE", "ENDPOINT", "MERGES", "BYTES READ")
		err := onEachNode(cmd.Context(), &f, func(n *client.Node) error {
			res, err := n.Compact(cmd.Context(), r, func(p *pairdbv1.CompactResponse) {
				line.show("compact %s: level %d, table %d of %d; %d merges, %s read", nodeText(p.GetNode()), p.GetLevel(),
					p.GetTablesDone(), p.GetTablesTotal(), p.GetMerges(), bytesText(p.GetBytes()))
			})
			if err == nil {
				rows.add(res, nodeText(res.GetNode()), n.Endpoint(), strconv.FormatUint(res.GetMerges(), 10), bytesText(res.GetBytes()))
			}
			return err
		})
		line.clear()
		return rows.show(a, f.output, err)
	}
	return cmd
}

// parsePartitions reads "7" or "7-9".
func parsePartitions(s string) (*pairdbv1.PartitionRange, error) {
	from, to, several := strings.Cut(s, "-")
	if !several {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is no partition", from)
	}
	last, err := strconv.ParseUint(to, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is no partition", to)
	}
	if first > last {
		return nil, errors.New("the first partition is behind the last")
	}
	return &pairdbv1.PartitionRange{First: uint32(first), Last: uint32(last)}, nil
}

func (a *app) verifyCommand() *cobra.Command {
	var f clientFlags
	cmd := a.upkeepCommand(&cobra.Command{
		Use:   "verify [--cluster]",
		Short: "Make nodes read all their tables and look for damage; exit code 1 says that there is some",
		Long: `Make nodes read every block of their tables, past the caches, and hold tables and manifest
against each other. Reads and writes go on. Damage is listed with file and offset. A damaged
table is taken out of service and what it held is fetched again from the other owners.
` + upkeepNote + slowNote + `
With --cluster all nodes of the cluster do so at once, each no faster than its scrub.rate,
whichever node is asked. They go on after Ctrl-C. Exit code 6 says that a node did not answer.
For a node that does not run there is pairdb debug verify.`,
		GroupID: groupUpkeep, Args: args(),
	}, &f, true)
	var whole bool
	cmd.Flags().BoolVar(&whole, "cluster", false, "have all nodes of the cluster do it, by way of the first --endpoint")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if whole {
			return a.verifyCluster(cmd.Context(), &f)
		}
		line := a.liveLine()
		defer line.clear()
		rows := newNodeRows(&f, "NODE", "ENDPOINT", "TABLES", "BYTES", "VERDICT")
		var why []string
		damaged := uint64(0)
		err := onEachNode(cmd.Context(), &f, func(n *client.Node) error {
			r, err := n.Verify(cmd.Context(), func(p *pairdbv1.VerifyResponse) {
				line.show("verify %s: %s of %s", nodeText(p.GetNode()), bytesText(p.GetBytesDone()), bytesText(p.GetBytesTotal()))
			})
			if err != nil {
				return err
			}
			verdict := "sound"
			if bad := uint64(len(r.GetDamage())) + r.GetDamageOmitted(); bad > 0 {
				verdict = fmt.Sprintf("DAMAGED in %d places", bad)
				damaged += bad
			}
			for _, d := range r.GetDamage() {
				text := damageJSON{File: d.GetFile(), Offset: d.GetOffset(), Reason: visibleText(d.GetReason())}.text()
				why = append(why, nodeText(r.GetNode())+": "+text)
			}
			rows.add(r, nodeText(r.GetNode()), n.Endpoint(), strconv.FormatUint(r.GetTables(), 10), bytesText(r.GetBytesDone()), verdict)
			return nil
		})
		line.clear()
		if err := rows.show(a, f.output, err); err != nil {
			return err
		}
		if damaged == 0 {
			return nil
		}
		if len(why) > maxWhy {
			why = append(why[:maxWhy], "and more; see -o json")
		}
		return &failure{
			exit: errcode.ExitFailed, what: fmt.Sprintf("verify: %d damaged places", damaged), why: why,
			next: "With other copies in the cluster the data is fetched again from them; pairdb status says how much is left. Without, restore it from a backup.",
		}
	}
	return cmd
}
