package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pairdb/pairdb/client"
)

// longStop is the least that counts as a long stop.
const longStop = 20 * time.Second

// life is one process of a node, from its start to its end.
type life struct {
	// wanted says that the nemesis ends it.
	wanted atomic.Bool
}

// hurt carries a plan out, until all of it is done or the clients end. It is the
// only one that starts and ends processes.
func (s *storm) hurt(plan []fault) {
	type step struct {
		at time.Duration
		do func()
	}
	var steps []step
	for _, f := range plan {
		steps = append(steps, step{f.at, func() { s.begin(f) }}, step{f.at + f.length, func() { s.end(f) }})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	for _, st := range steps {
		select {
		case <-s.ended:
			return
		case <-time.After(st.at - time.Since(s.began)):
			st.do()
		}
	}
}

// begin does a fault, unless it is one of a process that is dead already.
func (s *storm) begin(f fault) {
	dead := s.lives[f.a].wanted.Load()
	switch f.kind {
	case killOne:
		if dead {
			return
		}
		s.kill(f.a)
	case killAll:
		for i, a := range s.agents {
			s.lives[i].wanted.Store(true)
			a.signal(syscall.SIGKILL)
		}
		for _, a := range s.agents {
			a.wait()
		}
	case stop:
		if dead {
			return
		}
		if f.length > longStop {
			s.note("long stops", 1)
		}
		s.agents[f.a].signal(syscall.SIGSTOP)
	case cutGossip, cutPeers, fillDisk, failSyncs:
		if dead || !s.beginPart(f) {
			return
		}
	default:
		s.eachCut(f, s.lan.cut)
	}
	s.note(f.kind, 1)
}

// end ends a fault, if no other has done so.
func (s *storm) end(f fault) {
	switch f.kind {
	case killOne:
		s.revive(f.a)
	case killAll:
		for i := range s.agents {
			s.revive(i)
		}
	case stop:
		s.agents[f.a].signal(syscall.SIGCONT)
	case cutGossip, cutPeers, fillDisk, failSyncs:
		s.endPart(f)
	default:
		s.eachCut(f, s.lan.mend)
	}
}

// eachCut calls do with the directions that a fault cuts.
func (s *storm) eachCut(f fault, do func(from, to int)) {
	switch f.kind {
	case cutOne:
		do(f.a, f.b)
	case cutPair:
		do(f.a, f.b)
		do(f.b, f.a)
	case isolate, split:
		n := len(s.agents)
		few := 1
		if f.kind == split {
			few = (n - 1) / 2
		}
		for i := range few {
			for j := few; j < n; j++ {
				do((f.a+i)%n, (f.a+j)%n)
				do((f.a+j)%n, (f.a+i)%n)
			}
		}
	}
}

func (s *storm) kill(i int) {
	s.lives[i].wanted.Store(true)
	s.agents[i].kill()
}

// revive starts a node that was killed, if nobody has yet.
func (s *storm) revive(i int) {
	if s.lives[i] != nil && !s.lives[i].wanted.Load() {
		return
	}
	l := &life{}
	s.lives[i] = l
	a := s.agents[i]
	if err := a.spawn(); err != nil {
		s.wrong("start %s: %v", a.name, err)
		return
	}
	a.mu.Lock()
	done := a.done
	a.mu.Unlock()
	go func() {
		if <-done; !l.wanted.Load() {
			s.wrong("%s ended by itself: %v\n%s", a.name, a.err, lastWords(filepath.Join(a.dir, "log")))
		}
	}()
}

// lastWords is what a process told of its end in its log: from the last panic or
// fatal error on, if it had one.
func lastWords(file string) string {
	text := tail(file, 1<<20)
	at := len(text) - 2000
	for _, sign := range []string{"panic: ", "fatal error: "} {
		if i := strings.LastIndex(text, sign); i >= 0 {
			at = i
			break
		}
	}
	return text[max(at, 0):min(max(at, 0)+4000, len(text))]
}

// heal ends all faults and waits until every node finds the cluster healthy.
func (s *storm) heal() {
	for pair, n := range s.lan.cuts {
		for range n {
			s.lan.mend(pair[0], pair[1])
		}
	}
	s.healParts()
	for _, i := range s.present() {
		s.agents[i].signal(syscall.SIGCONT)
		s.revive(i)
	}
	s.waitHealthy()
}

// recovery bounds the time from the end of all faults until all is well.
const recovery = time.Minute

// waitHealthy waits until every node finds all nodes up and reaches them: it
// reads keys of all owners, whose links may still wait to be tried again.
func (s *storm) waitHealthy() {
	why := make([]error, len(s.agents))
	err := poll(recovery, func() (bool, error) {
		for _, i := range s.present() {
			why[i] = s.healthy(s.clients[i])
		}
		return errors.Join(why...) == nil, nil
	})
	if err != nil {
		s.wrong("the cluster is not healthy: %v: %v", err, errors.Join(why...))
	}
}

func (s *storm) healthy(c *client.Client) error {
	st, err := c.Status(s.t.Context())
	if err != nil {
		return err
	}
	if st.Verdict != "healthy" || len(st.Nodes) != len(s.present()) {
		return fmt.Errorf("%d nodes, %s: %s", len(st.Nodes), st.Verdict, st.Reason)
	}
	return reachesAll(s.t.Context(), c)
}
