package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/node"
)

// healthPoll is how often health --wait asks.
const healthPoll = 200 * time.Millisecond

// endpointHealth is one line of the answer.
type endpointHealth struct {
	Endpoint string `json:"endpoint"`
	Serving  bool   `json:"serving"`
	Status   string `json:"status"`
	Error    string `json:"error,omitempty"`
}

func (a *app) healthCommand() *cobra.Command {
	var f clientFlags
	var wait time.Duration
	var addrFile, node string
	var safe bool
	cmd := a.clientCommand(&cobra.Command{
		Use:   "health",
		Short: "Ask nodes whether they serve; exit code 10 says that one does not",
		Long: `Ask every endpoint whether its node takes requests. The exit code is 0 if all do,
10 if one says that it does not, and 6 if one cannot be reached.

A check of one node on its own machine, such as that of a container, names with
--addr-file the file that the agent writes, and so asks that node and no other.

With --safe it asks instead whether a node can be stopped now so that every partition keeps a
majority of owners that have all there is: the others are up, nothing waits to be delivered,
fetched or moved, and all owners were compared since one was away. The exit code is 0 if it can,
and 10 with each reason and what to wait for if it cannot. For an upgrade, restart a node when
that is so, and wait for it before the next one.`,
		GroupID: groupCluster,
		Args:    args(),
	}, &f)
	cmd.Flags().DurationVar(&wait, "wait", 0, "ask again until all are healthy, or with --safe until the node can be stopped, at most this long")
	cmd.Flags().BoolVar(&safe, "safe", false, "ask whether a node can be stopped")
	cmd.Flags().StringVar(&node, "node", "", "with --safe: which node, by its name, its id, or the beginning of either (default the one at --endpoint)")
	cmd.Flags().StringVar(&addrFile, "addr-file", "", "ask the node that wrote this file, its listen.addr_file, in place of --endpoint")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if wait < 0 {
			return usagef("pairdb health: --wait is %s; it cannot be negative", wait)
		}
		if cmd.Flags().Changed("addr-file") {
			if cmd.Flags().Changed("endpoint") {
				return usagef("pairdb health: --addr-file and --endpoint name different nodes; use one of them")
			}
			endpoint, err := waitAddrFile(cmd.Context(), addrFile, wait)
			if err != nil {
				return err
			}
			f.endpoints = []string{endpoint}
		}
		switch {
		case cmd.Flags().Changed("node") && (!safe || node == ""):
			return usagef("pairdb health: --node names the node that --safe is about; give both, or --endpoint for the nodes to ask")
		case safe:
			if err := oneNode(cmd, &f, node, "Name it with --node; see pairdb status for the nodes."); err != nil {
				return err
			}
			return a.safety(cmd.Context(), &f, node, wait)
		}
		return f.withClient(func(c *client.Client) error {
			all, err := waitHealthy(cmd.Context(), c, wait)
			if serr := a.show(f.output, healthView(all)); serr != nil {
				return serr
			}
			return err
		})
	}
	return cmd
}

// waitAddrFile reads where this machine reaches the node that wrote file. It looks
// again until the file is there or wait is over, at least once: a node writes it
// when it is up, and takes it away when it stops.
func waitAddrFile(ctx context.Context, file string, wait time.Duration) (endpoint string, err error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	poll := time.NewTicker(healthPoll)
	defer poll.Stop()
	for {
		at, err := node.ReadAddrFile(file)
		if err == nil {
			return at.GRPCLocal, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		f := &failure{
			exit: errcode.ExitConnect, what: "health: " + err.Error(), err: err,
			next: "The agent writes it once it listens: wait with --wait 60s, or look at its log.",
		}
		if wait == 0 {
			return "", f
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-over.C:
			return "", f
		case <-poll.C:
		}
	}
}

// waitHealthy asks all endpoints of c until all serve or wait is over, at least
// once. The error is nil if all serve.
func waitHealthy(ctx context.Context, c *client.Client, wait time.Duration) ([]client.Health, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	poll := time.NewTicker(healthPoll)
	defer poll.Stop()
	for {
		all := c.Health(ctx)
		err := healthError(all)
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		if err == nil || wait == 0 {
			return all, err
		}
		select {
		case <-ctx.Done():
			return all, context.Cause(ctx)
		case <-over.C:
			return all, err
		case <-poll.C:
		}
	}
}

// healthError is nil if all endpoints serve. A node that answers that it does
// not serve is unhealthy; one that does not answer counts as that only if it
// was reached.
func healthError(all []client.Health) error {
	exit := errcode.ExitOK
	var why []string
	for _, h := range all {
		switch {
		case h.Serving:
		case h.Err == nil:
			exit = errcode.ExitUnhealthy
			why = append(why, fmt.Sprintf("%s answers %s", h.Endpoint, h.Status))
		case errors.Is(h.Err, client.ErrNotConnected):
			if exit == errcode.ExitOK {
				exit = errcode.ExitConnect
			}
			why = append(why, h.Err.Message)
		default:
			exit = errcode.ExitUnhealthy
			why = append(why, h.Endpoint+": "+h.Err.Message)
		}
	}
	if exit == errcode.ExitOK {
		return nil
	}
	return &failure{exit: exit, what: "health: not every node serves", why: why, next: "Wait with --wait 60s, or look at pairdb status and the node's log."}
}

func healthView(all []client.Health) view {
	out := struct {
		Endpoints []endpointHealth `json:"endpoints"`
	}{Endpoints: []endpointHealth{}}
	v := view{columns: []string{"ENDPOINT", "HEALTH"}, items: []any{}}
	for _, h := range all {
		e := endpointHealth{Endpoint: h.Endpoint, Serving: h.Serving, Status: h.Status}
		text := strings.ToLower(strings.ReplaceAll(h.Status, "_", " "))
		if h.Err != nil {
			e.Error, text = h.Err.Message, "no answer"
		}
		out.Endpoints = append(out.Endpoints, e)
		v.items = append(v.items, e)
		v.rows = append(v.rows, []string{h.Endpoint, text})
	}
	v.data = out
	return v
}
