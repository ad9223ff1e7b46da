package ringmodel

import (
	"testing"
)

// noticedBySeed are random schedules that fail without a rule, and pass with it. If
// what a seed plays has changed, find another one with
//
//	go test ./gossip/ring/ringmodel -run TestSchedules -ringmodel.without="the rule" -ringmodel.seeds=4000
func noticedBySeed() map[rule]uint64 {
	return map[rule]uint64{
		fence:           403,
		sources:         472,
		votersInForce:   584,
		actorPerStart:   2,
		entryBytes:      6,
		durableVotes:    22,
		freshTally:      82,
		readRepair:      12,
		hintsDoNotCount: 13,
		hintsFenced:     12,
		copyOnWrite:     40,
		freshNumbers:    368,
	}
}

// TestEachRuleIsMissed: without any one rule some schedule fails, made by hand (see
// TestScripts) or of a seed.
func TestEachRuleIsMissed(t *testing.T) {
	byHand := map[rule]bool{}
	for _, s := range scripts() {
		byHand[s.off] = true
	}
	seeds := noticedBySeed()
	for r := range ruleCount {
		seed, random := seeds[r]
		if !random {
			if !byHand[r] {
				t.Errorf("nothing would notice if the rule %q were not in force", r)
			}
			continue
		}
		for _, off := range []ruleSet{0, without(r)} {
			w := schedule(seed, off)
			w.play()
			if failed := len(w.found) > 0; failed != (off != 0) {
				t.Errorf("seed %d with all rules but%v finds %q", seed, off, w.found)
			}
		}
	}
}
