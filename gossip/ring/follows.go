package ring

import (
	"errors"
	"fmt"
	"slices"
)

// ErrNoSuccessor marks a state that no log leads to from another one.
var ErrNoSuccessor = errors.New("a state that cannot come after the one before")

// Follows says whether the log can lead from old, which is not the zero state, to s, as
// far as the two tell: it is not proof. The error is ErrNoSuccessor.
func (s *State) Follows(old *State) error {
	had := make(map[TenantNumber]bool, len(old.tenants))
	for _, t := range old.tenants {
		had[t.Number] = true
	}
	why := ""
	switch {
	case s.version < old.version:
		why = fmt.Sprintf("it is of entry %d, not after %d", s.version, old.version)
	case s.clusterID != old.clusterID || s.clusterName != old.clusterName || s.founder != old.founder:
		why = "it is of another cluster"
	case s.layout.Partitions() != old.layout.Partitions():
		why = "it has other partitions"
	case s.layout.version < old.layout.version:
		why = "its layout is older"
	case s.lastTenant < old.lastTenant:
		why = "it has given out fewer numbers of tenants"
	case slices.ContainsFunc(s.tenants, func(t *TenantRecord) bool { return t.Number <= old.lastTenant && !had[t.Number] }):
		why = "a deleted tenant is back"
	case slices.ContainsFunc(old.retired, func(id NodeID) bool { return !s.IsRetired(id) }):
		why = "a retired node is none"
	}
	for p, v := range old.layout.pv {
		if why == "" && s.layout.pv[p] < v {
			why = fmt.Sprintf("partition %d is at an older version", p)
		}
	}
	if why != "" {
		return fmt.Errorf("%w: %s", ErrNoSuccessor, why)
	}
	return nil
}
