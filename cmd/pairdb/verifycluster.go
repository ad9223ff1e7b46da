package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

const (
	// scrubPoll is how often the nodes are asked how far they have come.
	scrubPoll = 500 * time.Millisecond
	// scrubSilence is after how many questions in a row that it did not answer a
	// node is waited for no longer.
	scrubSilence = 20
)

// scrubs is what is known of the scrubs of all nodes while they are waited for.
type scrubs struct {
	nodes map[string]*pairdbv1.NodeScrub // the newest of each, by node id
	began map[string]time.Time           // when each began, by its own clock
	gone  map[string]*pairdbv1.UnreachableNode
	quiet map[string]int // questions in a row without an answer
}

// heard takes in an answer and reports whether somebody is to be waited for. Of the first one
// the scrubs have begun: what a node that was not there then tells later is of another.
func (s *scrubs) heard(r *pairdbv1.ScrubResponse) (wait bool) {
	first := s.nodes == nil
	if first {
		s.nodes, s.gone, s.quiet = map[string]*pairdbv1.NodeScrub{}, map[string]*pairdbv1.UnreachableNode{}, map[string]int{}
		s.began = map[string]time.Time{}
	}
	for _, n := range r.GetNodes() {
		id := n.GetNode().GetNodeId()
		if first {
			s.began[id] = n.GetBegan().AsTime()
		}
		began, asked := s.began[id]
		if !asked {
			continue
		}
		// Each answer says it anew: a node is asked on while others are waited for.
		if !n.GetRunning() && (n.GetEnded() == nil || n.GetEnded().AsTime().Before(began)) {
			n.Error = cmp.Or(n.GetError(), "the node was started again before it had read all")
		}
		s.nodes[id] = n
		delete(s.gone, id)
		delete(s.quiet, id)
	}
	for _, u := range r.GetUnreachable() {
		s.gone[u.GetNodeId()] = u
		s.quiet[u.GetNodeId()]++
	}
	for id, n := range s.nodes {
		if n.GetRunning() && s.quiet[id] < scrubSilence {
			wait = true
		}
	}
	return wait
}

// list returns the nodes by name.
func (s *scrubs) list() []*pairdbv1.NodeScrub {
	var all []*pairdbv1.NodeScrub
	for _, n := range s.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *pairdbv1.NodeScrub) int { return cmp.Compare(a.GetNode().GetName(), b.GetNode().GetName()) })
	return all
}

// missing returns the nodes that did not answer, by name.
func (s *scrubs) missing() []*pairdbv1.UnreachableNode {
	var all []*pairdbv1.UnreachableNode
	for _, u := range s.gone {
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b *pairdbv1.UnreachableNode) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all
}

// line says how far all of them have come.
func (s *scrubs) line() string {
	var parts []string
	for _, n := range s.list() {
		parts = append(parts, fmt.Sprintf("%s %s of %s", nodeText(n.GetNode()), bytesText(n.GetBytesDone()), bytesText(n.GetBytesTotal())))
	}
	return "verify: " + strings.Join(parts, ", ")
}

// verifyCluster has all nodes scrub and waits for them.
func (a *app) verifyCluster(ctx context.Context, f *clientFlags) error {
	var s scrubs
	line := a.liveLine()
	defer line.clear()
	err := f.withClient(func(c *client.Client) error {
		node := c.Nodes()[0]
		tick := time.NewTicker(scrubPoll)
		defer tick.Stop()
		for start := true; ; start = false {
			r, err := node.Scrub(ctx, start)
			if err != nil {
				return err
			}
			if !s.heard(r) {
				return nil
			}
			line.show("%s", s.line())
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-tick.C:
			}
		}
	})
	line.clear()
	if err != nil {
		return err
	}
	a.noteUnreachable(s.missing())
	if err := a.show(f.output, s.view()); err != nil {
		return err
	}
	return s.verdict()
}

func (s *scrubs) view() view {
	r := &pairdbv1.ScrubResponse{Nodes: s.list(), Unreachable: s.missing()}
	v := view{data: r, items: []any{}, columns: []string{"NODE", "BYTES", "DAMAGED TABLES", "PARTITIONS BEING FETCHED", "TOOK", "VERDICT"}}
	for _, n := range r.GetNodes() {
		took := ""
		if n.GetEnded() != nil {
			took = n.GetEnded().AsTime().Sub(n.GetBegan().AsTime()).Round(time.Millisecond).String()
		}
		v.items = append(v.items, n)
		v.rows = append(v.rows, []string{
			nodeText(n.GetNode()), bytesText(n.GetBytesDone()), strconv.FormatUint(n.GetDamagedTables(), 10),
			strconv.FormatUint(n.GetQuarantinedPartitions(), 10), took, scrubVerdict(n),
		})
	}
	return v
}

func scrubVerdict(n *pairdbv1.NodeScrub) string {
	switch {
	case n.GetRunning():
		return "no end in sight"
	case n.GetError() != "":
		return "broken off"
	case len(n.GetDamage()) > 0:
		return fmt.Sprintf("DAMAGED in %d places", len(n.GetDamage()))
	case n.GetQuarantinedPartitions() > 0:
		return "sound, but for what is being fetched"
	default:
		return "sound"
	}
}

// verdict is the error that the command ends with, nil if all nodes are sound.
func (s *scrubs) verdict() error {
	var why []string
	for _, n := range s.list() {
		if n.GetError() != "" {
			why = append(why, nodeText(n.GetNode())+": "+visibleText(n.GetError()))
		}
		for _, d := range n.GetDamage() {
			why = append(why, nodeText(n.GetNode())+": "+damageJSON{File: d.GetFile(), Offset: d.GetOffset(), Reason: visibleText(d.GetReason())}.text())
		}
		if n.GetRunning() {
			why = append(why, nodeText(n.GetNode())+": it stopped answering")
		}
	}
	if len(why) > 0 {
		what := fmt.Sprintf("verify: %d things are wrong", len(why))
		if len(why) > maxWhy {
			why = append(why[:maxWhy], "and more; see -o json")
		}
		return &failure{
			exit: errcode.ExitFailed, what: what, why: why,
			next: "With other copies in the cluster the data is fetched again from them; pairdb status says how much is left. Without, restore it from a backup.",
		}
	}
	if gone := s.missing(); len(gone) > 0 {
		return &failure{
			exit: errcode.ExitConnect, what: fmt.Sprintf("verify: %d nodes did not answer, and what is on their disks is not known", len(gone)),
			next: "Run it again when they are back.",
		}
	}
	return nil
}
