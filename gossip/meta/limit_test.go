package meta

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

// listStore is a store of the records it was made with.
type listStore []Record

func (s listStore) Load(visit func(key string, value []byte) error) error {
	for _, r := range s {
		if err := visit(r.Key, r.Value); err != nil {
			return err
		}
	}
	return nil
}

func (s listStore) Write([]Record) error { return nil }

// openList starts a node on a store of records.
func openList(t *testing.T, s listStore, trim Trim) *Core {
	t.Helper()
	c, err := Open(Options{
		Store: s, Rand: rand.NewChaCha8([32]byte{1}), ClusterName: "test", Partitions: 1, Trim: trim,
		Logger: slog.New(slog.DiscardHandler), Info: Info{Name: "n0", Capacity: 100, Software: "test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// oneOfThree is the store of one of three nodes, with the first tenant.
func oneOfThree(t *testing.T) listStore {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	self := ring.NodeIDOf(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	var nodes []ring.LayoutNode
	for i, id := range []ring.NodeID{self, {1}, {2}} {
		nodes = append(nodes, ring.LayoutNode{ID: id, Name: fmt.Sprintf("n%d", i), Capacity: 100})
	}
	l, err := ring.NewLayout(1, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return listStore{
		{keyFormat, withFormat()},
		{keyIdentity, withFormat(seed...)},
		{keyBoot, u64Bytes(u64Bytes(withFormat(), 1), 1)},
		{keyCluster, withFormat([]byte("test")...)},
		{keyReady, withFormat()},
		{logKey(1), ring.AppendEntry(nil, &ring.Entry{Version: 1, Kind: ring.KindFound, Op: [16]byte{1}, Found: &ring.Found{
			ClusterID: ring.ClusterID{1}, ClusterName: "test", Founder: self, Layout: l, TokenKeyID: 1, CreatedAtMs: 1,
		}})},
	}
}

func createAt(v ring.Version) []byte {
	return ring.AppendEntry(nil, &ring.Entry{Version: v, Kind: ring.KindTenantCreate, Op: [16]byte{1}, Tenant: &ring.TenantCreate{
		Name: fmt.Sprintf("t%06d", v), RF: 3, Policy: uint8(schema.PolicyLWW), CreatedAtMs: 1,
	}})
}

// A create that loses the last place to another must end: every further entry of
// it would be void, and it would propose one after the other.
func TestCreateThatLosesTheLastPlaceEnds(t *testing.T) {
	c := openList(t, oneOfThree(t), Trim{})
	c.maxTenants = 2
	mine := ring.TenantCreate{Name: "mine", RF: 3, Policy: uint8(schema.PolicyLWW), CreatedAtMs: 1}
	if err := c.ProposeTenant(mine); err != nil || c.Proposal() != nil {
		t.Fatalf("with room for one: %v, %+v", err, c.Proposal())
	}
	c.proposal.spoken = true // a voter may have accepted it by now
	last := c.Version() + 1
	if err := c.learn(last, [][]byte{createAt(last)}); err != nil {
		t.Fatal(err)
	}
	if r := c.Proposal(); r == nil || !errors.Is(r.Err, ErrTenantLimit) {
		t.Errorf("the proposal goes on: %+v", r)
	}
	if c.EndProposal() {
		t.Error("the outcome is said to be unknown; it can only be void")
	}
	if err := c.ProposeTenant(mine); !errors.Is(err, ErrTenantLimit) {
		t.Errorf("the next create: %v", err)
	}
	if err := c.learn(last+1, [][]byte{ring.AppendEntry(nil, &ring.Entry{Version: last + 1, Kind: ring.KindTenantDelete, Op: [16]byte{2}, Delete: &ring.TenantDelete{Number: 2}})}); err != nil {
		t.Fatal(err)
	}
	if err := c.ProposeTenant(mine); err != nil || c.Proposal() != nil {
		t.Errorf("after one was deleted: %v, %+v", err, c.Proposal())
	}
}
