// Package schema holds what a node knows about the cluster at one moment: its
// tenants, its members and the layout, as immutable snapshots. It is pure.
package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
)

// Errors of validation. The wrapping error says what is wrong and what would be
// right.
var (
	// ErrTenantID marks a tenant id that cannot be.
	ErrTenantID = errors.New("invalid tenant id")
	// ErrRF marks a replication factor out of range.
	ErrRF = errors.New("invalid replication factor")
	// ErrPolicy marks a conflict policy that does not exist.
	ErrPolicy = errors.New("invalid conflict policy")
)

// ConflictPolicy says what becomes of concurrent writes. The values are stored.
type ConflictPolicy uint8

const (
	// PolicyLWW lets the last writer win: one value is returned.
	PolicyLWW ConflictPolicy = 1
	// PolicySiblings keeps concurrent values side by side.
	PolicySiblings ConflictPolicy = 2
)

// String gives "lww" or "siblings".
func (p ConflictPolicy) String() string {
	switch p {
	case PolicyLWW:
		return "lww"
	case PolicySiblings:
		return "siblings"
	default:
		return fmt.Sprintf("policy(%d)", uint8(p))
	}
}

// Tenant is one namespace of keys.
type Tenant struct {
	// Number names the tenant in storage and on the wire; never reused.
	Number ring.TenantNumber
	// Name is the tenant id that clients use.
	Name string
	// RF is how many copies are wanted, 1..7. With fewer nodes there are fewer.
	RF     int
	Policy ConflictPolicy
	// CreatedAt and UpdatedAt are the creator's wall clock, to the millisecond,
	// in UTC; for people only, nothing is decided by them.
	CreatedAt, UpdatedAt time.Time
	// Version is the last log entry that touched the tenant.
	Version ring.Version
}

// ValidateTenantID checks a tenant id against ^[a-z0-9][a-z0-9_-]{0,62}$.
func ValidateTenantID(id string) error {
	if ring.ValidTenantName(id) {
		return nil
	}
	switch {
	case id == "":
		return fmt.Errorf("%w: it is empty", ErrTenantID)
	case len(id) > 63:
		return fmt.Errorf("%w: %d bytes, at most 63", ErrTenantID, len(id))
	case ring.ValidTenantName(strings.ToLower(id)):
		return fmt.Errorf("%w %q: upper case is not allowed, did you mean %q?", ErrTenantID, id, strings.ToLower(id))
	default:
		return fmt.Errorf("%w %q: want lower-case letters, digits, '_' and '-', beginning with a letter or digit", ErrTenantID, id)
	}
}

// ValidateRF checks a replication factor: 1..7.
func ValidateRF(rf int) error {
	if rf < 1 || rf > ring.MaxRF {
		return fmt.Errorf("%w: %d, want 1..%d", ErrRF, rf, ring.MaxRF)
	}
	return nil
}

// ValidatePolicy checks that the policy exists.
func ValidatePolicy(p ConflictPolicy) error {
	if p != PolicyLWW && p != PolicySiblings {
		return fmt.Errorf("%w: %d", ErrPolicy, uint8(p))
	}
	return nil
}

// Liveness is what gossip believes about a node. It never decides ownership.
type Liveness uint8

const (
	// LivenessUnknown: never heard of since this node started.
	LivenessUnknown Liveness = iota
	// Alive: it answers.
	Alive
	// Suspect: it failed to answer and may refute that.
	Suspect
	// Dead: it stopped answering.
	Dead
	// Left: it said goodbye.
	Left
)

// String gives the liveness in lower case.
func (l Liveness) String() string {
	switch l {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Dead:
		return "dead"
	case Left:
		return "left"
	default:
		return "unknown"
	}
}

// Addresses are where a node listens, each as host:port; empty where it does not.
type Addresses struct{ GRPC, Peer, HTTP, Gossip string }

// Member is a node as this node knows it.
type Member struct {
	ID ring.NodeID
	// Name is unique in the cluster.
	Name, Zone string
	Capacity   uint32
	// Incarnation is the node's boot counter, from 1.
	Incarnation uint64
	// Actor is who mints that node's dots in this incarnation; 0 until known.
	Actor     uint64
	Addresses Addresses
	Liveness  Liveness
	// Withdrawn says that the node answers gossip and tells that it cannot do
	// its part, because its disk does not answer, say: others are asked first.
	Withdrawn bool
	// AckedVersion, SyncedVersion and CleanVersion are what the node reports, see
	// ring.Report; it may be further by now. What it has acknowledged it has durably.
	AckedVersion, SyncedVersion, CleanVersion ring.Version
	Software                                  string
}

// TokenKey authenticates the context tokens given to clients.
type TokenKey struct {
	ID  uint8
	Key [32]byte
}

