package meta

import (
	"time"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TenantOf gives the tenant that a record of the log stands for, while a change is open,
// nil for none.
func TenantOf(t *ring.TenantRecord, c *ring.Change) *schema.Tenant {
	at, updated := time.UnixMilli(t.CreatedAtMs).UTC(), time.UnixMilli(max(t.CreatedAtMs, t.UpdatedAtMs)).UTC()
	next := c.Copies(t.Number, int(t.RF)).To
	if next == int(t.RF) {
		next = 0
	}
	return &schema.Tenant{
		Number: t.Number, Name: t.Name, RF: int(t.RF), NextRF: next, Born: int(t.Born),
		Policy: schema.ConflictPolicy(t.Policy), CreatedAt: at, UpdatedAt: updated, Version: t.Version,
	}
}
