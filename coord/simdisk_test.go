package coord_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/meta/storetest"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/replica"
	"github.com/pairdb/pairdb/node/replica/sums"
)

// storeDisk is the real store over the real engine on a memory file system, and
// the metadata from which the process has its actor.
type storeDisk struct {
	n       *simNode
	fs      *vfs.MemFS
	meta    *storetest.Mem
	entropy io.Reader
	// oldFS and oldMeta are what was there before the last start.
	oldFS   *vfs.MemFS
	oldMeta *storetest.Mem
	db      *engine.DB
	rep     *replica.Store
	bad     bool
	// sumsFS is fs with what is wrong with the disk.
	sumsFS vfs.FS
}

func newStoreDisk(n *simNode) disk {
	var seed [32]byte
	copy(seed[:], fmt.Sprintf("%x %s", n.w.seed, n.name))
	return &storeDisk{n: n, fs: vfs.NewMem(), meta: &storetest.Mem{}, entropy: rand.NewChaCha8(seed)}
}

func (d *storeDisk) open(n *simNode) (coord.Replica, uint64) {
	d.oldFS, d.oldMeta = d.fs.Crash(vfs.CrashDropUnsynced, nil), d.meta.Clone()
	fsys := vfs.Inject(d.fs, func(op vfs.Op) error {
		if d.bad && op.Kind == vfs.OpSync {
			return fmt.Errorf("sync of a broken disk")
		}
		return nil
	})
	d.sumsFS = fsys
	known := sums.New(func() int { return simPartitions })
	since, err := known.Load(fsys, simSums)
	if err != nil {
		panic(err) // what a crash leaves of it can be loaded
	}
	db, err := engine.Open("data", engine.Options{
		FS: fsys, Scheduler: n, Now: n.Now, Sleep: func(time.Duration) {}, Rand: n.w.rand(n.name).Uint64,
		MemTableSize: 128 << 10, WALSegmentSize: 128 << 10, CacheSize: 1 << 20,
		OnRecovered: func(key []byte, seq base.SeqNum) { replica.Recovered(known, key, seq) }, KeepDeletesAfter: since,
	})
	if err != nil {
		panic(fmt.Sprintf("open %s: %v", n.name, err))
	}
	actor := d.actor(n)
	rep, err := replica.New(replica.Options{
		Engine: db, Actor: actor, Scheduler: n, Records: replica.NewRecordSpace(1<<30, n.Now), Sums: known, Tenant: n.keptAs, PV: n.pv,
		Own: func() []ring.Class { return n.view.OwnClasses() }, Deleted: func(t ring.TenantNumber) bool { return n.view.Deleted(t) },
	})
	if err != nil {
		panic(err)
	}
	d.db, d.rep = db, rep
	if p := &n.w.planted; p.classLost || p.classShared {
		return mistakenReplica{rep, p}, actor
	}
	return rep, actor
}

// simSums is the file of the range sums.
const simSums = "data/sums"

// objects is all that lies in a partition, by key with the tenant's number before it,
// whoever else knows of it.
func (d *storeDisk) objects(p ring.Partition) map[string]causal.Object {
	it, err := d.db.NewIter(replica.PartitionRange(p, p))
	if err != nil {
		panic(err)
	}
	all := map[string]causal.Object{}
	for ok := it.First(); ok; ok = it.Next() {
		if k, ok := replica.ParseKey(it.Key()); ok {
			o, err := causal.Decode(bytes.Clone(it.Value()))
			if err != nil {
				panic(err)
			}
			all[fmt.Sprintf("%d/%s", k.Tenant, k.Key)] = o
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		panic(err)
	}
	return all
}

// objectsOf is all that is held of a span, by what another node knows of the tenants.
func (d *storeDisk) objectsOf(s repair.Span, by *simNode) map[string]causal.Object {
	all := d.objects(s.Partition)
	maps.DeleteFunc(all, func(key string, _ causal.Object) bool {
		t, ok := by.keptAs(keyTenant(key))
		return !ok || t.Class != s.Class
	})
	return all
}

// keptAs says how a tenant's data is kept, as far as the node knows.
func (n *simNode) keptAs(number ring.TenantNumber) (replica.Tenant, bool) {
	t, ok := n.view.TenantByNumber(number)
	if !ok {
		return replica.Tenant{}, false
	}
	return replica.Tenant{Class: t.Class(), LWW: t.Policy == schema.PolicyLWW}, true
}

// actor starts the node's metadata as its process does. Its other uses are left
// out: rings and tenants are the world's.
func (d *storeDisk) actor(n *simNode) uint64 {
	core, err := meta.Open(meta.Options{
		Store: d.meta, Rand: d.entropy, ClusterName: "simulation", Partitions: simPartitions, Logger: slog.New(slog.DiscardHandler),
		Info: meta.Info{Name: n.name, Capacity: 1, Addresses: schema.Addresses{Peer: n.name}, Software: "simulation"},
	})
	if err != nil {
		panic(fmt.Sprintf("open the metadata of %s: %v", n.name, err))
	}
	_, _, actor := core.Identity()
	return actor
}

func (d *storeDisk) crash(random *rand.Rand, h harm) {
	modes := vfs.CrashModes()
	d.fs = d.fs.Crash(modes[random.IntN(len(modes))], random)
	switch h {
	case setMetaBack:
		d.meta = d.oldMeta
	case setDiskBack:
		d.fs, d.meta = d.oldFS, d.oldMeta
	case wipeDisk:
		d.fs, d.meta = vfs.NewMem(), &storetest.Mem{}
	}
	d.db, d.rep = nil, nil
}

func (d *storeDisk) failSyncs() { d.bad = true }

func (d *storeDisk) object(at coord.Address) (o causal.Object) {
	d.rep.Read(at, func(b []byte, err error) {
		var derr error
		if o, derr = causal.Decode(b); err != nil || derr != nil {
			panic(fmt.Sprint(err, derr))
		}
	})
	return o
}

func (d *storeDisk) record(at coord.Address, id []byte) (r *causal.Record) {
	// What is over counts here, too.
	d.rep.Lookup(at, id, time.Time{}, func(h coord.Held, err error) {
		if err != nil {
			panic(err)
		}
		r = h.Record
	})
	return r
}
