package hints_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/hints"
)

// heard is what a store reported.
type heard struct {
	mu      sync.Mutex
	dirty   map[ring.Partition]int
	all     []string
	notices []hints.Notice
	now     time.Time
	alive   map[ring.NodeID]bool
	full    bool
}

func (h *heard) take() (dirty map[ring.Partition]int, all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	dirty, all = h.dirty, h.all
	h.dirty, h.all = map[ring.Partition]int{}, nil
	return dirty, all
}

func (h *heard) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// open opens a store in dir, whose clock stands still unless the test moves it.
func (h *heard) open(t *testing.T, dir string, change func(*hints.Options)) *hints.Store {
	t.Helper()
	if h.dirty == nil {
		h.dirty, h.alive, h.now = map[ring.Partition]int{}, map[ring.NodeID]bool{}, time.UnixMilli(1e12)
	}
	o := hints.Options{
		Dir:       dir,
		Dirty:     func(p ring.Partition) { h.set(func() { h.dirty[p]++ }) },
		DirtyAll:  func(why string) { h.set(func() { h.all = append(h.all, why) }) },
		Notice:    func(n hints.Notice) { h.set(func() { h.notices = append(h.notices, n) }) },
		Now:       func() (now time.Time) { h.set(func() { now = h.now }); return now },
		Reachable: func(id ring.NodeID) (ok bool) { h.set(func() { ok = h.alive[id] }); return ok },
		Room:      func() (ok bool) { h.set(func() { ok = !h.full }); return ok },
	}
	if change != nil {
		change(&o)
	}
	s, err := hints.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var nodeA, nodeB = ring.NodeID{0xa}, ring.NodeID{0xb}

func hint(to ring.NodeID, i int) *hints.Hint {
	return &hints.Hint{Target: to, Partition: ring.Partition(i % 64), Tenant: 1, Token: ring.Token(i), Key: fmt.Appendf(nil, "key %06d", i)}
}

func count(s *hints.Store, id ring.NodeID) int64 {
	for _, t := range s.Targets() {
		if t.ID == id {
			return t.Count
		}
	}
	return 0
}

func dropped(s *hints.Store) (n uint64) {
	st := s.Stats()
	for _, r := range hints.Drops() {
		n += st.Removed[r]
	}
	return n
}

// TestHintsAreKept: writes of one key are one hint, another idempotency key makes
// another, and all are there after a restart.
func TestHintsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hints")
	var h heard
	s := h.open(t, dir, nil)
	for range 2 {
		for i := range 1000 {
			s.Add(hint(nodeA, i))
		}
		s.Flush()
	}
	x := hint(nodeA, 1)
	x.IdempotencyKey = []byte("id")
	s.Add(x)
	s.Add(hint(nodeB, 1))
	s.Flush()
	before := s.Targets()
	if count(s, nodeA) != 1001 || count(s, nodeB) != 1 || !before[0].Oldest.Equal(h.now) || before[0].Bytes < 1001*10 {
		t.Fatalf("kept %+v", before)
	}
	if st := s.Stats(); st.Stored != 1002 || st.Coalesced != 1000 || dropped(s) != 0 {
		t.Fatalf("counted %+v", st)
	}
	if _, all := h.take(); len(all) != 1 {
		t.Fatalf("a first start reports %q", all)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = h.open(t, dir, nil)
	s.Flush()
	if after := s.Targets(); !slices.Equal(after, before) {
		t.Fatalf("after a restart %+v, want %+v", after, before)
	}
	if dirty, all := h.take(); len(dirty)+len(all) > 0 {
		t.Fatalf("a restart reports %v and %q", dirty, all)
	}
}

// TestOverflowIsDirty: what is dropped at a bound is counted, and its partition
// reported.
func TestOverflowIsDirty(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*hints.Options)
		full   bool
		why    hints.Reason
	}{
		"cap":     {func(o *hints.Options) { o.MaxBytes = 5000 }, false, hints.Cap},
		"no room": {nil, true, hints.NoRoom},
		"queue":   {func(o *hints.Options) { o.MaxQueued = 3 }, false, hints.QueueFull},
	} {
		t.Run(name, func(t *testing.T) {
			var h heard
			h.full = c.full
			s := h.open(t, filepath.Join(t.TempDir(), "hints"), c.change)
			kept := map[ring.Partition]int{}
			for i := range 500 {
				s.Add(hint(nodeA, i))
				kept[ring.Partition(i%64)]++
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			st := s.Stats()
			if st.Removed[c.why] == 0 || st.Stored+dropped(s) != 500 || st.Removed[c.why] != dropped(s) {
				t.Fatalf("counted %+v", st)
			}
			dirty, _ := h.take()
			if len(dirty) == 0 || len(dirty) > 64 {
				t.Fatalf("%d dirty partitions", len(dirty))
			}
			if name != "queue" && len(dirty) < 50 { // each lost some
				t.Fatalf("%d dirty partitions of 64", len(dirty))
			}
			found := false
			for _, n := range h.notices {
				found = found || n.Target == nodeA && n.Reason == c.why && n.Count == dropped(s) && !n.Kept && !n.Emptied
			}
			if !found {
				t.Fatalf("noticed %+v", h.notices)
			}
		})
	}
}

// eventually waits for what the store's goroutine does of itself, each second.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 3000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s: not within 30 s", what)
}

