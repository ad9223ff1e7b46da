package coord

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// validate checks a request against the limits. Every entry point passes
// through here before anything else is done.
func (c *Coordinator) validate(r *request) *Error {
	bad := func(code errcode.Code, format string, args ...any) *Error {
		return &Error{Code: code, Outcome: outcome(r, errcode.NotApplied), Message: fmt.Sprintf(format, args...)}
	}
	if err := schema.ValidateTenantID(r.tenant); err != nil {
		return bad(errcode.InvalidTenantID, "%v", err)
	}
	if r.scan != nil {
		if err := validateScan(r.scan); err != nil {
			return err
		}
	}
	switch {
	case len(r.key) == 0 && r.scan == nil:
		return bad(errcode.InvalidKey, "the key is empty")
	case len(r.key) > MaxKeySize:
		return bad(errcode.KeyTooLarge, "the key has %d bytes, at most %d are allowed", len(r.key), MaxKeySize)
	case len(r.value) > c.opts.MaxValueSize:
		return bad(errcode.ValueTooLarge, "the value has %d bytes, at most %d are allowed", len(r.value), c.opts.MaxValueSize)
	case !r.level.Valid():
		return bad(errcode.InvalidArgument, "the consistency level %d is none of one, quorum and all", r.level)
	case len(r.token) > MaxTokenSize:
		return bad(errcode.InvalidArgument, "%v", errTokenSize)
	case len(r.idempotencyKey) > causal.MaxIdempotencyKey:
		return bad(errcode.InvalidArgument, "the idempotency key has %d bytes, at most %d are allowed", len(r.idempotencyKey), causal.MaxIdempotencyKey)
	case len(r.expect) > maxClockActors:
		return bad(errcode.InvalidArgument, "the expected clock has %d entries, at most %d are allowed", len(r.expect), maxClockActors)
	case !r.expiry.Valid():
		return bad(errcode.InvalidArgument, "%s", expiryRule)
	case !r.cond.fits(r.kind):
		return bad(errcode.InvalidArgument, "the write has conditions that exclude one another; give one, or none beside a context")
	case r.cond&(ifAbsent|ifDot) != 0 && len(r.token) > 0:
		return bad(errcode.InvalidArgument, "the write has a condition beside a context: a context says what to supersede whatever is there; ask for one of them")
	}
	return nil
}

// unit is what one snapshot says about one key: whose it is and who owns it. It
// does not change while answers are counted.
type unit struct {
	Address
	snap   *schema.Snapshot
	tenant *schema.Tenant
	pv     ring.Version
	// owners are all that are written: while the partition is stable its owners, and
	// while they change the old and the new ones. They are in room, which saves an
	// allocation.
	owners []ring.NodeID
	room   [ring.MaxOwners]ring.NodeID
	// w1 are the old owners and w2 the new ones, r1 those of them that are read and
	// r2 the others, which confirm; each has a bit for an index into owners. w2 and
	// r2 are 0 while the partition is stable.
	w1, w2, r1, r2 uint16
	// confirms are those that are about to become owners and are none yet. They may not
	// have all, and hold what was deleted: reads have them hold what the others say, and
	// never show what they say.
	confirms uint16
	// self is this node's index among the owners, or -1. gains says that it is about
	// to become one of them and may not have all of the partition yet.
	self  int
	gains bool
	// dead and alive have a bit for each owner that is known not to be there, and
	// that is known to be and to answer, and has not asked others to go elsewhere; one of which nothing is known has neither.
	dead, alive uint16
}