// String hides the key.
func (k TokenKey) String() string { return fmt.Sprintf("token key %d", k.ID) }

// GoString hides the key.
func (k TokenKey) GoString() string { return k.String() }

// Snapshot is what a node knows at one moment. It is immutable and safe for
// concurrent use; build it with Build.
type Snapshot struct {
	ClusterID ring.ClusterID
	// ClusterName is what operators call the cluster; it is gossip's label too.
	ClusterName string
	Self        ring.NodeID
	// Version is the last log entry learned, and durable here.
	Version ring.Version
	// Layout is the finalised layout, nil before founding.
	Layout *ring.Layout
	// Change is the change of the layout that is open, nil if none is.
	Change *ring.Change
	// Ring is all that the log says; Layout and Change are parts of it.
	Ring *ring.State
	// Ready says that this node may serve: the cluster is founded and acknowledged by
	// all founders, and the log, as far as it is here, makes this node a member.
	Ready bool
	// Members are the members, sorted by id: nodes with partitions, with some to come,
	// or with none any more. Before founding they are the nodes that may found. Nodes
	// that wait to be members are not among them.
	Members []Member
	// TokenKeys, newest first.
	TokenKeys []TokenKey

	tenants  []*Tenant // sorted by name
	byNumber map[ring.TenantNumber]*Tenant
	byName   map[string]*Tenant
}

// Build completes a snapshot from its exported fields and its tenants. It takes
// over both; members and tenants are sorted in place.
func Build(s Snapshot, tenants []*Tenant) *Snapshot {
	slices.SortFunc(s.Members, func(a, b Member) int { return a.ID.Compare(b.ID) })
	slices.SortFunc(tenants, func(a, b *Tenant) int { return strings.Compare(a.Name, b.Name) })
	s.tenants = tenants
	s.byNumber = make(map[ring.TenantNumber]*Tenant, len(tenants))
	s.byName = make(map[string]*Tenant, len(tenants))
	for _, t := range tenants {
		s.byNumber[t.Number] = t
		s.byName[t.Name] = t
	}
	return &s
}

// WithMembers gives a copy of s with other members, sorted in place, and the
// same tenants.
func (s *Snapshot) WithMembers(members []Member) *Snapshot {
	c := *s
	slices.SortFunc(members, func(a, b Member) int { return a.ID.Compare(b.ID) })
	c.Members = members
	return &c
}

// Tenant finds a tenant by name. The result is shared: do not change it.
func (s *Snapshot) Tenant(name string) (*Tenant, bool) {
	t, ok := s.byName[name]
	return t, ok
}

// TenantByNumber finds a tenant by number. The result is shared: do not change it.
func (s *Snapshot) TenantByNumber(n ring.TenantNumber) (*Tenant, bool) {
	t, ok := s.byNumber[n]
	return t, ok
}

// Tenants gives all tenants sorted by name. The caller must not change it.
func (s *Snapshot) Tenants() []*Tenant { return s.tenants }

// Sets gives the owners of a partition for one replication factor, appended to dst,
// which needs room for ring.MaxOwners if nothing is to be allocated. There must be a
// layout.
func (s *Snapshot) Sets(dst []ring.NodeID, p ring.Partition, rf int) ring.Sets {
	return ring.SetsOf(s.Layout, s.Change, dst, p, rf)
}

// Report gives what a node says of itself, as far as it is known here.
func (s *Snapshot) Report(id ring.NodeID) ring.Report {
	m, ok := s.Member(id)
	if !ok {
		return ring.Report{}
	}
	return ring.Report{Acked: m.AckedVersion, Synced: m.SyncedVersion, Clean: m.CleanVersion}
}

// Clean says whether nobody but the owners of p can hold anything of it for that
// replication factor, see ring.State.Clean.
func (s *Snapshot) Clean(p ring.Partition, rf int) bool {
	return s.Ring == nil || s.Ring.Clean(p, rf, s.Report)
}

// Member finds a member by id. The result points into s: do not change it.
func (s *Snapshot) Member(id ring.NodeID) (*Member, bool) {
	// By hand: a comparison that is handed Members would copy some 200 bytes.
	lo, hi := 0, len(s.Members)
	for lo < hi {
		i := int(uint(lo+hi) >> 1)
		m := &s.Members[i]
		switch c := m.ID.Compare(id); {
		case c == 0:
			return m, true
		case c < 0:
			lo = i + 1
		default:
			hi = i
		}
	}
	return nil, false
}

// Alive says whether gossip believes that the node answers. A node under
// suspicion counts: it has not been given up yet.
func (s *Snapshot) Alive(id ring.NodeID) bool {
	m, ok := s.Member(id)
	return ok && (m.Liveness == Alive || m.Liveness == Suspect)
}
