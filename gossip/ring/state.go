package ring

import (
	"fmt"
	"slices"
	"strings"
)

// TenantRecord is a tenant as the log made it. It is immutable.
type TenantRecord struct {
	Number      TenantNumber
	Name        string
	RF          uint8
	Policy      uint8
	CreatedAtMs int64
	// Version is the last log entry that touched the tenant.
	Version Version
}

// TokenKey is a key for context tokens, as the log made it.
type TokenKey struct {
	ID  uint8
	Key [32]byte
}

// State is what the log up to one version says. It is an immutable value: Next
// makes a new one. The zero State stands before the first entry.
type State struct {
	version     Version
	clusterID   ClusterID
	clusterName string
	layout      *Layout
	tenants     []*TenantRecord // sorted by name
	// lastTenant is the highest number given out; numbers are never reused.
	lastTenant TenantNumber
	tokenKeys  []TokenKey // newest first
}

// Version is the last entry applied; 0 if none.
func (s *State) Version() Version { return s.version }

// ClusterID is zero before founding.
func (s *State) ClusterID() ClusterID { return s.clusterID }

// ClusterName is empty before founding.
func (s *State) ClusterName() string { return s.clusterName }

// Layout is nil before founding.
func (s *State) Layout() *Layout { return s.layout }

// Tenants gives the tenants sorted by name. The caller must not change it.
func (s *State) Tenants() []*TenantRecord { return s.tenants }

// TokenKeys gives the keys for context tokens, newest first. The caller must not
// change it.
func (s *State) TokenKeys() []TokenKey { return s.tokenKeys }

// Voters gives the nodes that vote on the next entry, none before founding. The
// caller must not change it.
func (s *State) Voters() []NodeID {
	if s.layout == nil {
		return nil
	}
	return s.layout.voters
}

// Tenant finds a tenant by name.
func (s *State) Tenant(name string) (*TenantRecord, bool) {
	i, ok := s.find(name)
	if !ok {
		return nil, false
	}
	return s.tenants[i], true
}

func (s *State) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.tenants, name, func(t *TenantRecord, name string) int { return strings.Compare(t.Name, name) })
}

// Next gives the state after e, which must be the entry after s. An entry that
// came too late to have its effect, such as the second create of one name, is
// void: it takes its place in the log and changes nothing but the version.
// An entry that cannot stand there is an error, and s goes on unchanged.
func (s *State) Next(e *Entry) (*State, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	if e.Version != s.version+1 {
		return nil, fmt.Errorf("%w %d: the log is at %d", ErrInvalidEntry, e.Version, s.version)
	}
	n := *s
	n.version = e.Version
	switch e.Kind {
	case KindFound:
		f := e.Found
		n.clusterID, n.clusterName, n.layout = f.ClusterID, f.ClusterName, f.Layout
		n.tokenKeys = []TokenKey{{ID: f.TokenKeyID, Key: f.TokenKey}}
		n.addTenant(&TenantRecord{Name: DefaultTenantName, RF: DefaultTenantRF, Policy: 1, CreatedAtMs: f.CreatedAtMs})
	case KindTenantCreate:
		t := e.Tenant
		n.addTenant(&TenantRecord{Name: t.Name, RF: t.RF, Policy: t.Policy, CreatedAtMs: t.CreatedAtMs})
	}
	return &n, nil
}

// addTenant gives t the next number, unless its name is taken or there is no
// room. The slice is copied: older states share it.
func (s *State) addTenant(t *TenantRecord) {
	at, taken := s.find(t.Name)
	if taken || len(s.tenants) >= MaxTenants || s.lastTenant == maxTenantNumber {
		return
	}
	s.lastTenant++
	t.Number, t.Version = s.lastTenant, s.version
	tenants := make([]*TenantRecord, 0, len(s.tenants)+1)
	tenants = append(tenants, s.tenants[:at]...)
	tenants = append(tenants, t)
	s.tenants = append(tenants, s.tenants[at:]...)
}
