package crdt

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Errors of node entries.
var (
	// ErrCorrupt marks bytes that are no node entry.
	ErrCorrupt = errors.New("corrupt node entry")
	// ErrSignature marks an entry that its node did not sign.
	ErrSignature = errors.New("node entry is not signed by its node")
)

// NodeEntry is what a node says about itself. Only the node writes it, and signs
// it, so that no holder of the gossip key can speak for another node. Entries
// are immutable.
type NodeEntry struct {
	ID ring.NodeID
	Stamp
	PublicKey ed25519.PublicKey
	// ClusterID is zero while the node has no cluster.
	ClusterID ring.ClusterID
	// Name, Zone and Capacity are as in ring.LayoutNode.
	Name, Zone string
	Capacity   uint32
	Addresses  schema.Addresses
	// Actor mints the node's dots in this incarnation; not zero.
	Actor uint64
	// AckedVersion, SyncedVersion and CleanVersion are the node's ring.Report.
	AckedVersion, SyncedVersion, CleanVersion ring.Version
	// Software is the node's version, at most MaxSoftwareLen bytes.
	Software string

	raw []byte // the signed bytes
	sig [ed25519.SignatureSize]byte
}

// Bounds of the fields of an entry.
const (
	MaxAddressLen  = 255
	MaxSoftwareLen = 64
	// MaxEntryBytes bounds an encoded entry.
	MaxEntryBytes = 2048
)

const (
	nodeFormat = 2
	// nodeFormat1 lacks the synced and the clean version, which are 0.
	nodeFormat1 = 1
	// signContext keeps a signature from being taken for one of anything else.
	signContext = "pairdb node entry\x00"
)

func (e *NodeEntry) compare(o *NodeEntry) int {
	return cmp.Or(e.Stamp.Compare(o.Stamp), bytes.Compare(e.raw, o.raw), bytes.Compare(e.sig[:], o.sig[:]))
}

// Sign completes an entry: it sets ID and PublicKey from the key, checks the
// fields and signs them.
func Sign(e NodeEntry, key ed25519.PrivateKey) (*NodeEntry, error) {
	e.PublicKey = key.Public().(ed25519.PublicKey)
	e.ID = ring.NodeIDOf(e.PublicKey)
	if err := e.check(); err != nil {
		return nil, err
	}
	e.raw = e.encode(nil)
	copy(e.sig[:], ed25519.Sign(key, append([]byte(signContext), e.raw...)))
	return &e, nil
}

func (e *NodeEntry) check() error {
	bad := func(what string, value any) error {
		return fmt.Errorf("%w: %s %v", ErrCorrupt, what, value)
	}
	a := e.Addresses
	switch {
	case !ring.ValidName(e.Name):
		return bad("name", fmt.Sprintf("%q", e.Name))
	case e.Zone != "" && !ring.ValidName(e.Zone):
		return bad("zone", fmt.Sprintf("%q", e.Zone))
	case e.Capacity < 1 || e.Capacity > ring.MaxCapacity:
		return bad("capacity", e.Capacity)
	case max(len(a.GRPC), len(a.Peer), len(a.HTTP), len(a.Gossip)) > MaxAddressLen:
		return bad("address of more than", MaxAddressLen)
	case len(e.Software) > MaxSoftwareLen:
		return bad("software version of", len(e.Software))
	case e.Incarnation == 0:
		return bad("incarnation", 0)
	case e.Actor == 0:
		return bad("actor", 0)
	}
	return nil
}

