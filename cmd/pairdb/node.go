package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/node/config"
)

const (
	// changeEvery is how often --wait looks, and how long a look may take.
	changeEvery = 500 * time.Millisecond
	changeLook  = 5 * time.Second
	// changePatience is for how long nobody need know of a change that is waited for.
	changePatience = time.Minute
)

// nodeNote is what the help of the commands of one node has in common.
const nodeNote = `NODE is a node's name, its id, or the beginning of either that no other has.
` + changeNote + `
--wait shows how far it is until it is done, without a time limit unless --timeout is given.
Ctrl-C ends the waiting, not the change.`

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Have nodes leave, replace or remove lost ones, give them other shares, prepare restarts", groupCluster,
		a.nodeDrainCommand(), a.nodeDecommissionCommand(), a.nodeReplaceCommand(), a.nodeRemoveCommand(), a.nodeWeighCommand())
}

// nodeFlags are the flags of a command that changes one node.
type nodeFlags struct {
	clientFlags
	wait, yes bool
}

// nodeChangeCommand adds the flags to cmd.
func (a *app) nodeChangeCommand(cmd *cobra.Command, f *nodeFlags, dangerous bool) *cobra.Command {
	a.clientCommand(cmd, &f.clientFlags)
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until it is done")
	if dangerous {
		cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	}
	return cmd
}

// change asks for a change of a node: first only whether it can be, with the names that
// a person is asked about, then for good.
func (a *app) change(cmd *cobra.Command, f *nodeFlags, ask func(context.Context, *client.Client, *pairdbv1.NodeChange) (*pairdbv1.NodeChange, error), question func(*pairdbv1.NodeChange) string) error {
	if question != nil {
		if err := a.mayAsk(cmd, f.yes); err != nil {
			return err
		}
	}
	ctx := cmd.Context()
	limited := cmd.Flags().Changed("timeout")
	return f.withClient(func(c *client.Client) error {
		var checked *pairdbv1.NodeChange
		if question != nil {
			var err error
			if checked, err = ask(ctx, c, nil); err != nil {
				return err
			}
			if err := a.confirm(ctx, f.yes, question(checked)); err != nil {
				return err
			}
		} else {
			checked = new(pairdbv1.NodeChange)
		}
		m, err := ask(ctx, c, checked)
		if err != nil {
			return err
		}
		return a.showChange(ctx, c, f, m, limited)
	})
}

// showChange tells what was asked for, with --wait once it is done.
func (a *app) showChange(ctx context.Context, c *client.Client, f *nodeFlags, m *pairdbv1.NodeChange, limited bool) error {
	if f.wait {
		if limited {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, f.timeout)
			defer cancel()
		}
		lost := m.GetGivenUp()
		var err error
		if m, err = a.waitForChange(ctx, c, m); err != nil {
			return err
		}
		m.GivenUp = lost
	}
	return a.showEndedChange(f.output, m, f.wait)
}

// showEndedChange shows a change, which has ended if it was waited for: one that was
// aborted is a failure then.
func (a *app) showEndedChange(output string, m *pairdbv1.NodeChange, waited bool) error {
	if err := a.show(output, nodeChangeView(m, waited)); err != nil {
		return err
	}
	if waited && m.GetState() == "aborted" {
		return &failure{
			exit: errcode.ExitFailed, what: "the change was ended before it was done: " + changeText(m),
			why: []string{"somebody aborted it, or a node it needs was away for too long"}, next: "See pairdb events and pairdb cluster plan; ask for it again when the nodes are up.",
		}
	}
	return nil
}

func nodeChangeView(m *pairdbv1.NodeChange, waited bool) view {
	head := changeText(m) + ": asked for; pairdb transfers --watch shows how far it is"
	if waited {
		head = changeText(m) + ": " + visible(m.GetState())
	}
	return view{
		data: m, head: append([]string{head}, givenUpLines(m.GetGivenUp())...), columns: []string{"CHANGE", "OF", "STATE", "MOVED", "WAITS FOR", "ID"},
		rows: [][]string{{visible(m.GetVerb()), subjectText(m), visible(m.GetState()), fmt.Sprintf("%.0f %%", m.GetPercent()), visibleText(m.GetWaitsFor()), m.GetId()}},
	}
}

// subjectText names what a change is of: a node, or a tenant.
func subjectText(m *pairdbv1.NodeChange) string {
	if m.GetTenantId() != "" {
		return visible(m.GetTenantId())
	}
	return visible(m.GetName())
}

