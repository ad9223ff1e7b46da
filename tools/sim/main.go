// Command sim runs simulations of whole clusters for a time, from the seed after
// the last one that the ledger knows, and adds a line to the ledger. It is run
// from the module's root:
//
//	go run ./tools/sim [-minutes 10] [-batch 50] [-ledger docs/evidence/simulations.tsv]
//
// Each seed is one cluster with one writer a key and one whose tenant keeps
// siblings. A seed that fails ends the run with its output and exit code 1; it
// is run again with
//
//	go test ./coord -run Simulation -sim.seed=N -v
package main

import (
	"runtime"

	"github.com/pairdb/pairdb/tools/seeds"
)

func main() {
	seeds.Main(seeds.Job{
		Name: "sim", Package: "coord", Tests: "^(TestSimulation|TestSiblingsSimulation)$",
		Batch: 50, Workers: runtime.GOMAXPROCS(0), Ledger: "docs/evidence/simulations.tsv",
		Counts: []string{"written", "written once", "read", "crashes", "cuts", "wrong opinions", "remints", "read repairs", "duplicates"},
	})
}
