package gossip

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Gossip is a node's part in the metadata of its cluster. It is safe for
// concurrent use. Make it with New, run it with Start, end it with Close.
type Gossip struct {
	opts  Options
	log   *slog.Logger
	store *badgerStore
	self  ring.NodeID
	inc   uint64
	actor uint64

	// snap and face are replaced whole, with mu held, and read without it.
	snap atomic.Pointer[schema.Snapshot]
	face atomic.Pointer[face]
	// changed is closed and replaced, with mu held, when snap was.
	changed atomic.Pointer[chan struct{}]

	mu struct {
		sync.Mutex
		core *meta.Core
		// spoken is the digest that was gossiped last.
		spoken [16]byte
		// calls are the questions under way that need no second of their kind.
		calls map[call]struct{}
		// warned is when a peer's content was last complained about.
		warned time.Time
		// round is the last one of Refresh, nil before the first.
		round   *round
		started bool
		closed  bool
		isReady bool
		// acking says that acknowledge runs.
		acking bool
	}
	box   mailbox
	swim  atomic.Pointer[swim]
	ready chan struct{}
	fatal chan error
	// proposing has room for one: a node runs one proposal at a time.
	proposing chan struct{}
	settled   chan struct{} // room for one: the proposal has a result
	wake      chan struct{} // room for one: the loop should look again
	slots     chan struct{} // bounds the requests under way
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup // goroutines; Add only with mu held and !closed
	done      chan struct{}  // closed when Close has finished
}

// call names a question to a peer.
type call struct {
	to     ring.NodeID
	method string
}

// maxCalls bounds the metadata requests under way.
const maxCalls = 64

// face is what memberlist's goroutines may see of this node.
type face struct {
	card   card
	digest [16]byte
	// cluster is this node's, or the one that it joins; zero for none.
	cluster ring.ClusterID
	ring    *ring.State
}

// New opens the metadata under o.Dir, loads or makes the node's identity and
// begins a new incarnation, durably. It opens no socket. A node without a
// cluster that is not told how to get one is refused with ErrNoBootstrap, one
// whose identity or store is lost or damaged with LostError, and one whose log is, when
// nobody is known to fetch it from, with ErrCorrupt. Other errors: ErrOptions, ErrLocked, ErrOtherCluster, ErrNewerFormat, ErrCorrupt.
func New(o Options) (*Gossip, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	store, err := openBadger(filepath.Join(o.Dir, "meta"), o.Logger)
	switch {
	case err == nil:
	case damagedStore(err):
		return nil, LostMetadata(o.Dir, "the metadata store in its folder meta cannot be opened", err)
	default:
		return nil, err
	}
	core, err := meta.Open(meta.Options{
		Store: store, Witness: witnessFile{o.Dir}, HasData: o.HasData, Rand: rand.Reader, ClusterName: o.ClusterName, Info: o.info(),
		Partitions: o.Partitions, Logger: o.Logger, Trim: o.trim,
	})
	if err == nil {
		if _, recovering := core.Recovering(); recovering {
			err = o.validateRecovery(core)
		} else if _, joining := core.Joining(); joining {
			err = o.validateJoining(core)
		} else if !core.Founded() {
			err = o.validateFresh()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: %w", o.Dir, err), store.close())
	}
	store.running = true
	g := &Gossip{
		opts: o, log: o.Logger, store: store,
		ready: make(chan struct{}), fatal: make(chan error, 1), done: make(chan struct{}),
		proposing: make(chan struct{}, 1), settled: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		slots: make(chan struct{}, maxCalls),
	}
	g.box.init(g.wake)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.self, g.inc, g.actor = core.Identity()
	g.mu.core, g.mu.calls = core, map[call]struct{}{}
	g.changed.Store(new(make(chan struct{})))
	g.mu.Lock()
	g.settle()
	g.mu.Unlock()
	return g, nil
}

// Identity gives the node's id, its incarnation and the actor that mints its
// dots in this incarnation.
func (g *Gossip) Identity() (id ring.NodeID, incarnation, actor uint64) {
	return g.self, g.inc, g.actor
}

// Snapshot gives what this node knows, never nil. It takes no lock.
func (g *Gossip) Snapshot() *schema.Snapshot { return g.snap.Load() }

// Changed gives a channel that is closed at the next new snapshot. Get it before
// the Snapshot it is to follow. It takes no lock: metadata is written with mu held,
// and whoever follows it must not hang with the disk.
func (g *Gossip) Changed() <-chan struct{} { return *g.changed.Load() }

// SetWithdrawn tells the members whether this node withdraws: it answers, but
// cannot do its part, so that they ask others first and send clients there. The
// members know within a few gossip intervals. It changes nothing about who owns
// what.
func (g *Gossip) SetWithdrawn(withdrawn bool) {
	g.say(func(c *meta.Core) { c.SetWithdrawn(g.self, withdrawn) })
}

// SetDrained tells the members likewise whether this node has sent its clients away:
// it does its part, and others are asked first.
func (g *Gossip) SetDrained(drained bool) {
	g.say(func(c *meta.Core) { c.SetDrained(g.self, drained) })
}

func (g *Gossip) say(what func(*meta.Core)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return
	}
	what(g.mu.core)
	g.settle()
}

