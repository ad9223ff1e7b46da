package meta

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
)

// DamageError is what a Store's Load returns after all that it could read, if it
// could not read everything.
type DamageError struct {
	// Keys could not be read; "" stands for keys of which not even the names could.
	Keys []string
	Err  error
}

// Error says what is damaged.
func (e *DamageError) Error() string {
	return fmt.Sprintf("metadata cannot be read (%s): %v", strings.Join(e.Keys, ", "), e.Err)
}

// Unwrap gives the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// LostError says that a node's identity, or what only it can know, is gone, while
// it has data or is known to have had a life. It matches ErrCorrupt.
type LostError struct {
	// What is missing or damaged.
	What string
	// Node is whose metadata it was, nil if nothing tells.
	Node *Witness
	// Err is the cause, may be nil.
	Err error
}

// Error says what is damaged, whose it was, that the data is left, and what to do.
func (e *LostError) Error() string {
	var b strings.Builder
	b.WriteString(e.What)
	if e.Err != nil {
		fmt.Fprintf(&b, " (%v)", e.Err)
	}
	if w := e.Node; w != nil {
		fmt.Fprintf(&b, "; it was node %s, named %s, of cluster %q", w.Node, w.Name, w.ClusterName)
		if !w.Cluster.IsZero() {
			fmt.Fprintf(&b, " (%s)", w.Cluster)
		}
	}
	b.WriteString("; its promises to the cluster are lost with it, so its data must not be served; the data was left as it is. " +
		"Bring this data directory back as it was last, from the disk it was on; an older copy has forgotten what was promised since. " +
		"If it is lost the node has to be replaced: start a new one with an empty data directory and a name of its own, and say `pairdb node replace`; the cluster goes on meanwhile")
	return b.String()
}

// Unwrap gives the cause.
func (e *LostError) Unwrap() error { return e.Err }

// Is matches ErrCorrupt.
func (e *LostError) Is(target error) bool { return target == ErrCorrupt }

// damage is what load found missing or broken, by key.
type damage map[string]error

func (d damage) note(key string, err error) {
	if _, ok := d[key]; !ok {
		d[key] = err
	}
}

