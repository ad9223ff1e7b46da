package meta

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Trim says how much of the log is kept behind the snapshot that stands for the rest. The
// log is divided into segments, each of which ends with the entry that fills it. The
// segment that grows is kept, and two before it.
type Trim struct {
	// Entries and Bytes fill a segment. Defaults 128 and 2 MiB: the tail has 256 to 383
	// entries, or fewer if they have 4 MiB, and at most 6 MiB and an entry for each
	// segment. More: nodes that slept for longer get entries and not the snapshot; less:
	// the snapshot is written more often.
	Entries, Bytes int
	// Piece is how many bytes of a snapshot go into one record, and into one exchange.
	// Default 1 MiB, which is the most.
	Piece int
}

func (t *Trim) ensureDefaults() {
	if t.Entries == 0 {
		t.Entries = 128
	}
	if t.Bytes == 0 {
		t.Bytes = 2 << 20
	}
	if t.Piece == 0 || t.Piece > maxPiece {
		t.Piece = maxPiece
	}
}

// maxPiece is what a record and a message have room for beside what else they carry.
const maxPiece = 1 << 20

// keptSegments are the full segments that are kept.
const keptSegments = 2

// mark is where the log may be cut: the last entry of a segment.
type mark struct {
	state *ring.State // up to that entry; nil before the first one
	log   uint64      // the hash of the log up to it
}

func (m *mark) version() ring.Version {
	if m.state == nil {
		return 0
	}
	return m.state.Version()
}

// tail is the log: what it says up to the base, and the entries behind that.
type tail struct {
	trim Trim
	base mark
	// head and encoded are the base as it is written and sent, nil before there is one.
	head    head
	encoded []byte
	// entries are encoded; the first is the one after the base.
	entries [][]byte
	// marks are behind the base, in order.
	marks []mark
	// last is the hash of the log up to its end.
	last uint64
	// grown and bytes are those of the segment that grows.
	grown, bytes int
}

// at gives entry v, nil if it is not kept.
func (t *tail) at(v ring.Version) []byte {
	if base := t.base.version(); v > base && v-base <= ring.Version(len(t.entries)) {
		return t.entries[v-base-1]
	}
	return nil
}

// add appends an entry, after which the log says state, and says whether that ends a
// segment.
func (t *tail) add(entry []byte, state *ring.State) bool {
	t.entries, t.last = append(t.entries, entry), logHash(t.last, entry)
	t.grown, t.bytes = t.grown+1, t.bytes+len(entry)
	if t.grown < t.trim.Entries && t.bytes < t.trim.Bytes {
		return false
	}
	t.marks = append(t.marks, mark{state, t.last})
	t.grown, t.bytes = 0, 0
	return true
}

// hashAt is the hash of the log up to v; false if v is before the base or after the end.
func (t *tail) hashAt(v ring.Version) (uint64, bool) {
	base := t.base.version()
	if v < base || v-base > ring.Version(len(t.entries)) {
		return 0, false
	}
	sum := t.base.log
	for _, e := range t.entries[:v-base] {
		sum = logHash(sum, e)
	}
	return sum, true
}

// due is where the log is to be cut; false if all of it is kept.
func (t *tail) due() (mark, bool) {
	if len(t.marks) <= keptSegments {
		return mark{}, false
	}
	return t.marks[len(t.marks)-1-keptSegments], true
}

// cut makes a mark the base.
func (t *tail) cut(m mark, h head, encoded []byte) {
	t.entries = slices.Clone(t.entries[m.version()-t.base.version():])
	t.marks = slices.DeleteFunc(t.marks, func(o mark) bool { return o.version() <= m.version() })
	t.base, t.head, t.encoded = m, h, encoded
}

// head describes a snapshot: format u8 = 1, version u64, hash of the log up to it u64,
// cluster 16, length of the encoded state u32, its hash u64.
type head struct {
	version ring.Version
	log     uint64
	cluster ring.ClusterID
	length  int
	sum     uint64
}

const headBytes = 1 + 8 + 8 + 16 + 4 + 8

func (h *head) encode() (b [headBytes]byte) {
	out := u64Bytes(u64Bytes(withFormat(), uint64(h.version)), h.log)
	out = binary.BigEndian.AppendUint32(append(out, h.cluster[:]...), uint32(h.length))
	copy(b[:], u64Bytes(out, h.sum))
	return b
}

func decodeHead(b []byte) (h head, err error) {
	b, err = unformat(keyBase, b, headBytes-1)
	if err != nil {
		return h, err
	}
	r := reader{b: b}
	h = head{version: ring.Version(r.uint(8)), log: r.uint(8), cluster: r.id(), length: int(r.uint(4)), sum: r.uint(8)}
	if h.version == 0 || h.length == 0 || h.length > ring.MaxStateBytes {
		return h, fmt.Errorf("%w: the head of a snapshot", ErrCorrupt)
	}
	return h, nil
}

// encodeMark gives the snapshot of a mark.
func encodeMark(m mark) (head, []byte) {
	b := ring.AppendState(nil, m.state)
	return head{version: m.version(), log: m.log, cluster: m.state.ClusterID(), length: len(b), sum: xxh3.Hash(b)}, b
}

// assembly is a snapshot of which pieces come one after the other.
type assembly struct {
	head head
	buf  []byte
	// at is the tick of the last piece.
	at uint64
}

func (a *assembly) add(piece []byte) error {
	if len(piece) == 0 || len(piece) > a.head.length-len(a.buf) {
		return fmt.Errorf("%w: a piece of a snapshot of %d bytes, behind %d of %d", ErrCorrupt, len(piece), len(a.buf), a.head.length)
	}
	a.buf = append(a.buf, piece...)
	return nil
}

func (a *assembly) whole() bool { return len(a.buf) == a.head.length }

// tail gives the log of which the snapshot is all.
func (a *assembly) tail(trim Trim) (*tail, error) {
	if !a.whole() || xxh3.Hash(a.buf) != a.head.sum {
		return nil, fmt.Errorf("%w: a snapshot does not have its own hash", ErrCorrupt)
	}
	s, err := ring.DecodeState(a.buf)
	if err != nil {
		return nil, err
	}
	if s.Version() != a.head.version || s.ClusterID() != a.head.cluster {
		return nil, fmt.Errorf("%w: a snapshot and its head disagree", ErrCorrupt)
	}
	return &tail{trim: trim, base: mark{s, a.head.log}, head: a.head, encoded: a.buf, last: a.head.log}, nil
}
