package main

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
)

// oneGoroutine are tests that take long and never have two goroutines at work on
// the same thing, by their package. The race detector could find nothing in them,
// and makes them five to ten times as slow, so it is spared them. The test step
// runs all of them. Their names are in no other package, for go test skips a name
// everywhere.
//
// What looks alike and is not here has goroutines beside one another: the disk that
// hangs while others read (TestStallAtEveryCall), the full one that jobs dig out of
// (TestDigOutOfAFullDisk), the damaged store of Badger (TestDamagedStore).
// TestForgetfulSimulation and TestTTLSimulation are quick, and run two clusters at a
// time, which must not share anything.
var oneGoroutine = map[string][]string{
	"engine": {
		"TestFaultAtEveryCall", "TestCrashAtEveryCall", "TestCrashAtEveryCallOfQuarantine", "TestCrashWhileTheManifestIsRewritten",
		"TestDamageToEveryFile", "TestKeysSince", "TestScanThroughTombstones",
	},
	"coord": {
		"TestSimulation", "TestSiblingsSimulation", "TestScanSimulation", "TestRepairSimulation",
		"TestSimulationRepeats", "TestKeptSimulations", "TestSmallestPlan",
		"TestSimulatedPausedReplica", "TestSlowReplica", "TestSimulatedSlowDisk", "TestHungDisk",
		"TestRingSimulation", "TestRingSchedules", "TestSimulatedBatches", "TestNoReadGoesBack", "TestEverybodyCatchesUp",
	},
	"engine/sstable":        {"TestEveryBitFlip", "TestResealedDamage"},
	"engine/wal":            {"TestCrashEverywhere", "TestFailEveryCall", "TestEveryByteFlipped", "TestEveryLengthTruncated", "TestReplayFailsEveryRead"},
	"gossip/ring/ringmodel": {"TestSchedules", "TestSchedulesRepeat", "TestEachRuleIsMissed"},
	"client":                {"TestThrottle"},
	"engine/cache":          {"TestWindowAdapts"},
	"coord/peerhealth":      {"TestAlwaysRecovers"},
	"cmd/pairdb":            {"TestDebugHostileFiles"},
}

// sequential are packages that begin no goroutine, and neither do their tests: the race
// detector could find nothing in them. They are left out whole, with what only they
// need to be built.
var sequential = []string{"api", "coord/causal", "coord/quorum", "engine/manifest", "gossip/crdt", "gossip/meta", "gossip/ring", "gossip/schema", "tools/planted", "tools/seams"}

// race runs the tests that can be run in one process under the race detector, but
// for those that have nothing for it.
func race(ctx context.Context, out io.Writer) error {
	compiler, err := compiler(ctx)
	if err == nil {
		err = install(ctx, out, compiler)
	}
	if err != nil {
		return err
	}
	var skipped []string
	for _, dir := range slices.Sorted(maps.Keys(oneGoroutine)) {
		skipped = append(skipped, oneGoroutine[dir]...)
	}
	without := []string{e2e, kernel, containers}
	for _, dir := range sequential {
		without = append(without, module+dir)
	}
	return testWithout(ctx, out, []string{"CGO_ENABLED=1"}, []string{"-race", "-skip=" + exactly(skipped)}, without...)
}

// exactly is a pattern of go test for tests with these names and no others.
func exactly(names []string) string { return "^(" + strings.Join(names, "|") + ")$" }
