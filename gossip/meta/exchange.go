package meta

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
)

// maxRounds bounds one exchange. A round carries megabytes; what is left after so
// many waits for the next exchange.
const maxRounds = 64

// Exchange asks a peer for what it knows, and hands it what it lacks.
func (c *Core) Exchange(to ring.NodeID) {
	if s, ok := c.PullFrom(to); ok {
		c.out.Send = append(c.out.Send, s)
	}
}

// PullFrom is Exchange for a caller that makes the request itself and then calls
// HandleReply; false if there is nobody to ask.
func (c *Core) PullFrom(to ring.NodeID) (Send, bool) {
	if to == c.self || c.fatal != nil {
		return Send{}, false
	}
	m := exchange{header: c.header(), version: c.state.Version(), vector: c.nodes.Vector()}
	if own, ok := c.nodes.Get(c.self); ok && !c.Founded() && c.floor == 0 && (c.founder.IsZero() || !c.joining.IsZero()) {
		// A member says whose place this node may want, or keeps it as one that waits.
		m.nodes, m.joins = append(m.nodes, own.Append(nil)), true
	}
	c.askPart(&m)
	return Send{To: to, Method: MethodExchange, Payload: m.encode(), pull: true}, true
}

// Push hands a peer what this node knows beyond version and vector of the peer,
// going by the peer's own entry; it needs no question first.
func (c *Core) Push(to ring.NodeID) {
	e, ok := c.nodes.Get(to)
	if to == c.self || c.fatal != nil || !ok || !c.Founded() || !c.IsMember(to) {
		c.Exchange(to)
		return
	}
	// What it has acknowledged it has, and mostly little more.
	m := c.content(e.AckedVersion, c.nodes.Vector())
	if own, ok := c.nodes.Get(c.self); ok { // news is mostly of oneself
		m.nodes = append(m.nodes, own.Append(nil))
	}
	c.out.Send = append(c.out.Send, Send{To: to, Method: MethodExchange, Payload: m.encode()})
}

// content is an exchange with what a peer at version and vector lacks, as much
// of it as fits. If that begins with entries that are not kept any more it has none, and
// the first that is kept says so.
func (c *Core) content(version ring.Version, vector []crdt.VectorItem) *exchange {
	m := &exchange{header: c.header(), version: c.state.Version(), vector: c.nodes.Vector()}
	room := contentBytes
	if m.first = c.tail.base.version() + 1; version >= c.tail.base.version() {
		room = c.addLog(m, version, room)
	}
	for _, e := range c.nodes.Newer(vector) {
		if room <= 0 {
			break
		}
		b := e.Append(nil)
		m.nodes = append(m.nodes, b)
		room -= len(b)
	}
	if version == c.state.Version() && room > 0 {
		for _, v := range c.currentVotes() {
			if room -= len(v.reg); room > 0 {
				m.votes = append(m.votes, v)
			}
		}
	}
	return m
}

// addLog adds the entries behind version, and gives the room that is left.
func (c *Core) addLog(m *exchange, version ring.Version, room int) int {
	m.first = version + 1
	for v := m.first; v <= c.state.Version() && room > 0; v++ {
		b := c.tail.at(v)
		m.log = append(m.log, b)
		room -= len(b)
	}
	return room
}

// currentVotes are the known registers of the next slot, in the order of voters.
func (c *Core) currentVotes() []vote {
	var out []vote
	slot := c.state.Version() + 1
	for _, id := range c.state.Voters() {
		r, ok := c.votes[id]
		if id == c.self {
			r, ok = c.reg, true
		}
		if ok && r.Slot == slot {
			out = append(out, vote{id, ring.AppendRegister(nil, r)})
		}
	}
	return out
}

// HandleRequest serves a request of a peer. An error means that nothing was
// understood; refusals the peer must act upon are replies.
func (c *Core) HandleRequest(from ring.NodeID, method string, payload []byte) ([]byte, error) {
	if c.fatal != nil {
		return nil, c.fatal
	}
	if err := c.hears(from); err != nil {
		return nil, err
	}
	var reply []byte
	var err error
	switch method {
	case MethodExchange, MethodFound:
		reply, err = c.serveExchange(from, payload)
	case MethodPrepare, MethodAccept:
		reply, err = c.serveBallot(from, method, payload)
	case MethodPledge:
		reply, err = c.servePledge(from, payload)
	default:
		err = fmt.Errorf("metadata method %q: %w", method, errMessage)
	}
	if c.fatal != nil {
		return nil, c.fatal // what failed on the way must not be spoken of
	}
	return reply, err
}

