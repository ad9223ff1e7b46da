// Package repair keeps the owners of the same data equal: rounds of anti-entropy
// that find what an owner has missed and send exactly that, and from which it
// follows what all owners have.
package repair

import (
	"cmp"
	"errors"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Span names the data in one partition of all tenants of one class: they have the same
// owners.
type Span struct {
	Partition ring.Partition
	Class     ring.Class
}

// Compare orders spans by partition and class.
func (s Span) Compare(o Span) int {
	return cmp.Or(cmp.Compare(s.Partition, o.Partition), cmp.Compare(s.Class, o.Class))
}

// Range is a stretch of the keys of one tenant in one partition: the tokens from
// First to Last, both included.
type Range struct {
	Partition   ring.Partition
	Tenant      ring.TenantNumber
	First, Last ring.Token
}

// Sum stands for a set of siblings: how many there are, and the sum modulo 2^128
// of a hash of key, dot and flags of each. The sums of disjoint ranges add up.
type Sum struct {
	Count  uint64
	Hi, Lo uint64
}

// State is what an owner knows of a span when a round begins.
type State struct {
	// Session names this start of the owner's process: an answer with another one
	// makes the round void.
	Session uint64
	// Actor mints here, and has drawn the counters up to Drawn in the partition.
	Actor, Drawn uint64
	// Seen has the highest counter of every actor in anything the owner ever
	// applied, as far as it knows.
	Seen causal.Context
	// Votes has, for actors with idempotency votes that are open here, the counter
	// below the lowest of them: no dot above it may be confirmed.
	Votes causal.Context
	// VotesUnknown says that Votes is not known yet: nothing may be confirmed.
	VotesUnknown bool
	// Now is the owner's clock, in Unix milliseconds.
	Now int64
	// Confirmed is what the owner has adopted, Released what it knows all owners to
	// have adopted. Sweeping says that it has not yet collected what it may.
	Confirmed, Released causal.Confirmed
	Sweeping            bool
}

// Row is what an owner holds of one key, without values.
type Row struct {
	Token ring.Token
	Key   []byte
	// Object is settled by what the owner has confirmed, and its siblings have no
	// values.
	Object causal.Object
	// Size is that of the stored object, in bytes.
	Size int
}

// RecordRow is what an owner remembers of one idempotency key: that its write was
// made, and which that was, or which one it has voted for.
type RecordRow struct {
	Tenant ring.TenantNumber
	Token  ring.Token
	// KeyHash stands for the key, in the replicas' way.
	KeyHash        [16]byte
	IdempotencyKey []byte
	// Record is encoded (causal.Record).
	Record []byte
}

// Replica is what rounds need of this node's copy of the data. Calls may block on
// the disk and are made from jobs, several at once. Errors are *coord.Error where
// the replica can tell what is wrong. Of a partition under quarantine it answers
// with what there is, for this node to fetch the rest: that other nodes are told
// nothing of it is up to Options.Quarantined.
type Replica interface {
	// State is asked for when a round begins and, for Votes, once more when those
	// writes are over that were under way then.
	State(s Span) (State, error)
	// Adopt makes c known to all merges and reads of the span, on disk when it
	// returns. Release says that all owners have adopted c, and starts to collect.
	Adopt(s Span, c *causal.Confirmed) error
	Release(s Span, c *causal.Confirmed) error

	// Tenants returns the tenants that have data in a partition, ascending.
	Tenants(p ring.Partition) []ring.TenantNumber
	// Depth returns into how many leaves, as a power of two, the tenant's part of
	// the partition is divided here: 0 for one.
	Depth(p ring.Partition, t ring.TenantNumber) int
	// Sums returns the sums of the 1<<bits equal parts of a range, in order. The
	// range is one or several whole leaves; parts that are smaller than a leaf are
	// read from disk. It covers what is on disk only.
	Sums(r Range, bits int) ([]Sum, error)
	// Rows returns what is held of a range in the order of (token, key), on disk,
	// from the position after on, at most limit rows and about 1 MiB; more says
	// that the range goes on behind the last one.
	Rows(r Range, after *Row, limit int) (rows []Row, more bool, err error)

	// Records returns the idempotency records of a span that were applied and still
	// count, in the order of their storage keys, from the one after on, at most limit
	// and about 1 MiB; more says that there are others behind. With votes, those that
	// were voted for are among them: see DESIGN.md.
	Records(s Span, after *RecordRow, limit int, votes bool) (rows []RecordRow, more bool, err error)
	// Restore remembers what other owners do of a span that is fetched, on disk when
	// it returns. A vote counts as one that this node is asked for now. It is refused
	// with coord.ErrMoved unless pv is the version of the partition by then: records that
	// come late would be left at a node that has said that it has nothing.
	Restore(s Span, pv ring.Version, rows []RecordRow) error

	// OpenVotes returns the votes of a span that State.Votes is about, without their
	// records, in the order of their storage keys; none if there are too many to say.
	OpenVotes(s Span) ([]RecordRow, error)
	// Applied returns which of the given idempotency keys of a span stand here for a
	// write that was made, with their records, on disk, at most about 1 MiB.
	Applied(s Span, of []RecordRow) ([]RecordRow, error)
	// Outvoted replaces votes by the records of the writes that were made instead, as far
	// as this node has had those, on disk when it returns. It is fenced by pv as Restore is.
	Outvoted(s Span, pv ring.Version, rows []RecordRow) error

	// Known returns what was adopted and released of a span, and the clock above which
	// everything has to be that is minted by whoever takes it over: something with a
	// lower one may have been collected.
	Known(s Span) (confirmed, released causal.Confirmed, floor uint64, err error)
	// Inherit makes known here what old owners of a span know, on disk and to all
	// merges and reads when it returns. It never takes anything back. It is fenced by pv
	// as Restore is.
	Inherit(s Span, pv ring.Version, confirmed, released *causal.Confirmed, floor uint64) error
	// Told says that an old owner has told this node all it holds of a span that it gains
	// by the change that was proposed at a version. Merges that carry that version join
	// whole before (coord.MergeItem.Gaining), and leave out what is confirmed and not
	// held from then on. None that does not is under way when it returns.
	Told(s Span, change ring.Version) error
	// Foreign returns the spans that are not owned of which there is anything here,
	// sorted. Whatever was written as of an older version of the ring than owns goes by
	// is in it. Data of tenants that nobody knows is not.
	Foreign(owns func(Span) bool) ([]Span, error)
	// Drop removes all there is of a span, on disk when it returns nil, but for the
	// counters of its partition. still is called once nothing is being written any more:
	// if it says false nothing is removed, and the error is ErrNotForeign.
	Drop(s Span, still func() bool) error
}

// ErrNotForeign says that a span was not dropped, because this node owns it by now, or
// may.
var ErrNotForeign = errors.New("the ring has changed meanwhile")
