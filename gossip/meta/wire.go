package meta

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/gossip/crdt"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Methods of the peers' Meta service.
const (
	MethodExchange = "Exchange"
	MethodPrepare  = "Prepare"
	MethodAccept   = "Accept"
	MethodPledge   = "Pledge"
	MethodFound    = "Found"
)

// MaxMessageBytes bounds every message.
const MaxMessageBytes = 4 << 20

// contentBytes is how much content goes into one exchange; what is left over
// follows in the next.
const contentBytes = 256 << 10

const wireFormat = 1

// header begins every message: format u8 = 1, cluster name (u8 length), cluster
// id 16, zero while the sender has none.
type header struct {
	name    string
	cluster ring.ClusterID
}

func (h header) append(b []byte) []byte {
	b = append(b, wireFormat)
	b = appendString(b, h.name)
	return append(b, h.cluster[:]...)
}

func appendString(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

func appendBytes(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

// reader takes fields off a message; after a shortage it is bad and gives zeroes.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || len(r.b) < n {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint(size int) (v uint64) {
	for _, b := range r.take(size) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (r *reader) id() (id [16]byte)  { copy(id[:], r.take(16)); return id }
func (r *reader) str() string        { return string(r.take(int(r.uint(1)))) }
func (r *reader) bytes() []byte      { return r.take(int(r.uint(4))) }
func (r *reader) done() bool         { return !r.bad && len(r.b) == 0 }
func (r *reader) header() (h header) { return header{name: r.str(), cluster: r.id()} }

// openMessage checks length and format and leaves the reader before the header.
func openMessage(what string, b []byte) (*reader, error) {
	if len(b) == 0 || len(b) > MaxMessageBytes {
		return nil, fmt.Errorf("decode %s of %d bytes: %w", what, len(b), errMessage)
	}
	if b[0] != wireFormat {
		return nil, fmt.Errorf("decode %s: format %d, this version speaks %d: %w", what, b[0], wireFormat, errMessage)
	}
	return &reader{b: b[1:]}, nil
}

// errMessage marks bytes that are no message.
var errMessage = errors.New("bad metadata message")

// exchange is request and reply of Exchange and Found: header, flags u8, version
// u64, counted lists of vector items (id 16, two u64), node entries, log entries
// after u64 first, and votes (id 16, register). A refusal whose flags have lost goes
// on with a LostNode: id 16, name, address, liveness u8, since i64; an answer whose
// flags have outside goes on with the founder 16, and with a text if they have why. With the flag of a part it ends with
// that: head 45, offset u32, piece.
type exchange struct {
	header
	// refused ends the receiver: it is retired, or wants a place that is taken.
	refused bool
	// retired says why.
	retired bool
	// lost says whose place the node seems to want, if it is refused.
	lost *LostNode
	// outside tells a node that it is no member; founder is then who founded the
	// cluster.
	outside bool
	founder ring.NodeID
	// why is why it cannot even wait to be one, for people.
	why string
	// joins says that the sender's entry, the only one, is that of a node that wants
	// to be a member.
	joins   bool
	version ring.Version
	vector  []crdt.VectorItem
	nodes   [][]byte
	// first is the version of log[0].
	first ring.Version
	log   [][]byte
	votes []vote
	part  *part
}

// part is a piece of a snapshot of the log, or, without a piece, says in a question how
// much of one is there.
type part struct {
	head   [headBytes]byte
	offset int
	piece  []byte
}

type vote struct {
	from ring.NodeID
	reg  []byte
}

func (m *exchange) encode() []byte {
	b := m.header.append(nil)
	var flags byte
	for _, f := range []struct {
		set  bool
		flag byte
	}{{m.refused, flagRefused}, {m.refused && m.lost != nil, flagLost}, {m.retired, flagRetired}, {m.outside, flagOutside}, {m.outside && m.why != "", flagWhy}, {m.joins, flagJoins}, {m.part != nil, flagPart}} {
		if f.set {
			flags |= f.flag
		}
	}
	b = append(b, flags)
	b = u64Bytes(b, uint64(m.version))
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.vector)))
	for _, v := range m.vector {
		b = append(b, v.ID[:]...)
		b = u64Bytes(u64Bytes(b, v.Incarnation), v.Seq)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.nodes)))
	for _, n := range m.nodes {
		b = appendBytes(b, n)
	}
	b = u64Bytes(b, uint64(m.first))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.log)))
	for _, e := range m.log {
		b = appendBytes(b, e)
	}
	b = append(b, byte(len(m.votes)))
	for _, v := range m.votes {
		b = append(b, v.from[:]...)
		b = appendBytes(b, v.reg)
	}
	if l := m.lost; flags&flagLost != 0 {
		b = append(b, l.ID[:]...)
		b = appendString(appendString(b, l.Name), l.Address)
		b = u64Bytes(append(b, byte(l.Liveness)), uint64(l.Since))
	}
	if m.outside {
		b = append(b, m.founder[:]...)
	}
	if flags&flagWhy != 0 {
		b = appendString(b, clip(m.why))
	}
	if p := m.part; p != nil {
		b = binary.BigEndian.AppendUint32(append(b, p.head[:]...), uint32(p.offset))
		b = appendBytes(b, p.piece)
	}
	return b
}

