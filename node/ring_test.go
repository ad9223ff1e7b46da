package node

import (
	"testing"

	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// TestTransferID: what is moved of a tenant whose replication factor was changed has its
// name, so that people know whose it is.
func TestTransferID(t *testing.T) {
	v := schema.Build(schema.Snapshot{}, []*schema.Tenant{{Number: 7, Name: "orders", RF: 5, NextRF: 5, Born: 3, Policy: schema.PolicyLWW}})
	for _, x := range []struct {
		t    repair.Transfer
		want string
	}{
		{repair.Transfer{Kind: repair.TransferGain, At: 12, Span: repair.Span{Partition: 4, Class: ring.SharedClass(3)}}, "gain-12-4-rf3"},
		{repair.Transfer{Kind: repair.TransferGain, At: 12, Span: repair.Span{Partition: 4, Class: ring.OwnClass(7, 3)}}, "gain-12-4-tenant-orders"},
		{repair.Transfer{Kind: repair.TransferCleanup, At: 13, Span: repair.Span{Partition: 4, Class: ring.OwnClass(8, 3)}}, "cleanup-13-4-tenant8"},
	} {
		if got := transferID(v, &x.t); got != x.want {
			t.Errorf("%s, want %s", got, x.want)
		}
	}
	for class, want := range map[ring.Class]string{
		ring.SharedClass(3): "partition 4 of the tenants with RF 3",
		ring.OwnClass(7, 3): "partition 4 of tenant 7",
	} {
		if got := (repair.Span{Partition: 4, Class: class}).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
