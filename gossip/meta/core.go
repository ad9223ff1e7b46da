package meta

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Info is what a node says about itself beyond its identity.
type Info struct {
	Name, Zone string
	Capacity   uint32
	Addresses  schema.Addresses
	Software   string
}

// Options are the seams and facts a Core is opened with.
type Options struct {
	Store Store
	// Witness, if set, tells a store that has forgotten from one that has not.
	Witness WitnessStore
	// HasData says that the node has data: without an identity it is not a new one.
	HasData bool
	// Rand gives unpredictable bytes: crypto/rand in a process.
	Rand io.Reader
	// ClusterName must be the one the store was made with, if it has a cluster.
	ClusterName string
	Info        Info
	// Partitions is used by a founder.
	Partitions int
	Logger     *slog.Logger
	// Trim bounds the log. Zero is the default.
	Trim Trim
}

// Send is a request to a peer. The owner calls HandleReply with it and the
// answer, or the error, unless the core is closed before.
type Send struct {
	To      ring.NodeID
	Method  string
	Payload []byte

	pull   bool        // a question without content
	ballot ring.Ballot // of Prepare and Accept
	round  int         // of an exchange
	last   uint64      // hash of what the peer had in the round before
}

// IsPull says that it only asks; a second one to the same peer, while the first
// is under way, would bring nothing.
func (s Send) IsPull() bool { return s.pull }

// Output is what the owner has to carry out, in order.
type Output struct {
	Send []Send
	// Changed says that Snapshot gives something new.
	Changed bool
	// Spread says that this node has news for its peers.
	Spread bool
}

// Core is the metadata of one node. See the package comment.
type Core struct {
	store     Store
	witnesses WitnessStore
	// witness is what was witnessed last, lastWitness its bytes on the disk.
	witness     Witness
	lastWitness []byte
	rand        io.Reader
	log         *slog.Logger
	name        string
	info        Info
	parts       int
	// maxTenants is ring.MaxTenants; only tests lower it, since a log that long
	// takes seconds to load.
	maxTenants int
	key        ed25519.PrivateKey
	self       ring.NodeID
	inc        uint64
	actor      uint64
	seq        uint64
	state      *ring.State
	// tail is the log as far as it is kept.
	//
	// Invariant: it ends with state.Version(), and all of it is durable.
	tail tail
	// stale are entries that are to go from the store.
	stale span
	// pieces is how many pieces of a snapshot the store may hold.
	pieces int
	// fetch is a snapshot that is being put together, nil for none.
	fetch *assembly
	// reg is this node's durable vote.
	reg ring.Register
	// votes are the registers of others in the next slot, as far as known.
	votes map[ring.NodeID]ring.Register
	nodes crdt.Nodes
	live  map[ring.NodeID]schema.Liveness
	// withdrawn and drained are the nodes that say so of themselves.
	withdrawn, drained map[ring.NodeID]struct{}
	// founder is whom this node has durably endorsed; zero: nobody.
	founder ring.NodeID
	// joining is the cluster that this node has durably bound itself to without
	// having founded it; zero: none.
	joining ring.ClusterID
	// ready: all founders have acknowledged, or, at a node that joined, the log
	// makes it a member; durable.
	ready bool
	// retired: a member has said that this node is none any more; durable.
	retired bool
	// acked, synced and clean are this node's ring.Report. The last two are durable
	// before they are said; acked is the whole log after a start.
	acked, synced, clean ring.Version
	// floor is the log version that this node had durably and must have again
	// before it takes part, floorLog the hash of that log; 0: it lacks nothing.
	floor    ring.Version
	floorLog uint64
	// abstain is the last slot in which this node does not vote.
	abstain ring.Version
	// mend is written with the start: it replaces what is damaged.
	mend []Record
	// nowMs is the wall clock of the last tick, and gone when by it a node went.
	nowMs int64
	gone  map[ring.NodeID]int64
	// round is the highest ballot round used or seen.
	round uint64
	// ticks counts; promised is the tick of this voter's last promise.
	ticks    uint64
	promised uint64
	founding *founding
	proposal *proposal
	// forsaken are those whom a recovery gives up that this node has accepted and of
	// which it does not know yet whether it is chosen.
	forsaken []ring.NodeID
	// offered is the version of the peer whose log is being learned, 0 for none.
	offered ring.Version
	// twin is the node that was last complained about for having a joiner's name.
	twin ring.NodeID
	// keptOut is what a member said last of why this node cannot wait to join.
	keptOut string
	// asked counts the members that this node has asked whether it is one.
	asked   int
	out     Output
	fatal   error
	snap    *schema.Snapshot
	snapLog ring.Version // the version snap's tenants are of
}

