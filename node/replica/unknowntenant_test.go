package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestUnknownTenantsKeepTheirData: a compaction by a node that has never heard of a
// tenant, as after its metadata was lost, keeps all of that tenant's objects and
// records.
func TestUnknownTenantsKeepTheirData(t *testing.T) {
	records := NewRecordSpace(1<<20, func() time.Time { return noon })
	jobs := &queue{}
	db, err := engine.Open("data", engine.Options{FS: vfs.NewMem(), Scheduler: jobs, CacheSize: 1 << 20, CompactionFilter: records.Drop})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	value := foreign(9, 1, 5, "kept")
	vote := begun(9, noon)
	var keys [][]byte
	b := engine.NewBatch()
	for tenant := range uint32(40) {
		a := at(fmt.Sprintf("key-%d", tenant))
		a.Tenant = ring.TenantNumber(1_000_000 + tenant)
		object := appendKey(nil, &a)
		record := appendRecordKey(nil, &a, []byte("id"))
		b.Set(object, value.Append(nil))
		b.Set(record, vote.Append(nil))
		keys = append(keys, object, record)
	}
	for range 3 { // tables over one another, so that they are merged and not moved
		if _, err := db.Apply(b, engine.WriteOptions{Sync: true}); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(nil, nil); err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		if _, _, err := db.GetSeq(nil, key); err != nil {
			t.Errorf("key %d is gone after a compaction by who does not know its tenant: %v", i, err)
		}
	}
}
