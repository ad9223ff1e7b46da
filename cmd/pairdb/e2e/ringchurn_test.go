package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord/quorum"
)

var (
	churnFirst = flag.Uint64("churn.first", 1, "seed of the first cluster that grows and shrinks under faults")
	churnFor   = flag.Duration("churn.for", 0, "go on with further seeds for so long, and have each go through all faults")
)

// Who is who in a churn, by node. Founders and one that joined stay; founders and one
// that joined leave.
var (
	churnFounders = []int{0, 1, 2, 4, 5}
	churnJoiners  = []int{3, 6}
	churnLeavers  = []int{4, 5, 6}
	churnStayers  = []int{0, 1, 2, 3}
)

const (
	churnNodes = 7
	// churnStream is so little that a change lasts while things happen to it.
	churnStream = "256KiB"
	// churnKeys are written once, fewer without -churn.for, and churnValue is their size;
	// they are what moves.
	churnKeys, churnFewKeys, churnValue = 4000, 1500, 6 << 10
	// churnFew is how many faults there are of each change without -churn.for.
	churnFew = 4
	// churnCut is how long something is cut off.
	churnCut = 4 * time.Second
	// churnNotice is how long after its end a process may still be sent something, and
	// churnNoticeCut after a cut: writes are given up by then, see timeouts.write.
	churnNotice, churnNoticeCut = 100 * time.Millisecond, 2500 * time.Millisecond
)

// churnLimit is for one change, from its beginning to the end of all faults.
func churnLimit() time.Duration {
	if *churnFor == 0 {
		return changeLimit
	}
	return 6 * time.Minute
}

// churn is a storm in which nodes join and leave, and one thing goes wrong at a time:
// so a quorum can be reached by every node that is not hurt itself, and what is asked of
// it has to succeed.
type churn struct {
	*storm
	rng *rand.Rand
	// leaving are the nodes that are to end by themselves, and again those of them that were
	// killed and started meanwhile.
	leaving []int
	again   map[int]bool
	// since is when the present change was asked for.
	since time.Time

	hurtMu sync.Mutex
	hurts  []hurt
}

// hurt is a time in which a node need not do what it is asked.
type hurt struct {
	node int
	// known is when the others are to know that they cannot reach it, and back when they
	// could again, if it was cut off.
	from, known, back, to time.Duration
}

// deed is one thing that goes wrong.
type deed struct {
	what string
	do   func()
}

// TestChurn has clusters of five nodes grow to seven and shrink to four, while clients do
// all that they may, and joiners, leavers, sources and the node that proposed the change
// are killed and cut off. What is asked of a node that is not hurt succeeds, the checkers
// find nothing, all owners have the same, and those who left have nothing.
func TestChurn(t *testing.T) {
	total := map[string]int{}
	began, seed := time.Now(), *churnFirst
	for ; seed == *churnFirst || time.Since(began) < *churnFor && !t.Failed(); seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			c := newChurn(t, seed)
			again := func() { t.Logf("run again with -churn.first=%d -churn.for=%s", seed, *churnFor) }
			for what, n := range c.drive(c.script, again) {
				total[what] += n
			}
			if !t.Failed() { // else they may have reason to be there yet
				c.left()
			}
		})
	}
	t.Logf("seeds %d to %d: %v", *churnFirst, seed-1, total)
	if t.Failed() {
		return
	}
	must := []string{"kills of a joiner", "kills of a leaver", "kills of a source", "kills of who proposed", "idempotent writes", "registers", "objects compared"}
	if *churnFor > 0 {
		must = append(must, "isolations", "cuts", "peer cuts", "gossip cuts")
	}
	for _, what := range must {
		if total[what] == 0 {
			t.Errorf("no run had any %s", what)
		}
	}
}

func newChurn(t *testing.T, seed uint64) *churn {
	t.Helper()
	c := &churn{rng: rand.New(rand.NewPCG(seed, 12)), again: map[int]bool{}}
	c.storm = newStormOf(t, seed, churnNodes, churnFounders, nil,
		"--set", "repair.interval=10s", "--set", "timeouts.write=2s", "--set", "repair.settle=3s", "--set", "ring.settle="+ringSettle,
		"--set", "cluster.partitions=64", "--stream-rate", churnStream)
	c.storm.must = c.demand
	return c
}