// Open loads the metadata, or makes a new identity if there is none, counts the
// incarnation up and draws the actor, durably, before it returns. Where the witness
// tells that only log entries or votes are missing it opens all the same, see
// Recovering. Errors: ErrNewerFormat, ErrCorrupt and LostError, ErrOtherCluster,
// RetiredError.
func Open(o Options) (*Core, error) {
	if !ring.ValidName(o.ClusterName) {
		return nil, fmt.Errorf("open metadata: cluster name %q: want 1..63 letters, digits, '.', '_' or '-'", o.ClusterName)
	}
	c := &Core{
		store: o.Store, witnesses: o.Witness, rand: o.Rand, log: o.Logger, name: o.ClusterName, info: o.Info, parts: o.Partitions, maxTenants: ring.MaxTenants,
		state: &ring.State{}, votes: map[ring.NodeID]ring.Register{}, live: map[ring.NodeID]schema.Liveness{},
		gone: map[ring.NodeID]int64{},
	}
	c.tail.trim = o.Trim
	c.tail.trim.ensureDefaults()
	if err := c.load(o.HasData); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	if c.retired || c.state.IsRetired(c.self) {
		return nil, fmt.Errorf("open metadata: %w", c.retiredError())
	}
	if err := c.boot(); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	c.live[c.self], c.withdrawn, c.drained = schema.Alive, map[ring.NodeID]struct{}{}, map[ring.NodeID]struct{}{}
	c.acked = c.state.Version() // nothing older is under way in this life
	if err := c.refresh(); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	c.maybeReady()
	c.forsake(c.reg)
	c.trim()
	c.out.Changed = true
	return c, c.fatal
}

func (c *Core) setKey(key ed25519.PrivateKey) {
	c.key = key
	c.self = ring.NodeIDOf(key.Public().(ed25519.PublicKey))
}

// boot makes this start one of its own: incarnation and actor, and the identity
// if there is none, in one write.
func (c *Core) boot() error {
	records := c.mend
	c.mend = nil
	if c.key == nil {
		seed := make([]byte, ed25519.SeedSize)
		if _, err := io.ReadFull(c.rand, seed); err != nil {
			return fmt.Errorf("draw node key: %w", err)
		}
		c.setKey(ed25519.NewKeyFromSeed(seed))
		records = append(records, Record{keyFormat, withFormat()}, Record{keyIdentity, withFormat(seed...)})
	}
	for c.actor == 0 {
		var b [8]byte
		if _, err := io.ReadFull(c.rand, b[:]); err != nil {
			return fmt.Errorf("draw actor: %w", err)
		}
		c.actor = binary.BigEndian.Uint64(b[:])
	}
	c.inc++
	records = append(records,
		Record{keyBoot, u64Bytes(u64Bytes(withFormat(), c.inc), c.actor)},
		Record{keyCluster, withFormat([]byte(c.name)...)})
	return c.write(records)
}

// write makes records durable. After a failure nobody knows what is durable, so
// the core does nothing any more.
func (c *Core) write(records []Record) error {
	if c.fatal != nil {
		return c.fatal
	}
	err := c.store.Write(records)
	if errors.Is(err, ErrNoRoom) {
		return err // before anything was touched
	}
	if err == nil {
		err = c.witnessed(records)
	}
	if err != nil {
		c.fail(fmt.Errorf("%w: %w", ErrFailed, err))
		return c.fatal
	}
	return nil
}

func (c *Core) fail(err error) {
	if c.fatal == nil {
		c.fatal = err
	}
}

