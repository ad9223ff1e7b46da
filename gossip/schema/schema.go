// Package schema holds what a node knows about the cluster at one moment: its
// tenants, its members and the layout, as immutable snapshots. It is pure.
package schema

import (
	"cmp"
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
	RF int
	// NextRF is how many are wanted once the open change is over, 0 if that leaves RF alone.
	NextRF int
	// Born is what RF was at first, if it was changed, so that the tenant has a ring.Class
	// for itself, else 0.
	Born   int
	Policy ConflictPolicy
	// CreatedAt and UpdatedAt are the creator's wall clock, to the millisecond,
	// in UTC; for people only, nothing is decided by them.
	CreatedAt, UpdatedAt time.Time
	// Version is the last log entry that touched the tenant.
	Version ring.Version
}

// Copies says how many copies the tenant wants now and after the open change.
func (t *Tenant) Copies() ring.Copies {
	n := ring.Same(t.RF)
	if t.NextRF > 0 {
		n.To = t.NextRF
	}
	return n
}

// Class says with whom the tenant shares its owners.
func (t *Tenant) Class() ring.Class {
	if t.Born > 0 {
		return ring.OwnClass(t.Number, t.Born)
	}
	return ring.SharedClass(t.RF)
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
	// Drained says that the node has sent its clients away, to be restarted, say: it
	// does its part, and others are asked first.
	Drained bool
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
	// Joiners are the nodes that answer and wait to be members, sorted by id, as a member
	// sees them. They are part of the snapshot so that a node which becomes a member is
	// never in both, nor in neither.
	Joiners []Member
	// TokenKeys, newest first.
	TokenKeys []TokenKey

	tenants  []*Tenant // sorted by name
	byNumber map[ring.TenantNumber]*Tenant
	byName   map[string]*Tenant
	classes  []ClassCopies // sorted by class
	own      []ring.Class  // those of classes that one tenant has for itself
}

// ClassCopies says how many copies the tenants of a class want.
type ClassCopies struct {
	Class  ring.Class
	Copies ring.Copies
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
		s.classes = append(s.classes, ClassCopies{t.Class(), t.Copies()})
	}
	slices.SortFunc(s.classes, func(a, b ClassCopies) int { return cmp.Compare(a.Class, b.Class) })
	s.classes = slices.CompactFunc(s.classes, func(a, b ClassCopies) bool { return a.Class == b.Class })
	for _, c := range s.classes {
		if _, own := c.Class.Own(); own {
			s.own = append(s.own, c.Class)
		}
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

// Current returns what s has of a tenant of an older snapshot, t itself if it was deleted
// meanwhile.
func (s *Snapshot) Current(t *Tenant) *Tenant {
	if now, ok := s.TenantByNumber(t.Number); ok {
		return now
	}
	return t
}

// Deleted says whether a tenant with that number has been, and is no more. One with a
// number that is higher than any given out is not known yet: it may be soon.
func (s *Snapshot) Deleted(n ring.TenantNumber) bool {
	if s.Ring == nil || n == 0 || n > s.Ring.LastTenant() {
		return false
	}
	_, is := s.byNumber[n]
	return !is
}

// Tenants gives all tenants sorted by name. The caller must not change it.
func (s *Snapshot) Tenants() []*Tenant { return s.tenants }

// Sets gives the owners of a partition for so many copies, appended to dst,
// which needs room for ring.MaxOwners if nothing is to be allocated. There must be a
// layout.
func (s *Snapshot) Sets(dst []ring.NodeID, p ring.Partition, n ring.Copies) ring.Sets {
	return ring.SetsOf(s.Layout, s.Change, dst, p, n)
}

// Classes gives the classes that have tenants, sorted. The caller must not change it.
func (s *Snapshot) Classes() []ClassCopies { return s.classes }

// OwnClasses gives the classes that tenants have for themselves, sorted. The caller must
// not change it.
func (s *Snapshot) OwnClasses() []ring.Class { return s.own }

// Copies says how many copies the tenants of a class want. A class that a tenant had for
// itself and that is gone with it wants none.
func (s *Snapshot) Copies(c ring.Class) ring.Copies {
	if i, ok := slices.BinarySearchFunc(s.classes, c, func(k ClassCopies, c ring.Class) int { return cmp.Compare(k.Class, c) }); ok {
		return s.classes[i].Copies
	}
	if _, own := c.Own(); own {
		return ring.Copies{}
	}
	return ring.Same(int(c))
}

// Report gives what a node says of itself, as far as it is known here.
func (s *Snapshot) Report(id ring.NodeID) ring.Report {
	m, ok := s.Member(id)
	if !ok {
		return ring.Report{}
	}
	return ring.Report{Acked: m.AckedVersion, Synced: m.SyncedVersion, Clean: m.CleanVersion}
}

// Clean says whether nobody but the owners of p can hold anything of it of the
// tenants of a class, see ring.State.Clean.
func (s *Snapshot) Clean(p ring.Partition, c ring.Class) bool {
	return s.Ring == nil || s.Ring.Clean(p, s.Copies(c).From, s.Report)
}

// Sources is how many of the owners of a partition have what there is to be had of it,
// see ring.State.Sources.
func (s *Snapshot) Sources(owners []ring.NodeID) int {
	if s.Ring == nil {
		return ring.Meeting(len(owners))
	}
	return s.Ring.Sources(owners)
}

// Retired says whether a node was given up, or has left: nobody waits for it any more.
func (s *Snapshot) Retired(id ring.NodeID) bool { return s.Ring != nil && s.Ring.IsRetired(id) }

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