// TestWindow: for a target that stays away nothing is kept any more once the window
// is over, until it was there again.
func TestWindow(t *testing.T) {
	var h heard
	s := h.open(t, filepath.Join(t.TempDir(), "hints"), nil)
	for i := range 600 {
		s.Add(hint(nodeA, i))
	}
	s.Flush()
	h.take()
	h.set(func() { h.now = h.now.Add(2 * time.Hour) })
	s.Add(hint(nodeA, 600))
	s.Add(hint(nodeB, 1)) // away for less
	s.Flush()
	if count(s, nodeA) != 601 {
		t.Fatalf("%d hints within the window", count(s, nodeA))
	}
	h.set(func() { h.now = h.now.Add(time.Hour + time.Minute) })
	eventually(t, "all are dropped", func() bool { return count(s, nodeA) == 0 })
	s.Add(hint(nodeA, 601))
	s.Flush()
	if st := s.Stats(); st.Removed[hints.Window] != 602 || count(s, nodeA) != 0 || count(s, nodeB) != 1 {
		t.Fatalf("counted %+v, kept %+v", st, s.Targets())
	}
	eventually(t, "all partitions are reported", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.dirty) == 64
	})
	h.set(func() { h.alive[nodeA] = true })
	eventually(t, "it is back", func() bool {
		s.Add(hint(nodeA, 602))
		s.Flush()
		return count(s, nodeA) == 1
	})
}

// TestOldHintsOfAPresentTarget: delivery that does not keep up loses the oldest only.
func TestOldHintsOfAPresentTarget(t *testing.T) {
	var h heard
	s := h.open(t, filepath.Join(t.TempDir(), "hints"), nil)
	h.set(func() { h.alive[nodeA] = true })
	for i := range 10 {
		s.Add(hint(nodeA, i))
	}
	s.Flush()
	h.set(func() { h.now = h.now.Add(2 * time.Hour) })
	young := h.now
	for i := range 5 {
		s.Add(hint(nodeA, 100+i))
	}
	s.Flush()
	h.set(func() { h.now = h.now.Add(time.Hour + time.Minute) })
	eventually(t, "the old ones are dropped", func() bool { return count(s, nodeA) == 5 })
	if got := s.Targets()[0].Oldest; !got.Equal(young) {
		t.Fatalf("the oldest is of %v, want %v", got, young)
	}
}

// only is the name of the one folder in dir.
func only(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v: %v", entries, err)
	}
	return entries[0].Name()
}

// TestLostStore: a store that is deleted, at any time, or damaged, is begun anew and
// says so once.
func TestLostStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hints")
	var h heard
	s := h.open(t, dir, nil)
	for i := range 3000 {
		s.Add(hint(nodeA, i))
	}
	s.Flush()
	h.take()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	var all []string
	eventually(t, "it is begun anew", func() bool { _, a := h.take(); all = append(all, a...); return len(all) > 0 })
	s.Add(hint(nodeA, 1))
	s.Flush()
	if len(all) != 1 || count(s, nodeA) != 1 || s.Stats().Resets != 1 {
		t.Fatalf("reported %q, kept %+v", all, s.Targets())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	h.take()
	folder := only(t, dir)
	entries, err := os.ReadDir(filepath.Join(dir, folder))
	if err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, e := range entries {
		good := t.TempDir()
		if err := os.CopyFS(good, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(good, folder, e.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			continue
		}
		b[len(b)/2] ^= 0x40
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		flipped++
		s := h.open(t, good, nil)
		s.Flush()
		if _, all := h.take(); len(all) != 1 || len(s.Targets()) != 0 {
			t.Errorf("%s damaged: reported %q, kept %+v", e.Name(), all, s.Targets())
		}
		s.Add(hint(nodeA, 1))
		s.Flush()
		if count(s, nodeA) != 1 {
			t.Errorf("%s damaged: nothing is kept any more", e.Name())
		}
	}
	if flipped < 4 {
		t.Fatalf("only %d files", flipped)
	}
}

// TestKilledStore: what was written survives the end of the process, and a process
// that ended while Badger opened its files does not try again.
func TestKilledStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hints")
	var h heard
	s := h.open(t, dir, nil)
	for i := range 100 {
		s.Add(hint(nodeA, i))
	}
	s.Flush()
	h.take()
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s = h.open(t, killed, nil)
	s.Flush()
	if _, all := h.take(); count(s, nodeA) != 100 || len(all) > 0 {
		t.Fatalf("after a kill %d hints are kept, reported %q", count(s, nodeA), all)
	}
	ended := t.TempDir()
	if err := os.CopyFS(ended, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ended, only(t, ended), "OPENING"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = h.open(t, ended, nil)
	s.Flush()
	if _, all := h.take(); count(s, nodeA) != 0 || len(all) != 1 {
		t.Fatalf("%d hints are kept, reported %q", count(s, nodeA), all)
	}
}

// TestCannotOpen: where no store can be made, hints are dropped and say so.
func TestCannotOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var h heard
	s := h.open(t, filepath.Join(file, "hints"), nil)
	s.Add(hint(nodeA, 7))
	s.Flush()
	if _, all := h.take(); s.Stats().Removed[hints.Broken] != 1 || len(all) != 1 {
		t.Fatalf("counted %+v, reported %q", s.Stats(), all)
	}
}