// Ready gives a channel that is closed once the node may serve: the cluster is
// founded and all its nodes know. A node that was ready once is so at once.
func (g *Gossip) Ready() <-chan struct{} { return g.ready }

// Fatal gives a channel with the reason for which this node cannot go on, at
// most one: ErrPlaceTaken, ErrRetired, ErrJoinNobody, ErrOtherCluster, ErrDuplicateName,
// ErrIdentity, a failed store. The process should say it and end.
func (g *Gossip) Fatal() <-chan error { return g.fatal }

// Start opens the gossip socket, founds or finds the cluster as the options say,
// and returns at once; Ready and Fatal tell how it goes. Peers may call
// HandleMeta before and after. ctx bounds Start only.
func (g *Gossip) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.mu.closed:
		return ErrClosed
	case g.mu.started:
		return fmt.Errorf("%w: started twice", ErrOptions)
	}
	g.mu.started = true
	s, err := startSwim(&g.opts, g.self, g.inc, g)
	if err != nil {
		return err
	}
	g.swim.Store(s)
	g.opts.Addresses.Gossip = s.address()
	core := g.mu.core
	if err := core.SetInfo(g.opts.info()); err != nil {
		return err
	}
	switch {
	case recovering(core):
		g.log.Warn("this node's metadata is damaged: it does not serve until it has fetched it from a member again", "cluster", g.opts.ClusterName)
	case core.Founded():
		g.log.Info("this node returns to its cluster", "cluster", g.opts.ClusterName, "version", uint64(core.Version()))
	case joining(core):
		g.log.Info("this node goes on waiting for its cluster to take it in", "cluster", g.opts.ClusterName)
	case g.opts.Bootstrap:
		if err := core.Bootstrap(time.Now().UnixMilli()); err != nil {
			return err
		}
	case g.opts.BootstrapExpect > 0:
		core.Expect(g.opts.BootstrapExpect)
	}
	g.settle()
	g.goLocked(g.run)
	g.goLocked(g.keepJoined)
	g.goLocked(g.steer)
	return nil
}

// GossipAddress is where others reach this node's gossip; empty before Start.
func (g *Gossip) GossipAddress() string {
	if s := g.swim.Load(); s != nil {
		return s.address()
	}
	return ""
}

// goLocked runs f until Close; the caller holds mu.
func (g *Gossip) goLocked(f func()) {
	if !g.mu.closed {
		g.wg.Go(f)
	}
}

// Leave says goodbye to the members, at most until ctx ends or for 3 s, so that
// they need not find out by themselves. Close comes next.
func (g *Gossip) Leave(ctx context.Context) error {
	s := g.swim.Load()
	if s == nil {
		return nil
	}
	timeout := 3 * time.Second
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(d), time.Millisecond))
	}
	return s.leave(g.box.alive(), timeout)
}

