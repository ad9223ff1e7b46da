package main

import "slices"

// bug is a change to one file that tests have to notice.
type bug struct {
	name string
	file string
	// old, which is in the file once, is replaced by bad.
	old, bad string
	// tests of pkg, a pattern, have to fail.
	pkg, tests string
}

const (
	simulation = "^TestSimulation$"
	siblings   = "^TestSiblingsSimulation$"
	expiry     = "^TestTTLSimulation$"
	scans      = "^TestScanSimulation$"
	forgetful  = "^TestForgetfulSimulation$"
)

// bugs has all of them.
var bugs = slices.Concat(
	operationBugs, onceBugs, batchBugs, metadataBugs, tenantBugs, replicaBugs,
	collectBugs, damageBugs, healthBugs, loadBugs, clientBugs, hintsBugs,
	healBugs, repairBugs, ringBugs,
)

// realBugs are those that the gate's clusters of real processes show.
func realBugs() []bug {
	var found []bug
	for _, b := range bugs {
		switch b.name {
		case "acknowledge a write at W-1", "acknowledge a write before it is synced", "be content with one vote",
			"hand out a context that covers siblings nobody was shown", "strip the losers of a tenant that keeps siblings":
			b.pkg, b.tests = "cmd/pairdb/e2e", "^TestNemesis$"
			found = append(found, b)
		}
	}
	return found
}
