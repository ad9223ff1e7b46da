package coord_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// scannedKey is a key with one writer, whose values are 1, 2, 3 and so on, 0 for
// a delete.
type scannedKey struct {
	name string
	// steady keys always have a value.
	steady bool
	// tried is the last version that was sent, acked the last that was
	// acknowledged, shown the highest that anybody saw.
	tried, acked, shown int
	// deleted are the versions that are deletes.
	deleted map[int]bool
	stuck   bool // the fate of the last write is open
}

// scanSim has writers of single keys and scans over all of them, page by page at
// any node, while nodes crash and messages are lost.
type scanSim struct {
	*simulation
	keys map[string]*scannedKey
}

// write makes the next version of a key, and one more after a while.
func (s *scanSim) write(k *scannedKey) {
	s.w.after(s.think(k.name)*4, func() {
		n := s.pick(k.name)
		if s.ended || k.stuck {
			return
		}
		if n == nil {
			s.write(k)
			return
		}
		k.tried++
		version := k.tried
		answered := false
		finish := func(_ coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			if err == nil {
				k.acked = version
			} else {
				// What may yet show up is written no more, so that the order of
				// versions is that of time.
				k.stuck = true
			}
			s.write(k)
		}
		s.w.after(clientPatience, func() { finish(coord.WriteResponse{}, errSimLost) })
		if !k.steady && s.w.rand(k.name).IntN(3) == 0 {
			k.deleted[version] = true
			n.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: []byte(k.name)}, finish)
			return
		}
		n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(k.name), Value: []byte(strconv.Itoa(version))}, finish)
	})
}

// scan goes through all keys once. The scanner is who draws.
func (s *scanSim) scan(scanner string, r coord.ScanRequest, seen map[string]bool, done func()) {
	n := s.pick(scanner)
	if n == nil {
		s.w.after(100*time.Millisecond, func() { s.scan(scanner, r, seen, done) })
		return
	}
	r.MaxKeys = 1 + s.w.rand(scanner).IntN(40)
	before := map[string]scannedKey{}
	for name, k := range s.keys {
		before[name] = *k
	}
	answered := false
	finish := func(p coord.ScanResponse, err error) {
		if answered {
			return
		}
		answered = true
		if err != nil {
			s.done["pages failed"]++
			s.w.after(50*time.Millisecond, func() { s.scan(scanner, r, seen, done) })
			return
		}
		s.done["pages"]++
		s.page(&p, before, seen)
		if r.PageToken = p.PageToken; len(r.PageToken) == 0 {
			done()
			return
		}
		s.w.after(s.think(scanner), func() { s.scan(scanner, r, seen, done) })
	}
	s.w.after(clientPatience, func() { finish(coord.ScanResponse{}, errSimLost) })
	n.coord.StartScan(r, finish)
}

// page checks what a page shows: before is what was known when it was asked for.
func (s *scanSim) page(p *coord.ScanResponse, before map[string]scannedKey, seen map[string]bool) {
	for i := range p.Items {
		it := &p.Items[i]
		k := s.keys[string(it.Key)]
		if k == nil || seen[k.name] {
			s.fail("%q is shown twice, or never was", it.Key)
			continue
		}
		seen[k.name] = true
		version, err := strconv.Atoi(string(it.Siblings[0].Value))
		was := before[k.name]
		if err != nil || version < was.acked || version < was.shown || version > k.tried || k.deleted[version] {
			s.fail("%s is shown as %q, after %d was acknowledged and %d shown; the last written is %d", k.name, it.Siblings[0].Value, was.acked, was.shown, k.tried)
		}
		k.shown = max(k.shown, version)
	}
}

// again scans until the end, and looks that no steady key is missed.
func (s *scanSim) again(scanner string) {
	if s.ended {
		return
	}
	seen := map[string]bool{}
	s.scan(scanner, coord.ScanRequest{Tenant: simTenant, Prefix: []byte("s/")}, seen, func() {
		s.whole(seen)
		s.again(scanner)
	})
}

func (s *scanSim) whole(seen map[string]bool) {
	s.done["scans"]++
	for name, k := range s.keys {
		if k.steady && !seen[name] {
			s.fail("%s was there all the time and is missed", name)
		}
	}
}

// scanBegin is how long keys are written before faults and scans begin.
const scanBegin = 10 * time.Second

func (sim *simulation) runScans() {
	s := &scanSim{simulation: sim, keys: map[string]*scannedKey{}}
	w := s.w
	drop := w.net.drop
	w.net.drop = 0
	// One owner has nothing of the beginning.
	w.nodes[0].crash(w.rand(w.nodes[0].name), keepDisk)
	var all []*scannedKey
	for i := range 120 {
		k := &scannedKey{name: fmt.Sprintf("s/%03d", i), steady: i%4 > 0, deleted: map[int]bool{}, tried: 1}
		if i%10 == 0 {
			k.name = fmt.Sprintf("s/{tag}%03d", i)
		}
		if !s.starts(k.name) {
			continue
		}
		s.keys[k.name] = k
		all = append(all, k)
		w.nodes[1+i%(len(w.nodes)-1)].coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(k.name), Value: []byte("1")}, func(_ coord.WriteResponse, err error) {
			if err != nil {
				s.fail("%v", err)
			}
			k.acked = 1
		})
	}
	w.advance(scanBegin)
	w.nodes[0].boot()
	w.net.drop = drop
	for _, k := range all {
		s.write(k)
	}
	for i := range 3 {
		if scanner := "scanner " + strconv.Itoa(i); s.starts(scanner) {
			s.again(scanner)
		}
	}
	w.advance(s.plan.until())
	s.heal()
	// When all is well a scan comes to its end, and a QUORUM read agrees with it.
	seen, ended := map[string]bool{}, false
	s.scan(healClient, coord.ScanRequest{Tenant: simTenant, Level: quorum.All}, seen, func() { ended = true })
	w.advance(20 * time.Second)
	if !ended {
		s.fail("the last scan does not end")
	}
	s.whole(seen)
	for _, k := range all {
		if last := k.deleted[k.acked] && !k.stuck; last && seen[k.name] {
			s.fail("%s is shown after its delete was acknowledged", k.name)
		}
	}
}

// TestScanSimulation: a scan misses no key that is there throughout and shows
// none twice; what it shows is no older than what was acknowledged or shown before
// its page was asked for.
func TestScanSimulation(t *testing.T) {
	simulate(t, kindScans, func(total map[string]int) {
		wantSome(t, total, "scans", "pages", "pages failed", "crashes", "cuts", "read repairs")
		// The last one of each run is not under faults.
		if n := total["scans"]; n < 4**simSeeds {
			t.Errorf("%d scans came to their end in %d simulations", n, *simSeeds)
		}
	})
}
