package ring

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Reasons for which a voter does not vote.
var (
	// ErrBehind: the voter lacks entries before the slot; it must learn and
	// persist them first, because its register holds one slot only.
	ErrBehind = errors.New("voter lacks earlier log entries")
	// ErrDecided: the voter already knows the entry of that slot.
	ErrDecided = errors.New("slot is already decided")
	// ErrOutbid: the voter has promised a higher ballot.
	ErrOutbid = errors.New("a higher ballot was promised")
)

// Ballot numbers an attempt to decide a slot. No two proposers ever use the same
// one, since the incarnation grows with every start and a proposer's rounds grow
// within it. The zero ballot is below all others.
type Ballot struct {
	Round       uint64
	Node        NodeID
	Incarnation uint64
}

// Compare orders ballots: -1, 0 or +1.
func (b Ballot) Compare(o Ballot) int {
	return cmp.Or(cmp.Compare(b.Round, o.Round), b.Node.Compare(o.Node), cmp.Compare(b.Incarnation, o.Incarnation))
}

// IsZero says whether it is no ballot at all.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// Register is what one voter has promised and accepted in one slot. Only that
// voter changes it; it is durable before anyone hears of it.
type Register struct {
	Slot Version
	// Promised is the highest ballot promised.
	Promised Ballot
	// Accepted is the ballot of AcceptedBytes, zero if nothing was accepted.
	Accepted Ballot
	// AcceptedBytes is the encoded entry: a voter accepts nothing it does not
	// hold, or a chosen entry could be lost with its proposer.
	AcceptedBytes []byte
}

// Compare orders the states a register passes through: -1, 0 or +1.
func (r Register) Compare(o Register) int {
	return cmp.Or(cmp.Compare(r.Slot, o.Slot), r.Promised.Compare(o.Promised), r.Accepted.Compare(o.Accepted))
}

// at gives the register to vote with in slot, by a voter whose log is durable up
// to version durable.
func (r Register) at(durable, slot Version) (Register, error) {
	switch {
	case slot <= durable || slot < r.Slot:
		return r, fmt.Errorf("slot %d: %w", slot, ErrDecided)
	case slot != durable+1:
		return r, fmt.Errorf("slot %d: %w: it is at %d", slot, ErrBehind, durable)
	case r.Slot < slot:
		return Register{Slot: slot}, nil
	default:
		return r, nil
	}
}

// Prepare gives the register after a promise to accept nothing below b in slot.
// The voter's own log must be durable up to version durable. The result must be
// durable before it is spoken. With ErrOutbid it is the register as it stands,
// which tells the proposer what to outbid.
func Prepare(r Register, durable, slot Version, b Ballot) (Register, error) {
	r, err := r.at(durable, slot)
	if err != nil {
		return r, err
	}
	if b.Compare(r.Promised) < 0 {
		return r, ErrOutbid
	}
	r.Promised = b
	return r, nil
}

// Accept gives the register after accepting value under b in slot. Errors and
// durability are as with Prepare.
func Accept(r Register, durable, slot Version, b Ballot, value []byte) (Register, error) {
	r, err := r.at(durable, slot)
	if err != nil {
		return r, err
	}
	if b.Compare(r.Promised) < 0 {
		return r, ErrOutbid
	}
	r.Promised, r.Accepted, r.AcceptedBytes = b, b, value
	return r, nil
}

// Majority is the smallest number of n voters that decides.
func Majority(n int) int { return n/2 + 1 }

// Chosen says which value a majority of the voters has accepted in slot under
// one ballot, going by the registers known, if there is one. Registers of others
// do not count.
func Chosen(registers map[NodeID]Register, slot Version, voters []NodeID) ([]byte, bool) {
	for i, v := range voters {
		r, ok := registers[v]
		if !ok || r.Slot != slot || r.Accepted.IsZero() {
			continue
		}
		n := 1
		for _, w := range voters[i+1:] {
			if o, ok := registers[w]; ok && o.Slot == slot && o.Accepted == r.Accepted &&
				bytes.Equal(o.AcceptedBytes, r.AcceptedBytes) {
				n++
			}
		}
		if n >= Majority(len(voters)) {
			return r.AcceptedBytes, true
		}
	}
	return nil, false
}

// Phase is how far a Proposer is.
type Phase uint8

const (
	// Preparing: it needs promises of a majority, or of all; send Prepare(Slot, Ballot).
	Preparing Phase = iota + 1
	// Accepting: it needs votes of as many; send Accept(Slot, Ballot, Value).
	Accepting
	// Elected: Value is chosen for ever.
	Elected
	// Outbid: someone used a higher ballot; Retry when it seems right.
	Outbid
)

// Proposer is one node's attempt to get a value into a slot, as a step machine:
// feed it registers with OnRegister, and send what its phase asks for. It has no
// memory that must survive a restart.
type Proposer struct {
	slot     Version
	voters   []NodeID
	need     int // of the voters
	ballot   Ballot
	highest  uint64 // the highest round seen
	value    []byte
	adopted  bool
	phase    Phase
	promises map[NodeID]Register
	votes    map[NodeID]struct{}
}

