package replica_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/replica"
	"github.com/pairdb/pairdb/node/replica/sums"
)

// roundKeys is how many keys TestRoundsOverStores compares; PAIRDB_REPAIR_KEYS is for
// more, which then are on the disk.
const roundKeys = 40_000

const (
	roundTenant   = ring.TenantNumber(3)
	siblingTenant = ring.TenantNumber(4)
)

// owners are three nodes with a real store each, that exchange messages by calls.
type owners struct {
	snap   atomic.Pointer[schema.Snapshot]
	stores []*replica.Store
	coords []*coord.Coordinator
	rounds []*repair.Manager
	jobs   sync.WaitGroup
}

// node is what one of them has of the others, the clock and the goroutines.
type node struct {
	o  *owners
	id ring.NodeID
}

func (n node) Send(to ring.NodeID, m *coord.Message, reply func(coord.Reply, error)) {
	msg := *m
	msg.Body, msg.Key = bytes.Clone(m.Body), bytes.Clone(m.Key)
	// Nothing is late here, however long the machine stands still.
	if !msg.Deadline.IsZero() {
		msg.Deadline = msg.Deadline.Add(time.Minute)
	}
	n.Go("", func() {
		n.o.coords[to[0]-1].HandlePeer(n.id, []coord.Message{msg}, func(_ int, r coord.Reply) { reply(r, nil) })
	})
}

func (n node) Go(_ string, f func()) {
	n.o.jobs.Go(f)
}
func (node) Now() time.Time { return time.Now() }
func (node) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

func newOwners(t *testing.T, fsys func(i int) (vfs.FS, string)) *owners {
	return newNodes(t, 3, fsys, func(int, *repair.Options) {})
}