// Flags of an exchange.
const (
	flagRefused = 1
	flagLost    = 2 // with flagRefused only
	flagRetired = 4
	flagOutside = 8
	flagJoins   = 16
	flagPart    = 32
	flagWhy     = 64 // with flagOutside only
)

func decodeExchange(b []byte) (*exchange, error) {
	r, err := openMessage("exchange", b)
	if err != nil {
		return nil, err
	}
	m := &exchange{header: r.header()}
	flags := r.uint(1)
	m.refused, m.retired = flags&flagRefused != 0, flags&flagRetired != 0
	m.outside, m.joins = flags&flagOutside != 0, flags&flagJoins != 0
	m.version = ring.Version(r.uint(8))
	for n := int(r.uint(2)); n > 0 && !r.bad; n-- {
		v := crdt.VectorItem{ID: r.id(), Stamp: crdt.Stamp{Incarnation: r.uint(8), Seq: r.uint(8)}}
		if k := len(m.vector); k > 0 && m.vector[k-1].ID.Compare(v.ID) >= 0 {
			r.bad = true
		}
		m.vector = append(m.vector, v)
	}
	for n := int(r.uint(2)); n > 0 && !r.bad; n-- {
		m.nodes = append(m.nodes, r.bytes())
	}
	m.first = ring.Version(r.uint(8))
	for n := int(r.uint(4)); n > 0 && !r.bad; n-- {
		m.log = append(m.log, r.bytes())
	}
	for n := int(r.uint(1)); n > 0 && !r.bad; n-- {
		m.votes = append(m.votes, vote{from: r.id(), reg: r.bytes()})
	}
	if m.refused && flags&flagLost != 0 {
		m.lost = &LostNode{ID: r.id(), Name: r.str(), Address: r.str(), Liveness: schema.Liveness(r.uint(1)), Since: int64(r.uint(8))}
	}
	if m.outside {
		m.founder = r.id()
	}
	if m.outside && flags&flagWhy != 0 {
		m.why = r.str()
	}
	if flags&flagPart != 0 {
		m.part = &part{}
		copy(m.part.head[:], r.take(headBytes))
		m.part.offset, m.part.piece = int(r.uint(4)), r.bytes()
	}
	if !r.done() {
		return nil, fmt.Errorf("decode exchange: %w", errMessage)
	}
	return m, nil
}

// AnswersFor is the cluster that a node belongs to, by its answer to an exchange; zero
// if it has none, or the answer cannot be read.
func AnswersFor(reply []byte) ring.ClusterID {
	m, err := decodeExchange(reply)
	if err != nil {
		return ring.ClusterID{}
	}
	return m.cluster
}

// HasUpTo is how much of the log a node has, by its answer to an exchange; zero if the answer
// does not say.
func HasUpTo(reply []byte) ring.Version {
	m, err := decodeExchange(reply)
	if err != nil {
		return 0
	}
	return m.version
}