// Fatal is the reason for which this node cannot go on, or nil: ErrFailed,
// PlaceTakenError, RetiredError, ErrIdentity, ErrFork.
func (c *Core) Fatal() error { return c.fatal }

// Take gives what is to be carried out and forgets it.
func (c *Core) Take() Output {
	out := c.out
	c.out = Output{}
	if c.fatal != nil {
		out.Send, out.Spread = nil, false
	}
	return out
}

// Identity gives the node's id, its incarnation and its actor.
func (c *Core) Identity() (id ring.NodeID, incarnation, actor uint64) { return c.self, c.inc, c.actor }

// ClusterID is zero before founding. It is known while the log is fetched again.
func (c *Core) ClusterID() ring.ClusterID {
	if id := c.state.ClusterID(); !id.IsZero() || c.floor == 0 {
		return id
	}
	return c.witness.Cluster
}

// Version is the last log entry learned and durable.
func (c *Core) Version() ring.Version { return c.state.Version() }

// Founded says that the node belongs to a cluster.
func (c *Core) Founded() bool { return c.state.Version() > 0 }

// Ready says that the node may serve.
func (c *Core) Ready() bool { return c.ready && c.state.Version() >= c.floor }

// Founder is whom this node has endorsed, zero if nobody.
func (c *Core) Founder() ring.NodeID { return c.founder }

// IsMember says whether id is a member: it has partitions, is to have some, or had, and
// was not given up.
func (c *Core) IsMember(id ring.NodeID) bool { return isMember(c.state, id) }

func isMember(s *ring.State, id ring.NodeID) bool {
	_, ok := s.Member(id)
	return ok && !s.IsRetired(id)
}

// SetInfo changes what the node says about itself.
func (c *Core) SetInfo(info Info) error {
	c.info = info
	return c.refresh()
}

// SetLiveness records what the failure detector says about a node.
func (c *Core) SetLiveness(id ring.NodeID, l schema.Liveness) {
	if id == c.self || c.live[id] == l {
		return
	}
	if len(c.live) >= 2*crdt.MaxNodes && c.live[id] == schema.LivenessUnknown {
		return
	}
	c.live[id] = l
	if l == schema.Dead || l == schema.Left {
		c.gone[id] = c.nowMs
	} else {
		delete(c.gone, id)
	}
	c.out.Changed = true
	if l != schema.Alive && (!c.Founded() && c.floor == 0 || c.isJoiner(id)) {
		c.nodes.Remove(id) // a node that comes back introduces itself anew
	}
}

// SetWithdrawn records whether a node says that it cannot do its part, this node
// included.
func (c *Core) SetWithdrawn(id ring.NodeID, withdrawn bool) { c.say(c.withdrawn, id, withdrawn) }

// SetDrained records whether a node says that it has sent its clients away, this node
// included.
func (c *Core) SetDrained(id ring.NodeID, drained bool) { c.say(c.drained, id, drained) }

func (c *Core) say(who map[ring.NodeID]struct{}, id ring.NodeID, yes bool) {
	if _, was := who[id]; was == yes || yes && len(who) >= 2*crdt.MaxNodes {
		return
	}
	if yes {
		who[id] = struct{}{}
	} else {
		delete(who, id)
	}
	c.out.Changed = true
}

func infoOf(e *crdt.NodeEntry) Info {
	return Info{Name: e.Name, Zone: e.Zone, Capacity: e.Capacity, Addresses: e.Addresses, Software: e.Software}
}

// header is this node's own.
func (c *Core) header() header { return header{c.name, c.ClusterID()} }

// checkHeader refuses messages of other clusters.
func (c *Core) checkHeader(h header) error {
	mine := c.ClusterID()
	switch {
	case h.name != c.name:
		return fmt.Errorf("peer %w: it is called %q, this one %q", ErrOtherCluster, h.name, c.name)
	case !mine.IsZero() && !h.cluster.IsZero() && mine != h.cluster:
		return fmt.Errorf("peer %w: its id is %s, this one's %s", ErrOtherCluster, h.cluster, mine)
	}
	return nil
}
