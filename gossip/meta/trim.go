package meta

import (
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/gossip/ring"
)

// sweepEntries is how many entries one write deletes.
const sweepEntries = 1024

// span are entries that may still be in the store, though a snapshot stands for them;
// none if to is 0.
type span struct{ from, to ring.Version }

func (s *span) add(from, to ring.Version) {
	switch {
	case from > to:
	case s.to == 0:
		*s = span{from, to}
	default:
		*s = span{min(s.from, from), max(s.to, to)}
	}
}

// trim puts a snapshot in the place of the entries that are not kept any more: first the
// snapshot becomes durable, in one write, and then the entries go. Where there is no room
// on the disk the log stays as it is, and the end of the next segment tries again.
func (c *Core) trim() {
	if m, due := c.tail.due(); due && c.fatal == nil {
		h, encoded := encodeMark(m)
		if h.length > ring.MaxStateBytes {
			c.log.Error("the log of the cluster is not trimmed: what it says is too large for a snapshot", "bytes", h.length, "at_most", ring.MaxStateBytes)
			return
		}
		if err := c.writeBase(h, encoded, nil); err != nil {
			c.notTrimmed(err)
			return
		}
		c.stale.add(c.tail.base.version()+1, m.version())
		c.tail.cut(m, h, encoded)
	}
	c.sweep()
}

func (c *Core) notTrimmed(err error) {
	if errors.Is(err, ErrNoRoom) { // else Fatal says why
		c.log.Warn("the log of the cluster is not trimmed", "error", err)
	}
}

// sweep deletes entries for which a durable snapshot stands.
func (c *Core) sweep() {
	for c.stale.to > 0 && c.fatal == nil {
		var records []Record
		end := min(c.stale.to, c.stale.from+sweepEntries-1)
		for v := c.stale.from; v <= end; v++ {
			records = append(records, Record{logKey(v), nil})
		}
		if err := c.write(records); err != nil {
			c.notTrimmed(err)
			return
		}
		if c.stale.from = end + 1; c.stale.from > c.stale.to {
			c.stale = span{}
		}
	}
}

// writeBase replaces the snapshot in the store, and writes other records with it.
func (c *Core) writeBase(h head, encoded []byte, more []Record) error {
	raw := h.encode()
	records := append([]Record{{keyBase, raw[:]}}, more...)
	n, size := 0, c.tail.trim.Piece
	for ; n*size < len(encoded); n++ {
		records = append(records, Record{pieceKey(n), encoded[n*size : min(len(encoded), (n+1)*size)]})
	}
	for i := n; i < c.pieces; i++ {
		records = append(records, Record{pieceKey(i), nil})
	}
	if err := c.write(records); err != nil {
		return err
	}
	c.pieces = n
	return nil
}

// loadPiece takes in the head or a piece of the snapshot in the store.
func (c *Core) loadPiece(key string, value []byte) error {
	if key == keyBase {
		h, err := decodeHead(value)
		if err == nil {
			c.fetch = &assembly{head: h}
		}
		return err
	}
	n, want := 0, c.pieces
	if _, err := fmt.Sscanf(key, prefixBase+"%04x", &n); err != nil || key != pieceKey(n) {
		return fmt.Errorf("%w: unknown record %q", ErrCorrupt, key)
	}
	c.pieces = n + 1
	if c.fetch == nil || n != want {
		return fmt.Errorf("%w: %s is there and not what comes before it", ErrCorrupt, key)
	}
	return c.fetch.add(value)
}

// loadBase makes the snapshot in the store the base of the log, once all pieces are there.
func (c *Core) loadBase() error {
	a := c.fetch
	if a == nil {
		return nil
	}
	c.fetch = nil
	t, err := a.tail(c.tail.trim)
	if err != nil {
		return err
	}
	c.tail, c.state = *t, t.base.state
	return nil
}

// dropBase deletes the snapshot in the store.
func (c *Core) dropBase() []Record {
	out := []Record{{keyBase, nil}}
	for n := range c.pieces {
		out = append(out, Record{pieceKey(n), nil})
	}
	return out
}

// addPart puts a piece of the snapshot into an answer to a peer that lacks entries which
// are not kept any more: the one that the peer asks for, if it has begun with this
// snapshot, else the first. Behind the last come entries.
func (c *Core) addPart(m *exchange, asked *part) {
	t := &c.tail
	p := &part{head: t.head.encode()}
	if asked != nil && asked.head == p.head && asked.offset < len(t.encoded) {
		p.offset = asked.offset
	}
	end := min(len(t.encoded), p.offset+t.trim.Piece)
	p.piece = t.encoded[p.offset:end]
	m.part = p
	if end == len(t.encoded) {
		c.addLog(m, t.base.version(), contentBytes)
	}
}

