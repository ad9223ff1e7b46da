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
	// ErrVoid: the entry changes nothing, since something else came before it.
	ErrVoid = errors.New("it is overtaken and changes nothing")
	// ErrSkipped: this node got a snapshot in the place of the entries that decide.
	ErrSkipped = errors.New("what became of it is in entries that this node has not got any more")
	// ErrTenantLimit: the cluster has as many tenants as it can.
	ErrTenantLimit = errors.New("too many tenants")
)

// UnreachableError says that too few voters answered, and that nothing was
// changed.
type UnreachableError struct {
	Need, Voters int
	// Silent are the names of voters that did not answer, with the cause.
	Silent []string
	// Recovery: it takes all members that are left, instead of voters.
	Recovery bool
}

// Error names the silent voters.
func (e *UnreachableError) Error() string {
	if e.Recovery {
		return fmt.Sprintf("all %d members that are left have to agree, start those that do not, or name them as lost, too: %s", e.Need, strings.Join(e.Silent, "; "))
	}
	return fmt.Sprintf("need %d of %d voters to change the log, no answer from: %s", e.Need, e.Voters, strings.Join(e.Silent, "; "))
}

// Result is how a proposal ended.
type Result struct {
	// Op names the entry.
	Op [16]byte
	// Tenant is the one there is now, if the entry was to create one, or the one that there
	// was, if it was to delete it.
	Tenant *ring.TenantRecord
	Err    error
	// Version is the log entry that decided; 0 if none did.
	Version ring.Version
}

// proposal is the one entry this node wants to see in the log.
type proposal struct {
	// entry is what is wanted; its version is that of the next attempt.
	entry ring.Entry
	p     *ring.Proposer
	// spoken: a voter, this node included, may have accepted the entry.
	spoken bool
	// wait is the number of ticks until the next attempt.
	wait     int
	failures map[ring.NodeID]error
	// futile counts attempts in a row that reached no majority.
	futile int
	// once: it is another node's, for the next slot and no other.
	once   bool
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
	return c.Propose(ring.Entry{Kind: ring.KindTenantCreate, Tenant: &t})
}

// Propose starts to put an entry into the log, of which kind and content are given. It
// is put there only while it has an effect; else the result is ErrVoid. Follow it with
// Proposal; end it with EndProposal.
func (c *Core) Propose(e ring.Entry) error {
	switch {
	case c.fatal != nil:
		return c.fatal
	case !c.Ready():
		return ErrNotReady
	case c.proposal != nil:
		return ErrBusy
	case e.Kind == ring.KindTenantCreate && c.full():
		return fmt.Errorf("%w: %d", ErrTenantLimit, c.maxTenants)
	}
	if _, err := io.ReadFull(c.rand, e.Op[:]); err != nil {
		return fmt.Errorf("propose %s: draw: %w", e.Kind, err)
	}
	pr := &proposal{entry: e, failures: map[ring.NodeID]error{}}
	if err := c.fit(pr); err != nil {
		return err
	}
	if _, err := c.state.Next(&pr.entry); err != nil {
		return err
	}
	c.proposal = pr
	c.settleProposal()
	return c.fatal
}

// Undecided says that somebody has voted in the next slot for an entry that makes a tenant:
// it may be chosen, and the node that knows so may be out of reach.
func (c *Core) Undecided() bool { return c.undecided() != nil }

func (c *Core) undecided() *ring.Entry {
	for _, v := range c.currentVotes() {
		r, err := ring.DecodeRegister(v.reg)
		if err != nil || r.Accepted.IsZero() {
			continue
		}
		e, err := ring.DecodeEntry(r.AcceptedBytes)
		if err != nil || e.Kind != ring.KindTenantCreate {
			continue
		}
		if next, err := c.state.Next(e); err == nil && effective(c.state, next, e) {
			return e
		}
	}
	return nil
}

// Decide starts to bring the slot to its end of which Undecided tells. Whatever becomes of
// the entry there, it is proposed in no other: whose it is may have given it up. ErrVoid:
// nothing is undecided. Else it is like Propose.
func (c *Core) Decide() error {
	e := c.undecided()
	switch {
	case c.fatal != nil:
		return c.fatal
	case !c.Ready():
		return ErrNotReady
	case c.proposal != nil:
		return ErrBusy
	case e == nil:
		return ErrVoid
	}
	c.proposal = &proposal{entry: *e, once: true, failures: map[ring.NodeID]error{}}
	c.settleProposal()
	return c.fatal
}

// fit makes the entry one of the next slot.
func (c *Core) fit(pr *proposal) error {
	pr.entry.Version = c.state.Version() + 1
	if p := pr.entry.Propose; p != nil && p.Layout.Version() != pr.entry.Version {
		next := *p
		next.Layout = p.Layout.At(pr.entry.Version)
		pr.entry.Propose = &next
	}
	return c.fitRecovery(pr)
}

