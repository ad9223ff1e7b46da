package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/gossip"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/replica"
)

// openEngine opens the engine and the replica store on it.
func (n *Node) openEngine() error {
	dir := filepath.Join(n.cfg.Node.DataDir, EngineDir)
	s := &n.cfg.Storage
	_, recovering := n.gossip.Recovering()
	founded := n.gossip.Snapshot().Layout != nil || recovering
	if recovering {
		// What there is of it shows when the layout has been fetched again.
		if err := checkEngineThere(dir); err != nil {
			return err
		}
	}
	if err := n.openMarks(); err != nil {
		return err
	}
	recovered := 0
	start := time.Now()
	since := n.loadSums()
	n.records = replica.NewRecordSpace(int64(n.cfg.Limits.IdempotencyBytes), n.clock.Now)
	opts := engine.Options{
		Logger:          n.log.With("component", "engine"),
		MemTableSize:    int64(s.MemtableSize),
		BlockSize:       int(s.BlockSize),
		BloomBitsPerKey: noneIfZero(s.BloomBitsPerKey),
		CacheSize:       int64(noneIfZero(s.CacheSize)),
		WALSegmentSize:  int64(s.WALSegmentSize),
		DiskWarn:        s.DiskWarn,
		DiskThrottle:    s.DiskThrottle,
		DiskStop:        s.DiskStop,
		SlowAfter:       s.DiskSlow,
		StallAfter:      s.DiskStall,
		CompactionRate:  int64(s.CompactionRate),
		OnRecovered: func(key []byte, seq base.SeqNum) {
			recovered++
			replica.Recovered(n.sums, key, seq)
		},
		KeepDeletesAfter: since,
		// Records that count no more go when their tables are merged.
		CompactionFilter: n.records.Drop,
		Events:           n.engineEvents(),
	}
	if n.hasCopies() {
		opts.Salvage = n.salvage
	}
	db, err := n.openDB(dir, opts)
	if err != nil {
		return explainEngine(dir, err)
	}
	n.db = db
	if !founded {
		if err := checkEngineEmpty(db, dir); err != nil {
			return err
		}
	}
	if err := n.checkSums(since); err != nil {
		return err
	}
	if recovered > 0 {
		n.log.Info("engine recovered its log", "keys", recovered, "took", time.Since(start).Round(time.Millisecond))
	}
	_, _, actor := n.gossip.Identity()
	err = n.withoutDamage(func() (err error) {
		n.store, err = replica.New(replica.Options{
			Engine: db, Actor: actor, Scheduler: &n.jobs, Records: n.records, Sums: n.sums, Tenant: n.tenant,
			Marks: n.marks, Damaged: n.metDamage, Alone: n.alone(), PV: n.pv, Own: n.ownClasses, Deleted: n.deletedTenant,
		})
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range n.marks.List() {
		n.sums.Forget(p) // what damage took away went by no write
	}
	n.tendSums()
	n.scrubs = newScrubber(n)
	close(n.opened)
	return n.countRecords()
}

// tenant says how the data of a tenant is kept, if this node knows the tenant.
func (n *Node) tenant(number ring.TenantNumber) (replica.Tenant, bool) {
	t, ok := n.gossip.Snapshot().TenantByNumber(number)
	if !ok {
		return replica.Tenant{}, false
	}
	return replica.Tenant{Class: t.Class(), LWW: t.Policy == schema.PolicyLWW}, true
}

// countRecords has the idempotency records counted that an earlier life left.
func (n *Node) countRecords() error {
	layout := n.gossip.Snapshot().Layout
	if n.recordsUncounted = layout == nil; n.recordsUncounted {
		return nil // nothing was written yet, or the layout is fetched again
	}
	failed := func(err error) {
		if t, ok := n.db.DamageOf(err); ok {
			n.damagedTable(t)
		}
		n.log.Error("the space of idempotency records is not known; what tenants have from before does not count against limits.idempotency_bytes", "err", err)
	}
	var count func(stop func() bool) error
	err := n.withoutDamage(func() (err error) {
		count, err = n.records.Count(n.db, layout.Partitions())
		return err
	})
	if errors.Is(err, engine.ErrCorrupt) {
		failed(err)
		return nil
	}
	if err != nil {
		return err
	}
	n.jobs.Go("count records", func() {
		if err := count(n.stopping.Load); err != nil && !n.stopping.Load() {
			failed(err)
		}
	})
	return nil
}

// checkEngineEmpty refuses a node that belongs to no cluster and has data: its
// metadata has forgotten that it ever did, and a cluster founded here would show
// that data as its own.
func checkEngineEmpty(db *engine.DB, dir string) error {
	it, err := db.NewIter(nil, nil)
	if err != nil {
		return fmt.Errorf("look for data in %s: %w", dir, err)
	}
	held := it.First()
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("look for data in %s: %w", dir, err)
	}
	if held {
		return gossip.LostMetadata(filepath.Dir(dir), "the metadata knows of no cluster, but there is data of one", nil)
	}
	return nil
}

func explainEngine(dir string, err error) error {
	switch {
	case errors.Is(err, engine.ErrFormat):
		return fmt.Errorf("open engine in %s: it was written by a newer version of pairdb; run that version or a newer one: %w", dir, err)
	case errors.Is(err, engine.ErrCorrupt):
		return fmt.Errorf("open engine in %s: %w; the directory was left as it is", dir, err)
	default:
		return fmt.Errorf("open engine in %s: %w", dir, err)
	}
}
