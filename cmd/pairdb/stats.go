package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

func (a *app) statsCommand() *cobra.Command {
	var f clientFlags
	var t trafficFlags
	cmd := a.upkeepCommand(&cobra.Command{
		Use:   "stats",
		Short: "Show the figures of nodes: storage engines, traffic, hot keys",
		Long: "Show the figures of nodes' storage engines. Counters run from the start of the node.\n" + upkeepNote + `

With --traffic or --hot one node is asked for all: the operations of clients a second, and the
keys that were used most over about the last minute. What is said of a key is an estimate, and
how far off it may be either way stands beside it.`,
		GroupID: groupLook, Args: args(),
	}, &f, false)
	t.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := t.check(cmd); err != nil {
			return err
		}
		if t.traffic || t.hot {
			return a.showTraffic(cmd, &f, &t)
		}
		// The table of each node stands by itself; other formats have all in one.
		table := f.output == "" || f.output == formatTable
		rows := newNodeRows(&f)
		err := onEachNode(cmd.Context(), &f, func(n *client.Node) error {
			s, err := n.Stats(cmd.Context())
			if err != nil {
				return err
			}
			if table {
				if len(rows.items) > 0 {
					if err := a.write([]byte("\n")); err != nil {
						return err
					}
				}
				err = a.show(f.output, statsView(s))
			}
			rows.add(s)
			rows.rows = rows.rows[:len(rows.rows)-1]
			for _, l := range s.GetLevels() {
				rows.rows = append(rows.rows, append([]string{nodeText(s.GetNode())}, levelCells(l)...))
			}
			return err
		})
		if table {
			return err
		}
		return rows.show(a, f.output, err)
	}
	return cmd
}

func levelCells(l *pairdbv1.LevelStats) []string {
	return []string{
		number(l.GetLevel()), strconv.FormatUint(l.GetTables(), 10), strconv.FormatUint(l.GetBytes(), 10), strconv.FormatFloat(l.GetScore(), 'f', 2, 64),
	}
}

// statsView is one node's engine for people.
func statsView(s *pairdbv1.StatsResponse) view {
	m, log, c, cache := s.GetMemtables(), s.GetLog(), s.GetCompactions(), s.GetCache()
	amp, filter, disk := s.GetAmplification(), s.GetFilter(), s.GetDisk()
	asked := filter.GetDenied() + filter.GetFalsePositives() + filter.GetFound()
	state := "reads and writes"
	if s.GetReadOnly() {
		state = "READ-ONLY after a failed write or sync"
	}
	v := view{
		data: s,
		head: []string{
			"node        " + nodeText(s.GetNode()) + ", " + state,
			fmt.Sprintf("data        about %d keys, %s in tables, %d of them open", s.GetKeys(), bytesText(s.GetTableBytes()), s.GetOpenTables()),
			fmt.Sprintf("sequence    visible %d, durable %d, in tables %d; %d snapshots", s.GetVisibleSeq(), s.GetDurableSeq(), s.GetFlushedSeq(), s.GetSnapshots()),
			fmt.Sprintf("memtables   %s active; %d waiting to be flushed, %s", bytesText(m.GetActiveBytes()), m.GetImmutable(), bytesText(m.GetImmutableBytes())),
			fmt.Sprintf("log         %d batches, %d operations; %d syncs, %s on average, %.1f batches each; %d segments",
				log.GetBatches(), log.GetOperations(), log.GetSyncs(), mean(log.GetSyncTime().AsDuration(), log.GetSyncs()),
				ratio(log.GetBatches(), log.GetSyncs()), log.GetSegments()),
			fmt.Sprintf("flushes     %d, %d tables, %s", c.GetFlushes(), c.GetFlushTables(), bytesText(c.GetFlushBytes())),
			fmt.Sprintf("compactions %d merges read %s and wrote %s, %d moves; debt %s; level 0 is %d deep; %d jobs failed",
				c.GetMerges(), bytesText(c.GetReadBytes()), bytesText(c.GetWrittenBytes()), c.GetMoves(), bytesText(s.GetCompactionDebtBytes()),
				s.GetLevel0Depth(), c.GetFailures()),
			fmt.Sprintf("cache       %s, hit rate %s of %d reads of blocks", bytesText(cache.GetBytes()), percent(cache.GetHits(), cache.GetHits()+cache.GetMisses()), cache.GetHits()+cache.GetMisses()),
			fmt.Sprintf("filters     spared %s of %d looks into tables, %d were in vain", percent(filter.GetDenied(), asked), asked, filter.GetFalsePositives()),
			fmt.Sprintf("amplified   %.2f bytes written for each byte, %d tables a read at most, %.2f bytes stored for each live one", amp.GetWrite(), amp.GetRead(), amp.GetSpace()),
			fmt.Sprintf("disk        %s: %s free of %s", visible(disk.GetState()), bytesText(disk.GetFreeBytes()), bytesText(disk.GetTotalBytes())),
		},
		columns: []string{"LEVEL", "TABLES", "BYTES", "SCORE"},
	}
	stalls := 0
	for _, st := range s.GetStalls() {
		if st.GetCount() > 0 {
			stalls++
			v.head = append(v.head, fmt.Sprintf("stalls      %s: %d waits, %s", visible(st.GetReason()), st.GetCount(), st.GetTime().AsDuration().Round(time.Millisecond)))
		}
	}
	if stalls == 0 {
		v.head = append(v.head, "stalls      none")
	}
	for _, p := range s.GetPools() {
		v.head = append(v.head, fmt.Sprintf("pool        %s: %d busy, %d queued, %d jobs in %s, waited %s, %d panics", visible(p.GetName()), p.GetBusy(), p.GetQueued(),
			p.GetJobs(), p.GetBusyTime().AsDuration().Round(time.Millisecond), p.GetWaitTime().AsDuration().Round(time.Millisecond), p.GetPanics()))
	}
	for _, l := range s.GetLevels() {
		v.rows = append(v.rows, levelCells(l))
	}
	return v
}

// mean is the average time of n things, "-" for none.
func mean(total time.Duration, n uint64) string {
	if n == 0 {
		return "-"
	}
	return (total / time.Duration(n)).Round(time.Microsecond).String()
}

// ratio is 0 for nothing to divide by.
func ratio(a, b uint64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// percent is "-" of nothing.
func percent(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
