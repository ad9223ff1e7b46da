package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

// oneNode refuses a command that means the node that is asked and names several.
func oneNode(cmd *cobra.Command, f *clientFlags, node, how string) error {
	if node != "" || len(f.endpoints) == 1 {
		return nil
	}
	fail := usagef("%s: there are %d endpoints and no node is named", cmd.CommandPath(), len(f.endpoints))
	fail.next = how
	return fail
}

func (a *app) nodeDrainCommand() *cobra.Command {
	var f nodeFlags
	var undo bool
	cmd := a.nodeChangeCommand(&cobra.Command{
		Use: "drain [NODE]", Short: "Have a node send its clients away, to be restarted",
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return nil
			}
			return args("the node")(cmd, given)
		},
		Long: `Have a node send its clients away and write out what it has in memory, so that it can be
restarted without failing a request, and quickly. It tells clients and balancers that it does not
serve, serves on for timeouts.drain_delay, finishes what is under way for at most
timeouts.shutdown, and refuses the rest, which clients with several endpoints send to other nodes.
It goes on to serve the other nodes, and owns what it owned. A restart ends it, and so does --undo.

NODE is a node's name, its id, or the beginning of either that no other has; without it, the node
at --endpoint. A node takes this from its own machine only, until there are credentials.
--wait shows how far it is until it is done, without a time limit unless --timeout is given.
See pairdb health --safe for whether it may be stopped then.`,
	}, &f, false)
	cmd.Flags().BoolVar(&undo, "undo", false, "have it serve clients again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		node := strings.Join(args, "")
		if len(args) > 0 && node == "" {
			return usagef("%s: the node is empty; leave it out for the one at --endpoint", cmd.CommandPath())
		}
		if err := oneNode(cmd, &f.clientFlags, node, "Name it: "+cmd.CommandPath()+" NODE. See pairdb status for the nodes."); err != nil {
			return err
		}
		ctx := cmd.Context()
		return f.withClient(func(c *client.Client) error {
			d, err := c.Drain(ctx, &pairdbv1.DrainRequest{Node: node, Undo: undo})
			if err != nil {
				return err
			}
			if f.wait && !undo {
				if cmd.Flags().Changed("timeout") {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, f.timeout)
					defer cancel()
				}
				if d, err = a.waitForDrain(ctx, c, node, d); err != nil {
					return err
				}
			}
			return a.show(f.output, drainView(d))
		})
	}
	return cmd
}

func drainView(d *pairdbv1.NodeDrain) view {
	head := visible(d.GetName()) + " serves clients"
	switch d.GetState() {
	case "draining":
		head = visible(d.GetName()) + " sends its clients away; pairdb node drain --wait says when that is done"
	case "drained":
		head = visible(d.GetName()) + " has sent its clients away and can be restarted once pairdb health --safe --node " + visible(d.GetName()) + " says so"
	}
	return view{
		data: d, head: []string{head}, columns: []string{"NODE", "STATE", "REQUESTS", "MEMORY", "DETAIL"},
		rows: [][]string{{visible(d.GetName()), visible(d.GetState()), fmt.Sprint(d.GetRequests()), bytesText(d.GetMemoryBytes()), visibleText(d.GetDetail())}},
	}
}

// waitForDrain follows a drain until it is done.
func (a *app) waitForDrain(ctx context.Context, c *client.Client, node string, d *pairdbv1.NodeDrain) (*pairdbv1.NodeDrain, error) {
	line := a.liveLine()
	defer line.clear()
	tick := time.NewTicker(healthPoll)
	defer tick.Stop()
	heard := time.Now()
	for {
		switch d.GetState() {
		case "drained":
			return d, nil
		case "serving":
			return nil, &failure{
				exit: errcode.ExitFailed, what: visible(d.GetName()) + " serves clients again before it was drained",
				why: []string{"somebody undid it, or it was restarted"}, next: "Ask for it again.",
			}
		}
		line.show("%s: %s; %d requests, %s in memory", visible(d.GetName()), visibleText(d.GetDetail()), d.GetRequests(), bytesText(d.GetMemoryBytes()))
		select {
		case <-ctx.Done():
			line.clear()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, &failure{
					exit: errcode.ExitTimeout, what: "the time is over, and " + visible(d.GetName()) + " goes on sending its clients away",
					why: []string{visibleText(d.GetDetail())}, next: "Wait longer with --timeout, or have it serve again with --undo.",
				}
			}
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
		look, cancel := context.WithTimeout(ctx, changeLook)
		now, err := c.DrainStatus(look, node)
		cancel()
		switch {
		case err == nil:
			d, heard = now, time.Now()
		case ctx.Err() == nil && time.Since(heard) > changePatience:
			line.clear()
			return nil, err
		}
	}
}

// safety asks whether a node may be stopped until it may or wait is over, at least once.
func (a *app) safety(ctx context.Context, f *clientFlags, node string, wait time.Duration) error {
	return f.withClient(func(c *client.Client) error {
		r, err := a.waitSafe(ctx, c, node, wait)
		if r == nil {
			return err
		}
		if serr := a.show(f.output, safetyView(r)); serr != nil {
			return serr
		}
		return err
	})
}

func (a *app) waitSafe(ctx context.Context, c *client.Client, node string, wait time.Duration) (*pairdbv1.SafeToStopResponse, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	poll := time.NewTicker(changeEvery)
	defer poll.Stop()
	line := a.liveLine()
	defer line.clear()
	for {
		r, err := c.SafeToStop(ctx, node)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var ce *client.Error
		wrong := errors.As(err, &ce) && ce.Code == errcode.InvalidArgument // and stays so
		if err == nil {
			if r.GetSafe() {
				return r, nil
			}
			err = unsafe(r)
			line.show("%s: %s", visible(r.GetName()), short(r.GetReasons()[0].GetText(), 100))
		}
		if wait == 0 || wrong {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, context.Cause(ctx)
		case <-over.C:
			return r, err
		case <-poll.C:
		}
	}
}

// unsafe is the error of a node that must not be stopped.
func unsafe(r *pairdbv1.SafeToStopResponse) error {
	var why []string
	for _, x := range r.GetReasons() {
		why = append(why, visibleText(x.GetText()))
	}
	return &failure{
		exit: errcode.ExitUnhealthy, what: "health: it is not safe to stop " + visible(r.GetName()), why: why,
		next: "See NEXT for each reason, or wait with --wait 10m.",
	}
}

func safetyView(r *pairdbv1.SafeToStopResponse) view {
	v := view{data: r, head: []string{visible(r.GetName()) + " can be stopped"}}
	if r.GetSafe() {
		return v
	}
	v.head[0] = visible(r.GetName()) + " must not be stopped now"
	v.columns = []string{"REASON", "WHAT", "NEXT"}
	for _, x := range r.GetReasons() {
		v.rows = append(v.rows, []string{visible(x.GetKind()), visibleText(x.GetText()), visibleText(x.GetNext())})
	}
	return v
}
