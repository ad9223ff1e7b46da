package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/node/replica"
)

func TestNextScrub(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const week = 168 * time.Hour
	for _, c := range []struct {
		last   time.Time
		chance float64
		want   time.Duration
	}{
		{time.Time{}, 0, week / 10},
		{time.Time{}, 0.5, week * 55 / 100},
		{now, 0, week * 9 / 10},
		{now, 0.5, week},
		{now.Add(-week), 0, 0},
		{now.Add(-10 * week), 0.9, 0},
		{now.Add(-week / 2), 0.5, week / 2},
		{now.Add(week), 0, week / 10}, // a clock that was set back
	} {
		if got := nextScrub(now, c.last, week, c.chance); (got - c.want).Abs() > time.Second {
			t.Errorf("last %s, chance %g: %s, want %s", c.last, c.chance, got, c.want)
		}
	}
}

// scrubNow has a node scrub and waits until it has, and all others that could be asked
// for it: one on a machine that stands still could not.
func (n *testNode) scrubNow(t *testing.T) (ended scrubState) {
	t.Helper()
	cl := n.client()
	node := cl.Nodes()[0]
	begun, err := node.Scrub(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	for _, s := range begun.GetNodes() {
		asked[s.GetNode().GetName()] = true
	}
	waitFor(t, "all nodes have scrubbed", func() bool {
		r, err := node.Scrub(t.Context(), false)
		if err != nil || len(r.GetUnreachable()) > 0 {
			return false
		}
		for _, s := range r.GetNodes() {
			if !asked[s.GetNode().GetName()] {
				continue
			}
			if s.GetRunning() || s.GetEnded() == nil {
				return false
			}
			if s.GetNode().GetName() == n.cfg.Node.Name {
				ended.Damaged, ended.Done = int(s.GetDamagedTables()), int64(s.GetBytesDone())
			}
		}
		return true
	})
	return ended
}

// TestScrubFindsDamage: a scrub of the cluster, asked for at any node, finds a
// damaged table that nobody has read; it is contained, the next scrub finds nothing,
// and when it was is known after a restart.
func TestScrubFindsDamage(t *testing.T) {
	nodes := startNodes(t, 0, 0)
	for i := range 100 {
		put(t, nodes[0].client(), fmt.Sprint("key", i), "value")
	}
	victim := nodes[1]
	victim.stop()
	tables, err := filepath.Glob(filepath.Join(victim.cfg.Node.DataDir, EngineDir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(err, tables)
	}
	victim.restart()
	// Both meet again before one asks the other.
	waitFor(t, "the nodes know each other", func() bool {
		r, err := victim.client().Nodes()[0].Scrub(t.Context(), false)
		return err == nil && len(r.GetUnreachable()) == 0 && len(r.GetNodes()) == 2
	})
	// The bit flips while the node runs and has the block in its cache.
	flipBit(t, tables[0])
	if r := victim.scrubNow(t); r.Damaged == 0 || r.Done == 0 {
		t.Errorf("the scrub found %+v", r)
	}
	waitFor(t, "the table is set aside", func() bool {
		_, here := os.Stat(tables[0])
		_, kept := os.Stat(filepath.Join(filepath.Dir(tables[0]), engine.QuarantineDir, filepath.Base(tables[0])))
		return errors.Is(here, fs.ErrNotExist) && kept == nil
	})
	if r := victim.scrubNow(t); r.Damaged != 0 {
		t.Errorf("the next scrub found %+v", r)
	}
	// A damaged CURRENT would cost all data at the next start.
	if err := os.WriteFile(filepath.Join(filepath.Dir(tables[0]), "CURRENT"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	victim.scrubNow(t)
	victim.stop()
	if aside, err := filepath.Glob(filepath.Dir(tables[0]) + ".damaged-*"); err != nil || len(aside) > 0 {
		t.Errorf("the engine was set aside: %v, %v", aside, err)
	}
	victim.restart()
	victim.stop()
	last, err := readScrub(filepath.Join(victim.cfg.Node.DataDir, scrubFile))
	if err != nil || last.Ended.IsZero() || last.Damaged != 0 {
		t.Errorf("kept is %+v: %v", last, err)
	}
	marks, err := replica.OpenMarks(vfs.OS(), filepath.Join(victim.cfg.Node.DataDir, marksFile))
	if err != nil || marks.Len() == 0 {
		t.Errorf("nothing is marked: %v", err)
	}
}

// TestScrubFileIsNotTrusted: what cannot be read counts as no scrub.
func TestScrubFileIsNotTrusted(t *testing.T) {
	name := filepath.Join(t.TempDir(), scrubFile)
	for _, text := range []string{"", "{", "[1]", string(make([]byte, 5<<10)), `{"ended":7}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if last, err := readScrub(name); err == nil || !last.Ended.IsZero() {
			t.Errorf("%.20q: %+v, %v", text, last, err)
		}
	}
}

// TestScrubKeepsItsRate reads no faster than it may, and ends when it is told to.
func TestScrubKeepsItsRate(t *testing.T) {
	nodes := startNodes(t, 0)
	nodes[0].stop()
	n, err := Open(nodes[0].cfg, Options{Logger: testLogger("scrub")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.release(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	p := &scrubPace{n: n, ctx: ctx}
	p.pacer.Most = 1 << 20
	began := time.Now()
	for range 5 {
		if err := p.wait(64 << 10); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 240*time.Millisecond {
		t.Errorf("320 KiB at 1 MiB a second took %s", took)
	}
	cancel()
	if err := p.wait(1); err == nil {
		t.Error("it reads on after the end")
	}
}

// TestScrubAskedForTwice: who asks for a scrub while another one that was asked for is yet to
// begin is not told of the one that has ended.
func TestScrubAskedForTwice(t *testing.T) {
	s := &scrubber{n: new(Node), asked: make(chan struct{}, 1)}
	s.asked <- struct{}{} // it was asked for just as one began by itself, which has ended
	s.mu.last = scrubState{Began: time.Unix(1, 0), Ended: time.Unix(2, 0)}
	s.begin()
	if st := s.state(); !st.Running || !st.Ended.IsZero() {
		t.Errorf("%+v", st)
	}
}
