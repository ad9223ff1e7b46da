package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

const (
	// repairEvery is how often --wait looks.
	repairEvery = 500 * time.Millisecond
	// repairPatience is how long a node may say nothing of its run.
	repairPatience = 15 * time.Second
)

func (a *app) repairCommand() *cobra.Command {
	var (
		f         clientFlags
		req       pairdbv1.StartRepairRequest
		partition uint32
		wait      bool
	)
	cmd := a.upkeepCommand(&cobra.Command{
		Use: "repair", Short: "Compare what the owners of data hold now, and send each what it lacks", GroupID: groupUpkeep, Args: args(),
		Long: `Compare what the owners of data hold, and send each what it lacks. Nodes do this by themselves
all the time; this has them do it now. Any node starts it at all, for callers on its own machine,
until there are credentials. A repair like one under way joins it.
--wait shows how far it is until it is done, and fails if some owners could not be made equal.
Ctrl-C ends the waiting, not the repair.`,
	}, &f, true)
	fs := cmd.Flags()
	fs.StringVar(&f.tenant, "tenant", "", "only the owners of this tenant's data (default all)")
	fs.Uint32Var(&partition, "partition", 0, "only this partition (default all)")
	fs.BoolVar(&wait, "wait", false, "wait until it is done")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if fs.Changed("tenant") {
			req.TenantId = f.tenant
		}
		if fs.Changed("partition") {
			req.Partition = &partition
		}
		return f.withClient(func(c *client.Client) error {
			began := time.Now()
			r, err := c.StartRepair(cmd.Context(), &req)
			if err != nil {
				return err
			}
			s := &repairSummary{runs: r.GetRuns(), unreachable: r.GetUnreachable()}
			if wait {
				if err := a.waitForRepair(cmd.Context(), c, s); err != nil {
					return err
				}
				s.seconds = time.Since(began).Seconds()
			}
			a.noteUnreachable(s.unreachable)
			if err := a.show(f.output, s.view(wait)); err != nil {
				return err
			}
			return s.failure(wait)
		})
	}
	return cmd
}

// repairSummary is what a repair has come to, all nodes together.
type repairSummary struct {
	runs        []*pairdbv1.RepairRun
	unreachable []*pairdbv1.UnreachableNode
	seconds     float64
}

func (s *repairSummary) sum(of func(*pairdbv1.RepairRun) uint64) (n uint64) {
	for _, r := range s.runs {
		n += of(r)
	}
	return n
}

func (s *repairSummary) spans() uint64 {
	return s.sum(func(r *pairdbv1.RepairRun) uint64 { return uint64(r.GetSpans()) })
}

func (s *repairSummary) done() uint64 {
	return s.sum(func(r *pairdbv1.RepairRun) uint64 { return uint64(r.GetDone()) })
}

func (s *repairSummary) confirmed() uint64 {
	return s.sum(func(r *pairdbv1.RepairRun) uint64 { return uint64(r.GetConfirmed()) })
}

// MarshalJSON implements json.Marshaler.
func (s *repairSummary) MarshalJSON() ([]byte, error) {
	body, err := marshal(&pairdbv1.RepairStatusResponse{Runs: s.runs, Unreachable: s.unreachable})
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Spans        uint64          `json:"spans"`
		Done         uint64          `json:"done"`
		Confirmed    uint64          `json:"confirmed"`
		KeysDiffered uint64          `json:"keys_differed"`
		RowsSent     uint64          `json:"rows_sent"`
		Bytes        uint64          `json:"bytes"`
		Seconds      float64         `json:"seconds"`
		Runs         json.RawMessage `json:"runs"`
		Unreachable  json.RawMessage `json:"unreachable"`
	}{
		s.spans(), s.done(), s.confirmed(), s.sum((*pairdbv1.RepairRun).GetKeysDiffered), s.sum((*pairdbv1.RepairRun).GetRowsSent),
		s.sum((*pairdbv1.RepairRun).GetBytes), s.seconds, all["runs"], all["unreachable"],
	})
}