// newNodes makes some nodes, all of which own everything if they are three.
func newNodes(t *testing.T, nodes int, fsys func(i int) (vfs.FS, string), edit func(i int, o *repair.Options)) *owners {
	o := &owners{}
	var members []ring.LayoutNode
	var known []schema.Member
	for i := range nodes {
		id := ring.NodeID{byte(i + 1)}
		members = append(members, ring.LayoutNode{ID: id, Name: fmt.Sprint("n", i), Zone: fmt.Sprint("z", i), Capacity: 1})
		known = append(known, schema.Member{ID: id, Name: fmt.Sprint("n", i), Liveness: schema.Alive})
	}
	layout, err := ring.NewLayout(64, members)
	if err != nil {
		t.Fatal(err)
	}
	o.snap.Store(schema.Build(schema.Snapshot{Layout: layout, Ready: true, Version: 1, Members: known, TokenKeys: []schema.TokenKey{{ID: 1}}},
		[]*schema.Tenant{
			{Number: roundTenant, Name: "acme", RF: 3, Policy: schema.PolicyLWW, Version: 1},
			{Number: siblingTenant, Name: "all", RF: 3, Policy: schema.PolicySiblings, Version: 1},
		}))
	for i := range nodes {
		n := node{o, members[i].ID}
		fs, dir := fsys(i)
		db, err := engine.Open(dir, engine.Options{FS: fs, MemTableSize: 16 << 20})
		if err != nil {
			t.Fatal(err)
		}
		store, err := replica.New(replica.Options{
			Engine: db, Actor: uint64(i + 1), Scheduler: n, Records: replica.NewRecordSpace(1<<30, time.Now),
			Sums: sums.New(layout.Partitions),
			PV:   func(p ring.Partition) ring.Version { return o.snap.Load().Layout.PV(p) },
			Tenant: func(n ring.TenantNumber) (replica.Tenant, bool) {
				return replica.Tenant{Class: 3, LWW: n != siblingTenant}, true
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		opts := repair.Options{
			Self: n.id, View: o.snap.Load, Replica: store, Objects: store, Transport: n, Clock: n,
			Scheduler: n, Random: rand.Float64, Interval: time.Hour, Settle: 2 * time.Second, Rate: 1 << 30,
		}
		edit(i, &opts)
		m, err := repair.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		c, err := coord.New(coord.Options{
			Self: n.id, View: o.snap.Load, Replica: store, Transport: n, Clock: n, Repair: m.Serve,
			CatchUp: func(_ ring.NodeID, _ ring.Version, done func(error)) { done(errors.New("nothing newer")) },
		})
		if err != nil {
			t.Fatal(err)
		}
		o.stores, o.coords, o.rounds = append(o.stores, store), append(o.coords, c), append(o.rounds, m)
		t.Cleanup(func() {
			if err := errors.Join(m.Close(context.Background()), c.Close(context.Background())); err != nil {
				t.Error(err)
			}
			o.jobs.Wait()
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return o
}

func (o *owners) address(key []byte) coord.Address {
	tok := ring.KeyToken(roundTenant, key)
	return coord.Address{Partition: o.snap.Load().Layout.PartitionOf(tok), Tenant: roundTenant, Token: tok, Key: key, Class: 3, LWW: true}
}

// load brings all keys to all owners but those that the last one lacks, and returns how
// many leaves of about 512 keys those are in.
func (o *owners) load(t *testing.T, keys int) (lacking, leaves int) {
	value := make([]byte, 100)
	var items []coord.MergeItem
	var partial []coord.MergeItem
	in := make(map[[2]uint64]bool)
	flush := func() {
		for i, s := range o.stores {
			its := items
			if i == 2 {
				its = partial
			}
			var done sync.WaitGroup
			done.Add(len(its))
			s.Merge(its, func(_ int, _ []byte, err error) {
				if err != nil {
					t.Error(err)
				}
				done.Done()
			})
			done.Wait()
		}
		items, partial = items[:0], partial[:0]
	}
	perLeaf := uint64(64) // leaves in a partition, as a power of two of tokens
	for keys/64/int(perLeaf) < 400 && perLeaf > 1 {
		perLeaf /= 2
	}
	counters := make([]uint64, 64)
	for k := range keys {
		at := o.address(fmt.Appendf(nil, "key%08d", k))
		counters[at.Partition]++
		d := causal.Dot{Actor: 99, Counter: counters[at.Partition]}
		obj := causal.Object{Context: causal.NewContext(d), Siblings: []causal.Sibling{{Dot: d, HLC: 1 << 20, Value: value}}}
		it := coord.MergeItem{Address: at, Object: obj.Append(nil), LastWriteWins: true}
		items = append(items, it)
		if k%1000 == 7 {
			lacking++
			within := uint64(at.Token-o.snap.Load().Layout.FirstToken(at.Partition)) / (1 << 58 / perLeaf)
			in[[2]uint64{uint64(at.Partition), within}] = true
		} else {
			partial = append(partial, it)
		}
		if len(items) == 1000 {
			flush()
		}
	}
	flush()
	return lacking, len(in)
}

// round has the first node compare everything and returns what that took, and how many
// bytes were compared. A machine that stands still for long makes a round void, and another
// one is begun; what the first one compared counts.
func (o *owners) round(t *testing.T) (took, cpu time.Duration, compared uint64, run repair.Run) {
	o.rounds[0].Start()
	for first := true; ; first = false {
		began, before, had := time.Now(), cpuTime(t), o.rounds[0].Status().ComparedBytes
		run = o.ended(t)
		took, cpu = time.Since(began), cpuTime(t)-before
		if first {
			compared = o.rounds[0].Status().ComparedBytes - had
		}
		if !strings.Contains(run.Error, "stood still meanwhile") {
			return took, cpu, compared, run
		}
	}
}

// ended has the first node begin a run and returns it once it has ended.
func (o *owners) ended(t *testing.T) repair.Run {
	id, err := o.rounds[0].StartRepair("", -1)
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 5*time.Minute; <-time.After(20 * time.Millisecond) {
		for _, r := range o.rounds[0].Status().Runs {
			if r.ID == id && !r.Ended.IsZero() {
				return r
			}
		}
	}
	t.Fatalf("the round does not end: %+v", o.rounds[0].Status())
	return repair.Run{}
}

func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestRoundsOverStores: of many keys one owner lacks every thousandth. One round brings
// exactly those, and its comparison takes at most a KiB for each leaf that differs; the
// next finds all equal. It prints what both took.
func TestRoundsOverStores(t *testing.T) {
	keys := roundKeys
	fsys := func(i int) (vfs.FS, string) { return vfs.NewMem(), "data" }
	if s := os.Getenv("PAIRDB_REPAIR_KEYS"); s != "" {
		var err error
		if keys, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		fsys = func(i int) (vfs.FS, string) { return vfs.OS(), filepath.Join(dir, strconv.Itoa(i)) }
	}
	o := newOwners(t, fsys)
	began := time.Now()
	lacking, leaves := o.load(t, keys)
	t.Logf("loaded %d keys at 3 owners in %v; one lacks %d, in %d leaves", keys, time.Since(began).Round(time.Millisecond), lacking, leaves)
	for _, s := range o.stores { // what is known in the background otherwise
		for more := true; more; {
			var err error
			if more, err = s.StepSums(); err != nil {
				t.Fatal(err)
			}
		}
	}
	took, cpu, compared, run := o.round(t)
	st := o.rounds[0].Status()
	if run.Error != "" || run.Confirmed != 64 {
		t.Fatalf("the run ended with %+v", run)
	}
	each := int(compared) / max(leaves, 1)
	t.Logf("first round: %v, %v of CPU, %d bytes compared, %d for each leaf, %d objects of %d bytes sent", took, cpu, compared, each, st.Sent, st.SentBytes)
	if int(st.Sent) != lacking || st.Received != 0 {
		t.Errorf("%d objects were sent and %d received, %d were lacking", st.Sent, st.Received, lacking)
	}
	if each > 1024 {
		t.Errorf("%d bytes for each leaf that differs", each)
	}
	for p := range 64 {
		var sums [3]repair.Sum
		first := o.snap.Load().Layout.FirstToken(ring.Partition(p))
		for i, s := range o.stores {
			all, err := s.Sums(repair.Range{Partition: ring.Partition(p), Tenant: roundTenant, First: first, Last: first + 1<<58 - 1}, 0)
			if err != nil {
				t.Fatal(err)
			}
			sums[i] = all[0]
		}
		if sums[0] != sums[1] || sums[0] != sums[2] {
			t.Fatalf("partition %d: %v", p, sums)
		}
	}
	took, cpu, compared, run = o.round(t)
	again := o.rounds[0].Status()
	if run.Error != "" || again.Sent != st.Sent {
		t.Fatalf("the second run ended with %+v", run)
	}
	t.Logf("round over equal owners: %v, %v of CPU, %d bytes compared", took, cpu, compared)
}
