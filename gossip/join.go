package gossip

import (
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// joinEach is the pause between attempts while nobody answers.
const joinEach = time.Second

// keepJoined brings this node together with its peers, and again whenever they
// were lost: the failure detector forgets the dead, and two sides of a long
// split would never talk again by themselves.
func (g *Gossip) keepJoined() {
	deadline := time.Now().Add(g.opts.JoinTimeout)
	for first := true; ; first = false {
		causes := g.joinOnce()
		g.judge(first, causes, !time.Now().Before(deadline))
		pause := g.opts.RejoinInterval
		if len(g.box.alive()) == 0 {
			pause = min(pause, joinEach)
		}
		// Jitter keeps restarted nodes from knocking all at once.
		pause = pause*3/4 + rand.N(pause/2+1)
		timer := time.NewTimer(pause)
		select {
		case <-g.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// joinOnce tries all addresses at which a missing node could be.
func (g *Gossip) joinOnce() []SeedError {
	s := g.swim.Load()
	var failed []SeedError
	for _, addr := range g.candidates(s.address()) {
		if g.ctx.Err() != nil {
			return nil
		}
		if err := s.join(addr); err != nil {
			failed = append(failed, SeedError{addr, err.Error()})
			g.log.Debug("gossip could not reach a node", "address", addr, "error", err)
		}
	}
	return failed
}

// candidates are the gossip addresses of members that are not alive, and the
// seeds, unless nobody is missing.
func (g *Gossip) candidates(own string) []string {
	snap := g.Snapshot()
	taken := map[string]bool{own: true, "": true}
	var out []string
	add := func(addr string) {
		if !taken[addr] {
			taken[addr] = true
			out = append(out, addr)
		}
	}
	missing := snap.Layout == nil
	alive := 1
	for _, m := range snap.Members {
		if m.ID == g.self {
			continue
		}
		if m.Liveness == schema.Alive {
			alive++
			taken[m.Addresses.Gossip] = true
			continue
		}
		if snap.Layout != nil || !snap.ClusterID.IsZero() {
			missing = true
			add(m.Addresses.Gossip)
		}
	}
	if snap.Layout == nil && g.opts.BootstrapExpect > 0 {
		missing = alive < g.opts.BootstrapExpect
	}
	// A founded node asks its seeds once even if nobody is missing, to notice
	// that it was pointed at another cluster.
	if missing || snap.Layout != nil && alive == 1 {
		for _, a := range g.opts.Join {
			add(a)
		}
	}
	return out
}

// judge draws the conclusions from an attempt to join.
func (g *Gossip) judge(first bool, causes []SeedError, late bool) {
	g.mu.Lock()
	founded, cluster := g.mu.core.Founded() || recovering(g.mu.core), g.mu.core.ClusterID()
	_, joining := g.mu.core.Joining()
	g.mu.Unlock()
	alive := len(g.box.alive())
	if founded {
		if id, ok := g.box.stranger(); first && ok && alive == 0 {
			g.fail(&otherClusterError{own: cluster, other: id})
		}
		return
	}
	if joining || g.opts.Bootstrap || g.opts.BootstrapExpect > 0 || !late {
		return
	}
	e := &JoinError{Seeds: causes}
	answered := map[string]bool{}
	for _, c := range causes {
		answered[c.Seed] = true
	}
	for _, seed := range g.opts.Join {
		if !answered[seed] {
			e.Seeds = append(e.Seeds, SeedError{seed, "it is this node, or belongs to no cluster either"})
		}
	}
	g.fail(e)
}

// otherClusterError says that the seeds are of another cluster than the data
// directory. It matches ErrOtherCluster.
type otherClusterError struct{ own, other ring.ClusterID }

// Error says which clusters.
func (e *otherClusterError) Error() string {
	return "the nodes named by --join belong to cluster " + e.other.String() + ", this data directory to " + e.own.String() +
		": name nodes of that cluster, or use another data directory"
}

// Is matches ErrOtherCluster.
func (e *otherClusterError) Is(target error) bool { return target == ErrOtherCluster }
