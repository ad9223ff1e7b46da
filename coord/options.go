package coord

import (
	"errors"
	"log/slog"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// Limits of a request that no option changes.
const (
	// MaxKeySize bounds a key, in bytes.
	MaxKeySize = 1024
	// MaxTokenSize bounds a context token, in bytes.
	MaxTokenSize = 4096
	// MaxValueSize is the largest and the default bound of a value, in bytes.
	MaxValueSize = 10 << 20
)

// Address says where one key of one tenant lives.
type Address struct {
	Partition ring.Partition
	Tenant    ring.TenantNumber
	Token     ring.Token
	Key       []byte
	// Class is the tenant's: with the partition it says who owns the key. LWW says
	// that of what is concurrent the last write wins.
	Class ring.Class
	LWW   bool
	// PV is the ring version of the partition under which it is asked for. What
	// writes is refused with ErrMoved if the partition has another one by the time
	// that the key's lock is held; 0 asks for no check.
	PV ring.Version
}

// MergeItem is one object for a replica to join into its copy of a key.
type MergeItem struct {
	Address
	// Object is encoded.
	Object []byte
	// LastWriteWins lets the replica drop the values of siblings that lost.
	LastWriteWins bool
	// Refetch, if not nil, says that Object is all that another owner holds of the
	// key, which has adopted Refetch: what that covers and Object does not hold has
	// been superseded, whatever this replica knows. It is for replicas that have
	// lost data: nothing is left out because of what this one has adopted.
	Refetch *causal.Confirmed
	// Gaining is the version of the ring at which the change was proposed by which this
	// replica is about to own the key, as long as it may not have all that is there, 0 if
	// there is none. What it has adopted covers values that live, and it may lack one
	// only because nobody has told it yet. So it leaves nothing out before an old owner
	// has told it all.
	Gaining ring.Version
	// Found says that Object is what a read has found and is about to return. What of it
	// has been superseded here is then an error (ErrStripped), also where what superseded
	// it is still held: readers may be shown neither that nor its context any more, so
	// the read may not know.
	Found bool
	// IdempotencyKey and Record, both or neither, are what the replica is to
	// remember of the object's write, in the same batch. The record is applied.
	IdempotencyKey []byte
	Record         *causal.Record
}

// Held is what a replica knows that a write with an idempotency key depends on.
type Held struct {
	// Record is that of the idempotency key, nil if there is none that counts.
	Record *causal.Record
	// Context is the object's, and HLC the highest among its siblings, 0 if
	// there are none.
	Context causal.Context
	HLC     uint64
}

// Replica is this node's own copy of the data. Errors are *Error where the
// replica can tell what is wrong; their Outcome then says whether anything was
// applied. Callbacks may run before the call returns, and from any goroutine.
type Replica interface {
	// Update loads the object at a key, calls edit with it under the key's
	// lock, and makes what edit returns the key's object, visible at once. It
	// returns that object's encoding, for the caller to keep; durable is then
	// called exactly once, when the object is on disk or can no longer get
	// there. If edit fails, nothing is changed and Update returns its error; a
	// dot that it minted is never yielded again. mint yields a fresh dot; edit
	// must not call anything else that blocks. held, and all it consists of, is
	// edit's to look at and to return, not to keep. It is without what no reader is
	// shown any more (causal.Object.Remaining); a new sibling's HLC has to be above
	// held.Floor.
	Update(at Address, edit func(held *causal.Object, mint func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error)
	// Merge joins each item into the key's object, all in one batch, and calls
	// done exactly once for each: when what is then held is on disk, with what
	// was held before and the item does not cover (causal.Uncovered, encoded,
	// empty for nothing), or with ErrStripped if something of it is known to have
	// been superseded and was left out; the rest is then on disk. A write that an
	// idempotency key stands for is then done, not stripped. Of MergeItem.Found
	// anything counts that the replica has seen and does not hold.
	Merge(items []MergeItem, done func(i int, uncovered []byte, err error))
	// Read calls done with the encoded object, empty if there is none, once it
	// is on disk. The bytes are the callee's to keep. Read, ReadDigest and Scan show
	// objects as causal.Object.Settled leaves them.
	Read(at Address, done func(object []byte, err error))
	// ReadDigest is Read for the object's digest.
	ReadDigest(at Address, done func(digest [16]byte, err error))
	// Scan calls done with a piece of a range, once what it shows is on disk. It
	// does not run in the caller's goroutine, and may wait for other scans.
	Scan(r *ScanRange, done func(p ScanPiece, err error))
	// Lookup calls done with what is held of a key and of one of its
	// idempotency keys, once it is on disk. A record that is over at now counts
	// as absent. What done gets is its to keep.
	Lookup(at Address, idempotencyKey []byte, now time.Time, done func(h Held, err error))
	// Claim makes r the record of an idempotency key unless there is another
	// that is not over at now and does not give way (causal.Record.GivesWay).
	// It calls done with the record that is then held, once it is on disk.
	Claim(at Address, idempotencyKey []byte, r *causal.Record, now time.Time, done func(held causal.Record, err error))
}

// Metrics are hooks that the coordinator calls; nil ones are left out. They
// must not block.
type Metrics struct {
	// Request is called once per client operation that this node coordinated
	// or forwarded, with OK or the error's code.
	Request func(kind Kind, level quorum.Level, code errcode.Code, took time.Duration)
	// QuorumFailure counts operations that missed their level or the deadline.
	QuorumFailure func()
	// Conflict counts concurrent writes found: by a read that joined several
	// siblings, or by a write that an owner held something beside.
	Conflict func()
	// ReadRepair counts objects written back by reads.
	ReadRepair func()
	// Remint counts writes minted a second time because the minter was stale.
	Remint func()
	// Duplicate counts writes answered as begun by an earlier attempt with the
	// same idempotency key.
	Duplicate func()
	// Forward counts operations handed to an owner.
	Forward func()
	// StaleBounce counts answers that said this node's ring is behind.
	StaleBounce func()
	// Key is called for each client operation on a key that this node
	// coordinates, in the way of the operation: it takes next to no time, and
	// does not keep the key.
	Key func(tenant ring.TenantNumber, key []byte, write bool)
	// ManySiblings counts clients' writes that left a key with 16 siblings or
	// more.
	ManySiblings func()
	// Hedge counts owners asked beside those that keep an operation waiting,
	// HedgeWon operations that were answered with what such an owner said while one
	// of the others had not, and HedgeRefused times that the budget had none left.
	Hedge, HedgeWon, HedgeRefused func()
	// ForwardRetry counts operations handed to a further owner because one refused,
	// and ForwardRefused those that were not because the budget had none left.
	ForwardRetry, ForwardRefused func()
	// PeerState counts changes of what this node thinks of a peer, or of its own
	// disk and reads, by what it changed to.
	PeerState func(to peerhealth.State)
}

func (m *Metrics) ensureDefaults() {
	nop := func() {}
	for _, f := range []*func(){&m.QuorumFailure, &m.Conflict, &m.ReadRepair, &m.Remint, &m.Duplicate, &m.Forward, &m.StaleBounce, &m.ManySiblings, &m.Hedge, &m.HedgeWon, &m.HedgeRefused, &m.ForwardRetry, &m.ForwardRefused} {
		if *f == nil {
			*f = nop
		}
	}
	if m.Key == nil {
		m.Key = func(ring.TenantNumber, []byte, bool) {}
	}
	if m.Request == nil {
		m.Request = func(Kind, quorum.Level, errcode.Code, time.Duration) {}
	}
	if m.PeerState == nil {
		m.PeerState = func(peerhealth.State) {}
	}
}

// Options configure a Coordinator.
type Options struct {
	// Self is this node.
	Self ring.NodeID
	// View returns the present snapshot of the cluster, never nil.
	View func() *schema.Snapshot
	// Replica is this node's data.
	Replica Replica
	// Transport reaches the other nodes.
	Transport Transport
	Clock     Clock
	// CatchUp learns what from knows of the ring and calls done, exactly once,
	// when View shows at least that version, or it has failed. It is called
	// for one version of one peer at a time.
	CatchUp func(from ring.NodeID, atLeast ring.Version, done func(error))
	// Repair, if not nil, serves what other owners ask to stay equal with this one.
	// Without it they are told that the operation is not known here.
	Repair RepairHandler
	// Horizon says whether this node knows what the old owners of a partition that it
	// is about to own have confirmed, so that it may serve it. If not, then is called
	// when it does, at most once and maybe before Horizon returns; if the change that
	// this is about ends first it may never be. Horizon must not block. nil: it always
	// knows.
	Horizon func(p ring.Partition, then func()) (known bool)
	// Refresh asks other nodes for newer metadata, because a tenant that is not
	// known may just have been created there, and calls done: informed says that
	// enough were asked to know of every tenant, so that View shows it if it was there
	// when Refresh was called. It is called at most once per RefreshInterval. nil:
	// there is nobody to ask, and View shows all.
	Refresh func(tenant string, done func(informed bool))
	// Linked, if not nil, says whether there is a connection to a node over which
	// it answers: such a node is not taken for dead, whatever membership says. It
	// must not block.
	Linked func(id ring.NodeID) bool
	// RefreshInterval: shorter finds new tenants sooner, longer protects the
	// cluster from clients that ask for tenants that do not exist. Default 250 ms.
	RefreshInterval time.Duration
	// WriteTimeout bounds a write and every replica's part in it, the late
	// ones included. Default 5 s.
	WriteTimeout time.Duration
	// ReadTimeout bounds a read. Default 3 s.
	ReadTimeout time.Duration
	// HedgeDelay is the longest that a read waits before it asks one more owner,
	// and how long it waits until enough is known of how fast owners answer:
	// shorter hides slow owners better and costs more reads. Default 100 ms.
	HedgeDelay time.Duration
	// PeerChanged, if not nil, is told when this node changes how it treats a peer,
	// or, with its own id, its own disk or reads, and why, in a phrase. It is called
	// without locks, must not block, and may be called by several goroutines at
	// once.
	PeerChanged func(id ring.NodeID, from, to peerhealth.State, why string)
	// Hint, if not nil, is told of each other owner that does not have a write which
	// this node coordinated: it was left out, was down, refused, or did not answer,
	// the late ones included. idempotencyKey is that of the write, nil if it has
	// none. It is called without locks and must not block, and keeps no slice longer
	// than it runs. It may be called several times for one owner and write.
	Hint func(target ring.NodeID, at Address, idempotencyKey []byte)
	// MaxValueSize bounds a value, in bytes. Default and maximum 10 MiB.
	MaxValueSize int
	Metrics      Metrics
	Logger       *slog.Logger
}

// EnsureDefaults fills what is zero.
func (o *Options) EnsureDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.RefreshInterval, 250*time.Millisecond)
	def(&o.WriteTimeout, 5*time.Second)
	def(&o.ReadTimeout, 3*time.Second)
	def(&o.HedgeDelay, 100*time.Millisecond)
	if o.MaxValueSize == 0 {
		o.MaxValueSize = MaxValueSize
	}
	if o.PeerChanged == nil {
		o.PeerChanged = func(ring.NodeID, peerhealth.State, peerhealth.State, string) {}
	}
	if o.Hint == nil {
		o.Hint = func(ring.NodeID, Address, []byte) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Metrics.ensureDefaults()
}

// Validate reports everything that is wrong.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, msg string) {
		if !ok {
			errs = append(errs, errors.New("coord: "+msg))
		}
	}
	check(!o.Self.IsZero(), "Self is missing")
	check(o.View != nil, "View is missing")
	check(o.Replica != nil, "Replica is missing")
	check(o.Transport != nil, "Transport is missing")
	check(o.Clock != nil, "Clock is missing")
	check(o.CatchUp != nil, "CatchUp is missing")
	check(o.RefreshInterval > 0 && o.WriteTimeout > 0 && o.ReadTimeout > 0 && o.HedgeDelay > 0, "a duration is not positive")
	check(o.MaxValueSize > 0 && o.MaxValueSize <= MaxValueSize, "MaxValueSize is not 1 byte to 10 MiB")
	return errors.Join(errs...)
}
