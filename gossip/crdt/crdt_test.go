package crdt

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func testKey(i byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, ed25519.SeedSize))
}

func testEntry(t testing.TB, key byte, inc, seq uint64, name string) *NodeEntry {
	t.Helper()
	e, err := Sign(NodeEntry{
		Stamp: Stamp{inc, seq}, ClusterID: ring.ClusterID{7}, Name: name, Zone: "z", Capacity: 100, Actor: 9,
		Addresses: schema.Addresses{Peer: "127.0.0.1:1"}, AckedVersion: 3, SyncedVersion: 2, CleanVersion: 1, Software: "v1",
	}, testKey(key))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestMergeLaws(t *testing.T) {
	// All entries that may be drawn; equal stamps with different content included.
	var pool []*NodeEntry
	for key := byte(1); key <= 3; key++ {
		for inc := uint64(1); inc <= 2; inc++ {
			for seq := uint64(0); seq <= 1; seq++ {
				pool = append(pool, testEntry(t, key, inc, seq, "a"), testEntry(t, key, inc, seq, "b"))
			}
		}
	}
	merged := func(sets ...[]*NodeEntry) *Nodes {
		n := &Nodes{}
		for _, s := range sets {
			for _, e := range s {
				n.Merge(e)
			}
		}
		return n
	}
	same := func(a, b *Nodes) bool { return slices.Equal(a.All(), b.All()) && a.Hash() == b.Hash() }
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.SliceOfN(rapid.SampledFrom(pool), 0, 8)
		a, b, c := set.Draw(t, "a"), set.Draw(t, "b"), set.Draw(t, "c")
		if !same(merged(a, b), merged(b, a)) {
			t.Fatal("not commutative")
		}
		if !same(merged(merged(a, b).All(), c), merged(a, merged(b, c).All())) {
			t.Fatal("not associative")
		}
		if !same(merged(a, a), merged(a)) {
			t.Fatal("not idempotent")
		}
		whole := merged(a, b)
		if !same(merged(a, whole.Newer(merged(a).Vector())), whole) && noTies(a, b) {
			t.Fatal("a copy brought up to date by its vector differs")
		}
		if len(whole.Newer(whole.Vector())) != 0 {
			t.Fatal("a map is newer than itself")
		}
	})
}

func noTies(sets ...[]*NodeEntry) bool {
	seen := map[VectorItem]*NodeEntry{}
	for _, s := range sets {
		for _, e := range s {
			k := VectorItem{e.ID, e.Stamp}
			if o, ok := seen[k]; ok && o != e {
				return false
			}
			seen[k] = e
		}
	}
	return true
}

func TestMapIsBounded(t *testing.T) {
	n := &Nodes{}
	for i := range MaxNodes {
		n.entries = append(n.entries, &NodeEntry{ID: ring.NodeID{byte(i >> 8), byte(i), 1}})
	}
	if n.Merge(testEntry(t, 1, 1, 1, "a")) || n.Len() != MaxNodes {
		t.Error("the map grew beyond its bound")
	}
	n.Remove(n.entries[5].ID)
	if !n.Merge(testEntry(t, 1, 1, 1, "a")) {
		t.Error("no room after a removal")
	}
}

func TestNodeEntryCodec(t *testing.T) {
	e := testEntry(t, 1, 2, 3, "n1")
	b := e.Append(nil)
	got, err := DecodeNode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.compare(e) != 0 || got.Addresses != e.Addresses || got.Zone != "z" || got.AckedVersion != 3 || got.SyncedVersion != 2 ||
		got.CleanVersion != 1 || got.Software != "v1" || got.ID != e.ID {
		t.Errorf("came back as %+v", got)
	}
	for i := range b {
		if _, err := DecodeNode(b[:i]); err == nil {
			t.Fatalf("cut at %d is accepted", i)
		}
		forged := bytes.Clone(b)
		forged[i] ^= 1
		if _, err := DecodeNode(forged); err == nil {
			t.Fatalf("flipped bit at %d is accepted", i)
		}
	}
	newer := bytes.Clone(b)
	newer[0] = nodeFormat + 1
	if _, err := DecodeNode(newer); !errors.Is(err, ring.ErrNewerFormat) {
		t.Errorf("newer: %v", err)
	}
	// Another node's content under one's own signature gets one's own id.
	stolen := *e
	mine, err := Sign(stolen, testKey(2))
	if err != nil || mine.ID == e.ID {
		t.Errorf("signed as another node: %v", err)
	}
	forged := mine.Append(nil)
	copy(forged[1:], e.PublicKey)
	if _, err := DecodeNode(forged); !errors.Is(err, ErrSignature) {
		t.Errorf("forged: %v", err)
	}
}