// ballotRequest is Prepare, or Accept if value is not empty: header, slot u64,
// ballot, value, and of a recovery who is lost (16 each).
type ballotRequest struct {
	header
	slot   ring.Version
	ballot ring.Ballot
	value  []byte
	lost   []ring.NodeID
}

func (m *ballotRequest) encode() []byte {
	b := u64Bytes(m.header.append(nil), uint64(m.slot))
	b = appendBytes(ring.AppendBallot(b, m.ballot), m.value)
	for _, id := range m.lost {
		b = append(b, id[:]...)
	}
	return b
}

func decodeBallotRequest(b []byte) (*ballotRequest, error) {
	r, err := openMessage("ballot", b)
	if err != nil {
		return nil, err
	}
	m := &ballotRequest{header: r.header(), slot: ring.Version(r.uint(8))}
	raw := r.take(ring.BallotBytes)
	m.value = r.bytes()
	for !r.bad && len(r.b) > 0 && len(m.lost) < ring.MaxNodes {
		m.lost = append(m.lost, r.id())
	}
	if !r.done() {
		return nil, fmt.Errorf("decode ballot: %w", errMessage)
	}
	m.ballot, err = ring.DecodeBallot(raw)
	return m, err
}

// Answers to a ballot. The values travel between nodes.
const (
	ballotVoted   = 1 // the register says how
	ballotBehind  = 2 // the voter lacks entries before the slot
	ballotDecided = 3 // the voter knows the entry of the slot
	ballotRefused = 4 // it is no voter, or the entry cannot stand there
)

// ballotReply: header, status u8, version u64, register, text.
type ballotReply struct {
	header
	status  byte
	version ring.Version
	reg     []byte
	text    string
}

func (m *ballotReply) encode() []byte {
	b := append(m.header.append(nil), m.status)
	b = appendBytes(u64Bytes(b, uint64(m.version)), m.reg)
	return appendString(b, clip(m.text))
}

func decodeBallotReply(b []byte) (*ballotReply, error) {
	r, err := openMessage("vote", b)
	if err != nil {
		return nil, err
	}
	m := &ballotReply{header: r.header(), status: byte(r.uint(1)), version: ring.Version(r.uint(8)), reg: r.bytes(), text: r.str()}
	if !r.done() {
		return nil, fmt.Errorf("decode vote: %w", errMessage)
	}
	return m, nil
}

// clip cuts a text to what its length byte can say.
func clip(s string) string { return s[:min(len(s), 255)] }

// pledgeRequest asks for the endorsement of its sender: header, expect u16, the
// sender's node entry.
type pledgeRequest struct {
	header
	expect int
	node   []byte
}

func (m *pledgeRequest) encode() []byte {
	b := binary.BigEndian.AppendUint16(m.header.append(nil), uint16(m.expect))
	return appendBytes(b, m.node)
}

func decodePledgeRequest(b []byte) (*pledgeRequest, error) {
	r, err := openMessage("pledge", b)
	if err != nil {
		return nil, err
	}
	m := &pledgeRequest{header: r.header(), expect: int(r.uint(2)), node: r.bytes()}
	if !r.done() {
		return nil, fmt.Errorf("decode pledge: %w", errMessage)
	}
	return m, nil
}

// pledgeReply: header, pledged u8, the sender's node entry, why not.
type pledgeReply struct {
	header
	pledged bool
	node    []byte
	text    string
}

func (m *pledgeReply) encode() []byte {
	var yes byte
	if m.pledged {
		yes = 1
	}
	b := appendBytes(append(m.header.append(nil), yes), m.node)
	return appendString(b, clip(m.text))
}

func decodePledgeReply(b []byte) (*pledgeReply, error) {
	r, err := openMessage("pledge reply", b)
	if err != nil {
		return nil, err
	}
	m := &pledgeReply{header: r.header(), pledged: r.uint(1) == 1, node: r.bytes(), text: r.str()}
	if !r.done() {
		return nil, fmt.Errorf("decode pledge reply: %w", errMessage)
	}
	return m, nil
}