func (c *Core) serveExchange(from ring.NodeID, payload []byte) ([]byte, error) {
	m, err := decodeExchange(payload)
	if err != nil {
		return nil, err
	}
	if err := c.checkHeader(m.header); err != nil {
		return nil, err
	}
	if c.Founded() && !c.IsMember(from) {
		if m.cluster == c.state.ClusterID() && !c.state.IsRetired(from) {
			// It may be a member by an entry that it brings.
			if err := c.learn(m.first, m.log); err != nil {
				return nil, err
			}
		}
		if !c.IsMember(from) {
			c.askForGap(from, m)
			return c.serveStranger(from, m).encode(), nil
		}
	}
	if err := c.absorb(m); err != nil {
		return nil, err
	}
	if c.state.ClusterID() != m.cluster && !m.cluster.IsZero() {
		// The peer has a cluster and this node none: all it has to tell is that it
		// waits to be a member.
		reply := &exchange{header: c.header(), vector: c.nodes.Vector()}
		if own, ok := c.nodes.Get(c.self); ok && c.joining == m.cluster {
			reply.nodes = append(reply.nodes, own.Append(nil))
		}
		return reply.encode(), nil
	}
	c.askForGap(from, m)
	reply := c.content(m.version, m.vector)
	if m.version < c.tail.base.version() {
		c.addPart(reply, m.part)
	}
	return reply.encode(), nil
}

// askForGap asks a peer that knows more of the log than this node and could not hand it
// over: snapshots are only sent to those that ask.
func (c *Core) askForGap(from ring.NodeID, m *exchange) {
	if m.cluster == c.state.ClusterID() && m.version > c.state.Version() && m.first > c.state.Version()+1 && !c.state.IsRetired(from) {
		c.Exchange(from)
	}
}

// absorb merges the content of an exchange: the log first, since it says who is
// a member.
func (c *Core) absorb(m *exchange) error {
	if m.cluster.IsZero() && c.Founded() && len(m.log) > 0 {
		return fmt.Errorf("log entries of a node without a cluster: %w", errMessage)
	}
	c.offered = m.version
	err := c.learn(m.first, m.log)
	c.offered = 0
	if err != nil {
		return err
	}
	changed := false
	for _, raw := range m.nodes {
		merged, err := c.mergeNode(raw)
		if errors.Is(err, ErrIdentity) || errors.Is(err, ErrFailed) {
			return err
		}
		if err != nil {
			c.log.Warn("a node entry was refused", "error", err)
		}
		changed = changed || merged
	}
	if changed {
		c.maybeReady()
	}
	for _, v := range m.votes {
		if err := c.hearVote(v); err != nil {
			return err
		}
	}
	return nil
}

// HandleReply takes in the answer to a Send, or the error it met.
func (c *Core) HandleReply(s Send, payload []byte, err error) error {
	if c.fatal != nil {
		return c.fatal
	}
	if err == nil {
		err = c.hears(s.To)
	}
	switch s.Method {
	case MethodExchange, MethodFound:
		if err != nil {
			return fmt.Errorf("exchange metadata with %s: %w", s.To.Short(), err)
		}
		return c.exchanged(s, payload)
	case MethodPrepare, MethodAccept:
		return c.balloted(s, payload, err)
	case MethodPledge:
		return c.pledged(s, payload, err)
	}
	return nil
}

func (c *Core) exchanged(s Send, payload []byte) error {
	m, err := decodeExchange(payload)
	if err != nil {
		return err
	}
	if err := c.checkHeader(m.header); err != nil {
		return err
	}
	if m.refused {
		return c.refused(m)
	}
	if m.outside {
		return c.standOutside(s.To, m)
	}
	if !c.Founded() && !m.cluster.IsZero() && len(m.log) == 0 && m.part == nil {
		return nil // it could not tell yet whether this node is a member
	}
	before := c.progress()
	if m.part != nil {
		c.offered = m.version
		err := c.takePart(m)
		c.offered = 0
		if err != nil {
			return err
		}
	}
	if err := c.absorb(m); err != nil {
		return err
	}
	had := vectorHash(m.version, m.vector)
	lacks := m.version > c.state.Version() || c.peerLacks(m)
	if !lacks || s.round >= maxRounds || (had == s.last && before == c.progress()) {
		return nil
	}
	if c.whole() && !c.IsMember(s.To) {
		return nil
	}
	next := c.content(m.version, m.vector)
	c.askPart(next)
	c.out.Send = append(c.out.Send, Send{To: s.To, Method: MethodExchange, Payload: next.encode(), round: s.round + 1, last: had})
	return nil
}

func (c *Core) progress() uint64 {
	return vectorHash(c.state.Version(), c.nodes.Vector()) + uint64(c.Fetched())
}

func (c *Core) peerLacks(m *exchange) bool {
	return m.version < c.state.Version() || len(c.nodes.Newer(m.vector)) > 0 ||
		m.version == c.state.Version() && len(m.votes) < len(c.currentVotes())
}

func vectorHash(v ring.Version, vector []crdt.VectorItem) uint64 {
	h := xxh3.New()
	var b [40]byte
	for _, item := range vector {
		copy(b[:], item.ID[:])
		binary.BigEndian.PutUint64(b[16:], item.Incarnation)
		binary.BigEndian.PutUint64(b[24:], item.Seq)
		_, _ = h.Write(b[:]) // a hash does not fail
	}
	binary.BigEndian.PutUint64(b[32:], uint64(v))
	_, _ = h.Write(b[:])
	return h.Sum64() | 1 // never the zero of a first round
}
