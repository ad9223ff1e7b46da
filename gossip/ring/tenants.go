package ring

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What can be wrong with a tenant that is to be changed or deleted.
var (
	// ErrUnknownTenant: no tenant is called that, or has that number, any more or yet.
	ErrUnknownTenant = errors.New("no such tenant")
	// ErrDefaultTenant: the tenant that every cluster starts with stays.
	ErrDefaultTenant = errors.New("the default tenant cannot be deleted")
	// ErrOwnClasses: the replication factors of so many tenants were changed that there
	// is no room for another one.
	ErrOwnClasses = errors.New("too many tenants whose replication factor was changed")
)

// TenantRecord is a tenant as the log made it. It is immutable.
type TenantRecord struct {
	Number      TenantNumber
	Name        string
	RF          uint8
	Policy      uint8
	CreatedAtMs int64
	// Born is the replication factor that it was created with, if that was changed, else
	// 0: then it has a class for itself.
	Born uint8
	// UpdatedAtMs is when that was asked for last, 0 for never.
	UpdatedAtMs int64
	// Version is the last log entry that touched the tenant.
	Version Version
}

// Class is the class of the tenant.
func (t *TenantRecord) Class() Class {
	if t.Born > 0 {
		return OwnClass(t.Number, int(t.Born))
	}
	return SharedClass(int(t.RF))
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

// TenantByNumber finds a tenant by number. It looks at all of them.
func (s *State) TenantByNumber(t TenantNumber) (*TenantRecord, bool) {
	i := s.findNumber(t)
	if i < 0 {
		return nil, false
	}
	return s.tenants[i], true
}

func (s *State) findNumber(t TenantNumber) int {
	return slices.IndexFunc(s.tenants, func(r *TenantRecord) bool { return r.Number == t })
}

// LastTenant is the highest number that was given to a tenant, 0 before founding.
func (s *State) LastTenant() TenantNumber { return s.lastTenant }

// Deleted says whether a tenant with that number has been, and is no more. One with a
// higher number than LastTenant is not known yet. It looks at all tenants.
func (s *State) Deleted(t TenantNumber) bool {
	return t != 0 && t <= s.lastTenant && s.findNumber(t) < 0
}

// CheckDelete gives the tenant of that name, or says why it cannot be deleted:
// ErrNotFounded, ErrUnknownTenant or ErrDefaultTenant.
func (s *State) CheckDelete(name string) (*TenantRecord, error) {
	if s.layout == nil {
		return nil, ErrNotFounded
	}
	t, ok := s.Tenant(name)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %q; see the list of tenants for their names", ErrUnknownTenant, name)
	case t.Number == DefaultTenant:
		return nil, fmt.Errorf("%w: requests that name no tenant mean it; delete the keys in it instead", ErrDefaultTenant)
	}
	return t, nil
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

// deleteTenant ends a tenant, and what is wanted of it. It is void if there is none with
// the number. A change that is open goes on: what it was to do for the tenant is done for
// nobody.
func (s *State) deleteTenant(t TenantNumber) {
	at := s.findNumber(t)
	if at < 0 {
		return
	}
	s.tenants = slices.Delete(slices.Clone(s.tenants), at, at+1)
	s.intents = slices.DeleteFunc(slices.Clone(s.intents), func(i *IntentRecord) bool { return i.Tenant == t })
}

// ownClasses counts the tenants with a class for themselves.
func (s *State) ownClasses() (n int) {
	for _, t := range s.tenants {
		if t.Born > 0 {
			n++
		}
	}
	return n
}

// mayOwnClass says whether there is room for a class of t alone beside those that there
// are and those that are asked for.
func (s *State) mayOwnClass(t *TenantRecord) bool {
	if t.Born > 0 {
		return true
	}
	var asked []TenantNumber
	for _, i := range s.intents {
		if i.Verb != VerbReplicate || slices.Contains(asked, i.Tenant) {
			continue
		}
		if i.Tenant == t.Number {
			return true // counted when it was asked for first
		}
		if o, ok := s.TenantByNumber(i.Tenant); ok && o.Born == 0 {
			asked = append(asked, i.Tenant)
		}
	}
	return s.ownClasses()+len(asked) < MaxOwnClasses
}

// mayRefactor says whether a proposal may change replication factors like that: each
// tenant exists and has another one, and there is room for the classes.
func (s *State) mayRefactor(factors []Factor) bool {
	n := s.ownClasses()
	for _, f := range factors {
		t, ok := s.TenantByNumber(f.Tenant)
		if !ok || t.RF == f.RF {
			return false
		}
		if t.Born == 0 {
			n++
		}
	}
	return n <= MaxOwnClasses
}

// splitClasses gives tenants a class for themselves.
func (s *State) splitClasses(factors []Factor) {
	s.amend(factors, func(t *TenantRecord, _ Factor) {
		if t.Born == 0 {
			t.Born = t.RF
		}
	})
}

// settleFactors puts replication factors in force, of tenants that still are.
func (s *State) settleFactors(factors []Factor) {
	s.amend(factors, func(t *TenantRecord, f Factor) { t.RF, t.UpdatedAtMs = f.RF, f.AskedAtMs })
}

// amend changes copies of the tenants' records: older states share those that there are.
func (s *State) amend(factors []Factor, change func(*TenantRecord, Factor)) {
	if len(factors) == 0 {
		return
	}
	s.tenants = slices.Clone(s.tenants)
	for i, t := range s.tenants {
		if f, ok := factorOf(factors, t.Number); ok {
			next := *t
			next.Version = s.version
			change(&next, f)
			s.tenants[i] = &next
		}
	}
}

// factorOf finds the factor of a tenant among those sorted by tenant.
func factorOf(factors []Factor, t TenantNumber) (Factor, bool) {
	i, ok := slices.BinarySearchFunc(factors, t, func(f Factor, t TenantNumber) int { return cmp.Compare(f.Tenant, t) })
	if !ok {
		return Factor{}, false
	}
	return factors[i], true
}