// TestFirstFormat: entries that an earlier version signed are read, and passed on as
// they are. They say nothing of what is synced or clean.
func TestFirstFormat(t *testing.T) {
	e := testEntry(t, 1, 2, 3, "n1")
	key := testKey(1)
	at := 1 + ed25519.PublicKeySize + 16 + 4*8
	raw := slices.Concat([]byte{nodeFormat1}, e.raw[1:at], e.raw[at+2*8:])
	b := append(bytes.Clone(raw), ed25519.Sign(key, append([]byte(signContext), raw...))...)
	got, err := DecodeNode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != e.ID || got.AckedVersion != 3 || got.SyncedVersion != 0 || got.CleanVersion != 0 || got.Capacity != 100 || got.Name != "n1" {
		t.Errorf("came back as %+v", got)
	}
	if !bytes.Equal(got.Append(nil), b) {
		t.Error("it is passed on in another form, which nobody has signed")
	}
	for i := range b {
		if _, err := DecodeNode(b[:i]); err == nil {
			t.Fatalf("cut at %d is accepted", i)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	good := NodeEntry{Stamp: Stamp{1, 1}, Name: "a", Capacity: 1, Actor: 1}
	if _, err := Sign(good, testKey(1)); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*NodeEntry){
		"name":        func(e *NodeEntry) { e.Name = "" },
		"zone":        func(e *NodeEntry) { e.Zone = "a b" },
		"capacity":    func(e *NodeEntry) { e.Capacity = 0 },
		"address":     func(e *NodeEntry) { e.Addresses.HTTP = strings.Repeat("a", 256) },
		"software":    func(e *NodeEntry) { e.Software = strings.Repeat("a", 65) },
		"incarnation": func(e *NodeEntry) { e.Incarnation = 0 },
		"actor":       func(e *NodeEntry) { e.Actor = 0 },
	} {
		bad := good
		edit(&bad)
		if _, err := Sign(bad, testKey(1)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := good
	long.Name, long.Zone = strings.Repeat("a", 63), strings.Repeat("b", 63)
	a := strings.Repeat("c", 255)
	long.Addresses, long.Software = schema.Addresses{GRPC: a, Peer: a, HTTP: a, Gossip: a}, strings.Repeat("d", 64)
	e, err := Sign(long, testKey(1))
	if err != nil || len(e.Append(nil)) > MaxEntryBytes {
		t.Errorf("the longest entry does not fit: %v", err)
	}
}

func TestNameConflicts(t *testing.T) {
	a, b, c := testEntry(t, 1, 1, 1, "x"), testEntry(t, 2, 1, 1, "y"), testEntry(t, 3, 1, 1, "x")
	if got := NameConflicts([]*NodeEntry{a, b}); got != nil {
		t.Errorf("none expected: %v", got)
	}
	got := NameConflicts([]*NodeEntry{a, b, c})
	if len(got) != 1 || got[0] != (NameConflict{"x", a.ID, c.ID}) || !strings.Contains(got[0].Error(), `"x"`) {
		t.Errorf("%v", got)
	}
}

func FuzzDecodeNode(f *testing.F) {
	f.Add(testEntry(f, 1, 2, 3, "n1").Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := DecodeNode(b); err == nil && !bytes.Equal(e.Append(nil), b) {
			t.Fatal("two encodings of one entry")
		}
	})
}
