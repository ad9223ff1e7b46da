package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/pairdb/pairdb/gossip/meta"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Pace of the loop.
const (
	tickBusy   = 25 * time.Millisecond
	tickIdle   = time.Second
	reportEach = 3 * time.Second
)

// run is the loop that drives the core: sightings, digests and ticks.
func (g *Gossip) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var r reporter
	ticked := time.Time{}
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.wake:
		case <-timer.C:
		}
		now := time.Now()
		due := now.Sub(ticked) >= tickBusy
		if due {
			ticked = now
		}
		if g.step(now, due) {
			timer.Reset(tickBusy)
		} else {
			timer.Reset(tickIdle)
		}
		g.report(&r, now)
		if g.store.collectable() {
			g.mu.Lock()
			g.goLocked(g.store.collect)
			g.mu.Unlock()
		}
	}
}

// step looks at the mailbox and ticks; it says whether to hurry with the next.
func (g *Gossip) step(now time.Time, tick bool) bool {
	seen, differ := g.box.take(g.face.Load().digest)
	g.mu.Lock()
	defer g.mu.Unlock()
	core := g.mu.core
	for _, s := range seen {
		core.SetWithdrawn(s.id, s.alive && s.withdrawn)
		core.SetDrained(s.id, s.alive && s.drained)
		switch {
		case s.alive:
			core.SetLiveness(s.id, schema.Alive)
			core.Exchange(s.id)
		case s.leaving:
			core.SetLiveness(s.id, schema.Left)
		default:
			core.SetLiveness(s.id, schema.Dead)
		}
	}
	for _, id := range differ {
		core.Exchange(id)
	}
	if tick {
		if err := core.Tick(now.UnixMilli()); err != nil && core.Fatal() == nil {
			g.fail(err)
		}
	}
	g.settle()
	return core.Busy()
}

// fail reports the reason to end; only the first counts.
func (g *Gossip) fail(err error) {
	select {
	case g.fatal <- err:
	default:
	}
}

// settle carries out what the core asks for. The caller holds mu.
func (g *Gossip) settle() {
	core := g.mu.core
	if g.opts.Barrier == nil {
		g.acked(core.Version())
	}
	out := core.Take()
	if err := core.Fatal(); err != nil {
		g.fail(err)
	}
	if out.Spread && g.mu.started {
		g.spread(core)
		more := core.Take()
		out.Send = append(out.Send, more.Send...)
		out.Changed = out.Changed || more.Changed
	}
	if out.Changed || g.snap.Load() == nil {
		g.publish(core)
	}
	for _, s := range out.Send {
		g.dispatch(s)
	}
	if core.Proposal() != nil {
		poke(g.settled)
	}
}

// spread pushes news to all peers that answer, if they are few, else to some:
// they and the digests carry it on.
func (g *Gossip) spread(core *meta.Core) {
	const few, some = 8, 3
	peers := g.box.alive()
	if len(peers) > few {
		rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
		peers = peers[:some]
	}
	for _, p := range peers {
		core.Push(p.id)
	}
}

// publish shows a new snapshot and what follows from it. The caller holds mu.
func (g *Gossip) publish(core *meta.Core) {
	snap := core.Snapshot()
	g.snap.Store(snap)
	next := make(chan struct{})
	close(*g.changed.Swap(&next))
	old := g.face.Load()
	f := &face{digest: core.Digest(), ring: snap.Ring, cluster: core.ClusterID()}
	if id, joining := core.Joining(); joining {
		f.cluster = id
	}
	f.card = card{id: g.self, cluster: snap.ClusterID, version: snap.Version, peerPort: portOf(g.opts.Addresses.Peer)}
	if m, ok := snap.Member(g.self); ok {
		f.card.withdrawn, f.card.drained = m.Withdrawn, m.Drained
	}
	g.face.Store(f)
	s := g.swim.Load()
	if s != nil && f.digest != g.mu.spoken {
		g.mu.spoken = f.digest
		s.announce(f.digest)
	}
	if s != nil && old != nil && (old.card.cluster != f.card.cluster || old.card.withdrawn != f.card.withdrawn || old.card.drained != f.card.drained) {
		g.goLocked(s.update)
	}
	if g.opts.Barrier != nil && snap.Version > core.Acked() && !g.mu.acking {
		g.mu.acking = true
		g.goLocked(g.acknowledge)
	}
	if snap.Ready && !g.mu.isReady {
		g.mu.isReady = true
		close(g.ready)
		g.log.Info("this node is ready", "cluster", snap.ClusterName, "cluster_id", snap.ClusterID.String(),
			"node", g.self.String(), "name", g.opts.Name, "incarnation", g.inc, "version", uint64(snap.Version))
	}
}

