package schema

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/gossip/ring"
)

func TestValidateTenantID(t *testing.T) {
	for id, hint := range map[string]string{
		"":                      "empty",
		strings.Repeat("a", 64): "at most 63",
		"Shop":                  `did you mean "shop"`,
		"a b":                   "want lower-case letters",
		"-a":                    "beginning with",
		"../x":                  "want lower-case letters",
	} {
		if err := ValidateTenantID(id); !errors.Is(err, ErrTenantID) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, want a hint at %q", id, err, hint)
		}
	}
	for _, id := range []string{"a", "0", "shop-1_x", strings.Repeat("a", 63)} {
		if err := ValidateTenantID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestValidateRFAndPolicy(t *testing.T) {
	for rf := -1; rf <= 9; rf++ {
		if err := ValidateRF(rf); (err == nil) != (rf >= 1 && rf <= 7) || err != nil && !errors.Is(err, ErrRF) {
			t.Errorf("ValidateRF(%d) = %v", rf, err)
		}
	}
	for _, p := range []ConflictPolicy{PolicyLWW, PolicySiblings} {
		if err := ValidatePolicy(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if PolicyLWW.String() != "lww" || PolicySiblings.String() != "siblings" {
		t.Errorf("policies are called %s and %s", PolicyLWW, PolicySiblings)
	}
	if !errors.Is(ValidatePolicy(0), ErrPolicy) || !errors.Is(ValidatePolicy(3), ErrPolicy) {
		t.Error("unknown policies pass")
	}
}

func TestSnapshot(t *testing.T) {
	a, b := &Tenant{Number: 2, Name: "b"}, &Tenant{Number: 1, Name: "a"}
	s := Build(Snapshot{Members: []Member{{ID: ring.NodeID{2}, Liveness: Dead}, {ID: ring.NodeID{1}, Liveness: Suspect}}}, []*Tenant{a, b})
	if got := s.Tenants(); len(got) != 2 || got[0].Name != "a" {
		t.Errorf("tenants not sorted: %v", got)
	}
	if got, ok := s.Tenant("b"); !ok || got != a {
		t.Error("Tenant(b)")
	}
	if got, ok := s.TenantByNumber(1); !ok || got != b {
		t.Error("TenantByNumber(1)")
	}
	if _, ok := s.Tenant("c"); ok {
		t.Error("Tenant(c) exists")
	}
	if !s.Alive(ring.NodeID{1}) || s.Alive(ring.NodeID{2}) || s.Alive(ring.NodeID{3}) {
		t.Error("Alive: a suspect is alive, the dead and the unknown are not")
	}
	w := s.WithMembers([]Member{{ID: ring.NodeID{2}, Liveness: Alive}})
	if !w.Alive(ring.NodeID{2}) || s.Alive(ring.NodeID{2}) || len(w.Tenants()) != 2 {
		t.Error("WithMembers")
	}
	if k := (TokenKey{ID: 3, Key: [32]byte{42}}); strings.Contains(k.String()+k.GoString(), "42") {
		t.Error("a token key shows itself")
	}
}

// TestDeletedTenants: one that is gone is told from one that is not known yet.
func TestDeletedTenants(t *testing.T) {
	l, err := ring.NewLayout(1, []ring.LayoutNode{{ID: ring.NodeID{1}, Name: "n", Capacity: 1}})
	if err != nil {
		t.Fatal(err)
	}
	state := &ring.State{}
	for _, e := range []ring.Entry{
		{Kind: ring.KindFound, Found: &ring.Found{ClusterID: ring.ClusterID{1}, ClusterName: "c", Founder: ring.NodeID{1}, Layout: l, TokenKeyID: 1}},
		{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: "a", RF: 1, Policy: 1}},
		{Kind: ring.KindTenantCreate, Tenant: &ring.TenantCreate{Name: "b", RF: 1, Policy: 1}},
		{Kind: ring.KindTenantDelete, Delete: &ring.TenantDelete{Number: 2}},
	} {
		e.Version = state.Version() + 1
		if state, err = state.Next(&e); err != nil {
			t.Fatal(err)
		}
	}
	s := Build(Snapshot{Ring: state}, []*Tenant{{Number: 1, Name: "default"}, {Number: 3, Name: "b"}})
	for n, want := range []bool{0: false, 1: false, 2: true, 3: false, 4: false} {
		if got := s.Deleted(ring.TenantNumber(n)); got != want {
			t.Errorf("tenant %d is deleted: %v", n, got)
		}
	}
	if (&Snapshot{}).Deleted(1) {
		t.Error("a tenant is deleted before there is a log")
	}
}

func TestClasses(t *testing.T) {
	s := Build(Snapshot{}, []*Tenant{
		{Number: 1, Name: "a", RF: 3},
		{Number: 2, Name: "b", RF: 3},
		{Number: 9, Name: "c", RF: 3, NextRF: 5, Born: 3},
		{Number: 4, Name: "d", RF: 3, Born: 2},
	})
	nine, four := ring.OwnClass(9, 3), ring.OwnClass(4, 2)
	if got := s.OwnClasses(); !slices.Equal(got, []ring.Class{four, nine}) {
		t.Errorf("own classes %v", got)
	}
	if got := s.Classes(); len(got) != 3 || got[0].Class != ring.SharedClass(3) {
		t.Errorf("classes %v", got)
	}
	for c, want := range map[ring.Class]ring.Copies{
		nine: {From: 3, To: 5}, four: ring.Same(3), ring.SharedClass(3): ring.Same(3), ring.SharedClass(5): ring.Same(5), ring.OwnClass(8, 3): {},
	} {
		if got := s.Copies(c); got != want {
			t.Errorf("%s wants %+v, not %+v", c, got, want)
		}
	}
}

func TestMemberFindsAllAndNoOthers(t *testing.T) {
	for n := range 10 {
		members := make([]Member, n)
		for i := range members {
			members[i].ID = ring.NodeID{byte(2*i + 1)}
		}
		s := Build(Snapshot{Members: members}, nil)
		for id := range 2*n + 1 {
			m, ok := s.Member(ring.NodeID{byte(id)})
			if want := id%2 == 1; ok != want || ok && m.ID != (ring.NodeID{byte(id)}) {
				t.Errorf("of %d members, number %d: %v, want %v", n, id, ok, want)
			}
		}
	}
}