// demand says of what a node was asked whether it had to do it. What could reach a quorum
// had to succeed, but for two things. A write that was on its way to a node when that was
// hurt may be in doubt: it must not be made again under another name. And attempts of one
// write that several nodes began at a time vote; two equal votes of three, one node away,
// are settled when that is back.
func (c *churn) demand(o *check.Op) time.Duration {
	if d := mustHeal(o); d > 0 || o.Level == quorum.All || *churnFor == 0 {
		// One node that is away is enough to fail what is at ALL; and without -churn.for
		// other tests share the machine, which keeps clients waiting, too.
		return d
	}
	answered := o.At + patience
	if o.Answer != nil {
		answered = o.Answer.At
	}
	c.hurtMu.Lock()
	defer c.hurtMu.Unlock()
	for _, h := range c.hurts {
		if c.agents[h.node].name == o.Node && o.At <= h.to && h.from <= answered {
			return 0
		}
		if o.Kind != check.Get && o.Answer != nil && o.Answer.Outcome == check.Indeterminate && o.At <= h.known && h.from <= answered {
			c.note("writes in doubt when a node was hurt", 1)
			return 0
		}
		if o.Answer != nil && o.Answer.Code == string(errcode.QuorumNotReached) && h.back > 0 && o.At <= h.to && h.back <= answered {
			c.note("refused by a node that came back", 1)
			return 0
		}
	}
	if o.Fades != nil && o.Answer != nil && o.Answer.Code == string(errcode.InvalidArgument) {
		return 0 // its time was over when it arrived
	}
	if o.IdempotencyKey != "" {
		if o.Answer != nil && o.Answer.Outcome != check.OK {
			c.note("votes not settled", 1)
		}
		return 0
	}
	c.note("had to succeed", 1)
	return patience
}

// excuse says that a node was hurt until now.
func (c *churn) excuse(h hurt) {
	h.to = time.Since(c.began)
	c.hurtMu.Lock()
	defer c.hurtMu.Unlock()
	c.hurts = append(c.hurts, h)
	c.t.Logf("%s was hurt from %s to %s", c.agents[h.node].name, h.from.Round(time.Millisecond), h.to.Round(time.Millisecond))
}

// script is what happens to the cluster.
func (c *churn) script() {
	defer close(c.ended)
	c.ballast()
	c.since = time.Now()
	for _, i := range churnJoiners {
		c.revive(i)
	}
	if !c.suffer("joiner", churnJoiners, churnFounders, 7) {
		return
	}
	all := append(slices.Clone(churnStayers), churnLeavers...)
	c.here.Store(&all)
	c.waitHealthy()
	c.note("seconds to seven", int(time.Since(c.began).Seconds()))

	c.leaving, c.since = churnLeavers, time.Now()
	for _, i := range churnLeavers {
		c.lives[i].wanted.Store(true)
		if err := c.decommission(i); err != nil {
			c.wrong("%s is to leave: %v", c.agents[i].name, err)
		}
	}
	if !c.suffer("leaver", churnLeavers, churnStayers, 4) {
		return
	}
	c.note("seconds to four", int(time.Since(c.began).Seconds()))
}

// ballast writes what moves. It is read again in the end.
func (c *churn) ballast() {
	next := make(chan int)
	var wg sync.WaitGroup
	filler := strings.Repeat("0123456789abcdef", churnValue/16)
	for w := range 8 {
		rng := rand.New(rand.NewPCG(c.seed, uint64(1000+w)))
		wg.Go(func() {
			for i := range next {
				key := fmt.Sprintf("ballast/%d", i)
				call := check.Call{
					Client: fmt.Sprintf("loader %d", w), Kind: check.Put, Tenant: lwwTenant, Key: key, Level: quorum.Quorum,
					Value: check.Canary(lwwTenant, key+filler),
				}
				c.do(c.pick(rng), call, client.Context{})
			}
		})
	}
	keys := churnKeys
	if *churnFor == 0 {
		keys = churnFewKeys
	}
	for i := range keys {
		next <- i
	}
	close(next)
	wg.Wait()
}

// decommission asks for a node to leave, on the machine of whichever stayer answers. An
// answer that comes too late may be told to whoever asks next.
func (c *churn) decommission(i int) (err error) {
	for range 10 {
		for _, at := range churnStayers {
			err = c.lan.hosts[at].run(nil, "", binary, "node", "decommission", c.agents[i].name, "--yes", "--endpoint", hostAddress(at)+":50051")
			if err == nil || strings.Contains(err.Error(), " goes already") || strings.Contains(err.Error(), " is leaving already") {
				return nil
			}
		}
	}
	return err
}

