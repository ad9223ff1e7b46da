package coord_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/schema"
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
	t     *testing.T
	seed  uint64
	keys  map[string]*scannedKey
	scans int
	pages int
}

func (s *scanSim) errorf(format string, args ...any) {
	s.t.Errorf("seed %d at %v: "+format, append([]any{s.seed, s.w.now}, args...)...)
}

// write makes the next version of a key, and one more after a while.
func (s *scanSim) write(k *scannedKey) {
	s.w.after(s.think()*4, func() {
		n := s.pick()
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
		if !k.steady && s.w.rng.IntN(3) == 0 {
			k.deleted[version] = true
			n.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: []byte(k.name)}, finish)
			return
		}
		n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(k.name), Value: []byte(strconv.Itoa(version))}, finish)
	})
}

// scan goes through all keys once, then again.
func (s *scanSim) scan(r coord.ScanRequest, seen map[string]bool, done func()) {
	n := s.pick()
	if n == nil {
		s.w.after(100*time.Millisecond, func() { s.scan(r, seen, done) })
		return
	}
	r.MaxKeys = 1 + s.w.rng.IntN(40)
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
			s.w.after(50*time.Millisecond, func() { s.scan(r, seen, done) })
			return
		}
		s.pages++
		s.page(&p, before, seen)
		if r.PageToken = p.PageToken; len(r.PageToken) == 0 {
			done()
			return
		}
		s.w.after(s.think(), func() { s.scan(r, seen, done) })
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
			s.errorf("%q is shown twice, or never was", it.Key)
			continue
		}
		seen[k.name] = true
		version, err := strconv.Atoi(string(it.Siblings[0].Value))
		was := before[k.name]
		if err != nil || version < was.acked || version < was.shown || version > k.tried || k.deleted[version] {
			s.errorf("%s is shown as %q, after %d was acknowledged and %d shown; the last written is %d", k.name, it.Siblings[0].Value, was.acked, was.shown, k.tried)
		}
		k.shown = max(k.shown, version)
	}
}

// again scans until the end, and looks that no steady key is missed.
func (s *scanSim) again() {
	if s.ended {
		return
	}
	seen := map[string]bool{}
	s.scan(coord.ScanRequest{Tenant: simTenant, Prefix: []byte("s/")}, seen, func() {
		s.whole(seen)
		s.again()
	})
}

func (s *scanSim) whole(seen map[string]bool) {
	s.scans++
	for name, k := range s.keys {
		if k.steady && !seen[name] {
			s.errorf("%s was there all the time and is missed", name)
		}
	}
}

func runScanSeed(t *testing.T, seed uint64, log bool) *scanSim {
	base, start := newFaultyWorld(seed)
	if log {
		base.w.log = t.Logf
	}
	s := &scanSim{simulation: base, t: t, seed: seed, keys: map[string]*scannedKey{}}
	w := s.w
	drop := w.net.drop
	w.net.drop = 0
	// One owner has nothing of the beginning.
	w.nodes[0].crash()
	for i := range 120 {
		k := &scannedKey{name: fmt.Sprintf("s/%03d", i), steady: i%4 > 0, deleted: map[int]bool{}, tried: 1}
		if i%10 == 0 {
			k.name = fmt.Sprintf("s/{tag}%03d", i)
		}
		s.keys[k.name] = k
		w.nodes[1+i%(len(w.nodes)-1)].coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(k.name), Value: []byte("1")}, func(_ coord.WriteResponse, err error) {
			if err != nil {
				s.errorf("%v", err)
			}
			k.acked = 1
		})
	}
	w.advance(10 * time.Second)
	w.nodes[0].boot()
	w.net.drop = drop
	for i := range 120 {
		for name, k := range s.keys {
			// In a fixed order, so that a seed repeats.
			if name == fmt.Sprintf("s/%03d", i) || name == fmt.Sprintf("s/{tag}%03d", i) {
				s.write(k)
			}
		}
	}
	start()
	for range 3 {
		s.again()
	}
	w.advance(15 * time.Second)
	s.ended = true
	w.net = network{delay: time.Millisecond, cut: map[[2]int]bool{}, slow: map[int]time.Duration{}}
	for _, n := range w.nodes {
		if !n.up {
			n.boot()
		}
		n.believed = map[int]schema.Liveness{}
		n.look()
	}
	w.advance(20 * time.Second)
	// When all is well a scan comes to its end, and a QUORUM read agrees with it.
	seen, ended := map[string]bool{}, false
	s.scan(coord.ScanRequest{Tenant: simTenant, Level: quorum.All}, seen, func() { ended = true })
	w.advance(20 * time.Second)
	if !ended {
		s.errorf("the last scan does not end")
	}
	s.whole(seen)
	for name, k := range s.keys {
		if last := k.deleted[k.acked] && !k.stuck; last && seen[name] {
			s.errorf("%s is shown after its delete was acknowledged", name)
		}
	}
	return s
}

// TestSimulationOfScans: a scan misses no key that is there throughout and shows
// none twice; what it shows is no older than what was acknowledged or shown before
// its page was asked for.
func TestSimulationOfScans(t *testing.T) {
	if *simSeed != 0 {
		runScanSeed(t, *simSeed, true)
		return
	}
	total := map[string]int{}
	seeds := max(*simSeeds/3, 1) // each has many more operations than others
	for seed := *simFirst; seed < *simFirst+uint64(seeds); seed++ {
		s := runScanSeed(t, seed, false)
		for _, m := range []map[string]int{s.done, s.w.counts, {"scans": s.scans, "pages": s.pages}} {
			for k, v := range m {
				total[k] += v
			}
		}
		if t.Failed() {
			t.Fatalf("run again with -sim.seed=%d -v", seed)
		}
	}
	t.Logf("%d seeds: %v", seeds, total)
	if seeds < 20 {
		return // too few to be sure of every kind of fault
	}
	for _, must := range []string{"scans", "pages", "pages failed", "crashes", "cuts", "read repairs"} {
		if total[must] == 0 {
			t.Errorf("no simulation had any %s", must)
		}
	}
}
