// Command ringmodel plays schedules of changes of the ring, from the seed after the
// last one that the ledger knows up to 100,000, and adds a line to the ledger. It is
// run from the module's root:
//
//	go run ./tools/ringmodel [-minutes 10] [-until 100000] [-batch 500] [-ledger docs/evidence/ringmodel-factors.tsv]
//
// docs/evidence/ringmodel.tsv are the runs before replication factors could be changed:
// since then a seed is another schedule, so they begin with the first again.
//
// A seed that fails ends the run with exit code 1 and says how to play it again. One
// that is interrupted goes on the next time where it was.
package main

import (
	"runtime"

	"github.com/pairdb/pairdb/tools/seeds"
)

func main() {
	seeds.Main(seeds.Job{
		Name: "ringmodel", Package: "gossip/ring/ringmodel", Tests: "^TestSchedules$",
		Batch: 500, Workers: runtime.GOMAXPROCS(0), Env: []string{"GOMAXPROCS=1"}, Ledger: "docs/evidence/ringmodel-factors.tsv", Until: 100_000,
		Counts: []string{"acknowledged", "reads", "bounces", "propose", "commit", "abort", "finalize", "retire", "crashes", "lost disks", "cuts", "pauses", "drops", "rounds", "sweeps", "factors changed", "partings", "tenants dropped"},
	})
}
