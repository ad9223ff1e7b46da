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

// trafficFlags are those of stats that ask for what clients do.
type trafficFlags struct {
	traffic, hot bool
	top          uint32
	node         string
}

func (t *trafficFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&t.traffic, "traffic", false, "show operations a second, failures and times of all nodes, over about a minute, instead")
	fs.BoolVar(&t.hot, "hot", false, "show the keys used most at present, all nodes together, instead")
	fs.Uint32Var(&t.top, "top", 20, "how many keys of reads and of writes --hot shows, 1 to 256")
	nodeFlag(cmd, &t.node)
}

// check refuses what does not go together.
func (t *trafficFlags) check(cmd *cobra.Command) error {
	switch given := cmd.Flags().Changed; {
	case !t.traffic && !t.hot && given("node"):
		return usagef("%s: --node goes with --traffic or --hot; choose nodes with --endpoint", cmd.CommandPath())
	case !t.hot && given("top"):
		return usagef("%s: --top goes with --hot", cmd.CommandPath())
	case t.traffic && t.hot:
		return usagef("%s: --traffic and --hot are two tables; ask for one of them", cmd.CommandPath())
	case t.top < 1 || t.top > 256:
		return usagef("%s: --top %d is not 1 to 256", cmd.CommandPath(), t.top)
	}
	return nil
}

// showTraffic shows what clients do, or which keys they use most.
func (a *app) showTraffic(cmd *cobra.Command, f *clientFlags, t *trafficFlags) error {
	return f.withClient(func(c *client.Client) error {
		req := &pairdbv1.TrafficRequest{Node: t.node}
		if t.hot {
			req.HotKeys = t.top
		}
		r, err := c.Traffic(cmd.Context(), req)
		if err != nil {
			return err
		}
		a.noteUnreachable(r.GetUnreachable())
		if t.hot {
			return a.show(f.output, hotView(r))
		}
		return a.show(f.output, trafficView(r))
	})
}

// trafficView has a row for each kind of operation of each node.
func trafficView(r *pairdbv1.TrafficResponse) view {
	v := view{data: r, items: []any{}, columns: []string{"NODE", "OPERATION", "PER SECOND", "FAILED", "P50", "P95", "P99"}}
	all, failed, underWay := 0.0, 0.0, uint64(0)
	var window time.Duration
	for _, n := range r.GetNodes() {
		v.items = append(v.items, n)
		underWay += n.GetUnderWay()
		window = max(window, n.GetWindow().AsDuration())
		for _, o := range n.GetOperations() {
			all += o.GetPerSecond()
			failed += o.GetFailedPerSecond()
			v.rows = append(v.rows, []string{
				nodeText(n.GetNode()), visible(o.GetOperation()), rate(o.GetPerSecond()), share(o.GetFailedPerSecond(), o.GetPerSecond()),
				latency(o.GetP50().AsDuration()), latency(o.GetP95().AsDuration()), latency(o.GetP99().AsDuration()),
			})
		}
	}
	v.head = []string{
		fmt.Sprintf("operations  %s a second, %s failed, over %s", rate(all), share(failed, all), window.Round(time.Second)),
		fmt.Sprintf("under way   %d at %d nodes", underWay, len(r.GetNodes())),
	}
	return v
}

// hotView has a row for each hot key.
func hotView(r *pairdbv1.TrafficResponse) view {
	v := view{data: r, items: []any{}, columns: []string{"KIND", "TENANT", "KEY", "SHARE", "PER SECOND", "+-"}}
	reads, writes := 0.0, 0.0
	for _, n := range r.GetNodes() {
		reads += n.GetReadsPerSecond()
		writes += n.GetWritesPerSecond()
	}
	v.head = []string{fmt.Sprintf("of %s reads and %s writes of keys a second, at %d nodes", rate(reads), rate(writes), len(r.GetNodes()))}
	for _, k := range r.GetHotKeys() {
		v.items = append(v.items, k)
		v.rows = append(v.rows, []string{
			visible(k.GetKind()), visible(k.GetTenantId()), short(string(k.GetKey()), 80), share(k.GetShare(), 1), rate(k.GetPerSecond()), rate(k.GetPerSecondError()),
		})
	}
	return v
}

// rate writes a number a second with three digits or, from 100 on, as a whole number.
func rate(n float64) string {
	if n >= 100 {
		return strconv.FormatFloat(n, 'f', 0, 64)
	}
	s := strconv.FormatFloat(n, 'g', 3, 64)
	if strings.Contains(s, "e") {
		return strconv.FormatFloat(n, 'f', 3, 64)
	}
	return s
}

// share writes a part of a whole, "-" of nothing.
func share(part, whole float64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*part/whole)
}

func latency(d time.Duration) string {
	if d >= time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
