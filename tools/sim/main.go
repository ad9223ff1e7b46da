// Command sim runs simulations of whole clusters for a time, from the seed after
// the last one that the ledger knows, and adds a line to the ledger. It is run
// from the module's root:
//
//	go run ./tools/sim [-minutes 10] [-batch 50] [-ledger docs/evidence/simulations.tsv]
//
// Each seed is a run of each kind of simulation that package coord has. One that
// fails ends the run, with exit code 1 and its output: how to run it again, and the
// smallest run that was found to fail alike.
package main

import (
	"runtime"

	"github.com/pairdb/pairdb/tools/seeds"
)

func main() {
	seeds.Main(seeds.Job{
		Name: "sim", Package: "coord", Tests: "^(TestSimulation|TestSiblingsSimulation|TestForgetfulSimulation|TestTTLSimulation|TestScanSimulation|TestRepairSimulation|TestRingSimulation)$",
		Batch: 50, Workers: runtime.GOMAXPROCS(0), Env: []string{"GOMAXPROCS=1"}, Ledger: "docs/evidence/simulations.tsv",
		Counts: []string{"written", "written once", "written to all", "read", "crashes", "cuts", "wrong opinions", "remints", "read repairs", "duplicates", "mortal", "scans", "rewritten", "adopted", "collected deletes", "collected values", "entries propose", "entries finalize", "entries abort", "joins", "leaves", "disks lost"},
	})
}