func portOf(addr string) uint16 {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// dispatch runs a request of the core and hands it the answer. The caller holds
// mu.
func (g *Gossip) dispatch(s meta.Send) {
	c := call{s.To, s.Method}
	single := s.Method == meta.MethodPledge || s.Method == meta.MethodExchange && s.IsPull()
	if g.mu.closed {
		return
	}
	later := func() {
		if s.IsPull() {
			g.box.doubt(s.To) // nobody may tell of the same again for a while
		}
	}
	if _, busy := g.mu.calls[c]; single && busy {
		later() // the answer to the one under way may be from before
		return
	}
	select {
	case g.slots <- struct{}{}:
	default:
		g.log.Debug("too many metadata requests under way", "method", s.Method, "node", s.To.Short())
		later()
		return
	}
	if single {
		g.mu.calls[c] = struct{}{}
	}
	addr := g.addressOf(s.To)
	g.goLocked(func() {
		ctx, cancel := context.WithTimeout(g.ctx, g.opts.CallTimeout)
		defer cancel()
		_, _ = g.call(ctx, addr, s, single) // logged there; digests bring it up again
		<-g.slots
	})
}

// call makes one request, feeds the core with its answer and gives that.
func (g *Gossip) call(ctx context.Context, addr string, s meta.Send, single bool) (reply []byte, err error) {
	err = errNoAddress
	if addr != "" {
		reply, err = g.opts.Transport.Call(ctx, addr, s.Method, s.Payload)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if single {
		delete(g.mu.calls, call{s.To, s.Method})
	}
	if g.mu.closed {
		return nil, ErrClosed
	}
	err = g.mu.core.HandleReply(s, reply, err)
	g.settle()
	if err != nil && s.IsPull() {
		g.box.doubt(s.To)
	}
	switch {
	case err == nil || !meta.IsTransient(err):
	case errors.Is(err, meta.ErrFork), errors.Is(err, ring.ErrUnknownKind), errors.Is(err, ring.ErrNewerFormat), errors.Is(err, ErrOtherCluster):
		if now := time.Now(); now.Sub(g.mu.warned) > 10*time.Second {
			g.mu.warned = now
			g.log.Warn("this node cannot take in what a peer knows", "node", s.To.Short(), "address", addr, "error", err)
		}
	default:
		g.log.Debug("metadata request failed", "method", s.Method, "node", s.To.Short(), "address", addr, "error", err)
	}
	return reply, err
}

var errNoAddress = errors.New("no address known")

// addressOf gives the peer listener of a node: from its own entry, unless gossip
// has met a later life of it. The caller holds mu.
func (g *Gossip) addressOf(id ring.NodeID) string {
	m, known := g.mu.core.Snapshot().Member(id)
	s, met := g.box.peer(id)
	if met && s.peerPort != 0 && (!known || m.Addresses.Peer == "" || s.incarnation > m.Incarnation) {
		return net.JoinHostPort(s.host, strconv.Itoa(int(s.peerPort)))
	}
	if known {
		return m.Addresses.Peer
	}
	return ""
}

// maxExchange bounds the questions of one exchange.
const maxExchange = 64

// exchange asks a peer until this node has the log as far as the peer has it. One answer may
// hold a part of that, or the snapshot before it. ErrUnavailable: the peer hands over no more.
func (g *Gossip) exchange(ctx context.Context, to ring.NodeID) error {
	for range maxExchange {
		before, had := g.Snapshot().Version, g.fetched()
		reply, err := g.pull(ctx, to)
		if err != nil {
			return err
		}
		theirs, now := meta.HasUpTo(reply), g.Snapshot().Version
		switch {
		case now >= theirs:
			return nil
		case now == before && g.fetched() == had:
			return fmt.Errorf("%w: node %s has the log up to %d, and hands over nothing beyond %d", ErrUnavailable, to.Short(), theirs, now)
		}
	}
	return fmt.Errorf("%w: the log of node %s grows as fast as it is fetched", ErrUnavailable, to.Short())
}

// pull asks a peer once.
func (g *Gossip) pull(ctx context.Context, to ring.NodeID) ([]byte, error) {
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	g.settle()
	s, ok := g.mu.core.PullFrom(to)
	addr := g.addressOf(to)
	g.mu.Unlock()
	if !ok {
		return nil, ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, g.opts.CallTimeout)
	defer cancel()
	return g.call(ctx, addr, s, false)
}

// reporter remembers what was said about waiting.
type reporter struct {
	last      time.Time
	conflicts time.Time
}

// report tells people what the node waits for, every few seconds.
func (g *Gossip) report(r *reporter, now time.Time) {
	if now.Sub(r.last) < reportEach {
		return
	}
	g.mu.Lock()
	w, waiting := g.mu.core.Waiting()
	missing := g.mu.core.Unacknowledged()
	upTo, damaged := g.mu.core.Recovering()
	have := g.mu.core.Version()
	ready := g.mu.core.Ready()
	cluster, joining := g.mu.core.Joining()
	why := g.mu.core.KeptOut()
	g.mu.Unlock()
	switch {
	case damaged:
		r.last = now
		g.log.Warn("this node's metadata is damaged: it does not serve until a member has handed it the log again", "have", uint64(have), "need", uint64(upTo), "members_that_answer", len(g.box.alive()))
	case joining && why != "":
		r.last = now
		g.log.Warn("this node cannot join: a member does not let it wait", "cluster_id", cluster.String(), "name", g.opts.Name, "why", why)
	case joining:
		r.last = now
		g.log.Info("this node waits for the cluster to take it in", "cluster_id", cluster.String(), "version", uint64(have), "nodes_that_answer", len(g.box.alive()))
	case waiting:
		r.last = now
		g.log.Info(fmt.Sprintf("waiting to found the cluster: %d of %d nodes seen: %s", len(w.Seen), w.Expect, strings.Join(w.Seen, ", ")))
		g.reportPledge(w)
		g.reportConflicts(r, w, now)
	case len(missing) > 0 && !ready:
		r.last = now
		names := make([]string, len(missing))
		for i, n := range missing {
			names[i] = n.Name
		}
		g.log.Info("the cluster is founded; waiting for nodes to acknowledge it: " + strings.Join(names, ", "))
	}
}

func (g *Gossip) reportPledge(w meta.Wait) {
	if w.PledgedGone {
		g.log.Warn("this node has endorsed a founder that does not answer; it cannot endorse another. "+
			"Start that node again, or, if its data is gone, empty the data directories of all nodes of this founding",
			"founder", w.PledgedTo.String())
	}
}

func (g *Gossip) reportConflicts(r *reporter, w meta.Wait, now time.Time) {
	if len(w.Conflicts) == 0 {
		r.conflicts = time.Time{}
		return
	}
	if r.conflicts.IsZero() {
		r.conflicts = now
	}
	g.log.Warn("the cluster cannot be founded: " + w.Conflicts[0].Error())
	if now.Sub(r.conflicts) >= g.opts.NameGrace {
		g.fail(fmt.Errorf("%w: %w", ErrDuplicateName, w.Conflicts[0]))
	}
}
