package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/gossip/schema"
)

// copyDir copies a data directory as it is. Badger's files are larger than what is in
// them: the rest stays a hole.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return writeSparse(filepath.Join(to, name), b)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func writeSparse(path string, b []byte) error {
	err := os.WriteFile(path, bytes.TrimRight(b, "\x00"), 0o600)
	if err == nil {
		err = os.Truncate(path, int64(len(b)))
	}
	return err
}

// lived is a cluster of which one node, the second, has stopped, and what is left of
// that node.
type lived struct {
	f       *fabric
	nodes   []*testNode
	node    *testNode
	id      string
	version uint64
	// closed is its directory after an orderly end, killed after none.
	closed, killed string
}

func live(t *testing.T) *lived {
	t.Helper()
	l := &lived{f: newFabric()}
	l.nodes = clusterOf(t, l.f, 3, func(o *Options) { o.Partitions = 1024 }) // a founding entry of some kilobytes
	for _, name := range []string{"shop", "bank"} {
		if _, err := l.nodes[0].CreateTenant(t.Context(), name, 3, schema.PolicyLWW); err != nil {
			t.Fatal(err)
		}
	}
	l.node = l.nodes[1]
	l.node.await(t, "both tenants", func(s *schema.Snapshot) bool { _, ok := s.Tenant("bank"); return ok })
	id, _, _ := l.node.Identity()
	l.id, l.version = id.String(), uint64(l.node.Snapshot().Version)
	l.killed = copyDir(t, l.node.opts.Dir)
	l.node.stop()
	l.closed = copyDir(t, l.node.opts.Dir)
	return l
}

// TestDamagedStore deletes, truncates and flips each file of a metadata store in
// many places, after an orderly end and after a crash. Whatever Badger makes of it,
// the node is refused and named, or is the one it was, with all of its log or in the
// knowledge of what it lacks. No other node comes out of it, whatever it is told.
func TestDamagedStore(t *testing.T) {
	l := live(t)
	counts := map[string]int{}
	rng := rand.New(rand.NewPCG(3, 4))
	try := func(image, what string, harm func(dir string) error) {
		t.Helper()
		dir := copyDir(t, image)
		if err := harm(dir); err != nil {
			t.Fatal(err)
		}
		o := l.node.opts
		// As the worst configuration has it: it founds what it can.
		o.Dir, o.HasData, o.BootstrapExpect, o.Bootstrap, o.Transport = dir, true, 0, true, &port{f: l.f, name: "n2", self: func() *Gossip { return nil }}
		o.Join = nil
		g, err := New(o)
		if err != nil {
			counts["refused"]++
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerFormat) {
				t.Errorf("%s: %v", what, err)
			}
			if errors.Is(err, ErrCorrupt) && !strings.Contains(err.Error(), "left as it is") {
				t.Errorf("%s: it does not say what became of the data: %v", what, err)
			}
			var lost *LostError
			if errors.As(err, &lost) && !strings.HasSuffix(what, WitnessFile) && (!strings.Contains(err.Error(), l.id) || !strings.Contains(err.Error(), "n2")) {
				t.Errorf("%s: the node is not named: %v", what, err)
			}
			return
		}
		defer func() {
			if err := g.Close(); err != nil {
				t.Logf("%s: close: %v", what, err)
			}
		}()
		id, _, _ := g.Identity()
		if id.String() != l.id {
			t.Errorf("%s: another node has come of it, %s", what, id)
		}
		s := g.Snapshot()
		if _, recovering := g.Recovering(); recovering {
			counts["recovers"]++
			if s.Ready {
				t.Errorf("%s: it serves without its log", what)
			}
		} else {
			counts["sound"]++
			if uint64(s.Version) != l.version || !s.Ready {
				t.Errorf("%s: version %d of %d, ready %v", what, s.Version, l.version, s.Ready)
			}
		}
	}
	for when, image := range map[string]string{"closed": l.closed, "killed": l.killed} {
		err := filepath.WalkDir(image, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(image, path)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			try(image, when+": without "+name, func(dir string) error { return os.Remove(filepath.Join(dir, name)) })
			used := len(bytes.TrimRight(b, "\x00"))
			for _, n := range []int{0, used / 3, used - 1} {
				if n >= 0 && n < len(b) {
					try(image, fmt.Sprintf("%s: %d bytes of %s", when, n, name), func(dir string) error { return os.Truncate(filepath.Join(dir, name), int64(n)) })
				}
			}
			for range min(damageFlips, used) {
				at := rng.IntN(used)
				try(image, fmt.Sprintf("%s: byte %d of %d flipped in %s", when, at, used, name), func(dir string) error {
					harmed := append([]byte(nil), b...)
					harmed[at] ^= 1 << rng.IntN(8)
					return writeSparse(filepath.Join(dir, name), harmed)
				})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, image := range []string{l.closed, l.killed} {
		try(image, "without the whole store", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "meta")) })
	}
	t.Logf("%v", counts)
	if counts["refused"] == 0 || counts["recovers"] == 0 || counts["sound"] == 0 {
		t.Errorf("not every way out was taken: %v", counts)
	}
}

