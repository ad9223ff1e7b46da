package client

import (
	"fmt"
	"math/bits"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

// maxReplicas is how many owners a partition may have.
const maxReplicas = 7

// routes say which nodes own the keys of one tenant. They do not change once
// made.
type routes struct {
	etag     uint64
	tenant   ring.TenantNumber
	replicas int
	shift    int // of a token, to its partition
	// owners has the positions in addresses of each partition's owners.
	owners []uint16
	// addresses of the nodes; "" for a node that is given up or not known.
	addresses []string
	// conns are what the router made of addresses, nil where there is none.
	conns []*conn
}

// newRoutes checks what a node sent: positions that do not exist are refused, so
// that nothing that comes later can go astray.
func newRoutes(r *pairdbv1.RoutesResponse) (*routes, error) {
	replicas, owners, nodes := int(r.GetReplicas()), r.GetOwners(), r.GetNodes()
	if replicas < 1 || replicas > maxReplicas || len(owners) == 0 || len(owners)%replicas != 0 || len(owners)/replicas > ring.MaxPartitions {
		return nil, fmt.Errorf("routes: %d owners for %d replicas a partition", len(owners), replicas)
	}
	partitions := uint(len(owners) / replicas)
	if bits.OnesCount(partitions) != 1 {
		return nil, fmt.Errorf("routes: %d partitions are no power of two", partitions)
	}
	out := &routes{
		etag: r.GetEtag(), tenant: ring.TenantNumber(r.GetTenantNumber()), replicas: replicas,
		shift: 64 - bits.TrailingZeros(partitions), owners: make([]uint16, len(owners)), addresses: make([]string, len(nodes)),
	}
	for i, o := range owners {
		if int64(o) >= int64(len(nodes)) || o > 1<<16-1 {
			return nil, fmt.Errorf("routes: owner %d of %d nodes", o, len(nodes))
		}
		out.owners[i] = uint16(o)
	}
	for i, n := range nodes {
		if n.GetAlive() {
			out.addresses[i] = n.GetAddress()
		}
	}
	return out, nil
}

// of returns the positions of a key's owners, the first ones first.
func (r *routes) of(key []byte) []uint16 {
	p := int(uint64(ring.KeyToken(r.tenant, key)) >> r.shift)
	return r.owners[p*r.replicas : (p+1)*r.replicas]
}
