package ring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// NodeID names a node for as long as its data directory lives: the first 16
// bytes of the SHA-256 of its Ed25519 public key. The zero value names nobody.
type NodeID [16]byte

// NodeIDOf derives the id that belongs to a public key.
func NodeIDOf(pub ed25519.PublicKey) NodeID {
	sum := sha256.Sum256(pub)
	var id NodeID
	copy(id[:], sum[:])
	return id
}

// ParseNodeID reads the 32 hexadecimal digits that String writes.
func ParseNodeID(s string) (NodeID, error) {
	var id NodeID
	if err := parseHex16((*[16]byte)(&id), s); err != nil {
		return NodeID{}, fmt.Errorf("parse node id %q: %w", s, err)
	}
	return id, nil
}

// String gives the id as 32 lower-case hexadecimal digits.
func (id NodeID) String() string { return hex.EncodeToString(id[:]) }

// Short gives the first 8 of the 32 digits, for logs.
func (id NodeID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero says whether the id names nobody.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// Compare orders ids by their bytes: -1, 0 or +1.
func (id NodeID) Compare(other NodeID) int { return bytes.Compare(id[:], other[:]) }

// ClusterID names a cluster: 16 random bytes drawn when it is founded. The zero
// value means "no cluster yet".
type ClusterID [16]byte

// String gives the id as 32 lower-case hexadecimal digits.
func (id ClusterID) String() string { return hex.EncodeToString(id[:]) }

// IsZero says whether there is no cluster.
func (id ClusterID) IsZero() bool { return id == ClusterID{} }

func parseHex16(dst *[16]byte, s string) error {
	if len(s) != 32 {
		return fmt.Errorf("want 32 hexadecimal digits, got %d characters", len(s))
	}
	_, err := hex.Decode(dst[:], []byte(s))
	return err
}

// Token is the position of a key on the ring.
type Token uint64

// String gives the token as 16 hexadecimal digits.
func (t Token) String() string { return fmt.Sprintf("%016x", uint64(t)) }

// Partition is the index of one fixed slice of the ring, 0 ≤ p < Layout.Partitions.
type Partition uint16

// Version is the number of a log entry; 0 stands for "none".
type Version uint64

// String gives the version in decimal.
func (v Version) String() string { return strconv.FormatUint(uint64(v), 10) }

// TenantNumber names a tenant for ever; it is never given out twice. 0 names
// nobody, 1 the tenant every cluster starts with.
type TenantNumber uint32

// Bounds of the ring.
const (
	// MaxRF is the most owners a tenant can ask for, and the width of a row.
	MaxRF = 7
	// MinPartitions and MaxPartitions bound the fixed number of partitions,
	// always a power of two.
	MinPartitions = 1
	// MaxPartitions keeps a layout below 256 KiB.
	MaxPartitions = 16384
	// DefaultPartitions is the number used when nothing else is asked for.
	DefaultPartitions = 1024
	// MaxNodes bounds the nodes of one layout.
	MaxNodes = 1024
	// MaxCapacity bounds the weight of one node: it is what the setting, the API and
	// the commands allow, too.
	MaxCapacity = 10_000
	// MaxNameLen bounds node and zone names, in bytes.
	MaxNameLen = 63
)
