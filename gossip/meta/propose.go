package meta

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Outcomes of a proposal.
var (
	// ErrTenantExists: the name is taken.
	ErrTenantExists = errors.New("tenant exists")
	// ErrNotReady: the node has no cluster yet, or not all founders know it.
	ErrNotReady = errors.New("cluster is not ready")
	// ErrBusy: this node is proposing something else.
	ErrBusy = errors.New("another proposal is under way at this node")
	// ErrTenantLimit: the cluster has as many tenants as it can.
	ErrTenantLimit = errors.New("too many tenants")
)

// UnreachableError says that too few voters answered, and that nothing was
// changed.
type UnreachableError struct {
	Need, Voters int
	// Silent are the names of voters that did not answer, with the cause.
	Silent []string
}

// Error names the silent voters.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("need %d of %d voters to change the log, no answer from: %s", e.Need, e.Voters, strings.Join(e.Silent, "; "))
}

// Result is how a proposal ended.
type Result struct {
	Tenant *ring.TenantRecord
	Err    error
	// Version is the log entry that decided; 0 if none did.
	Version ring.Version
}

// proposal is the one change this node wants to see in the log.
type proposal struct {
	op     [16]byte
	create ring.TenantCreate
	p      *ring.Proposer
	// spoken: a voter, this node included, may have accepted the entry.
	spoken bool
	// wait is the number of ticks until the next attempt.
	wait     int
	failures map[ring.NodeID]error
	// futile counts attempts in a row that reached no majority.
	futile int
	result *Result
}

// Ticks that a proposal waits for answers, and attempts without a majority after
// which it gives up.
const (
	answerTicks = 80
	maxFutile   = 4
	// deferTicks are what another proposer is given to finish.
	deferTicks = 24
	// foundingTicks lie between two steps of founding.
	foundingTicks = 8
)

// ProposeTenant starts to put a tenant into the log. Follow it with Proposal;
// end it with EndProposal.
func (c *Core) ProposeTenant(t ring.TenantCreate) error {
	switch {
	case c.fatal != nil:
		return c.fatal
	case !c.Ready():
		return ErrNotReady
	case c.proposal != nil:
		return ErrBusy
	case c.full():
		return fmt.Errorf("%w: %d", ErrTenantLimit, c.maxTenants)
	}
	pr := &proposal{create: t, failures: map[ring.NodeID]error{}}
	if _, err := io.ReadFull(c.rand, pr.op[:]); err != nil {
		return fmt.Errorf("propose tenant %q: draw: %w", t.Name, err)
	}
	probe := ring.Entry{Version: c.state.Version() + 1, Kind: ring.KindTenantCreate, Op: pr.op, Tenant: &pr.create}
	if _, err := c.state.Next(&probe); err != nil {
		return err
	}
	c.proposal = pr
	c.settleProposal()
	return c.fatal
}

// Proposal gives the result of the proposal, or nil while it is under way.
func (c *Core) Proposal() *Result {
	if c.proposal == nil {
		return nil
	}
	return c.proposal.result
}

// EndProposal forgets the proposal and says whether it may still come to pass:
// some voter may have accepted it, and nobody knows what became of it.
func (c *Core) EndProposal() (indeterminate bool) {
	pr := c.proposal
	c.proposal = nil
	return pr != nil && pr.spoken && (pr.result == nil || pr.result.Version == 0)
}

// settleProposal looks at the proposal after the log has grown: it is decided,
// or starts anew in the next slot.
func (c *Core) settleProposal() {
	pr := c.proposal
	if pr == nil || pr.result != nil {
		return
	}
	if pr.p != nil && pr.p.Slot() == c.state.Version()+1 {
		return
	}
	if t, ok := c.state.Tenant(pr.create.Name); ok {
		pr.result = &Result{Tenant: t, Version: t.Version}
		if !c.isOwn(t.Version) {
			pr.result.Err = fmt.Errorf("%w: %q", ErrTenantExists, t.Name)
		}
		return
	}
	if c.full() {
		// Wherever the entry may have been accepted: it can only be void.
		pr.result = &Result{Err: fmt.Errorf("%w: %d", ErrTenantLimit, c.maxTenants), Version: c.state.Version()}
		return
	}
	slot := c.state.Version() + 1
	lost := pr.p != nil
	value := ring.AppendEntry(nil, &ring.Entry{Version: slot, Kind: ring.KindTenantCreate, Op: pr.op, Tenant: &pr.create})
	pr.p = ring.NewProposer(slot, c.state.Voters(), c.self, c.inc, c.round, value)
	if lost {
		// Whoever lost the last slot would now meet all others who did.
		pr.wait = c.backoff()
		return
	}
	if c.deferring(slot) {
		pr.wait = 1
		return
	}
	c.drive()
}

// full says that every create is void from now on: no tenant ever goes.
func (c *Core) full() bool { return len(c.state.Tenants()) >= c.maxTenants }

// deferring says that this voter has lately made a promise to another proposer of
// the slot, which had better be left to finish.
func (c *Core) deferring(slot ring.Version) bool {
	return c.reg.Slot == slot && c.reg.Promised.Node != c.self && c.ticks-c.promised < deferTicks
}

