// Command nemesis hurts clusters of real processes for a time, from the seed
// after the last one that the ledger knows, and adds a line to the ledger. It is
// run as root from the module's root:
//
//	go run ./tools/nemesis [-minutes 10] [-batch 2] [-ledger docs/evidence/nemesis.tsv]
//
// Clusters of three nodes and of five take turns; each is under load for 80 s,
// with stops of up to a minute, and then again with faults of disks and of parts of the network. A seed that fails ends the run with its output
// and exit code 1. The output says how to run it again, and where the history
// is that it left.
package main

import "github.com/pairdb/pairdb/tools/seeds"

func main() {
	seeds.Main(seeds.Job{
		Name: "nemesis", Package: "cmd/pairdb/e2e", Tests: "^TestNemesis",
		Flags: []string{"-nemesis.time=80s", "-nemesis.stop=60s", "-nemesis.gap=5s"},
		Batch: 2, Workers: 1, Ledger: "docs/evidence/nemesis.tsv",
		Counts: []string{
			"operations", "idempotent writes", "idempotent attempts", "late attempts", "duplicates", "registers", "registers retired", "items in carts",
			"kills", "kills of all", "stops", "long stops", "cuts", "cuts one way", "isolations", "splits", "gossip cuts", "peer cuts", "full disks",
			"failed syncs", "values that expire", "objects compared", "violations",
		},
	})
}
