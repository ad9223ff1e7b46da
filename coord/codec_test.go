package coord

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func requests() []request {
	return []request{
		{kind: KindPut, key: []byte("k"), value: []byte("v"), level: quorum.All, json: true, token: []byte("t")},
		{kind: KindPut, key: []byte("k"), level: quorum.One},
		{kind: KindDelete, key: []byte("k"), level: quorum.Quorum, hasExpect: true, expect: causal.Context{{Actor: 1, Counter: 2}}},
		{kind: KindDelete, key: []byte("k"), level: quorum.All, idempotencyKey: bytes.Repeat([]byte{0}, causal.MaxIdempotencyKey)},
		{kind: KindGet, key: bytes.Repeat([]byte{0xff}, MaxKeySize), level: quorum.Quorum},
	}
}

func failures() []*Error {
	return []*Error{
		{Code: errcode.KeyNotFound, Message: "the key has no value"},
		{
			Code: errcode.QuorumNotReached, Outcome: errcode.Indeterminate, Acks: 1, Need: 2, Message: "m",
			Causes: []Cause{{Node: ring.NodeID{1}, Name: "a", Reason: "is down"}, {Node: ring.NodeID{2}, Reason: "did not answer"}},
		},
		{Code: errcode.PreconditionFailed, Outcome: errcode.NotApplied, Message: "m", Token: []byte("t")},
		{Code: "CODE_OF_THE_FUTURE", Outcome: errcode.NotApplied},
	}
}

func TestBodiesRoundTrip(t *testing.T) {
	for _, r := range requests() {
		b := r.encode()
		got, err := decodeRequest(b)
		if err != nil || !bytes.Equal(got.encode(), b) || got.kind != r.kind || !bytes.Equal(got.key, r.key) ||
			!bytes.Equal(got.value, r.value) || !bytes.Equal(got.idempotencyKey, r.idempotencyKey) || got.json != r.json || got.hasExpect != r.hasExpect || !got.expect.Equal(r.expect) {
			t.Errorf("%+v: got %+v, %v", r, got, err)
		}
		for cut := range b {
			if _, err := decodeRequest(b[:cut]); err == nil {
				t.Errorf("%v: %d of %d bytes decode", r.kind, cut, len(b))
			}
		}
	}
	for _, e := range failures() {
		got, err := DecodeError(EncodeError(e))
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v: got %+v, %v", e, got, err)
		}
	}
	w := WriteResponse{Token: []byte("t"), Dot: causal.Dot{Actor: 1, Counter: 2}, Context: causal.Context{{Actor: 1, Counter: 2}}, Acks: 2, Replicas: 3, Level: quorum.Quorum}
	for _, w.Duplicate = range []bool{false, true} {
		if got, err := decodeWriteResponse(encodeWriteResponse(&w)); err != nil || !reflect.DeepEqual(got, w) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	g := GetResponse{Token: []byte("t"), Context: causal.Context{{Actor: 1, Counter: 2}, {Actor: 3, Counter: 1}}, Siblings: []causal.Sibling{
		{Dot: causal.Dot{Actor: 3, Counter: 1}, HLC: 9, Value: []byte("winner")},
		// Two of one actor, of which the later does not cover the earlier.
		{Dot: causal.Dot{Actor: 1, Counter: 1}, HLC: 7, Value: []byte("older")},
		{Dot: causal.Dot{Actor: 1, Counter: 2}, HLC: 8, Value: []byte("other")},
	}}
	if got, err := decodeGetResponse(encodeGetResponse(&g)); err != nil || !reflect.DeepEqual(got, g) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestErrorsOnTheWireAreBounded(t *testing.T) {
	e := &Error{Code: errcode.Internal, Message: strings.Repeat("x", 3*maxErrorString)}
	for range 5 * maxCauses {
		e.Causes = append(e.Causes, Cause{Reason: strings.Repeat("y", 2*maxErrorString)})
	}
	got, err := DecodeError(EncodeError(e))
	if err != nil || len(got.Message) != maxErrorString || len(got.Causes) != maxCauses {
		t.Fatalf("%v", err)
	}
}

func FuzzBodies(f *testing.F) {
	for _, r := range requests() {
		f.Add(r.encode())
	}
	for _, e := range failures() {
		f.Add(EncodeError(e))
	}
	f.Add(encodeWriteResponse(&WriteResponse{Level: quorum.One}))
	f.Add(encodeGetResponse(&GetResponse{Context: causal.Context{{Actor: 1, Counter: 1}}, Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 1}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRequest(b); err == nil {
			again, err := decodeRequest(r.encode())
			if err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("request %+v, again %+v, %v", r, again, err)
			}
		}
		if e, err := DecodeError(b); err == nil {
			again, err := DecodeError(EncodeError(e))
			if err != nil || !reflect.DeepEqual(again, e) {
				t.Fatalf("error %+v, again %+v, %v", e, again, err)
			}
		}
		if w, err := decodeWriteResponse(b); err == nil {
			again, err := decodeWriteResponse(encodeWriteResponse(&w))
			if err != nil || !reflect.DeepEqual(again, w) {
				t.Fatalf("response %+v, again %+v, %v", w, again, err)
			}
		}
		if g, err := decodeGetResponse(b); err == nil && len(g.Siblings) == 0 {
			t.Fatal("an answer without a value")
		}
	})
}

