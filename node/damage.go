package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/events"
	"github.com/pairdb/pairdb/node/replica"
)

const (
	// containPause is how long a quarantine that failed waits before it is tried
	// again; it doubles up to maxContainPause.
	containPause    = time.Second
	maxContainPause = time.Minute
)

// containment keeps damage from being shown: of what was met, each thing is dealt
// with once.
type containment struct {
	mu sync.Mutex
	// known has what is being dealt with, and what cannot be: tables by number,
	// values by storage key.
	known map[any]bool
}

// begin reports whether nobody deals with id.
func (c *containment) begin(id any) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[id] {
		return false
	}
	if c.known == nil {
		c.known = make(map[any]bool)
	}
	c.known[id] = true
	return true
}

func (c *containment) end(id any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, id)
}

// metDamage is called by the replica for what a read met. It does not wait.
func (n *Node) metDamage(d replica.Damage) {
	if d.Key != nil {
		if id := string(d.Key); n.contained.begin(id) {
			n.jobs.Go("quarantine", func() { n.containValue(id, d) })
		}
		return
	}
	if t, ok := n.db.DamageOf(d.Err); ok {
		n.damagedTable(t)
	}
}

// damagedTable has a table of the engine taken out of it, and its partitions marked
// before. It does not wait.
func (n *Node) damagedTable(t engine.Damage) {
	if n.contained.begin(t.File) {
		n.jobs.Go("quarantine", func() { n.containTable(t) })
	}
}

// containTable is the job of damagedTable.
func (n *Node) containTable(t engine.Damage) {
	if !n.awaitOpen() {
		return
	}
	list := partitionsIn(t, len(n.allPartitions()))
	details := []string{"table", strconv.FormatUint(t.File, 10), "partitions", span(list), "err", t.Err.Error()}
	if !n.hasCopies() {
		// It stays where it is: what can be read of it is all there is.
		n.happened.Add(events.Scrub, events.Error, "data on this node's disk is damaged, and no other node has a copy: what lies in it cannot be read; restore it from a backup", details...)
		return
	}
	n.contain("a damaged table", func() error {
		// Whoever fetches a partition of them right now would serve it without
		// what goes here.
		defer n.marks.Hold(list)()
		if err := n.store.Quarantine(list); err != nil {
			return err
		}
		if err := n.db.Quarantine(t.File); err != nil && !errors.Is(err, engine.ErrNoTable) {
			return err
		}
		for _, p := range list {
			n.store.ForgetSums(p)
		}
		return nil
	}, func() {
		n.contained.end(t.File)
		n.happened.Add(events.Scrub, events.Error, "data on this node's disk is damaged: its partitions are not served from here until they have been fetched again from the other owners",
			append(details, "kept_in", filepath.Join(n.cfg.Node.DataDir, EngineDir, engine.QuarantineDir))...)
	})
}

// containValue deals with a stored value that does not decode though its checksum is
// right. It is shown in the log before it makes room for another one.
func (n *Node) containValue(id string, d replica.Damage) {
	if !n.awaitOpen() {
		return
	}
	details := []string{"partition", strconv.Itoa(int(d.Partition)), "key", fmt.Sprintf("%x", id), "err", d.Err.Error()}
	if !n.hasCopies() {
		n.happened.Add(events.Scrub, events.Error, "a stored value does not decode, and no other node has a copy", details...)
		return
	}
	n.contain("a value that does not decode", func() error {
		defer n.marks.Hold([]ring.Partition{d.Partition})()
		if err := n.store.Quarantine([]ring.Partition{d.Partition}); err != nil {
			return err
		}
		value, err := n.store.RemoveUndecodable([]byte(id))
		if value != nil {
			n.log.Error("removed a stored value that does not decode", "partition", d.Partition,
				"key", fmt.Sprintf("%x", id), "bytes", len(value), "begins", fmt.Sprintf("%x", value[:min(len(value), 256)]))
		}
		if err == nil {
			n.store.ForgetSums(d.Partition)
		}
		return err
	}, func() {
		n.contained.end(id)
		n.happened.Add(events.Scrub, events.Error, "a stored value does not decode: its partition is not served from here until it has been fetched again from the other owners", details...)
	})
}

// contain calls try until it succeeds, and then done. It gives up when the node ends
// or its engine only reads: until then nobody is told anything but errors about the
// damage, and the next start meets it anew.
func (n *Node) contain(what string, try func() error, done func()) {
	for pause := containPause; ; pause = min(2*pause, maxContainPause) {
		err := try()
		if err == nil {
			done()
			return
		}
		if errors.Is(err, engine.ErrClosed) || errors.Is(err, engine.ErrReadOnly) {
			return
		}
		n.happened.Add(events.Scrub, events.Error, what+" cannot be taken out of service yet", "err", err.Error())
		if !n.pause(pause) {
			return
		}
	}
}

