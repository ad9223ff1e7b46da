package node

import "github.com/pairdb/pairdb/node/replica"

// StorageKey is a key of the engine in its parts.
type StorageKey = replica.StorageKey

// ParseStorageKey takes a key of the engine apart, for tools that look at its
// files. ok is false for one that is not an object's.
func ParseStorageKey(b []byte) (StorageKey, bool) { return replica.ParseKey(b) }
