package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/engine/vfs"
)

const (
	stallFor  = 30 * time.Second
	readEvery = 7 * time.Second
)

// stallRun is a workload whose disk hangs, with a reader beside it.
type stallRun struct {
	faultRun
	n       int
	forever bool

	mu    sync.Mutex
	open  *DB // as soon as there is one
	seen  bool
	hit   vfs.Op
	reads int
}

func (s *stallRun) hook(o vfs.Op) error {
	if !o.Mutates() || o.Index < s.n {
		return nil
	}
	s.mu.Lock()
	first := o.Index == s.n
	if first {
		s.seen, s.hit = true, o
	}
	s.open = s.db
	s.mu.Unlock()
	if first || s.forever {
		time.Sleep(stallFor) // of the bubble's clock
	}
	return nil
}

// read looks into the DB, now and then, until done: it must never have to wait
// for the disk.
func (s *stallRun) read(done <-chan struct{}) error {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	rng := rand.New(rand.NewPCG(uint64(s.n), 1))
	var v Values
	for {
		select {
		case <-done:
			return nil
		case <-tick.C:
		}
		s.mu.Lock()
		db := s.open
		s.mu.Unlock()
		if db == nil {
			continue
		}
		start := time.Now()
		key := []byte(modelKey(rng.IntN(modelKeys)))
		// On a snapshot, for the workload may go on at the very same instant.
		sn := db.Snapshot()
		got, gerr := sn.Get(nil, key)
		merr := sn.MultiGet(&v, [][]byte{key})
		_, lerr := db.Get(nil, key)
		db.Metrics()
		if d := time.Since(start); d != 0 {
			return fmt.Errorf("reads waited %s for the disk", d)
		}
		sn.Close()
		for _, err := range []error{gerr, merr, lerr} {
			if err != nil && !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("read %s: %w", key, err)
			}
		}
		if w, ok := v.Get(0); ok != (gerr == nil) || string(w) != string(got) {
			return fmt.Errorf("read %s: get says %.20q, multiget %.20q", key, got, w)
		}
		s.reads++
	}
}

// TestStallAtEveryCall makes each call that changes the disk hang in turn, for
// once and from then on. Nothing fails and nothing is lost; reads go on.
func TestStallAtEveryCall(t *testing.T) {
	stride, steps := 1, 40
	if raceEnabled {
		stride = 13
	}
	if testing.Short() {
		stride *= 3
	}
	runs, reads := 0, 0
	rng := rand.New(rand.NewPCG(1, 8))
	for _, queue := range []bool{false, true} {
		for _, forever := range []bool{false, true} {
			for n, more := 0, true; more; n += stride {
				s := &stallRun{n: n, forever: forever}
				synctest.Test(t, func(t *testing.T) {
					s.mem, s.model, s.own = vfs.NewMem(), newModel(), true
					s.fs = vfs.Inject(s.mem, s.hook)
					done := make(chan struct{})
					result := make(chan error, 1)
					go func() { result <- s.read(done) }()
					start := time.Now()
					err := s.run(3, steps, queue)
					took := time.Since(start)
					close(done)
					if err = errors.Join(err, <-result); err == nil && s.db == nil {
						err = errors.New("the DB did not open")
					}
					if err == nil && s.db.Metrics().ReadOnly {
						err = errors.New("a stall ended writing")
					}
					if err == nil && s.seen && took < stallFor {
						err = fmt.Errorf("took %s in spite of the stall", took)
					}
					if err == nil {
						// Without the hook's delays.
						s.forever, s.n = false, -1
						err = s.finish(rng)
					}
					if err != nil {
						t.Fatalf("stall at call %d (%s), forever %v, queue %v: %v", n, s.hit, forever, queue, err)
					}
				})
				runs++
				reads += s.reads
				more = s.seen
			}
		}
	}
	t.Logf("%d stalls, %d reads meanwhile", runs, reads)
	if runs < 20 || reads < runs {
		t.Errorf("%d stalls and %d reads prove little", runs, reads)
	}
}