// suffer has one thing after another go wrong while a change of the ring moves data to or
// from some nodes, and waits until there are n nodes and nothing moves. It reports whether
// it came to that.
func (c *churn) suffer(role string, them, others []int, n int) bool {
	some := func(of []int) int { return of[c.rng.IntN(len(of))] }
	deeds := []deed{
		{"kills of a " + role, func() { c.killed(some(c.members(them))) }},
		{"kills of who proposed", func() { c.killed(c.proposer()) }},
		{"kills of a source", func() { c.killed(some(others)) }},
		{"isolations", func() { c.cutOff(fault{kind: isolate, a: some(them)}) }},
		{"kills of a " + role, func() { c.killed(some(c.members(them))) }},
		{"cuts", func() { c.cutOff(fault{kind: cutPair, a: some(them), b: some(others)}) }},
		{"peer cuts", func() { c.cutOff(fault{kind: cutPeers, a: some(others)}) }},
		{"gossip cuts", func() { c.cutOff(fault{kind: cutGossip, a: some(them)}) }},
		{"isolations", func() { c.cutOff(fault{kind: isolate, a: some(others)}) }},
		{"cuts", func() { c.cutOff(fault{kind: cutPair, a: some(them), b: some(others)}) }},
		{"peer cuts", func() { c.cutOff(fault{kind: cutPeers, a: some(them)}) }},
		{"gossip cuts", func() { c.cutOff(fault{kind: cutGossip, a: some(others)}) }},
	}
	if *churnFor == 0 {
		deeds = deeds[:churnFew]
	}
	// The first few are those that have to be.
	c.rng.Shuffle(3, func(i, j int) { deeds[i], deeds[j] = deeds[j], deeds[i] })
	rest := deeds[3:]
	c.rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	began := time.Now()
	for _, d := range deeds {
		if !c.await(began, "moves", func(s *churnState) bool { return s.stage == "proposed" || s.nodes == n && s.stable }) {
			return false
		}
		if s, err := c.look(); err == nil && s.nodes == n && s.stable {
			c.note("deeds too late", 1)
			continue
		}
		c.note(d.what, 1)
		d.do()
	}
	if !c.await(began, fmt.Sprintf("has %d nodes", n), func(s *churnState) bool { return s.nodes == n && s.stable }) {
		return false
	}
	if role == "leaver" {
		c.dismiss(c.leaving...)
	}
	return true
}

// members are those of some nodes that the ring has not let go of yet: leavers may go one
// after the other, and one that was let go of does not start again.
func (c *churn) members(of []int) []int {
	s, err := c.look()
	if err != nil {
		return of
	}
	left := slices.DeleteFunc(slices.Clone(of), func(i int) bool { return !slices.Contains(s.names, c.agents[i].name) })
	if len(left) == 0 {
		return of
	}
	return left
}

// goodbye is how long before its end a node that has left says that it stops, at most.
const goodbye = 10 * time.Second

// dismiss has clients talk no more to nodes that have left.
func (c *churn) dismiss(nodes ...int) {
	here := slices.Clone(c.present())
	for _, i := range nodes {
		if k := slices.Index(here, i); k >= 0 {
			here = slices.Delete(here, k, k+1)
			now := time.Since(c.began)
			c.hurtMu.Lock()
			c.hurts = append(c.hurts, hurt{node: i, from: now - goodbye, known: now, to: time.Hour})
			c.hurtMu.Unlock()
		}
	}
	c.here.Store(&here)
}

// dismissGone dismisses those that have ended by themselves.
func (c *churn) dismissGone() {
	for _, i := range c.leaving {
		a := c.agents[i]
		a.mu.Lock()
		done := a.done
		a.mu.Unlock()
		select {
		case <-done:
			c.dismiss(i)
		default:
		}
	}
}

// churnState is the ring as some node sees it.
type churnState struct {
	stage  string
	nodes  int // that own something, or are members
	stable bool
	names  []string
	text   string
}

// look asks the nodes in turn for the ring.
func (c *churn) look() (*churnState, error) {
	var errs []error
	for _, i := range churnStayers[:3] {
		st, err := c.clients[i].Status(c.t.Context())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s := &churnState{stage: st.GetRing().GetStage(), stable: !st.GetRing().GetChanging() && st.GetRing().GetOpenIntents() == 0}
		s.nodes = len(st.GetNodes())
		for _, n := range st.GetNodes() {
			s.names = append(s.names, n.GetName())
			s.text += fmt.Sprintf("%s %s %d, ", n.GetName(), n.GetState(), n.GetPartitions())
			s.stable = s.stable && n.GetPartitions() > 0
		}
		s.text += fmt.Sprintf("%s, waits for %v", s.stage, st.GetRing().GetWaitingFor())
		return s, nil
	}
	return nil, errors.Join(errs...)
}

