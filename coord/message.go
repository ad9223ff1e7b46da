// Package coord runs one client operation against the owners of its key.
//
// The node that receives a request coordinates it if it owns the key, else it
// forwards it, once, to an owner. That owner coordinates and, for a write,
// mints: under the key's lock it makes the new object from its own copy, and
// sends the whole of it to the other owners. A read joins what enough owners
// hold and mends those that lack something before it answers.
//
// Nothing here blocks, starts goroutines or looks at a clock by itself: an
// operation is a small state machine that steps when the transport, the local
// replica or a timer calls back. Only Put, Delete, Get and Close wait.
package coord

import (
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Op says what a Message asks of a peer. Values travel between nodes and never
// change meaning.
type Op uint8

const (
	// OpMerge asks an owner to join Object into its copy of the key and to
	// answer once that is durable.
	OpMerge Op = 1
	// OpRead asks an owner for its whole object.
	OpRead Op = 2
	// OpDigest asks an owner for the digest of its object.
	OpDigest Op = 3
	// OpForward hands a client operation, encoded in Body, to an owner that
	// then coordinates it. It is never forwarded again.
	OpForward Op = 4
	// OpLookup asks an owner what it knows of an idempotency key, and of the
	// key it belongs to: a question and an answer without values.
	OpLookup Op = 5
	// OpClaim asks an owner to vote for the write that an idempotency key is to
	// stand for, and to answer with the vote it holds once that is durable.
	OpClaim Op = 6
	// OpApply is OpMerge for the write that the owners have agreed on: the
	// record in Body goes into the same batch as the object.
	OpApply Op = 7
	// OpScan asks an owner for a piece of what it holds of a tenant in the
	// partition, from Token on.
	OpScan Op = 8
	// OpRepair is what the owners of a partition say to each other to stay equal;
	// Body says what, for package repair. It is about no key and no tenant: the
	// owners are those of the replication factor in Body.
	OpRepair Op = 9
	// OpFound is OpMerge for what a read has found and is about to return: an owner by
	// which some of it has been superseded answers with ErrStripped.
	OpFound Op = 10
)

// Message is one request to one peer. The transport encodes it before Send
// returns, so the caller keeps ownership of every slice; a received Message
// aliases its frame, which the handler may keep.
type Message struct {
	Op Op
	// Partition and PV fence ownership: the peer serves only if the last
	// log entry that touched the partition is PV there too.
	Partition ring.Partition
	PV        ring.Version
	// Tenant and TenantVersion fence the tenant in the same way.
	Tenant        ring.TenantNumber
	TenantVersion ring.Version
	Token         ring.Token
	// Key is the user key, 1..1024 bytes; empty for OpForward and
	// OpScan.
	Key []byte
	// Body is the encoded object for OpMerge and OpFound, the encoded client operation
	// for OpForward, the idempotency key for OpLookup, that and what it stands
	// for, encoded, for OpClaim and OpApply, the encoded range for OpScan, the
	// request of package repair for OpRepair, else empty.
	Body []byte
	// Deadline is when the answer stops being useful. It travels as the time
	// remaining, so that clocks need not agree; the peer drops the message
	// unserved when it is over.
	Deadline time.Time
	// Background says that nobody waits for it: it must not hold up what
	// somebody waits for. It does not travel.
	Background bool
}

// Status says how a peer dealt with a Message. Values travel between nodes.
type Status uint8

const (
	// StatusOK: done, durable where that applies.
	StatusOK Status = 1
	// StatusStale: the sender's ring or tenant version is behind Version;
	// nothing was done.
	StatusStale Status = 2
	// StatusNotOwner: the peer does not own the partition at these versions;
	// nothing was done.
	StatusNotOwner Status = 3
	// StatusError: Body holds an encoded Error.
	StatusError Status = 4
	// StatusOverloaded: refused before anything was done.
	StatusOverloaded Status = 5
	// StatusExpired: the time remaining was over before it was served;
	// nothing was done.
	StatusExpired Status = 6
)

// Reply answers one Message.
type Reply struct {
	Status Status
	// Version is the peer's log version, for StatusStale.
	Version ring.Version
	// Digest of the peer's object, for OpDigest.
	Digest [16]byte
	// Body: OpMerge, OpFound and OpApply, what the peer held that the object does not
	// cover, encoded, empty if nothing; OpRead, the encoded object, empty if
	// absent; OpForward, the encoded response; OpLookup, the encoded Held;
	// OpClaim, the encoded record the peer now holds; OpScan, the encoded
	// piece; OpRepair, the answer of package repair; StatusError, the encoded
	// Error.
	Body []byte
}

// Transport carries messages to peers. Send never blocks: it queues the
// message or refuses it, and calls reply exactly once, at the latest when the
// deadline has passed. It may call reply before it returns only with an error.
// An error that matches ErrNotSent promises that the peer never saw the
// message; after any other error it may have been served. No message is
// delivered twice: a forwarded write would be two writes.
type Transport interface {
	Send(to ring.NodeID, m *Message, reply func(Reply, error))
}

// Outgoing is a message with what is called with its reply.
type Outgoing struct {
	Message Message
	Reply   func(Reply, error)
}

// Bundler is a Transport that can take several messages to one peer together.
// SendAll is Send for each, in order; they leave together, in as few frames as
// hold them. It keeps msgs no longer than it runs.
type Bundler interface {
	Transport
	SendAll(to ring.NodeID, msgs []Outgoing)
}

// PeerHandler serves what peers send. HandlePeer gets the messages of one
// frame together so that their writes can share one engine batch and one sync;
// it calls reply exactly once for each index, now or later, from any goroutine.
type PeerHandler interface {
	HandlePeer(from ring.NodeID, msgs []Message, reply func(i int, r Reply))
}

// Clock is the time seam.
type Clock interface {
	// Now is the wall clock, used where time is data or a deadline.
	Now() time.Time
	// AfterFunc runs f once after d; stop prevents it and says whether it did.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Scheduler runs finite jobs apart from the caller: a goroutine in a process,
// a queued event in a simulation.
type Scheduler interface {
	Go(name string, f func())
}