func (s *repairSummary) view(waited bool) view {
	head := fmt.Sprintf("started: %d spans at %d nodes; pairdb repair --wait joins it and shows how far it is", s.spans(), len(s.runs))
	if waited {
		head = fmt.Sprintf("%d of %d spans have equal owners; %d keys differed, %d rows sent, %s, %.1f s", s.confirmed(), s.spans(),
			s.sum((*pairdbv1.RepairRun).GetKeysDiffered), s.sum((*pairdbv1.RepairRun).GetRowsSent), bytesText(s.sum((*pairdbv1.RepairRun).GetBytes)), s.seconds)
	}
	v := view{data: s, head: []string{head}, items: []any{}, columns: []string{"NODE", "SPANS", "DONE", "EQUAL", "KEYS DIFFERED", "ROWS SENT", "BYTES", "NOT REPAIRED"}}
	for _, r := range s.runs {
		v.items = append(v.items, r)
		why := ""
		if r.GetError() != "" {
			why = visible(r.GetError())
		}
		v.rows = append(v.rows, []string{
			visible(r.GetName()), number(r.GetSpans()), number(r.GetDone()), number(r.GetConfirmed()),
			strconv.FormatUint(r.GetKeysDiffered(), 10), strconv.FormatUint(r.GetRowsSent(), 10), bytesText(r.GetBytes()), why,
		})
	}
	return v
}

// failure is what went wrong, nil if nothing has.
func (s *repairSummary) failure(waited bool) error {
	var why []string
	for _, n := range s.unreachable {
		why = append(why, visible(n.GetName())+": "+visible(n.GetReason()))
	}
	for _, r := range s.runs {
		if waited && (r.GetError() != "" || r.GetConfirmed() < r.GetSpans()) {
			why = append(why, fmt.Sprintf("%s: %d of %d spans: %s", visible(r.GetName()), r.GetSpans()-min(r.GetConfirmed(), r.GetSpans()), r.GetSpans(), visible(r.GetError())))
		}
	}
	if len(why) == 0 {
		return nil
	}
	slices.Sort(why)
	return &failure{exit: errcode.ExitFailed, what: "not everything could be repaired", why: why, next: "see that all nodes are up (pairdb status), and repair again; nodes go on trying by themselves"}
}

// waitForRepair keeps the summary up to date until all of its runs have ended.
func (a *app) waitForRepair(ctx context.Context, c *client.Client, s *repairSummary) error {
	p := &progress{unit: "spans"}
	p.known.Store(true)
	if isTerminal(a.stderr) {
		defer drawProgress(a.stderr, "repairing", p)()
	}
	ids := make([]string, 0, len(s.runs))
	open := map[string]time.Time{} // runs under way, and when their nodes last spoke of them
	key := func(r *pairdbv1.RepairRun) string { return r.GetNodeId() + " " + r.GetId() }
	byKey := map[string]int{}
	for i, r := range s.runs {
		ids = append(ids, r.GetId())
		byKey[key(r)] = i
		if r.GetEndedAt() == nil {
			open[key(r)] = time.Now()
		}
	}
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		p.totalFiles.Store(int64(s.spans()))
		p.files.Store(int64(s.done()))
		p.bytes.Store(int64(s.sum((*pairdbv1.RepairRun).GetBytes)))
		if len(open) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		r, err := c.RepairStatus(ctx, &pairdbv1.RepairStatusRequest{Ids: ids})
		now := time.Now()
		if err == nil {
			for _, run := range r.GetRuns() {
				i, ours := byKey[key(run)]
				if !ours {
					continue
				}
				s.runs[i] = run
				if _, waits := open[key(run)]; waits {
					open[key(run)] = now
				}
				if run.GetEndedAt() != nil {
					delete(open, key(run))
				}
			}
		}
		for k, last := range open {
			if now.Sub(last) < repairPatience {
				continue
			}
			run := s.runs[byKey[k]]
			run.Error = strings.TrimSpace("the node says nothing of it any more; it may have started again " + plainNote(err))
			delete(open, k)
		}
	}
}

// plainNote is an error in brackets, "" for none.
func plainNote(err error) string {
	if err == nil {
		return ""
	}
	return "(" + plainError(err) + ")"
}