// look takes the snapshot and finds the tenant.
func (c *Coordinator) look(j *job) (*schema.Snapshot, *schema.Tenant, *Error) {
	s := c.opts.View()
	fail := func(code errcode.Code, msg string) (*schema.Snapshot, *schema.Tenant, *Error) {
		return nil, nil, &Error{Code: code, Outcome: outcome(&j.request, errcode.NotApplied), Message: msg}
	}
	if !s.Ready || s.Layout == nil {
		return fail(errcode.Unavailable, "the node is not part of a ready cluster yet")
	}
	t, ok := s.Tenant(j.tenant)
	if !ok {
		return nil, nil, UnknownTenant(j.tenant, j.informed || j.number != 0, outcome(&j.request, errcode.NotApplied))
	}
	if j.number != 0 && j.number != t.Number {
		// Another tenant has the name by now. What this operation has found or done of the
		// one before says nothing of it.
		return fail(errcode.TenantNotFound, deletedText(j.tenant))
	}
	if j.number == 0 {
		j.number = t.Number
	}
	if t.Policy != schema.PolicyLWW && t.Policy != schema.PolicySiblings {
		return fail(errcode.InvalidArgument, fmt.Sprintf("tenant %q has the conflict policy %v, which this version does not serve", j.tenant, t.Policy))
	}
	return s, t, nil
}

// UnknownTenant is the error of a request for a tenant that is not known here.
// informed says that so many other nodes were asked for it, since the request came, that
// there is none; otherwise one may exist.
func UnknownTenant(name string, informed bool, o errcode.Outcome) *Error {
	if !informed {
		return &Error{
			Code: errcode.Unavailable, Outcome: o,
			Message: fmt.Sprintf("the tenant %q is not known here, and too few other nodes could be asked whether it exists", name),
		}
	}
	return &Error{Code: errcode.TenantNotFound, Outcome: o, Message: fmt.Sprintf("there is no tenant %q", name)}
}

// deletedText is why an operation ends whose tenant is no more.
func deletedText(name string) string {
	return fmt.Sprintf("the tenant %q has been deleted", name)
}

// deleted is the error of an operation whose tenant is known here to have been deleted,
// nil if it is not: whatever else failed, that is why.
func (c *Coordinator) deleted(j *job, n ring.TenantNumber, o errcode.Outcome) *Error {
	s := c.opts.View()
	if _, ok := s.TenantByNumber(n); ok || !s.Deleted(n) {
		return nil
	}
	return &Error{Code: errcode.TenantNotFound, Outcome: outcome(&j.request, o), Message: deletedText(j.tenant)}
}

// saysDeleted reports whether an owner has refused because the tenant is deleted there.
// That is final, whatever the other owners say: they will learn of it.
func saysDeleted(e *Error) bool { return e != nil && e.Code == errcode.TenantNotFound }

// locate takes the snapshot, once, and finds the owners.
func (c *Coordinator) locate(j *job) (*unit, *Error) {
	s, t, e := c.look(j)
	if e != nil {
		return nil, e
	}
	if len(j.token) > 0 {
		if _, _, err := open(s, t.Number, j.key, j.token); err != nil {
			return nil, &Error{Code: errcode.InvalidArgument, Outcome: outcome(&j.request, errcode.NotApplied), Message: err.Error()}
		}
	}
	return c.place(s, t, j.key), nil
}

func (c *Coordinator) place(s *schema.Snapshot, t *schema.Tenant, key []byte) *unit {
	u := c.placeToken(s, t, ring.KeyToken(t.Number, key))
	u.Key = key
	return u
}

// placeToken is place for whatever falls into the partition of a token.
func (c *Coordinator) placeToken(s *schema.Snapshot, t *schema.Tenant, tok ring.Token) *unit {
	u := &unit{snap: s, tenant: t}
	u.Address = Address{
		Partition: s.Layout.PartitionOf(tok), Tenant: t.Number, Token: tok, Class: t.Class(), LWW: t.Policy == schema.PolicyLWW,
	}
	u.pv = s.Layout.PV(u.Partition)
	u.PV = u.pv
	sets := s.Sets(u.room[:0], u.Partition, t.Copies())
	u.w1, u.w2, u.r1, u.r2 = sets.W1, sets.W2, sets.R1, sets.R2
	if sets.Stage == ring.Proposed {
		u.confirms = u.r2 &^ u.r1
	}
	u.setOwners(sets.Owners)
	if u.dead != 0 && c.opts.Linked != nil {
		c.doubtDeath(u)
	}
	u.self = slices.Index(u.owners, c.opts.Self)
	u.gains = u.self >= 0 && sets.Stage == ring.Proposed && u.w1>>u.self&1 == 0
	return u
}