// isOwn says whether an entry of the log came from the proposal.
func (c *Core) isOwn(v ring.Version) bool {
	e, err := ring.DecodeEntry(c.entries[v-1])
	return err == nil && e.Op == c.proposal.op
}

// drive does what the proposer's phase asks for: its own vote at once, the
// others by messages.
func (c *Core) drive() {
	pr := c.proposal
	c.round = max(c.round, pr.p.HighestRound())
	value, _ := pr.p.Value()
	method := MethodPrepare
	switch pr.p.Phase() {
	case ring.Preparing:
		value = nil
		clear(pr.failures)
	case ring.Accepting:
		method = MethodAccept
		pr.spoken = true
	case ring.Elected:
		if err := c.learn(pr.p.Slot(), [][]byte{value}); err != nil {
			c.log.Error("a chosen log entry could not be learned", "version", pr.p.Slot(), "error", err)
		}
		return
	case ring.Outbid:
		pr.wait = c.backoff()
		return
	}
	pr.wait = answerTicks
	slot, b, p := pr.p.Slot(), pr.p.Ballot(), pr.p
	m := ballotRequest{header: c.header(), slot: slot, ballot: b, value: value}
	for _, id := range c.state.Voters() {
		if id != c.self {
			c.out.Send = append(c.out.Send, Send{To: id, Method: method, Payload: m.encode(), ballot: b})
		}
	}
	if slices.Contains(c.state.Voters(), c.self) {
		reg, err := c.ballot(slot, b, value)
		if (err == nil || errors.Is(err, ring.ErrOutbid)) && c.proposal == pr && pr.p == p && p.OnRegister(c.self, reg) {
			c.drive()
		}
	}
}

// backoff gives a random number of ticks, so that two proposers do not outbid each
// other for ever. It does not grow: who has lost often must not lose more often.
func (c *Core) backoff() int {
	var b [1]byte
	if _, err := io.ReadFull(c.rand, b[:]); err != nil {
		return answerTicks
	}
	return 1 + int(b[0])%8
}

// balloted takes in a voter's answer.
func (c *Core) balloted(s Send, payload []byte, err error) error {
	pr := c.proposal
	var m *ballotReply
	if err == nil {
		m, err = decodeBallotReply(payload)
	}
	if err == nil {
		err = c.checkHeader(m.header)
	}
	if err == nil && m.status == ballotRefused {
		err = errors.New(m.text)
	}
	if err != nil {
		c.ballotFailed(s, err)
		return nil
	}
	if m.status == ballotBehind || m.status == ballotDecided {
		c.Exchange(s.To)
		if pr != nil && pr.p != nil && pr.p.Ballot() == s.ballot && m.status == ballotBehind {
			pr.wait = min(pr.wait, 3)
		}
		return nil
	}
	if err := c.hearVote(vote{s.To, m.reg}); err != nil {
		return err
	}
	if pr = c.proposal; pr == nil || pr.result != nil || pr.p == nil {
		return nil
	}
	reg, err := ring.DecodeRegister(m.reg)
	if err != nil {
		return err
	}
	reg.AcceptedBytes = slices.Clone(reg.AcceptedBytes)
	if pr.p.OnRegister(s.To, reg) {
		pr.futile = 0
		c.drive()
	}
	return c.fatal
}

// ballotFailed counts voters that do not answer; without a majority the attempt
// is over sooner than its time.
func (c *Core) ballotFailed(s Send, err error) {
	pr := c.proposal
	if pr == nil || pr.result != nil || pr.p == nil || pr.p.Ballot() != s.ballot {
		return
	}
	pr.failures[s.To] = err
	voters := len(c.state.Voters())
	if voters-len(pr.failures) >= ring.Majority(voters) {
		return
	}
	pr.futile++
	if pr.futile >= maxFutile {
		pr.result = &Result{Err: c.unreachable()}
		return
	}
	pr.wait = min(pr.wait, pr.futile*4+c.backoff())
}

func (c *Core) unreachable() error {
	voters := c.state.Voters()
	e := &UnreachableError{Need: ring.Majority(len(voters)), Voters: len(voters)}
	for _, id := range voters {
		if err, ok := c.proposal.failures[id]; ok {
			n, _ := c.state.Layout().Node(id)
			e.Silent = append(e.Silent, fmt.Sprintf("%s (%v)", n.Name, err))
		}
	}
	return e
}

// Tick lets what waits for time go on: founding, and another attempt of a
// proposal. The owner calls it every 25 ms or so while Busy. nowMs is the wall
// clock, for the record only.
func (c *Core) Tick(nowMs int64) error {
	if c.fatal != nil {
		return c.fatal
	}
	c.ticks++
	c.nowMs = nowMs
	if pr := c.proposal; pr != nil && pr.result == nil && pr.p != nil {
		if pr.wait--; pr.wait <= 0 && !c.deferring(pr.p.Slot()) {
			pr.p.Retry()
			c.drive()
		}
	}
	if c.ticks%foundingTicks != 1 {
		return nil
	}
	return c.tickFounding(nowMs)
}

// Busy says whether Tick has something to do.
func (c *Core) Busy() bool {
	return c.fatal == nil && (c.founding != nil || c.state.Version() < c.floor || c.Founded() && !c.ready ||
		c.proposal != nil && c.proposal.result == nil)
}
