package schema

import (
	"errors"
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