// Close stops everything and returns after the last goroutine ended. It says no
// goodbye: to the others the node fails. It may be called more than once.
func (g *Gossip) Close() error {
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		<-g.done
		return nil
	}
	g.mu.closed = true
	g.mu.Unlock()
	defer close(g.done)
	g.cancel()
	var errs []error
	if s := g.swim.Load(); s != nil {
		errs = append(errs, s.close())
	}
	g.wg.Wait()
	errs = append(errs, g.store.close())
	return errors.Join(errs...)
}

// HandleMeta serves a request of a peer's Meta service. clusterID is 16 bytes,
// or empty while the peer has no cluster; sender is the peer's id.
func (g *Gossip) HandleMeta(ctx context.Context, method string, clusterID, sender, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(sender) != len(ring.NodeID{}) || len(clusterID) != 0 && len(clusterID) != len(ring.ClusterID{}) {
		return nil, fmt.Errorf("%s request with a sender of %d and a cluster of %d bytes", method, len(sender), len(clusterID))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return nil, ErrClosed
	}
	if mine := g.mu.core.ClusterID(); !mine.IsZero() && len(clusterID) != 0 {
		if theirs := ring.ClusterID(clusterID); theirs != mine && !theirs.IsZero() {
			return nil, fmt.Errorf("peer %w: its id is %s, this one's %s", ErrOtherCluster, theirs, mine)
		}
	}
	reply, err := g.mu.core.HandleRequest(ring.NodeID(sender), method, payload)
	g.settle()
	return reply, err
}

// LogStatus says how much of the log a node has.
type LogStatus = meta.LogStatus

// Log says how much of the cluster's log this node has.
func (g *Gossip) Log() LogStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.core.Log()
}

// CatchUp pulls log entries from a peer, or the snapshot that stands for them, until this
// node has atLeast durably.
func (g *Gossip) CatchUp(ctx context.Context, from ring.NodeID, atLeast ring.Version) error {
	for {
		before, had := g.Snapshot().Version, g.fetched()
		if before >= atLeast {
			return nil
		}
		if err := g.exchange(ctx, from); err != nil {
			return fmt.Errorf("catch up with %s to version %d: %w", from.Short(), atLeast, err)
		}
		if after := g.Snapshot().Version; after == before && g.fetched() == had {
			return fmt.Errorf("catch up with %s to version %d: %w: it has nothing beyond %d", from.Short(), atLeast, ErrUnavailable, after)
		}
	}
}

// fetched is how much of a snapshot has come that is not whole yet.
func (g *Gossip) fetched() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.core.Fetched()
}

// recovering says that a core lacks log entries that it had once.
func recovering(core *meta.Core) bool {
	_, yes := core.Recovering()
	return yes
}

// joining says that a core waits to be a member of a cluster.
func joining(core *meta.Core) bool {
	_, yes := core.Joining()
	return yes
}

// Recovering says that this node's metadata is damaged and being fetched again, and
// up to which version. It is not ready meanwhile.
func (g *Gossip) Recovering() (upTo ring.Version, yes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.core.Recovering()
}

// damagedStore says that a store could not be opened because of what it holds, and
// not because of the disk, a right or another process.
func damagedStore(err error) bool {
	for _, other := range []error{
		ErrLocked, fs.ErrPermission, syscall.ENOSPC, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOTDIR,
	} {
		if errors.Is(err, other) || strings.Contains(err.Error(), other.Error()) {
			return false
		}
	}
	return true
}

// validateRecovery refuses a node whose log is lost and that knows nobody who has it.
func (o *Options) validateRecovery(core *meta.Core) error {
	upTo, _ := core.Recovering()
	if len(o.Join) > 0 || len(core.Snapshot().Members) > 1 {
		return nil
	}
	return fmt.Errorf("%w: the log lacks entries up to %d, which are fetched from other members, and none is known; the data was left as it is: "+
		"name other nodes of the cluster with --join; if this was its only node, bring the data directory back as it was last", ErrCorrupt, upTo)
}
