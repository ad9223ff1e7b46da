package ring

import "math"

// DefaultTenantName is what the tenant that the founding entry creates is called;
// it has number 1. DefaultTenantRF is its replication factor.
const (
	DefaultTenantName = "default"
	DefaultTenantRF   = 3
)

// MaxTenants bounds the tenants of a cluster; the log has no room for a create
// beyond it.
const MaxTenants = 1 << 16

// DefaultTenant is the number of the tenant that every cluster starts with.
const DefaultTenant TenantNumber = 1

const maxTenantNumber = math.MaxUint32

// ValidTenantName says whether s matches ^[a-z0-9][a-z0-9_-]{0,62}$.
func ValidTenantName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}
