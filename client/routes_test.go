package client

import (
	"fmt"
	"slices"
	"testing"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

// answer is what a node of n sends for a power of two of partitions.
func answer(n, partitions, replicas int) *pairdbv1.RoutesResponse {
	r := &pairdbv1.RoutesResponse{Etag: 1, TenantNumber: 7, Replicas: uint32(replicas)}
	for i := range n {
		r.Nodes = append(r.Nodes, &pairdbv1.RouteNode{Address: fmt.Sprintf("127.0.0.1:%d", 1000+i), Alive: i > 0})
	}
	for p := range partitions {
		for i := range replicas {
			r.Owners = append(r.Owners, uint32((p+i)%n))
		}
	}
	return r
}

func TestRoutesFindOwners(t *testing.T) {
	for _, partitions := range []int{1, 2, 16, 1024} {
		r, err := newRoutes(answer(5, partitions, 3))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			key := []byte(fmt.Sprintf("{tag%d}key", i))
			token := uint64(ring.KeyToken(7, key))
			p := 0
			for n := partitions; n > 1; n /= 2 {
				p, token = p*2+int(token>>63), token<<1
			}
			want := []uint16{uint16(p % 5), uint16((p + 1) % 5), uint16((p + 2) % 5)}
			if got := r.of(key); !slices.Equal(got, want) {
				t.Fatalf("%d partitions, key %s: owners %v, want %v", partitions, key, got, want)
			}
		}
		if r.addresses[0] != "" || r.addresses[1] != "127.0.0.1:1001" {
			t.Errorf("addresses %v", r.addresses)
		}
	}
}

func TestRoutesThatMakeNoSenseAreRefused(t *testing.T) {
	for name, change := range map[string]func(*pairdbv1.RoutesResponse){
		"no replicas":         func(r *pairdbv1.RoutesResponse) { r.Replicas = 0 },
		"many replicas":       func(r *pairdbv1.RoutesResponse) { r.Replicas = 8; r.Owners = make([]uint32, 16*8) },
		"half a partition":    func(r *pairdbv1.RoutesResponse) { r.Owners = r.Owners[1:] },
		"no power of two":     func(r *pairdbv1.RoutesResponse) { r.Owners = r.Owners[3:] },
		"no partitions":       func(r *pairdbv1.RoutesResponse) { r.Owners = nil },
		"unknown node":        func(r *pairdbv1.RoutesResponse) { r.Owners[5] = 3 },
		"no nodes":            func(r *pairdbv1.RoutesResponse) { r.Nodes = nil },
		"too many partitions": func(r *pairdbv1.RoutesResponse) { r.Replicas = 1; r.Owners = make([]uint32, 2*ring.MaxPartitions) },
	} {
		r := answer(3, 16, 3)
		change(r)
		if _, err := newRoutes(r); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