// doubtDeath takes no owner for dead that answers: gossip alone may be cut between
// the two, and then membership is wrong at both.
func (c *Coordinator) doubtDeath(u *unit) {
	for i, id := range u.owners {
		if u.dead>>i&1 == 0 || c.shut(u, i) {
			continue
		}
		// Whoever said goodbye means it.
		if m, ok := u.snap.Member(id); ok && m.Liveness == schema.Dead && c.opts.Linked(id) {
			u.dead &^= 1 << i
		}
	}
}

// setOwners notes the owners, and what is known of them.
func (u *unit) setOwners(owners []ring.NodeID) {
	u.owners = owners
	for i, id := range owners {
		m, ok := u.snap.Member(id)
		switch {
		case !ok:
		case m.Liveness == schema.Alive && !m.Withdrawn && !m.Drained:
			u.alive |= 1 << i
		case m.Liveness == schema.Dead || m.Liveness == schema.Left:
			u.dead |= 1 << i
		}
	}
}

// same reports whether answers given under u count under v too.
func (u *unit) same(v *unit) bool {
	return u.pv == v.pv && u.tenant.Version == v.tenant.Version
}

// unmoved is err, or ErrMoved if what a read has found of a partition was found when that
// had another ring version already than the read goes by, or no tenant: this node may
// not own it any more then, and have dropped it, so that nothing is found of what is
// there.
func (c *Coordinator) unmoved(p ring.Partition, t ring.TenantNumber, pv ring.Version, err error) error {
	if err != nil {
		return err
	}
	s := c.opts.View()
	if _, ok := s.TenantByNumber(t); !ok || s.Layout == nil || s.Layout.PV(p) != pv {
		return ErrMoved
	}
	return nil
}

// down reports whether owner i is known not to be there. Suspicion is not
// knowledge, and neither is never having heard of it.
func (u *unit) down(i int) bool { return i != u.self && u.dead>>i&1 == 1 }

func (u *unit) name(i int) string {
	if m, ok := u.snap.Member(u.owners[i]); ok {
		return m.Name
	}
	return ""
}

func (u *unit) cause(i int, reason string) Cause {
	return Cause{Node: u.owners[i], Name: u.name(i), Reason: reason}
}

const (
	reasonDown    = "is down"
	reasonSilence = "did not answer in time"
	reasonStale   = "has another ring version"
)

// reachable fails when membership already says that the level cannot be met:
// nothing is minted or sent then.
func (u *unit) reachable(j *job) *Error {
	t := u.goal(j).Tally()
	for i := range u.owners {
		if u.down(i) {
			t.Fail(i, reasonDown)
		}
	}
	if t.Verdict() != quorum.Lost {
		return nil
	}
	return u.quorumError(j, &t, errcode.QuorumNotReached, errcode.NotApplied, "too many owners of "+j.subject()+" are down")
}

// mints reports whether this node may mint writes of the key and coordinate its
// operations: it is one of those that are read.
func (u *unit) mints() bool { return u.self >= 0 && u.r1>>u.self&1 == 1 }

// standBack leaves this node's own copy out, if it is about to become an owner: what
// goes on here was begun when it was one, and its copy may not be used yet.
func (u *unit) standBack() {
	if u.gains {
		u.dead |= 1 << u.self
		u.self = -1
	}
}

// newer returns what the present snapshot says of the key, nil if that is nothing
// newer. An operation that has failed under u may then not have to.
func (c *Coordinator) newer(u *unit) *unit {
	s := c.opts.View()
	t, ok := s.TenantByNumber(u.Tenant)
	if !ok || s.Layout == nil || s.Layout.PV(u.Partition) <= u.pv && t.Version <= u.tenant.Version {
		return nil
	}
	n := c.placeToken(s, t, u.Token)
	n.Key = u.Key
	return n
}

// written is what a write needs at a level, and a read of which owners differ.
func (u *unit) written(l quorum.Level) quorum.Goal {
	return quorum.Goal{First: quorum.Of(l, u.w1), Second: quorum.Of(l, u.w2)}
}