// String names what is damaged, sorted.
func (d damage) String() string {
	var keys []string
	for k, err := range d { //seams:ordered sorted below
		keys = append(keys, fmt.Sprintf("%s: %v", k, err))
	}
	slices.Sort(keys)
	const most = 4
	if more := len(keys) - most; more > 0 {
		keys = append(keys[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(keys, "; ")
}

// broken says that an error is about the bytes of a record, not about a version of
// the program that wrote it.
func broken(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ring.ErrCorrupt) || errors.Is(err, ring.ErrInvalidEntry) ||
		errors.Is(err, crdt.ErrCorrupt) || errors.Is(err, crdt.ErrSignature)
}

// examine holds what was loaded against the witness and decides what this node may
// still do. Nothing was written yet.
func (c *Core) examine(d damage, hasData bool) error {
	w, err := c.readWitness()
	if err != nil {
		return err
	}
	if err := d[""]; err != nil {
		return &LostError{What: "the metadata store is damaged", Node: w, Err: err}
	}
	if c.key == nil {
		if err := d[keyIdentity]; err != nil || w != nil || len(d) > 0 || hasData || c.bound() {
			if err == nil && len(d) > 0 {
				err = errors.New(d.String())
			}
			return &LostError{What: "the metadata has no identity that can be read", Node: w, Err: err}
		}
		return nil
	}
	if w == nil {
		// Of a life before there were witnesses, or the witness itself is gone:
		// nothing tells what else is missing.
		if len(d) > 0 {
			return fmt.Errorf("%w: %s", ErrCorrupt, d)
		}
		c.witness.Log = c.tail.last
		c.witness.Vote, c.witness.Founder = c.reg, c.founder
		c.witness.Vote.AcceptedBytes = nil
		c.witness.Version, c.witness.Cluster = c.state.Version(), c.cluster()
		return nil
	}
	if w.Node != c.self {
		return &LostError{What: fmt.Sprintf("the metadata is that of node %s and not of the one that the directory is of", c.self), Node: w}
	}
	c.witness = *w
	c.inc = max(c.inc, w.Incarnation)
	c.abstain = w.Abstain
	if !w.Founder.IsZero() && c.founder != w.Founder {
		d.note(keyPledge, fmt.Errorf("%w: it is not the one that was made", ErrCorrupt))
		c.founder = w.Founder
		c.mend = append(c.mend, Record{keyPledge, withFormat(w.Founder[:]...)})
	}
	if w.Version == 0 && !w.Cluster.IsZero() && c.joining != w.Cluster {
		d.note(keyJoining, fmt.Errorf("%w: it is not the one that was made", ErrCorrupt))
		c.joining = w.Cluster
	}
	if d[keyJoining] != nil {
		c.mend = append(c.mend, joiningRecord(c.joining))
	}
	if d[keyReport] != nil {
		c.mend = append(c.mend, Record{keyReport, nil}) // what is synced and clean is found out again
	}
	if d[keyFormat] != nil {
		c.mend = append(c.mend, Record{keyFormat, withFormat()})
	}
	c.examineLog(d, w)
	c.examineVote(d, w)
	for key := range d { //seams:ordered deletions of different keys, in one write
		if strings.HasPrefix(key, prefixNode) {
			c.mend = append(c.mend, Record{key, nil}) // gossip brings it again
		}
	}
	if len(d) > 0 {
		c.log.Error("metadata is damaged or older than it was", "damage", d.String(),
			"fetched_again_up_to", uint64(c.floor), "votes_again_after_entry", uint64(c.abstain))
	}
	return nil
}

// readWitness gives the witness, nil if there is none or it is damaged itself: it is
// written anew then, since the store is what counts and the witness only tells that
// it lacks nothing.
func (c *Core) readWitness() (*Witness, error) {
	if c.witnesses == nil {
		return nil, nil
	}
	b, err := c.witnesses.Read()
	if err != nil {
		return nil, fmt.Errorf("read witness: %w", err)
	}
	if len(b) == 0 {
		return nil, nil
	}
	w, err := DecodeWitness(b)
	switch {
	case errors.Is(err, ErrCorrupt):
		c.log.Warn("the witness of the metadata is damaged; it is written anew", "error", err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	return w, nil
}

// examineLog drops the log if it lacks an entry that was durable once, or holds
// another: it is fetched again from peers, who have the same entries.
func (c *Core) examineLog(d damage, w *Witness) {
	// A witness that is one write behind does not have the newest entries, or the
	// snapshot of a peer that this node has put in their place.
	sum, known := c.tail.hashAt(w.Version)
	if c.state.Version() >= w.Version && (!known || sum == w.Log) {
		c.witness.Version, c.witness.Log, c.witness.Cluster = c.state.Version(), c.tail.last, c.cluster()
		if d.hasLog() {
			// Behind what was ever spoken of.
			c.mend = append(c.mend, c.dropDamaged(d)...)
		}
		return
	}
	d.note(prefixLog, fmt.Errorf("%w: entries up to %d, or another log; %d were durable once", ErrCorrupt, c.state.Version(), w.Version))
	c.stale.add(c.tail.base.version()+1, c.state.Version())
	for v := c.stale.from; v <= c.stale.to; v++ {
		c.mend = append(c.mend, Record{logKey(v), nil})
	}
	c.mend = append(append(c.mend, c.dropDamaged(d)...), c.dropBase()...)
	c.floor, c.floorLog = w.Version, w.Log
	c.state, c.tail, c.stale = &ring.State{}, tail{trim: c.tail.trim}, span{}
}

func (d damage) hasLog() bool {
	for key := range d { //seams:ordered any
		if strings.HasPrefix(key, prefixLog) || strings.HasPrefix(key, keyBase) {
			return true
		}
	}
	return false
}

// dropDamaged deletes the log entries that are damaged, and a damaged snapshot.
func (c *Core) dropDamaged(d damage) (out []Record) {
	base := false
	for key := range d { //seams:ordered deletions of different keys, in one write
		base = base || strings.HasPrefix(key, keyBase)
		if strings.HasPrefix(key, keyBase) || strings.HasPrefix(key, prefixLog) && key != prefixLog {
			out = append(out, Record{key, nil})
		}
	}
	if base {
		out = append(out, c.dropBase()...)
	}
	return out
}

// examineVote finds out whether the register is the one that was durable last. If it
// is not, this node has forgotten a promise, or a vote, of a slot up to the one after
// the last entry it had: it votes in none of those any more.
func (c *Core) examineVote(d damage, w *Witness) {
	known := c.reg
	known.AcceptedBytes = nil
	if d[keyVote] == nil && known.Compare(w.Vote) >= 0 {
		c.witness.Vote = known
		return
	}
	d.note(keyVote, fmt.Errorf("%w: it is older than the last one", ErrCorrupt))
	c.abstain = max(c.abstain, w.Version+1, w.Vote.Slot)
	c.reg, c.round = ring.Register{}, max(c.round, w.Vote.Promised.Round)
	c.witness.Vote, c.witness.Abstain = ring.Register{}, c.abstain
	c.mend = append(c.mend, Record{keyVote, nil})
}

// Recovering says that this node lacks log entries that it had once, and up to which
// version. Until it has fetched them it neither serves nor votes nor founds.
func (c *Core) Recovering() (upTo ring.Version, recovering bool) {
	return c.floor, c.state.Version() < c.floor
}

// recovered holds a log that was fetched again against what is known of the one
// that was lost.
func (c *Core) recovered(state *ring.State, learned [][]byte) error {
	if c.floor == 0 || c.state.Version() >= c.floor || state.Version() < c.floor {
		return nil
	}
	sum, v := c.tail.base.log, c.tail.base.version()
	for _, log := range [][][]byte{c.tail.entries, learned} {
		for _, e := range log {
			if v++; v <= c.floor {
				sum = logHash(sum, e)
			}
		}
	}
	if sum != c.floorLog {
		return c.forked()
	}
	return nil
}

// forked ends a node whose log was another one than that of the members.
func (c *Core) forked() error {
	c.fail(fmt.Errorf("%w: the log that peers have is not the one that this node had up to entry %d", ErrFork, c.floor))
	return c.fatal
}
