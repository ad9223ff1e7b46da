// Package hints keeps what this node owes to nodes that a write did not reach, and
// delivers it when they are back. A hint names a key and has no value: whoever keeps
// it holds the object, and delivers what it holds then. So writes of one key are one
// hint, nothing old can come back, and order does not matter.
//
// Hints are a courtesy and never a promise: they count for no level, adding one
// never waits and never fails, and the store may be lost at any time. What is not
// kept is reported as dirty, for anti-entropy to find.
package hints

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Hint says that Target lacks a write of a key, or may.
type Hint struct {
	Target    ring.NodeID
	Partition ring.Partition
	Tenant    ring.TenantNumber
	Token     ring.Token
	Key       []byte
	// IdempotencyKey is that of the write, empty if it had none.
	IdempotencyKey []byte
}

// Reason says why a hint is not kept any more, or was not.
type Reason uint8

// The reasons. The first three are how deliveries end.
const (
	// Delivered: the target has what this node holds.
	Delivered Reason = iota
	// Gone: this node holds nothing of the key any more.
	Gone
	// NotOwner: the target does not own the key any more.
	NotOwner
	// QueueFull: more hints came at once than the store could take.
	QueueFull
	// Cap: the target's hints had reached Options.MaxBytes.
	Cap
	// Window: the target was away, or the hint there, for longer than
	// Options.Window.
	Window
	// NoRoom: the disk is nearly full.
	NoRoom
	// Broken: the store cannot be written.
	Broken

	reasonCount = int(Broken) + 1
)

// String gives the reason in lower case, as a metric's label.
func (r Reason) String() string {
	return [reasonCount]string{"delivered", "gone", "not owner", "queue full", "cap", "window", "disk", "store"}[r]
}

// Drops lists the reasons for which hints are dropped: their partitions are dirty.
func Drops() []Reason { return []Reason{QueueFull, Cap, Window, NoRoom, Broken} }

const (
	// maxKey and maxIdempotencyKey bound the parts of a hint, in bytes. What is
	// longer is no hint.
	maxKey            = 1 << 10
	maxIdempotencyKey = 256

	kindSummary byte = 0
	kindHint    byte = 1

	targetLen = 1 + len(ring.NodeID{})
	fixedLen  = targetLen + 2 + 4 + 8 + 2
	// overhead is what a hint takes on disk beside its key, about.
	overhead = 32
)

// A hint is stored as kindHint, target, partition u16, tenant u32, token u64, length
// of the key u16, key, idempotency key, integers big-endian; its value is when it was
// added, in Unix milliseconds.

func (h *Hint) appendTo(b []byte) []byte {
	b = append(b, kindHint)
	b = append(b, h.Target[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Partition))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Tenant))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Token))
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Key)))
	b = append(b, h.Key...)
	return append(b, h.IdempotencyKey...)
}

var errHint = errors.New("malformed hint")

// decodeHint reads what appendTo wrote; what it returns aliases b.
func decodeHint(b []byte) (Hint, error) {
	if len(b) < fixedLen || b[0] != kindHint {
		return Hint{}, errHint
	}
	var h Hint
	copy(h.Target[:], b[1:])
	f := b[targetLen:]
	h.Partition = ring.Partition(binary.BigEndian.Uint16(f))
	h.Tenant = ring.TenantNumber(binary.BigEndian.Uint32(f[2:]))
	h.Token = ring.Token(binary.BigEndian.Uint64(f[6:]))
	n := int(binary.BigEndian.Uint16(f[14:]))
	f = f[16:]
	if n == 0 || n > maxKey || n > len(f) || len(f)-n > maxIdempotencyKey {
		return Hint{}, errHint
	}
	h.Key = f[:n:n]
	if n < len(f) {
		h.IdempotencyKey = f[n:]
	}
	return h, nil
}

// targetOf is the target of an encoded hint.
func targetOf(key string) (id ring.NodeID) {
	copy(id[:], key[1:targetLen])
	return id
}

// partitionOf is its partition.
func partitionOf(key string) ring.Partition {
	return ring.Partition(uint16(key[targetLen])<<8 | uint16(key[targetLen+1]))
}

func prefixOf(target ring.NodeID) []byte { return append([]byte{kindHint}, target[:]...) }

func summaryKey(target ring.NodeID) []byte { return append([]byte{kindSummary}, target[:]...) }

func sizeOf(key string) int64 { return int64(len(key)) + overhead }

// backlog is what is kept for one target. It is written with each change of the
// hints, so that nobody has to look at all of them.
type backlog struct {
	count, bytes int64
	// ages has the hints by when they were added, ascending.
	ages []age
}

// age is a stretch of time in which hints were added.
type age struct {
	slot  int64 // which one
	first int64 // when the first of them was, in Unix milliseconds
	count int64
}

// ageSlots is into how many the window is cut: with it what is said of the oldest
// hint gets coarser once some were delivered.
const ageSlots = 16

func (b *backlog) add(size, ms, slot int64) {
	b.count++
	b.bytes += size
	i := len(b.ages)
	for i > 0 && b.ages[i-1].slot > slot { // a clock that went back
		i--
	}
	if i > 0 && b.ages[i-1].slot == slot {
		a := &b.ages[i-1]
		a.count++
		a.first = min(a.first, ms)
		return
	}
	b.ages = append(b.ages, age{})
	copy(b.ages[i+1:], b.ages[i:])
	b.ages[i] = age{slot: slot, first: ms, count: 1}
}

func (b *backlog) remove(size, slot int64) {
	b.count--
	b.bytes -= size
	for i := range b.ages {
		if b.ages[i].slot != slot {
			continue
		}
		if b.ages[i].count--; b.ages[i].count <= 0 {
			b.ages = append(b.ages[:i], b.ages[i+1:]...)
		}
		return
	}
}

// oldest is when the oldest hint was added, zero if there is none.
func (b *backlog) oldest() time.Time {
	if b.count <= 0 || len(b.ages) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(b.ages[0].first)
}

// maxAges bounds the stretches that a summary may have.
const maxAges = 4096

func (b *backlog) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, uint64(b.count))
	out = binary.BigEndian.AppendUint64(out, uint64(b.bytes))
	for _, a := range b.ages {
		for _, v := range []int64{a.slot, a.first, a.count} {
			out = binary.BigEndian.AppendUint64(out, uint64(v))
		}
	}
	return out
}

func decodeBacklog(v []byte) (backlog, error) {
	if len(v) < 16 || (len(v)-16)%24 != 0 || len(v) > 16+24*maxAges {
		return backlog{}, errHint
	}
	get := func(i int) int64 { return int64(binary.BigEndian.Uint64(v[8*i:])) }
	b := backlog{count: get(0), bytes: get(1)}
	left := b.count
	for i := 2; i < len(v)/8; i += 3 {
		a := age{slot: get(i), first: get(i + 1), count: get(i + 2)}
		if a.count <= 0 || len(b.ages) > 0 && a.slot <= b.ages[len(b.ages)-1].slot {
			return backlog{}, errHint
		}
		b.ages = append(b.ages, a)
		left -= a.count
	}
	if b.count < 0 || b.bytes < 0 || left != 0 {
		return backlog{}, errHint
	}
	return b, nil
}