// read is what a read needs at a level. What it shows has to be at as many of the
// owners to be, or at as many of those before, so that no later read goes back.
func (u *unit) read(l quorum.Level) quorum.Goal {
	if l == quorum.One {
		return quorum.Goal{First: quorum.Of(l, u.r1)}
	}
	return quorum.Goal{First: quorum.Of(l, u.r1), Second: quorum.Of(l, u.r2)}
}

// meeting is how many have to be asked so that one of them has what enough owners
// have agreed on before, be it the old ones or both.
func (u *unit) meeting() quorum.Goal {
	return quorum.Goal{
		First:  quorum.Set{Members: u.w1, Need: ring.Meeting(bits.OnesCount16(u.w1))},
		Second: quorum.Set{Members: u.w2, Need: ring.Meeting(bits.OnesCount16(u.w2))},
	}
}

// goal is what the operation needs where it is coordinated.
func (u *unit) goal(j *job) quorum.Goal {
	if j.kind.reads() {
		return u.read(j.level)
	}
	return u.written(j.level)
}

// both has a bit for each member of both sets.
func (u *unit) both() uint16 {
	if u.w2 == 0 {
		return u.w1
	}
	return u.w1 & u.w2
}

// replicas is how many owners clients are told of: while they change, the old ones.
func (u *unit) replicas() int { return bits.OnesCount16(u.w1) }

// quorumError is the error of an operation that missed its level.
func (u *unit) quorumError(j *job, t *quorum.Tally, code errcode.Code, o errcode.Outcome, msg string) *Error {
	if e := j.c.deleted(j, u.Tenant, o); e != nil {
		return e
	}
	e := &Error{Code: code, Outcome: outcome(&j.request, o), Acks: t.Acks(), Need: t.Need(), Message: msg}
	if code == errcode.Timeout {
		for i := range u.owners {
			t.Fail(i, reasonSilence)
		}
	}
	for i, why := range t.Causes() {
		e.Causes = append(e.Causes, u.cause(i, why))
	}
	return e
}

// order appends the indices of the owners that may answer to dst: this node,
// then those that are alive, then those nobody is sure of and those that have
// withdrawn or are drained. Of each, members of both sets come first, since one answer of theirs
// counts for both, and then it goes by the order of the layout.
func (u *unit) order(dst []int) []int {
	if u.self >= 0 {
		dst = append(dst, u.self)
	}
	both := u.both()
	for _, want := range []uint16{u.alive, ^u.alive} {
		for _, set := range []uint16{want & both, want &^ both} {
			for i := range u.owners {
				if i != u.self && set>>i&1 == 1 && !u.down(i) {
					dst = append(dst, i)
				}
			}
		}
	}
	return dst
}

// message returns a message about the key under the unit's fences.
func (u *unit) message(op Op) Message {
	return Message{
		Op: op, Partition: u.Partition, PV: u.pv, Tenant: u.Tenant,
		TenantVersion: u.tenant.Version, Token: u.Token, Key: u.Key,
	}
}

// refused says in a phrase what a reply other than StatusOK or StatusStale
// means, and whether the peer did nothing at all.
func refused(r *Reply, err error) (reason string, e *Error, untouched bool) {
	switch {
	case errors.Is(err, ErrNotSent):
		return "could not be reached", nil, true
	case err != nil:
		return "did not answer", nil, false
	}
	switch r.Status {
	case StatusNotOwner:
		return "does not own the key", nil, true
	case StatusOverloaded:
		return "is overloaded", nil, true
	case StatusExpired:
		return "got it too late", nil, true
	case StatusError:
		e, err := DecodeError(r.Body)
		if err != nil {
			return "sent an error that does not decode", nil, false
		}
		why := "answered " + string(e.Code)
		if e.Message != "" {
			why += ": " + strings.TrimSpace(e.Message)
		}
		return why, e, e.Outcome == errcode.NotApplied
	default:
		return fmt.Sprintf("sent the status %d", r.Status), nil, false
	}
}