// encode appends the signed part: format u8 = 2, public key 32, cluster 16,
// incarnation, seq, actor, acked, synced and clean version u64 each, capacity u32,
// then name, zone, four addresses and software, each with a u8 length.
func (e *NodeEntry) encode(b []byte) []byte {
	b = append(b, nodeFormat)
	b = append(b, e.PublicKey...)
	b = append(b, e.ClusterID[:]...)
	for _, v := range []uint64{e.Incarnation, e.Seq, e.Actor, uint64(e.AckedVersion), uint64(e.SyncedVersion), uint64(e.CleanVersion)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, e.Capacity)
	a := e.Addresses
	for _, s := range []string{e.Name, e.Zone, a.GRPC, a.Peer, a.HTTP, a.Gossip, e.Software} {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// Append appends the encoding of e, which Sign or DecodeNode made: the signed
// part and the signature.
func (e *NodeEntry) Append(dst []byte) []byte {
	return append(append(dst, e.raw...), e.sig[:]...)
}

// DecodeNode reads what Append wrote and checks the signature. The entry does
// not alias b. A newer format gives ring.ErrNewerFormat.
func DecodeNode(b []byte) (*NodeEntry, error) {
	fixed := 1 + ed25519.PublicKeySize + 16 + 6*8 + 4
	if len(b) > 0 && b[0] == nodeFormat1 {
		fixed -= 2 * 8
	}
	if len(b) > MaxEntryBytes {
		return nil, fmt.Errorf("decode node entry: %w: %d bytes", ErrCorrupt, len(b))
	}
	if len(b) > 0 && b[0] > nodeFormat {
		return nil, fmt.Errorf("decode node entry: format %d: %w", b[0], ring.ErrNewerFormat)
	}
	if len(b) < fixed+7+ed25519.SignatureSize || b[0] < nodeFormat1 {
		return nil, fmt.Errorf("decode node entry: %w", ErrCorrupt)
	}
	e := &NodeEntry{raw: bytes.Clone(b[:len(b)-ed25519.SignatureSize])}
	copy(e.sig[:], b[len(e.raw):])
	r := e.raw[1:]
	e.PublicKey, r = r[:ed25519.PublicKeySize:ed25519.PublicKeySize], r[ed25519.PublicKeySize:]
	copy(e.ClusterID[:], r)
	r = r[16:]
	u64 := func() (v uint64) { v, r = binary.BigEndian.Uint64(r), r[8:]; return v }
	e.Incarnation, e.Seq, e.Actor, e.AckedVersion = u64(), u64(), u64(), ring.Version(u64())
	if b[0] != nodeFormat1 {
		e.SyncedVersion, e.CleanVersion = ring.Version(u64()), ring.Version(u64())
	}
	e.Capacity, r = binary.BigEndian.Uint32(r), r[4:]
	a := &e.Addresses
	for _, s := range []*string{&e.Name, &e.Zone, &a.GRPC, &a.Peer, &a.HTTP, &a.Gossip, &e.Software} {
		if len(r) == 0 || len(r) < 1+int(r[0]) {
			return nil, fmt.Errorf("decode node entry: %w: cut short", ErrCorrupt)
		}
		n := int(r[0])
		*s, r = string(r[1:1+n]), r[1+n:]
	}
	if len(r) != 0 {
		return nil, fmt.Errorf("decode node entry: %w: %d bytes left over", ErrCorrupt, len(r))
	}
	e.ID = ring.NodeIDOf(e.PublicKey)
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("decode node entry: %w", err)
	}
	if !ed25519.Verify(e.PublicKey, append([]byte(signContext), e.raw...), e.sig[:]) {
		return nil, fmt.Errorf("decode node entry of %s: %w", e.ID.Short(), ErrSignature)
	}
	return e, nil
}

// NameConflict is two nodes with one name.
type NameConflict struct {
	Name string
	A, B ring.NodeID
}

// Error says which nodes, and what to do.
func (c NameConflict) Error() string {
	return fmt.Sprintf("nodes %s and %s are both called %q: give each node its own name", c.A.Short(), c.B.Short(), c.Name)
}

// NameConflicts finds the names that several of the entries, sorted by id, bear.
func NameConflicts(entries []*NodeEntry) []NameConflict {
	var out []NameConflict
	first := make(map[string]ring.NodeID, len(entries))
	for _, e := range entries {
		if id, ok := first[e.Name]; ok {
			out = append(out, NameConflict{e.Name, id, e.ID})
			continue
		}
		first[e.Name] = e.ID
	}
	return out
}