// TestLogFetchedAgainFromPeers: a node of whose log a bit was flipped is not
// ready, gets it from the members it remembers, without a seed, and then serves.
func TestLogFetchedAgainFromPeers(t *testing.T) {
	l := live(t)
	files, err := filepath.Glob(filepath.Join(l.closed, "meta", "*.vlog"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no value log: %v", err)
	}
	harmed := false
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// The founding entry is large and lies there.
		if used := len(bytes.TrimRight(b, "\x00")); used > 1000 {
			b[used/2], harmed = b[used/2]^1, true
			if err := writeSparse(file, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !harmed {
		t.Fatal("nothing lies in the value log")
	}
	o := l.node.opts
	o.Dir, o.HasData, o.Join = l.closed, true, nil
	l.f.isolate("n2", true)
	n := launch(t, l.f, o)
	if _, recovering := n.Recovering(); !recovering || n.Snapshot().Ready {
		t.Fatalf("it does not know that it lacks its log: %+v", n.Snapshot())
	}
	select {
	case <-n.Ready():
		t.Fatal("it is ready though nobody answers")
	case err := <-n.Fatal():
		t.Fatalf("it ends: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	l.f.isolate("n2", false)
	n.awaitReady(t)
	if s := n.Snapshot(); uint64(s.Version) != l.version || s.ClusterID != l.nodes[0].Snapshot().ClusterID {
		t.Errorf("version %d of %d", s.Version, l.version)
	}
	if _, err := n.CreateTenant(t.Context(), "late", 3, schema.PolicyLWW); err != nil {
		t.Errorf("create a tenant there: %v", err)
	}
	n.stop()
	again := n.again(t, nil)
	again.awaitReady(t)
	if _, ok := again.Snapshot().Tenant("late"); !ok {
		t.Error("started again it lacks a tenant")
	}
}

// TestWipedNodeIsNamed: whoever joins with a new data directory under the name and
// address of a member is told whose place it is, and since when that node is gone.
func TestWipedNodeIsNamed(t *testing.T) {
	l := live(t)
	for _, n := range []*testNode{l.nodes[0], l.nodes[2]} {
		n.await(t, "the death of n2", func(s *schema.Snapshot) bool {
			m, ok := s.Member(l.node.self)
			return ok && m.Liveness == schema.Dead
		})
	}
	before := l.nodes[0].Snapshot()
	o := l.node.opts
	o.Dir, o.BootstrapExpect, o.Join = t.TempDir(), 0, []string{l.nodes[0].GossipAddress()}
	n := launch(t, l.f, o)
	err := n.awaitFatal(t)
	var taken *PlaceTakenError
	if !errors.As(err, &taken) || !errors.Is(err, ErrPlaceTaken) {
		t.Fatalf("it ends with %v", err)
	}
	if taken.Lost.ID.String() != l.id || taken.Lost.Since == 0 || time.Since(time.UnixMilli(taken.Lost.Since)) > time.Minute {
		t.Errorf("the lost node is %+v", taken.Lost)
	}
	for _, want := range []string{l.id, "n2", "gone since", "pairdb node replace --dead n2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if after := l.nodes[0].Snapshot(); after.Version != before.Version || len(after.Members) != len(before.Members) {
		t.Errorf("the cluster has changed: %+v", after.Members)
	}
	// One that has nothing of any member's may wait.
	o.Dir, o.Name, o.Addresses.Peer, o.BindPort = t.TempDir(), "n9", "127.0.0.1:9", 0
	late := launch(t, l.f, o)
	for _, m := range []*testNode{l.nodes[0], l.nodes[2]} {
		m.awaitJoiners(t, late)
	}
}
