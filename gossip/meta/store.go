package meta

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Record is one key and its value. A nil Value in a Write deletes the key.
type Record struct {
	Key   string
	Value []byte
}

// Store keeps the metadata of one node. One store holds all of it, the key
// included: whoever loses its promises loses its identity with them.
type Store interface {
	// Load calls visit for every record in the order of keys. The value is only
	// valid during the call. If something cannot be read it visits the rest and
	// returns a DamageError.
	Load(visit func(key string, value []byte) error) error
	// Write applies all records, or none, and returns nil once they are durable.
	// After an error the store may hold either, but for ErrNoRoom: then it holds
	// what it held.
	Write(records []Record) error
}

// Errors of opening and running a core.
var (
	// ErrNewerFormat: a newer version of the program wrote the metadata.
	ErrNewerFormat = errors.New("metadata was written by a newer version")
	// ErrCorrupt: the metadata cannot be what this program wrote.
	ErrCorrupt = errors.New("metadata is corrupt")
	// ErrOtherCluster: the data directory, or a peer, belongs to another cluster.
	ErrOtherCluster = errors.New("belongs to another cluster")
	// ErrPlaceTaken: a member has the name or an address of a node that is none.
	ErrPlaceTaken = errors.New("a member has this name or address")
	// ErrRetired: the node was a member, left or was removed, and is none for ever.
	ErrRetired = errors.New("node is retired")
	// ErrJoining: the node has bound itself to a cluster that it is to join.
	ErrJoining = errors.New("node is bound to a cluster it joins")
	// ErrPledged: the node has durably endorsed another founder.
	ErrPledged = errors.New("node has pledged to another founder")
	// ErrIdentity: another process lives with this node's identity.
	ErrIdentity = errors.New("node identity is in use elsewhere")
	// ErrFork: a peer's log disagrees with this node's.
	ErrFork = errors.New("logs disagree")
	// ErrNoRoom: the disk has no room for a write; nothing was changed.
	ErrNoRoom = errors.New("no room on the disk for metadata")
	// ErrFailed: the store failed before; what is durable is unknown, so the
	// core does nothing any more. A restart finds out.
	ErrFailed = errors.New("metadata store failed")
)

// Keys of the store. Each value begins with a format byte.
const (
	keyFormat   = "format"   // format u8 of the store as a whole
	keyIdentity = "identity" // Ed25519 seed 32
	keyBoot     = "boot"     // incarnation u64, actor u64
	keyCluster  = "cluster"  // cluster name
	keyPledge   = "pledge"   // founder 16
	keyJoining  = "joining"  // cluster 16
	keyRetired  = "retired"  // nothing: a member has said so
	keyReport   = "report"   // synced u64, clean u64
	keyReady    = "ready"    // nothing
	keyVote     = "vote"     // ring.Register
	keyBase     = "base"     // head of the snapshot that stands for the first entries
	prefixBase  = "base/"    // + number, 4 digits: a piece of that snapshot, without format byte
	prefixLog   = "log/"     // + version, 16 digits: ring.Entry
	prefixNode  = "node/"    // + node id: crdt.NodeEntry
)

const storeFormat = 1

// MaxRecordBytes bounds a value.
const MaxRecordBytes = ring.MaxEntryBytes + 64

func logKey(v ring.Version) string       { return fmt.Sprintf("%s%016x", prefixLog, uint64(v)) }
func pieceKey(n int) string              { return fmt.Sprintf("%s%04x", prefixBase, n) }
func nodeKey(id ring.NodeID) string      { return prefixNode + id.String() }
func withFormat(value ...byte) []byte    { return append([]byte{storeFormat}, value...) }
func u64Bytes(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// unformat takes the format byte off a value and checks what is left to be of
// the given length, if that is not negative.
func unformat(key string, b []byte, want int) ([]byte, error) {
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("%w: %s is empty", ErrCorrupt, key)
	case b[0] > storeFormat:
		return nil, fmt.Errorf("%w: %s has format %d, this version knows up to %d", ErrNewerFormat, key, b[0], storeFormat)
	case b[0] != storeFormat || want >= 0 && len(b) != want+1:
		return nil, fmt.Errorf("%w: %s", ErrCorrupt, key)
	}
	return b[1:], nil
}