// waitForChange follows a change until it has ended.
func (a *app) waitForChange(ctx context.Context, c *client.Client, m *pairdbv1.NodeChange) (*pairdbv1.NodeChange, error) {
	line := a.liveLine()
	defer line.clear()
	tick := time.NewTicker(changeEvery)
	defer tick.Stop()
	id, heard := m.GetId(), time.Now()
	for {
		look, cancel := context.WithTimeout(ctx, changeLook)
		now, err := c.ChangeStatus(look, id)
		cancel()
		switch {
		case err == nil:
			m, heard = now, time.Now()
			if m.GetState() == "done" || m.GetState() == "aborted" {
				return m, nil
			}
			line.show("%s", changeLine(m, heard))
		case ctx.Err() == nil && time.Since(heard) > changePatience:
			line.clear()
			return nil, lostSight(m, err)
		}
		select {
		case <-ctx.Done():
			line.clear()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, &failure{
					exit: errcode.ExitTimeout, what: "the time is over, and the change goes on: " + changeText(m),
					why: []string{"state: " + visible(m.GetState()) + ", " + fmt.Sprintf("%.0f %%", m.GetPercent()) + " moved"}, next: "See pairdb transfers --watch, or wait longer with --timeout.",
				}
			}
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// lostSight is for a change that nobody tells of any more.
func lostSight(m *pairdbv1.NodeChange, err error) error {
	exit := errcode.ExitFailed
	var ce *client.Error
	if errors.As(err, &ce) {
		exit = cmp.Or(describeClient(ce).exit, exit)
	}
	return &failure{
		exit: exit, what: "for " + changePatience.String() + " no node has told how far this is: " + changeText(m), why: []string{plainError(err)},
		next: "It goes on by itself. See pairdb status, with --endpoint at a node that stays.",
	}
}

// changeLine is a change in one line, with a bar while something is moved.
func changeLine(m *pairdbv1.NodeChange, now time.Time) string {
	s := changeText(m) + ": " + visible(m.GetState())
	if m.GetSpans() > 0 {
		s += fmt.Sprintf(" %s %d/%d spans, %s", bar(m.GetSpansDone(), m.GetSpans()), m.GetSpansDone(), m.GetSpans(), bytesText(m.GetBytesDone()))
		if end := m.GetEstimatedEnd(); end != nil {
			s += ", about " + max(end.AsTime().Sub(now), 0).Round(time.Second).String() + " left"
		}
	}
	if why := m.GetWaitsFor(); why != "" {
		s += "; waits for " + short(why, 60)
	}
	return s
}

func (a *app) nodeDecommissionCommand() *cobra.Command {
	var f nodeFlags
	cmd := a.nodeChangeCommand(&cobra.Command{
		Use: "decommission NODE", Short: "Have a node hand over its partitions and leave for good", Args: args("the node"),
		Long: `Have a node hand over its partitions and leave for good. It has to run until that is done; its
data directory is of no use afterwards. Refused if fewer nodes would be left than some tenant
has copies.
` + nodeNote,
	}, &f, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.change(cmd, &f, func(ctx context.Context, c *client.Client, checked *pairdbv1.NodeChange) (*pairdbv1.NodeChange, error) {
			return c.Decommission(ctx, &pairdbv1.DecommissionRequest{Node: cmp.Or(checked.GetNodeId(), args[0]), CheckOnly: checked == nil})
		}, func(m *pairdbv1.NodeChange) string {
			return fmt.Sprintf("%s (%s) hands over its partitions and leaves for good. Go on?", visible(m.GetName()), m.GetNodeId())
		})
	}
	return cmd
}

func (a *app) nodeWeighCommand() *cobra.Command {
	var f nodeFlags
	cmd := a.nodeChangeCommand(&cobra.Command{
		Use: "weigh NODE CAPACITY", Short: "Give a node another share of the ring", Args: args("the node", "the capacity, 1 to "+strconv.Itoa(config.MaxCapacity)),
		Long: `Give a node another share of the ring: one with capacity 200 owns twice as many partitions as one
with 100. node.capacity of the node's configuration counts only when it joins.
` + nodeNote,
	}, &f, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		capacity, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil || capacity < 1 || capacity > config.MaxCapacity {
			return usagef("%s: the capacity is %q, want a number from 1 to %d", cmd.CommandPath(), args[1], config.MaxCapacity)
		}
		return a.change(cmd, &f, func(ctx context.Context, c *client.Client, _ *pairdbv1.NodeChange) (*pairdbv1.NodeChange, error) {
			return c.WeighNode(ctx, &pairdbv1.WeighRequest{Node: args[0], Capacity: uint32(capacity)})
		}, nil)
	}
	return cmd
}
