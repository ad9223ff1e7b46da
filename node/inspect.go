package node

import (
	"context"
	"fmt"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica"
)

// StorageKey is a key of the engine in its parts.
type StorageKey = replica.StorageKey

// ParseStorageKey takes a key of the engine apart, for tools that look at its
// files. ok is false for one that is not an object's.
func ParseStorageKey(b []byte) (StorageKey, bool) { return replica.ParseKey(b) }

// Object is what a node holds of a key, Sibling one write of it.
type (
	Object  = causal.Object
	Sibling = causal.Sibling
)

// DumpOptions say what Dump shows, and to whom.
type DumpOptions struct {
	// First and Last bound the partitions, both included.
	First, Last uint16
	// Object is called with each object in the order of partition, tenant, token and
	// key. Key and object are valid during the call; an error of it ends the dump.
	Object func(StorageKey, *Object) error
	// Span is called with what the node knows to be confirmed of each partition and
	// replication factor, behind the objects of the partition.
	Span func(Span) error
}

// Confirmed is what all owners of some data have had.
type Confirmed = causal.Confirmed

// Span is what a node knows of the data in one partition beside the data: what all owners
// have had, and what all of them know to be so. It is that of the tenants which were
// created with the replication factor RF, or of the one with the number Tenant, whose
// replication factor was changed; the other is 0.
type Span struct {
	Partition           uint16
	RF                  int
	Tenant              uint32
	Confirmed, Released Confirmed
}

// Dump shows all that the engine's files in dir hold of some partitions, deletes and
// expired values included. The node must not run; nothing is written. Errors are
// those of engine.ReadDir and of what is called; what cannot be decoded matches
// engine.ErrCorrupt.
func Dump(ctx context.Context, dir string, opts DumpOptions) error {
	start, end := replica.PartitionRange(ring.Partition(opts.First), ring.Partition(opts.Last))
	if opts.Last == ^uint16(0) {
		end = nil
	}
	return engine.ReadDir(ctx, vfs.OS(), dir, start, end, func(key, value []byte) error {
		of, confirmed, released, ok, err := replica.ParseSpan(key, value)
		if err != nil {
			return fmt.Errorf("%w: what is confirmed of partition %d: %w", engine.ErrCorrupt, of.Partition, err)
		}
		if ok {
			sp := Span{Partition: uint16(of.Partition), Confirmed: confirmed, Released: released}
			if t, own := of.Class.Own(); own {
				sp.Tenant = uint32(t)
			} else {
				sp.RF = int(of.Class)
			}
			return opts.Span(sp)
		}
		k, ok := replica.ParseKey(key)
		if !ok {
			return nil
		}
		o, err := causal.Decode(value)
		if err != nil {
			return fmt.Errorf("%w: the object of key %q in partition %d: %w", engine.ErrCorrupt, k.Key, k.Partition, err)
		}
		return opts.Object(k, &o)
	})
}
