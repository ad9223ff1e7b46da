package meta

import (
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TenantOf gives the tenant that a record of the log stands for.
func TenantOf(t *ring.TenantRecord) *schema.Tenant {
	at := time.UnixMilli(t.CreatedAtMs).UTC()
	return &schema.Tenant{
		Number: t.Number, Name: t.Name, RF: int(t.RF), Policy: schema.ConflictPolicy(t.Policy),
		CreatedAt: at, UpdatedAt: at, Version: t.Version,
	}
}