// Fetched is how many bytes there are of a snapshot that is not whole yet.
func (c *Core) Fetched() int {
	if c.fetch == nil {
		return 0
	}
	return len(c.fetch.buf)
}

// askPart tells a peer how much of a snapshot this node has.
func (c *Core) askPart(m *exchange) {
	if c.fetch != nil {
		m.part = &part{head: c.fetch.head.encode(), offset: len(c.fetch.buf)}
	}
}

// takePart takes in a piece of a peer's snapshot that it has sent in answer to a
// question, and adopts the snapshot when it is whole. One is put together at a time: a
// newer one replaces it, and it is forgotten when no piece comes for a while.
func (c *Core) takePart(m *exchange) error {
	h, err := decodeHead(m.part.head[:])
	if err != nil {
		return err
	}
	if h.version <= c.state.Version() {
		return nil
	}
	if err := c.mayAdoptBase(h.cluster); err != nil {
		return err
	}
	a := c.fetch
	switch {
	case a != nil && a.head == h && m.part.offset == len(a.buf):
	case m.part.offset != 0 || a != nil && h.version <= a.head.version:
		return nil
	default:
		a = &assembly{head: h}
	}
	c.fetch = nil
	if err := a.add(m.part.piece); err != nil {
		return err
	}
	a.at = c.ticks
	if !a.whole() {
		c.fetch = a
		return nil
	}
	t, err := a.tail(c.tail.trim)
	if err != nil {
		return err
	}
	return c.adopt(t, m.log)
}

// mayAdoptBase says whether this node may take the snapshot of a cluster in the place of
// a log: it is a member of that one, has bound itself to it, or had its log. A founding
// node gets the first entry itself, since nothing follows that before it has it.
func (c *Core) mayAdoptBase(id ring.ClusterID) error {
	own := c.ClusterID()
	if own.IsZero() {
		own = c.joining
	}
	switch {
	case own.IsZero():
		return fmt.Errorf("a snapshot of the log of cluster %s, and this node has none: %w", id, errMessage)
	case own != id:
		return fmt.Errorf("snapshot of the log %w: it is of %s, not of %s", ErrOtherCluster, id, own)
	}
	return nil
}

// adopt puts the snapshot of a peer in the place of this node's log, which ends before it.
// It is believed as entries are that a peer hands over; what can be held against it is.
// next are entries that came with it.
func (c *Core) adopt(t *tail, next [][]byte) error {
	state := t.base.state
	if state.ClusterName() != c.name {
		return fmt.Errorf("snapshot of the log %w: it is of %q, not of %q", ErrOtherCluster, state.ClusterName(), c.name)
	}
	if c.Founded() {
		if err := state.Follows(c.state); err != nil {
			c.log.Error("the log of a peer cannot follow this node's; it is not merged", "version", uint64(state.Version()), "error", err)
			return fmt.Errorf("%w: %w", ErrFork, err)
		}
	}
	if c.state.Version() < c.floor {
		switch {
		case state.Version() == c.floor && t.base.log != c.floorLog:
			return c.forked()
		case state.Version() > c.floor:
			c.log.Warn("members do not have the log any more that this node had; it cannot be compared", "had", uint64(c.floor), "snapshot", uint64(state.Version()))
		}
	}
	ahead := state
	for i := 0; i < len(next) && !c.Founded(); i++ {
		e, err := ring.DecodeEntry(next[i])
		if err == nil {
			ahead, err = ahead.Next(e)
		}
		if err != nil {
			return err
		}
	}
	if err := c.mayLearn(ahead); err != nil {
		return err
	}
	if err := c.writeBase(t.head, t.encoded, c.memberRecords(state)); err != nil {
		return err
	}
	c.stale.add(c.tail.base.version()+1, c.state.Version())
	c.log.Info("this node was so far behind that it got what the log says instead of its entries", "from", uint64(c.state.Version()), "to", uint64(state.Version()))
	c.tail = *t
	c.skipProposal()
	if err := c.install(state); err != nil {
		return err
	}
	c.sweep()
	return c.fatal
}

// LogStatus says how much of the log a node has.
type LogStatus struct {
	// Base is the last entry for which a snapshot stands, 0 for none.
	Base ring.Version
	// Entries are those behind it, and Bytes what they take.
	Entries, Bytes int
	// SnapshotBytes is the size of the snapshot.
	SnapshotBytes int
}

// Log says how much of the log this node has.
func (c *Core) Log() LogStatus {
	s := LogStatus{Base: c.tail.base.version(), Entries: len(c.tail.entries), SnapshotBytes: len(c.tail.encoded)}
	for _, e := range c.tail.entries {
		s.Bytes += len(e)
	}
	return s
}
