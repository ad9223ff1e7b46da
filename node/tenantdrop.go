package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/events"
	"github.com/pairdb/pairdb/node/replica"
)

// dropPause is when it is tried again to drop what deleted tenants have, after it failed.
const dropPause = 10 * time.Second

// tenantDrops is what becomes of the data of tenants that were deleted. All but the
// counters belongs to one goroutine.
type tenantDrops struct {
	tenants, partitions, waiting atomic.Int64

	// before is the snapshot that was looked at last, and deleted how many tenants were
	// deleted by then.
	before  *schema.Snapshot
	deleted int
	// due are those whose data is to be dropped; scan says that there may be others, of
	// which the data says who they are.
	due  []doomed
	scan bool
	told string // the error that was told last
}

// doomed is a tenant that was deleted.
type doomed struct {
	number ring.TenantNumber
	name   string // empty if it is not known any more
}

// look notes which tenants were deleted since the last look, and reports whether any were.
// Of those from before the first look, and of those that came and went between two, nobody
// here knows who they were.
func (d *tenantDrops) look(snap *schema.Snapshot) (some bool) {
	if snap.Ring == nil || d.before != nil && d.before.Ring == snap.Ring {
		return false
	}
	deleted, found := int(snap.Ring.LastTenant())-len(snap.Tenants()), 0
	if deleted > d.deleted && d.before != nil {
		for _, t := range d.before.Tenants() {
			if snap.Deleted(t.Number) {
				d.due = append(d.due, doomed{t.Number, t.Name})
				found++
			}
		}
	}
	some = deleted > d.deleted
	d.scan = d.scan || deleted-d.deleted > found
	d.before, d.deleted = snap, deleted
	return some
}

// add notes those of the tenants with data that were deleted.
func (d *tenantDrops) add(here []ring.TenantNumber, deleted func(ring.TenantNumber) bool) {
	d.scan = false
	for _, t := range here {
		if deleted(t) && !slices.ContainsFunc(d.due, func(o doomed) bool { return o.number == t }) {
			d.due = append(d.due, doomed{number: t})
		}
	}
}

// dropTenants drops what deleted tenants have here, those of before first, until ctx ends.
func (n *Node) dropTenants(ctx context.Context) {
	d := &n.tenantDrops
	again := time.NewTimer(dropPause)
	defer again.Stop()
	for try := false; ; {
		changed := n.gossip.Changed()
		if d.look(n.gossip.Snapshot()) {
			// Whatever was let through is visible then, and is dropped with the rest.
			n.store.Forget()
			try = true
		}
		if try {
			if err := n.dropSome(ctx); err != nil && ctx.Err() == nil {
				n.tellDrop(err)
				again.Reset(dropPause)
			}
		}
		try = false
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again.C:
			try = true
		}
	}
}

// dropSome drops what is due, up to the first that fails.
func (n *Node) dropSome(ctx context.Context) error {
	d := &n.tenantDrops
	stop := func() bool { return ctx.Err() != nil }
	if d.scan {
		here, err := n.store.TenantsHere(stop)
		if err != nil {
			return fmt.Errorf("look for data of deleted tenants: %w", err)
		}
		d.add(here, n.deletedTenant)
	}
	for d.waiting.Store(int64(len(d.due))); len(d.due) > 0; {
		t, began := d.due[0], time.Now()
		partitions, err := n.store.DropTenant(t.number, stop)
		d.partitions.Add(int64(partitions))
		if err != nil {
			return fmt.Errorf("drop the data of tenant %s, which was deleted: %w", t, err)
		}
		d.due, d.told = d.due[1:], ""
		d.waiting.Store(int64(len(d.due)))
		if partitions > 0 {
			n.happened.AddLogged(events.Engine, events.Info, "what tenant "+t.String()+" had is dropped, since the tenant was deleted",
				"tenant", t.String(), "partitions", strconv.Itoa(partitions), "took", time.Since(began).Round(time.Millisecond).String())
			d.tenants.Add(1) // last: whoever sees it finds the rest, too
		}
	}
	return nil
}

func (t doomed) String() string {
	if t.name == "" {
		return strconv.FormatUint(uint64(t.number), 10)
	}
	return t.name
}

// tellDrop tells why data of deleted tenants is still there, once for each reason.
func (n *Node) tellDrop(err error) {
	if d := &n.tenantDrops; d.told != err.Error() && !errors.Is(err, replica.ErrStopped) && !errors.Is(err, engine.ErrClosed) {
		d.told = err.Error()
		n.happened.AddLogged(events.Engine, events.Warning, "data of a deleted tenant is still there; it is tried again", "err", err.Error())
	}
}

// deletedTenant says whether a tenant was deleted, as far as this node knows.
func (n *Node) deletedTenant(t ring.TenantNumber) bool { return n.gossip.Snapshot().Deleted(t) }

// ownClasses are the classes that tenants have for themselves.
func (n *Node) ownClasses() []ring.Class { return n.gossip.Snapshot().OwnClasses() }

// tenantDropSeries count what was dropped of deleted tenants.
func (n *Node) tenantDropSeries() ([]series, func(emit)) {
	tenants := counter("pairdb_deleted_tenants_dropped_total", "Deleted tenants whose data was dropped from this node. Their space is free once compactions have come by.")
	partitions := counter("pairdb_deleted_tenants_partitions_total", "Partitions that data of deleted tenants was dropped from on this node.")
	waiting := gauge("pairdb_deleted_tenants_waiting", "Deleted tenants whose data is yet to be dropped from this node.")
	return []series{tenants, partitions, waiting}, func(e emit) {
		d := &n.tenantDrops
		e(tenants, float64(d.tenants.Load()))
		e(partitions, float64(d.partitions.Load()))
		e(waiting, float64(d.waiting.Load()))
	}
}
