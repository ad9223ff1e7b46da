package ring

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

func foundEntry(t testing.TB) *Entry {
	l := mustLayout(t, 8, testNodes(0, 1, 1, 1))
	return &Entry{Version: 1, Kind: KindFound, Op: [16]byte{1}, Found: &Found{
		ClusterID: ClusterID{1}, ClusterName: "test", Founder: l.Nodes()[0].ID, Layout: l,
		TokenKeyID: 1, TokenKey: [32]byte{5}, CreatedAtMs: 1000,
	}}
}

func createEntry(v Version, name string) *Entry {
	return &Entry{
		Version: v, Kind: KindTenantCreate, Op: [16]byte{byte(v)},
		Tenant: &TenantCreate{Name: name, RF: 3, Policy: 1, CreatedAtMs: 2000},
	}
}

func apply(t *testing.T, s *State, e *Entry) *State {
	t.Helper()
	n, err := s.Next(e)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStateFoundsAndCreates(t *testing.T) {
	s0 := &State{}
	s1 := apply(t, s0, foundEntry(t))
	d, ok := s1.Tenant(DefaultTenantName)
	if !ok || d.Number != 1 || d.RF != 3 || d.Policy != 1 || d.Version != 1 {
		t.Fatalf("default tenant: %+v", d)
	}
	if s0.Layout() != nil || s0.Voters() != nil || s0.Version() != 0 {
		t.Error("Next changed its receiver")
	}
	s2 := apply(t, s1, createEntry(2, "a"))
	s3 := apply(t, s2, createEntry(3, "a")) // void
	s4 := apply(t, s3, createEntry(4, "b"))
	if s3.Version() != 3 || len(s3.Tenants()) != 2 {
		t.Errorf("a void create takes its slot and nothing else: version %d, %d tenants", s3.Version(), len(s3.Tenants()))
	}
	a, _ := s4.Tenant("a")
	b, _ := s4.Tenant("b")
	if a.Version != 2 || a.Number != 2 || b.Number != 3 || b.Version != 4 {
		t.Errorf("a = %+v, b = %+v", a, b)
	}
	if _, ok := s2.Tenant("b"); ok || len(s2.Tenants()) != 2 {
		t.Error("a later state shows in an earlier one")
	}
	if k := s4.TokenKeys(); len(k) != 1 || k[0].Key != [32]byte{5} {
		t.Errorf("token keys %v", k)
	}
}

func TestStateRefuses(t *testing.T) {
	s1 := apply(t, &State{}, foundEntry(t))
	again := foundEntry(t)
	again.Version = 2
	first := createEntry(1, "a")
	for name, c := range map[string]struct {
		s *State
		e *Entry
		w error
	}{
		"gap":             {s1, createEntry(3, "a"), ErrInvalidEntry},
		"repeat":          {s1, createEntry(1, "a"), ErrInvalidEntry},
		"second founding": {s1, again, ErrInvalidEntry},
		"create first":    {&State{}, first, ErrInvalidEntry},
		"unknown kind":    {s1, &Entry{Version: 2, Kind: 77}, ErrUnknownKind},
		"no content":      {s1, &Entry{Version: 2, Kind: KindTenantCreate}, ErrInvalidEntry},
		"bad name":        {s1, createEntry(2, "A"), ErrInvalidEntry},
	} {
		if _, err := c.s.Next(c.e); !errors.Is(err, c.w) {
			t.Errorf("%s: %v, want %v", name, err, c.w)
		}
	}
}

func TestEntryCodec(t *testing.T) {
	for _, e := range []*Entry{foundEntry(t), createEntry(2, "abc-9")} {
		b := AppendEntry(nil, e)
		got, err := DecodeEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(AppendEntry(nil, got), b) || got.Op != e.Op {
			t.Errorf("%s changed on the way", e.Kind)
		}
		for i := 0; i < len(b); i += 1 + i/64 {
			if _, err := DecodeEntry(b[:i]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s cut at %d: %v", e.Kind, i, err)
			}
		}
		if _, err := DecodeEntry(append(b[:len(b):len(b)], 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("trailing byte: %v", err)
		}
		b[0] = 9
		if _, err := DecodeEntry(b); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("newer format: %v", err)
		}
		b[0], b[1] = entryFormat, 99
		if _, err := DecodeEntry(b); !errors.Is(err, ErrUnknownKind) {
			t.Errorf("unknown kind: %v", err)
		}
	}
	bad := createEntry(2, "abc")
	bad.Tenant.RF = 8
	if _, err := DecodeEntry(AppendEntry(nil, bad)); !errors.Is(err, ErrInvalidEntry) {
		t.Errorf("RF 8: %v", err)
	}
}

func TestTenantNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "0": true, "a-b_c": true, "": false, "-a": false, "_a": false, "A": false, "a b": false, "ä": false,
		fmt.Sprintf("%063d", 1): true, fmt.Sprintf("%064d", 1): false,
	} {
		if ValidTenantName(name) != ok {
			t.Errorf("ValidTenantName(%q) = %v", name, !ok)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(AppendEntry(nil, foundEntry(f)))
	f.Add(AppendEntry(nil, createEntry(2, "abc")))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			return
		}
		if !bytes.Equal(AppendEntry(nil, e), b) {
			t.Fatal("two encodings of one entry")
		}
	})
}