// await waits for the ring.
func (c *churn) await(began time.Time, what string, f func(s *churnState) bool) bool {
	text := "nobody answers"
	err := poll(churnLimit()-time.Since(began), func() (bool, error) {
		s, err := c.look()
		if err != nil {
			return false, nil // one that answers comes back
		}
		text = s.text
		c.dismissGone()
		return f(s), nil
	})
	if err != nil {
		c.wrong("waiting until the ring %s: %v: %s", what, err, text)
	}
	return err == nil
}

// proposerSays bounds how much later than others see a change the node that proposed it
// says so: when it knows its own entry durably.
const proposerSays = 20 * time.Second

// proposer is the node that proposed the present change, by its own words.
func (c *churn) proposer() int {
	// A line of a log begins with its time.
	last, at := churnFounders[0], fmt.Sprintf(`{"time":%q`, c.since.Format(time.RFC3339Nano))
	said := false
	err := poll(proposerSays, func() (bool, error) {
		for i, a := range c.agents {
			for line := range strings.Lines(tail(filepath.Join(a.dir, "log"), 1<<20)) {
				if strings.Contains(line, `"entry":"propose"`) && !strings.Contains(line, `"level":"DEBUG"`) && line > at {
					last, at, said = i, line, true
				}
			}
		}
		return said, nil
	})
	if err != nil {
		// Its time was over before it heard that its entry was chosen.
		c.note("kills of who proposed", -1)
		c.note("proposers that do not say so", 1)
	}
	return last
}

// killed kills a node and starts it again.
func (c *churn) killed(i int) {
	from := time.Since(c.began)
	c.kill(i)
	known := time.Since(c.began) + churnNotice
	<-time.After(time.Duration(200+c.rng.IntN(2000)) * time.Millisecond)
	c.revive(i)
	if slices.Contains(c.leaving, i) {
		c.lives[i].wanted.Store(true)
		c.again[i] = true
	}
	c.recovered()
	c.excuse(hurt{node: i, from: from, known: known})
}

// cutOff cuts a node off for a while.
func (c *churn) cutOff(f fault) {
	from := time.Since(c.began)
	c.begin(f)
	<-time.After(churnCut)
	back := time.Since(c.began)
	c.end(f)
	c.recovered()
	c.excuse(hurt{node: f.a, from: from, known: from + churnNoticeCut, back: back})
	if f.kind == cutPair {
		c.excuse(hurt{node: f.b, from: from, known: from + churnNoticeCut, back: back})
	}
}

// recovered waits until the nodes that clients talk to reach all others again.
func (c *churn) recovered() {
	var why []error
	err := poll(recovery, func() (bool, error) {
		c.dismissGone()
		why = make([]error, churnNodes)
		for _, i := range c.present() {
			why[i] = c.reaches(i)
		}
		return errors.Join(why...) == nil, nil
	})
	if err != nil {
		c.wrong("nodes do not reach each other again: %v: %v", err, errors.Join(why...))
	}
}

func (c *churn) reaches(i int) error {
	st, err := c.clients[i].Status(c.t.Context())
	if err != nil {
		return err
	}
	for _, n := range st.GetNodes() {
		if s := n.GetState(); s == "down" || s == "suspect" {
			return fmt.Errorf("%s is %s", n.GetName(), s)
		}
	}
	return reachesAll(c.t.Context(), c.clients[i])
}

// left compares what those who left have with what they had.
func (c *churn) left() {
	for _, l := range c.lives {
		l.wanted.Store(true) // the test ends
	}
	for _, i := range churnLeavers {
		a := c.agents[i]
		if err := a.endWithin(time.Minute); err != nil {
			c.wrong("it is retired, and %v", err)
		} else if err := a.wait(); err != nil && !(c.again[i] && strings.Contains(lastWords(filepath.Join(a.dir, "log")), "is no member any more")) {
			// One that was killed in the moment in which it was let go of is refused.
			c.wrong("%s has left in order and ends with %v", a.name, err)
		}
		// The log's files are of a fixed size, and used again and again.
		n, size := keysOnDisk(c.t, a), tableBytes(c.t, a.data)
		c.t.Logf("%s has left, with %d keys and tables of %d KiB on its disk", a.name, n, size>>10)
		if n != 0 || size > churnFewKeys*churnValue/20 {
			c.wrong("%s has left and holds %d keys and tables of %d bytes", a.name, n, size)
		}
	}
}