// NewProposer starts an attempt in Preparing. The ballot's round is above
// highest, the highest round this incarnation of the node has used or seen in
// any slot; keep HighestRound for the next one. The proposer keeps value.
func NewProposer(slot Version, voters []NodeID, self NodeID, incarnation, highest uint64, value []byte) *Proposer {
	p := &Proposer{slot: slot, voters: voters, need: Majority(len(voters)), highest: highest, value: value}
	p.ballot = Ballot{Node: self, Incarnation: incarnation}
	p.Retry()
	return p
}

// NewRecoverer is NewProposer for a slot that the majority of the voters cannot decide
// any more, since it is lost: it needs all of those that are left.
func NewRecoverer(slot Version, left []NodeID, self NodeID, incarnation, highest uint64, value []byte) *Proposer {
	p := NewProposer(slot, left, self, incarnation, highest, value)
	p.need = len(left)
	return p
}

// Slot is the slot to decide.
func (p *Proposer) Slot() Version { return p.slot }

// Ballot is the ballot in use.
func (p *Proposer) Ballot() Ballot { return p.ballot }

// Phase says what is wanted next.
func (p *Proposer) Phase() Phase { return p.phase }

// HighestRound is the highest round used or seen.
func (p *Proposer) HighestRound() uint64 { return p.highest }

// Value is the value to accept, or chosen. Adopted says that it is not the
// proposer's own: an earlier proposer may have succeeded with it.
func (p *Proposer) Value() (value []byte, adopted bool) { return p.value, p.adopted }

// Retry starts over with a higher ballot. The value stays what it was, even if
// it was adopted.
func (p *Proposer) Retry() {
	p.highest++
	p.ballot.Round = p.highest
	p.phase = Preparing
	p.promises = map[NodeID]Register{}
	p.votes = map[NodeID]struct{}{}
}

// OnRegister takes in the register of a voter, from an answer or from gossip,
// and says whether the phase changed.
func (p *Proposer) OnRegister(from NodeID, r Register) bool {
	if r.Slot != p.slot || !slices.Contains(p.voters, from) {
		return false
	}
	p.highest = max(p.highest, r.Promised.Round)
	switch p.phase {
	case Preparing, Accepting:
		if r.Promised.Compare(p.ballot) > 0 {
			p.phase = Outbid
			return true
		}
	default:
		return false
	}
	if p.phase == Preparing && r.Promised == p.ballot {
		p.promises[from] = r
		if len(p.promises) >= p.need {
			p.adopt()
			p.phase = Accepting
			return true
		}
	}
	if p.phase == Accepting && r.Accepted == p.ballot {
		p.votes[from] = struct{}{}
		if len(p.votes) >= p.need {
			p.phase = Elected
			return true
		}
	}
	return false
}

// adopt takes over the value of the highest ballot accepted by those who
// promised: it may have been chosen.
func (p *Proposer) adopt() {
	var best Ballot
	for _, v := range p.voters {
		r, ok := p.promises[v]
		if ok && r.Accepted.Compare(best) > 0 {
			best = r.Accepted
			p.value, p.adopted = r.AcceptedBytes, true
		}
	}
}

const registerFormat = 1

// AppendRegister appends the encoding of r to dst: format u8 = 1, slot u64, two
// ballots (round u64, node 16, incarnation u64), value (u32 length).
func AppendRegister(dst []byte, r Register) []byte {
	dst = append(dst, registerFormat)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Slot))
	dst = AppendBallot(AppendBallot(dst, r.Promised), r.Accepted)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.AcceptedBytes)))
	return append(dst, r.AcceptedBytes...)
}

// BallotBytes is the length of an encoded ballot.
const BallotBytes = 32

// AppendBallot appends the BallotBytes of b to dst.
func AppendBallot(dst []byte, b Ballot) []byte {
	dst = binary.BigEndian.AppendUint64(dst, b.Round)
	dst = append(dst, b.Node[:]...)
	return binary.BigEndian.AppendUint64(dst, b.Incarnation)
}

// DecodeBallot reads BallotBytes.
func DecodeBallot(b []byte) (Ballot, error) {
	if len(b) != BallotBytes {
		return Ballot{}, fmt.Errorf("decode ballot of %d bytes: %w", len(b), ErrCorrupt)
	}
	r := reader{b: b}
	return r.ballot(), nil
}

func (r *reader) ballot() (b Ballot) {
	b.Round = r.u64()
	copy(b.Node[:], r.take(16))
	b.Incarnation = r.u64()
	return b
}

// DecodeRegister reads what AppendRegister wrote. The value aliases b.
func DecodeRegister(b []byte) (Register, error) {
	r := reader{b: b}
	if f := r.u8(); f != registerFormat && !r.bad {
		return Register{}, fmt.Errorf("decode vote register: %w", formatError(f, registerFormat))
	}
	reg := Register{Slot: Version(r.u64()), Promised: r.ballot(), Accepted: r.ballot()}
	n := r.u32()
	if r.bad || n > MaxEntryBytes || int(n) != len(r.b) {
		return Register{}, fmt.Errorf("decode vote register: %w", ErrCorrupt)
	}
	if n > 0 {
		reg.AcceptedBytes = r.take(int(n))
	}
	if reg.Accepted.IsZero() != (n == 0) || reg.Accepted.Compare(reg.Promised) > 0 {
		return Register{}, fmt.Errorf("decode vote register: accepted and promised disagree: %w", ErrCorrupt)
	}
	return reg, nil
}