// pause waits, but not longer than the node lives. It reports whether it does.
func (n *Node) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.ending.Done():
		return false
	}
}

// awaitOpen returns once the engine and the store on it are there: the engine's jobs
// begin before. It is false if that never comes to be.
func (n *Node) awaitOpen() bool {
	select {
	case <-n.opened:
		return true
	case <-n.ending.Done():
		return false
	}
}

// salvage notes what the engine is about to go on without.
func (n *Node) salvage(lost []engine.Damage) error {
	for _, t := range lost {
		list := partitionsIn(t, len(n.allPartitions()))
		if _, err := n.marks.Add(list); err != nil {
			return err
		}
		n.happened.Add(events.Scrub, events.Error, "a table is missing or damaged: its partitions are not served from here until they have been fetched again from the other owners",
			"table", strconv.FormatUint(t.File, 10), "partitions", span(list), "err", t.Err.Error())
	}
	return nil
}

// withoutDamage does something that reads the engine before anything is served, again
// and again, each time without the damaged table that it met. Where nobody else has
// the data it returns what it met.
func (n *Node) withoutDamage(do func() error) error {
	for {
		err := do()
		t, ok := n.db.DamageOf(err)
		if !ok || !n.hasCopies() {
			return err
		}
		if err := n.salvage([]engine.Damage{t}); err != nil {
			return err
		}
		if err := n.db.Quarantine(t.File); err != nil && !errors.Is(err, engine.ErrNoTable) {
			return err
		}
	}
}

// partitionsIn returns the partitions, of so many, that a table may hold keys of.
func partitionsIn(t engine.Damage, partitions int) []ring.Partition {
	var list []ring.Partition
	for p := partitionAt(t.Smallest); p <= partitionAt(t.Largest) && p < partitions; p++ {
		list = append(list, ring.Partition(p))
	}
	return list
}

// partitionAt returns the partition that a storage key, or a bound of some, is in.
func partitionAt(key []byte) int {
	var b [2]byte
	copy(b[:], key)
	return int(binary.BigEndian.Uint16(b[:]))
}

// span says which partitions a run of them is.
func span(list []ring.Partition) string {
	switch n := len(list); n {
	case 0:
		return "none"
	case 1:
		return strconv.Itoa(int(list[0]))
	default:
		return fmt.Sprintf("%d-%d", list[0], list[n-1])
	}
}

// clearForeign ends the quarantine of partitions that this node owns for no tenant, and is
// not about to: of those there is nothing to fetch. It is called at each change of the
// quarantine, and of the ring, since that takes partitions away.
func (n *Node) clearForeign() {
	n.clearing.Lock()
	defer n.clearing.Unlock()
	// In this order: by an older ring a partition that was damaged just now might be nobody's
	// here that this node has begun to gain since.
	list := n.store.Quarantined()
	list = foreignOf(n.gossip.Snapshot(), list)
	for _, p := range list {
		n.marks.Fetching(p)
	}
	if err := n.store.EndQuarantine(list); err != nil {
		n.log.Warn("partitions that are other nodes' are still marked as damaged", "partitions", len(list), "err", err)
	}
}

// foreignOf picks the partitions that the node owns for no tenant. What the open change
// touches is left alone until that is over: the node may be about to own it, and what it has
// fetched of it may be what was damaged. A node that is not ready may be fetching its log
// again, and have an old ring, by which it owned little.
func foreignOf(snap *schema.Snapshot, list []ring.Partition) (foreign []ring.Partition) {
	if snap.Layout == nil || !snap.Ready {
		return nil
	}
	most := 0
	for _, t := range snap.Tenants() {
		most = max(most, t.RF)
	}
	for _, p := range list {
		if !snap.Change.Touches(p) && !snap.Layout.IsOwner(snap.Self, p, most) {
			foreign = append(foreign, p)
		}
	}
	return foreign
}

// quarantineSeries count what is damaged.
func (n *Node) quarantineSeries() ([]series, func(emit)) {
	partitions := gauge("pairdb_quarantined_partitions", "Partitions that are not served from this node, since its copy is damaged and being fetched again.")
	tables := counter("pairdb_engine_quarantined_tables_total", "Tables taken out of the engine because they are damaged.")
	return []series{partitions, tables}, func(e emit) {
		e(partitions, float64(n.marks.Len()))
		e(tables, float64(n.db.Metrics().Quarantined))
	}
}
