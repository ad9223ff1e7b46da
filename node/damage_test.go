package node

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/config"
	"github.com/pairdb/pairdb/node/replica"
)

func TestPartitionsOfATable(t *testing.T) {
	for _, c := range []struct {
		smallest, largest string
		partitions        int
		want              string
	}{
		{"\x00\x03\x00key", "\x00\x03\x01key", 16, "3"},
		{"\x00\x03\x00key", "\x00\x07\x01key", 16, "3-7"},
		{"\x00\x00", "\xff\xff", 16, "0-15"},
		{"\x01\x00\x00key", "\x01\x02", 1024, "256-258"},
		{"", "\x01", 1024, "0-256"},
		{"\x01\x00", "\x01\x00", 16, "none"},
	} {
		got := span(partitionsIn(engine.Damage{Smallest: []byte(c.smallest), Largest: []byte(c.largest)}, c.partitions))
		if got != c.want {
			t.Errorf("%q to %q of %d: %s, want %s", c.smallest, c.largest, c.partitions, got, c.want)
		}
	}
}

// TestEngineSetAsideAtEveryCall: whatever call is the last before a power cut, the
// marks are there before the directory is gone, nothing of it is lost, and the next
// start can do the rest.
func TestEngineSetAsideAtEveryCall(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	mem := vfs.NewMem()
	for _, err := range []error{
		mem.MkdirAll("node/data"), mem.SyncDir("."), mem.SyncDir("node"), replica.WriteFile(mem, "node/data/CURRENT", []byte("damaged")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	all := []ring.Partition{0, 1, 2, 3}
	check := func(disk *vfs.MemFS, again bool) error {
		marks, err := replica.OpenMarks(disk, "node/quarantine")
		if err != nil {
			return err
		}
		_, here := disk.Stat("node/data/CURRENT")
		_, there := disk.Stat("node/data.damaged-1/CURRENT")
		switch {
		case here != nil && there != nil:
			return fmt.Errorf("the directory is nowhere: %w, %w", here, there)
		case here != nil && !slices.Equal(marks.List(), all):
			return fmt.Errorf("the directory is gone, and marked are %v", marks.List())
		case !again:
			return nil
		}
		if _, err := setEngineAside(disk, "node/data", marks, all); err != nil {
			return err
		}
		if _, err := disk.Stat("node/data"); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the directory is still in its place: %w", err)
		}
		_, err = disk.Stat("node/data.damaged-1/CURRENT")
		return err
	}
	points := 0
	var failed error
	disk := vfs.Inject(mem, func(o vfs.Op) error {
		if !o.Mutates() || failed != nil {
			return failed
		}
		for _, mode := range vfs.CrashModes() {
			points++
			if err := check(mem.Crash(mode, rng), true); err != nil {
				failed = fmt.Errorf("crash before %s, mode %s: %w", o, mode, err)
			}
		}
		return failed
	})
	aside, err := setEngineAside(disk, "node/data", replica.NewMarks(disk, "node/quarantine"), all)
	if err != nil || aside != "node/data.damaged-1" {
		t.Fatalf("%q: %v", aside, err)
	}
	if err := check(mem.Crash(vfs.CrashDropUnsynced, rng), false); err != nil {
		t.Fatal(err)
	}
	if points < 50 {
		t.Errorf("%d points are too few to mean anything", points)
	}
}

// flipBit changes a bit of a file, about in the middle.
func flipBit(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := len(b) / 3
	_, err = f.WriteAt([]byte{b[at] ^ 4}, int64(at))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// waitFor looks for something until it is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !so(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// TestDamagedTableIsContained: of three nodes one has a damaged table. Whoever asks
// it gets right answers from the others, the table is set aside, its partitions are
// marked, and both outlive a restart.
func TestDamagedTableIsContained(t *testing.T) {
	nodes := startNodes(t, 0, 0, 0)
	const keys = 200
	for i := range keys {
		c := nodes[i%3].client()
		if err := untilReached(func() error {
			_, err := c.Put(t.Context(), fmt.Sprint("key", i), []byte(fmt.Sprint("value", i)), client.WithLevel(client.LevelAll))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	victim := nodes[2]
	victim.stop()
	tables, err := filepath.Glob(filepath.Join(victim.cfg.Node.DataDir, EngineDir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(err, tables)
	}
	for _, name := range tables {
		flipBit(t, name)
	}
	for range 2 {
		victim.restart()
		for i := range keys {
			for _, n := range nodes {
				for _, level := range []client.Level{client.LevelOne, client.LevelQuorum} {
					got, err := get(t, n.client(), fmt.Sprint("key", i), level)
					if err != nil || len(got.Siblings) != 1 || string(got.Siblings[0].Value) != fmt.Sprint("value", i) {
						t.Fatalf("%s: key %d at %v: %v, %v", n.cfg.Node.Name, i, level, got, err)
					}
				}
			}
		}
		waitFor(t, "the table is set aside", func() bool {
			kept, err := filepath.Glob(filepath.Join(victim.cfg.Node.DataDir, EngineDir, engine.QuarantineDir, "*.sst"))
			return err == nil && len(kept) == len(tables)
		})
		put(t, victim.client(), "key0", "value0") // through the damaged node
		victim.stop()
		marks, err := replica.OpenMarks(vfs.OS(), filepath.Join(victim.cfg.Node.DataDir, marksFile))
		if err != nil || marks.Len() == 0 {
			t.Fatalf("no partition is marked: %v", err)
		}
	}
}

// TestNodeAloneKeepsDamage: without other copies nothing is moved: what can be read
// of a damaged table is all there is.
func TestNodeAloneKeepsDamage(t *testing.T) {
	nodes := startNodes(t, 0)
	for i := range 20 {
		put(t, nodes[0].client(), fmt.Sprint("key", i), strings.Repeat("v", 100))
	}
	nodes[0].stop()
	dir := filepath.Join(nodes[0].cfg.Node.DataDir, EngineDir)
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(err, tables)
	}
	flipBit(t, tables[0])
	nodes[0].restart()
	bad := 0
	for i := range 20 {
		if _, err := nodes[0].client().Get(t.Context(), fmt.Sprint("key", i)); err != nil {
			bad++
		}
	}
	if bad == 0 {
		t.Error("the damage is nowhere")
	}
	nodes[0].stop()
	if _, err := os.Stat(filepath.Join(dir, engine.QuarantineDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a table was moved: %v", err)
	}
	// The log cannot be believed either, and nothing can take its place.
	if err := os.Truncate(filepath.Join(dir, "CURRENT"), 3); err != nil {
		t.Fatal(err)
	}
	if n, err := Open(nodes[0].cfg, Options{Logger: testLogger("alone")}); err == nil {
		t.Errorf("the node opens: %v", n.addrs)
	} else if !errors.Is(err, engine.ErrCorrupt) || !strings.Contains(err.Error(), "left as it is") {
		t.Error(err)
	}
}

// TestWithoutDamage: what is read before anything is served goes on without each
// damaged table that it meets, and fails for any other reason.
func TestWithoutDamage(t *testing.T) {
	nodes := startNodes(t, 0, 0)
	for round := range 3 {
		for i := range 40 {
			put(t, nodes[0].client(), fmt.Sprint("key", round, i), "value")
		}
		if _, err := nodes[1].client().Nodes()[0].Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	nodes[1].stop()
	n, err := Open(nodes[1].cfg, Options{Logger: testLogger("damaged")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.release(); err != nil {
			t.Error(err)
		}
	}()
	dir := filepath.Join(nodes[1].cfg.Node.DataDir, EngineDir)
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(err, tables)
	}
	for _, name := range tables {
		flipBit(t, name)
	}
	calls := 0
	if err := n.withoutDamage(func() error { calls++; return n.db.Verify() }); err != nil || calls != len(tables)+1 {
		t.Errorf("%d calls with %d tables: %v", calls, len(tables), err)
	}
	if n.marks.Len() == 0 {
		t.Error("nothing is marked")
	}
	other := errors.New("no")
	if err := n.withoutDamage(func() error { return other }); !errors.Is(err, other) {
		t.Error(err)
	}
}

// TestForeignQuarantine: a partition that no tenant of this node's has is not kept under
// quarantine, and one that it is about to own is: what it has fetched of that may be what
// was damaged. With the change that is over, by which the partition was lost, nobody tells
// of a quarantine; that is looked at all the same.
func TestForeignQuarantine(t *testing.T) {
	cfg := config.Defaults()
	cfg.Node.DataDir, cfg.Cluster.Bootstrap = filepath.Join(t.TempDir(), "n"), true
	cfg.Listen.Bind = "127.0.0.1"
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	r := run(t, cfg, func(*Node) {})
	foreign := ring.Partition(r.gossip.Snapshot().Layout.Partitions())
	release := r.marks.Hold([]ring.Partition{foreign})
	if err := r.store.Quarantine([]ring.Partition{foreign}); err != nil {
		t.Fatal(err)
	}
	r.clearForeign() // in vain, and nobody is told when it would not be
	release()
	if _, err := r.gossip.CreateTenant(t.Context(), "t", 1, schema.PolicyLWW); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the quarantine is over after a change of the ring", func() bool { return r.marks.Len() == 0 })
}

// TestStopWhileTheMetadataHangs: what would tell the members of this node waits for the disk of
// the metadata. A node that is to stop goes on to let its clients finish all the same.
func TestStopWhileTheMetadataHangs(t *testing.T) {
	cfg := config.Defaults()
	cfg.Node.DataDir, cfg.Cluster.Bootstrap = filepath.Join(t.TempDir(), "n"), true
	cfg.Listen.Bind = "127.0.0.1"
	cfg.Listen.GRPCPort, cfg.Listen.PeerPort, cfg.Listen.HTTPPort, cfg.Listen.GossipPort = 0, 0, 0, 0
	cfg.Timeouts.DrainDelay = 0
	r := run(t, cfg, func(n *Node) { n.withdrawing.Lock() })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.stop()
	}()
	defer func() {
		r.withdrawing.Unlock()
		<-stopped
	}()
	waitFor(t, "it is about to stop", r.stopping.Load)
}

// TestForeignWhileTheRingChanges: see TestForeignQuarantine.
func TestForeignWhileTheRingChanges(t *testing.T) {
	nodes := make([]ring.LayoutNode, 4)
	for i := range nodes {
		nodes[i] = ring.LayoutNode{ID: ring.NodeID{byte(i + 1)}, Name: fmt.Sprint("n", i), Zone: "z", Capacity: 100}
	}
	before, err := ring.NewLayout(16, nodes[:3])
	if err != nil {
		t.Fatal(err)
	}
	state := new(ring.State)
	add := func(e ring.Entry) {
		t.Helper()
		e.Version = state.Version() + 1
		e.Op = [16]byte{byte(e.Version)}
		if state, err = state.Next(&e); err != nil {
			t.Fatal(err)
		}
	}
	add(ring.Entry{Kind: ring.KindFound, Found: &ring.Found{ClusterID: ring.ClusterID{1}, ClusterName: "c", Founder: nodes[0].ID, Layout: before, TokenKeyID: 1, TokenKey: [32]byte{1}}})
	ready := true
	snap := func() *schema.Snapshot {
		return schema.Build(schema.Snapshot{Ready: ready, Self: nodes[3].ID, Layout: state.Layout(), Change: state.Change(), Ring: state}, []*schema.Tenant{{Number: 1, Name: "default", RF: 3, NextRF: 3}})
	}
	var all, mine []ring.Partition
	for p := range ring.Partition(16) {
		all = append(all, p)
	}
	if got := foreignOf(snap(), all); !slices.Equal(got, all) {
		t.Errorf("a node without partitions: %v", got)
	}
	ready = false
	if got := foreignOf(snap(), all); len(got) > 0 {
		t.Errorf("by a ring that may be an old one, since the log is fetched again: %v", got)
	}
	ready = true
	plan, err := state.Plan(nodes[3:])
	if err != nil {
		t.Fatal(err)
	}
	add(ring.Entry{Kind: ring.KindPropose, Propose: &ring.Propose{Parent: state.Layout().Version(), Layout: plan.Layout}})
	for _, p := range all {
		if state.Change().Next.IsOwner(nodes[3].ID, p, 3) {
			mine = append(mine, p)
		}
	}
	for _, p := range foreignOf(snap(), all) {
		if slices.Contains(mine, p) {
			t.Errorf("partition %d is about to be this node's, and is taken for nobody's here", p)
		}
	}
	if len(mine) == 0 {
		t.Fatal("it gains nothing")
	}
}