// effective says whether e, which led from one state to the next, changed anything.
func effective(before, after *ring.State, e *ring.Entry) bool {
	change := after.Change()
	switch e.Kind {
	case ring.KindTenantCreate:
		t, ok := after.Tenant(e.Tenant.Name)
		return ok && t.Version == e.Version
	case ring.KindTenantDelete:
		_, was := before.TenantByNumber(e.Delete.Number)
		return was
	case ring.KindPropose:
		return change != nil && change.ProposedAt == e.Version
	case ring.KindCommit:
		return change != nil && change.CommittedAt == e.Version
	case ring.KindAbort, ring.KindFinalize:
		return before.Change() != nil && change == nil
	case ring.KindRetire:
		return len(after.Retired()) > len(before.Retired())
	case ring.KindRecover:
		return !slices.Equal(before.Voters(), after.Voters())
	case ring.KindIntent:
		if e.Intent.Verb == ring.VerbCancel {
			return len(after.Intents()) < len(before.Intents())
		}
		return slices.ContainsFunc(after.Intents(), func(i *ring.IntentRecord) bool { return i.Op == e.Op })
	default:
		return false
	}
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

// concludeProposal is told of each entry that is learned: that of the proposal decides.
func (c *Core) concludeProposal(before, after *ring.State, e *ring.Entry) {
	pr := c.proposal
	if pr == nil || pr.result != nil || e.Op != pr.entry.Op {
		return
	}
	pr.result = &Result{Op: e.Op, Version: e.Version}
	if e.Tenant != nil {
		pr.result.Tenant, _ = after.Tenant(e.Tenant.Name)
	}
	if e.Delete != nil {
		pr.result.Tenant, _ = before.TenantByNumber(e.Delete.Number)
	}
	if !effective(before, after, e) {
		pr.result = c.overtaken(pr, after, nil)
		pr.result.Version = e.Version
	}
}

// skipProposal ends a proposal that a voter may have accepted in a slot of which this node
// will not see the entry.
func (c *Core) skipProposal() {
	if pr := c.proposal; pr != nil && pr.result == nil && pr.spoken {
		pr.result = &Result{Op: pr.entry.Op, Err: ErrSkipped}
	}
}

// settleProposal looks at the proposal after the log has grown: it is decided,
// or starts anew in the next slot.
func (c *Core) settleProposal() {
	pr := c.proposal
	if pr == nil || pr.result != nil {
		return
	}
	slot := c.state.Version() + 1
	if pr.p != nil && pr.p.Slot() == slot {
		return
	}
	if pr.p != nil && pr.once {
		pr.result = c.overtaken(pr, c.state, ErrVoid)
		return
	}
	// Wherever the entry may have been accepted before, there it was not chosen.
	err := c.fit(pr)
	next := c.state
	if err == nil {
		next, err = c.state.Next(&pr.entry)
	}
	if err != nil || !effective(c.state, next, &pr.entry) {
		pr.result = c.overtaken(pr, c.state, err)
		return
	}
	if pr.entry.Tenant != nil && c.full() {
		pr.result = &Result{Op: pr.entry.Op, Err: fmt.Errorf("%w: %d", ErrTenantLimit, c.maxTenants), Version: c.state.Version()}
		return
	}
	lost := pr.p != nil
	pr.p = c.proposer(pr)
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

// overtaken is the result of a proposal that would change nothing any more.
func (c *Core) overtaken(pr *proposal, state *ring.State, err error) *Result {
	r := &Result{Op: pr.entry.Op, Version: state.Version(), Err: fmt.Errorf("%w: %s", ErrVoid, pr.entry.Kind)}
	if err != nil {
		r.Err = err
		return r
	}
	if d := pr.entry.Delete; d != nil {
		r.Err = fmt.Errorf("%w: the one with number %d was deleted before", ring.ErrUnknownTenant, d.Number)
	}
	if t := pr.entry.Tenant; t != nil {
		var there bool
		if r.Tenant, there = state.Tenant(t.Name); there {
			r.Version, r.Err = r.Tenant.Version, fmt.Errorf("%w: %q", ErrTenantExists, t.Name)
		} else {
			r.Err = fmt.Errorf("%w: %d", ErrTenantLimit, c.maxTenants)
		}
	}
	return r
}

// full says that every create is void until a tenant is deleted.
func (c *Core) full() bool { return len(c.state.Tenants()) >= c.maxTenants }

// deferring says that this voter has lately made a promise to another proposer of
// the slot, which had better be left to finish.
func (c *Core) deferring(slot ring.Version) bool {
	return c.reg.Slot == slot && c.reg.Promised.Node != c.self && c.ticks-c.promised < deferTicks
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
	m := ballotRequest{header: c.header(), slot: slot, ballot: b, value: value, lost: pr.lost()}
	voters, _ := c.electorate(pr)
	for _, id := range voters {
		if id != c.self {
			c.out.Send = append(c.out.Send, Send{To: id, Method: method, Payload: m.encode(), ballot: b})
		}
	}
	if slices.Contains(voters, c.self) {
		reg, err := c.ballot(slot, b, value, m.lost)
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
	voters, need := c.electorate(pr)
	if len(voters)-len(pr.failures) >= need {
		return
	}
	pr.futile++
	if pr.futile >= maxFutile {
		pr.result = &Result{Op: pr.entry.Op, Err: c.unreachable()}
		return
	}
	pr.wait = min(pr.wait, pr.futile*4+c.backoff())
}

func (c *Core) unreachable() error {
	voters, need := c.electorate(c.proposal)
	e := &UnreachableError{Need: need, Voters: len(voters), Recovery: c.proposal.entry.Recover != nil}
	for _, id := range voters {
		if err, ok := c.proposal.failures[id]; ok {
			n, _ := c.state.Member(id)
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
	if c.fetch != nil && c.ticks-c.fetch.at > answerTicks {
		c.fetch = nil // who had it does not go on
	}
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
	return c.fatal == nil && (c.founding != nil || c.fetch != nil || c.state.Version() < c.floor || c.Founded() && !c.ready || !c.joining.IsZero() && !c.whole() ||
		c.proposal != nil && c.proposal.result == nil)
}
