package coord_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// ringRun is a simulation in which nodes join, leave and are lost while keys of all
// kinds are written and read, and deletes are collected.
type ringRun struct {
	*repairRun
	scans    *scanSim
	mayflies []*mayfly
}

const (
	// ringBegin is how long the cluster is let alone before anything befalls it.
	ringBegin = 3 * time.Second
	// ringBound is within which time after the end of all faults every change is
	// carried out, and nobody holds what it does not own.
	ringBound = 120 * time.Second
)

func (sim *simulation) runRing() {
	s := &ringRun{repairRun: &repairRun{simulation: sim}}
	s.clocks()
	s.slower = 4
	w := s.w
	for _, n := range w.nodes {
		s.saveSums(n)
	}
	s.startKeys()
	s.startScans()
	s.startMayflies()
	w.advance(ringBegin + s.plan.until())
	s.agreeOnTime()
	s.calm()
	if !s.rest() {
		return
	}
	s.retry()
	s.stay()
	s.converged()
	s.lastScan()
	dumps := s.dumps()
	for _, k := range s.recreated() {
		s.last(k)
	}
	s.lastMayflies()
	s.verdict(dumps)
	for _, n := range w.nodes {
		if n.never() {
			continue
		}
		s.noneLeft(n)
		layout := w.chosen.last().Layout()
		n.foreign(func(p ring.Partition, c ring.Copies) bool { return layout.IsOwner(n.id, p, c.From) }, "has not cleaned up")
		s.sound(n)
		c := n.disk.(*storeDisk).rep.Collected()
		s.done["collected deletes"] += int(c.Tombstones)
		s.done["collected values"] += int(c.Expired)
		n.mender.end()
	}
	for _, text := range w.confirmed.wrong {
		s.fail("%s", text)
	}
	if w.counts["keys damaged"] > 0 {
		s.fail("rounds took %d keys for damaged", w.counts["keys damaged"])
	}
}

// recreated are the keys of the writers that delete and put again.
func (s *ringRun) recreated() []*recreated { return s.repairRun.keys }

// startKeys starts clients of keys with one writer, with idempotency keys, with several
// writers, and of those that are deleted and expire.
func (s *ringRun) startKeys() {
	loses := drawStart(s.plan.seed).loses
	for i := range 3 {
		k := &register{key: "k" + strconv.Itoa(i), writeAt: atQuorum, readAt: atMost}
		if i == 2 {
			k.writeAt, k.readAt = atAll, atEvery
		}
		if s.starts(k.key) {
			s.simulation.keys = append(s.simulation.keys, k)
			s.write(k)
			s.read(k, "reader 0")
			s.read(k, "reader 1")
		}
	}
	if key := oncePrefix + "0"; s.starts(key) {
		s.startOnce(key)
	}
	if s.starts(sharedName) {
		s.startShared()
	}
	for i := range 6 {
		k := &recreated{tenant: []string{simTenant, simKeeper, ring.DefaultTenantName}[i%3], key: "r" + strconv.Itoa(i), writeAt: atQuorum, readAt: atMost}
		if i >= 4 && !loses { // what was acknowledged by one alone may be lost with it
			k.writeAt, k.readAt = atEvery, atEvery
		}
		if !s.starts(k.key) {
			continue
		}
		s.repairRun.keys = append(s.repairRun.keys, k)
		for range 2 {
			s.rewrite(k)
		}
		s.watch(k)
	}
}

// startScans writes keys that stay, and scans them.
func (s *ringRun) startScans() {
	s.scans = &scanSim{simulation: s.simulation, keys: map[string]*scannedKey{}}
	for i := range 12 {
		k := &scannedKey{name: fmt.Sprintf("s/%03d", i), steady: i%4 > 0, deleted: map[int]bool{}}
		if !s.starts(k.name) {
			continue
		}
		s.scans.keys[k.name] = k
		s.scans.write(k)
	}
	if name := "scanner"; s.starts(name) {
		s.scans.againSteady(name)
	}
}

// againSteady scans until the end, and looks that no key is missed that was there when
// the scan began.
func (s *scanSim) againSteady(scanner string) {
	if s.ended {
		return
	}
	there, seen := s.there(), map[string]bool{}
	s.scan(scanner, coord.ScanRequest{Tenant: simTenant, Prefix: []byte("s/")}, seen, func() {
		s.wholeOf(there, seen)
		s.w.after(s.think(scanner)*5, func() { s.againSteady(scanner) })
	})
}

// there are the steady keys that have a value.
func (s *scanSim) there() (names []string) {
	for name, k := range s.keys { //seams:ordered a set
		if k.steady && k.acked > 0 {
			names = append(names, name)
		}
	}
	return names
}

func (s *scanSim) wholeOf(there []string, seen map[string]bool) {
	s.done["scans"]++
	for _, name := range there {
		if !seen[name] {
			s.fail("%s was there all the time and is missed", name)
		}
	}
}

// lastScan scans when all is well.
func (s *ringRun) lastScan() {
	if len(s.scans.keys) == 0 {
		return
	}
	there, seen, ended := s.scans.there(), map[string]bool{}, false
	s.scans.scan(healClient, coord.ScanRequest{Tenant: simTenant, Prefix: []byte("s/"), Level: quorum.All}, seen, func() { ended = true })
	s.w.advance(20 * time.Second)
	if !ended {
		s.fail("the last scan does not end")
	}
	s.scans.wholeOf(there, seen)
}

// rest waits until every change is carried out, and fails if that takes too long.
func (s *ringRun) rest() bool {
	w := s.w
	w.chosen.aborts = 0
	for _, n := range w.nodes {
		n.member.deaf = 0
	}
	began := w.now
	for {
		w.advance(time.Second)
		why := w.chosen.unfinished()
		switch {
		case why == "":
			s.done["seconds to rest"] += int((w.now - began).Seconds())
			// What clients sent is over by then, too.
			w.advance(max(0, 20*time.Second-(w.now-began)))
			return true
		case w.now-began > ringBound:
			s.fail("after %v %s", ringBound, why)
			return false
		}
	}
}

// keyTenant is the number of the tenant in what storeDisk.objects calls a key.
func keyTenant(name string) ring.TenantNumber {
	number, _, _ := strings.Cut(name, "/")
	t, err := strconv.Atoi(number)
	if err != nil {
		panic(err)
	}
	return ring.TenantNumber(t)
}

// barrier waits until everything that was under way at a key of this node is done.
func (n *simNode) barrier() { n.disk.(*storeDisk).rep.Barrier() }

// pv is the version that a partition has on this node.
func (n *simNode) pv(p ring.Partition) ring.Version {
	if n.view.Layout == nil {
		return 0
	}
	return n.view.Layout.PV(p)
}

// TestRingSimulation has nodes that join, leave and are lost, owners that are put into
// another order, and changes that are given up, while keys of all kinds are written:
// what the other simulations promise is kept, every change comes to its end, and then
// all owners of a key, and nobody else, hold the same.
func TestRingSimulation(t *testing.T) {
	simulate(t, kindRing, func(total map[string]int) {
		wantSome(t, total, "written", "written once", "shared", "rewritten", "read", "scans", "crashes", "cuts", "pauses", "deaf", "joins", "leaves", "disks lost",
			"factors wanted", "factors changed", "entries tenant-delete", "tenants dropped", "tenant not found", "written to mayflies",
			"entries propose", "entries commit", "entries abort", "entries finalize", "entries retire", "retired",
			"adopted", "collected deletes", "collected values", "converged")
	})
}