func keys(ids ...uint8) *schema.Snapshot {
	s := &schema.Snapshot{ClusterID: ring.ClusterID{1}}
	for _, id := range ids {
		s.TokenKeys = append(s.TokenKeys, schema.TokenKey{ID: id, Key: [32]byte{id}})
	}
	return s
}

func TestTokenIsBoundToWhereItWasMade(t *testing.T) {
	seen := causal.Context{{Actor: 1, Counter: 2}, {Actor: 9, Counter: 300}}
	s := keys(2, 1)
	tok := seal(s, 7, []byte("key"), seen, 42)
	got, hlc, err := open(s, 7, []byte("key"), tok)
	if err != nil || !got.Equal(seen) || hlc != 42 {
		t.Fatalf("%v %d %v", got, hlc, err)
	}
	// Rotation: the newest key seals, the one before still opens, older not.
	if _, _, err := open(keys(3, 2), 7, []byte("key"), tok); err != nil {
		t.Errorf("after one rotation: %v", err)
	}
	if _, _, err := open(keys(4, 3, 2), 7, []byte("key"), tok); err == nil {
		t.Error("opened after two rotations")
	}
	other := keys(2, 1)
	other.ClusterID = ring.ClusterID{2}
	for name, f := range map[string]func() error{
		"another cluster": func() error { _, _, err := open(other, 7, []byte("key"), tok); return err },
		"another tenant":  func() error { _, _, err := open(s, 8, []byte("key"), tok); return err },
		"another key":     func() error { _, _, err := open(s, 7, []byte("kez"), tok); return err },
		"too long":        func() error { _, _, err := open(s, 7, []byte("key"), make([]byte, MaxTokenSize+1)); return err },
		"no keys":         func() error { _, _, err := open(keys(), 7, []byte("key"), tok); return err },
	} {
		if f() == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for i := range tok {
		for bit := range 8 {
			bad := bytes.Clone(tok)
			bad[i] ^= 1 << bit
			if _, _, err := open(s, 7, []byte("key"), bad); err == nil {
				t.Errorf("opened with bit %d of byte %d flipped", bit, i)
			}
		}
		if _, _, err := open(s, 7, []byte("key"), tok[:i]); err == nil {
			t.Errorf("opened with %d bytes", i)
		}
	}
}

func TestTokenStaysWithinItsLimit(t *testing.T) {
	var seen causal.Context
	for i := uint64(1); i <= maxTokenActors+1; i++ {
		seen = append(seen, causal.Dot{Actor: i, Counter: 1})
		if tok := seal(keys(1), 7, []byte("k"), seen, 0); tok != nil {
			if len(tok) > MaxTokenSize {
				t.Fatalf("%d actors make a token of %d bytes", i, len(tok))
			}
			if _, _, err := open(keys(1), 7, []byte("k"), tok); err != nil {
				t.Fatal(err)
			}
		} else if i <= maxTokenActors {
			t.Fatalf("%d actors get no token", i)
		}
	}
	if seal(keys(1), 7, []byte("k"), nil, 0) != nil || seal(keys(), 7, []byte("k"), seen[:1], 0) != nil || seal(keys(1), 7, []byte("k"), seen, 0) != nil {
		t.Error("a token that could not be opened")
	}
}

func FuzzToken(f *testing.F) {
	s := keys(2, 1)
	f.Add(seal(s, 7, []byte("k"), causal.Context{{Actor: 1, Counter: 2}}, 3))
	f.Add([]byte{2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		seen, hlc, err := open(s, 7, []byte("k"), b)
		if err == nil && b[0] == 2 && !bytes.Equal(seal(s, 7, []byte("k"), seen, hlc), b) {
			t.Fatalf("%x opens but was never sealed", b)
		}
	})
}

func TestErrorText(t *testing.T) {
	e := failures()[1]
	e.Err = errBody
	want := "QUORUM_NOT_REACHED: m (1 of 2): a is down; 02000000 did not answer: " + errBody.Error()
	if e.Error() != want {
		t.Errorf("got %q", e.Error())
	}
	for k := KindPut; k <= KindScan+1; k++ {
		if k.String() == "" {
			t.Error("a kind without a name")
		}
	}
}

func TestPlan(t *testing.T) {
	write := func(o causal.Object, actor, n uint64) causal.Object {
		return causal.Mint(&o, o.Context, causal.Sibling{Dot: causal.Dot{Actor: actor, Counter: n}})
	}
	old := write(causal.Object{}, 1, 1)
	recent := write(old, 2, 1)
	aside := write(causal.Object{}, 3, 1)
	none := causal.Object{}
	for name, c := range map[string]struct {
		held     []*causal.Object
		siblings int
		lacking  uint16
	}{
		"nobody":              {nil, 0, 0},
		"all absent":          {[]*causal.Object{&none, &none}, 0, 0},
		"agree":               {[]*causal.Object{&recent, nil, &recent}, 1, 0},
		"one behind":          {[]*causal.Object{&recent, &old}, 1, 0b10},
		"one absent":          {[]*causal.Object{&none, &old}, 1, 0b01},
		"concurrent":          {[]*causal.Object{&aside, &recent}, 2, 0b11},
		"two behind, one not": {[]*causal.Object{&old, &recent, &none}, 1, 0b101},
	} {
		joined, lacking := plan(c.held)
		if len(joined.Siblings) != c.siblings || lacking != c.lacking {
			t.Errorf("%s: %d siblings, lacking %b; want %d, %b", name, len(joined.Siblings), lacking, c.siblings, c.lacking)
		}
	}
}
