package coord

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

func scanRanges() []ScanRange {
	return []ScanRange{
		{MaxKeys: 1, MaxBytes: 1, Budget: 2, From: Position{Token: 9}},
		{
			Partition: 3, Tenant: 7, From: Position{5, bytes.Repeat([]byte("k"), maxPositionKey)}, Until: &Position{6, []byte("u")}, Group: true,
			Start: []byte("a"), End: bytes.Repeat([]byte("z"), MaxKeySize), Mode: ScanDigests, Strict: true, MaxKeys: pieceKeys, MaxBytes: pieceBytes, Budget: pieceBudget,
		},
		{Tenant: 7, Mode: ScanKeys, MaxKeys: 10, MaxBytes: 100, Budget: 1000},
	}
}

func messageOf(r *ScanRange) *Message {
	return &Message{Op: OpScan, Partition: r.Partition, Tenant: r.Tenant, Token: r.From.Token, Body: encodeScanRange(r)}
}

// same compares what was decoded, where nothing may stand for empty.
func same(a, b any) bool { return reflect.DeepEqual(normal(a), normal(b)) }

func normal(v any) any {
	fix := func(b []byte) []byte {
		if len(b) == 0 {
			return nil
		}
		return b
	}
	switch x := v.(type) {
	case ScanRange:
		x.From.Key, x.Start, x.End = fix(x.From.Key), fix(x.Start), fix(x.End)
		if x.Until != nil {
			x.Until = &Position{x.Until.Token, fix(x.Until.Key)}
		}
		return x
	case ScanPiece:
		if x.Next != nil {
			x.Next = &Position{x.Next.Token, fix(x.Next.Key)}
		}
		if len(x.Entries) == 0 {
			x.Entries = nil
		}
		for i := range x.Entries {
			x.Entries[i].Object = fix(x.Entries[i].Object)
		}
		return x
	}
	return v
}

func TestScanBodiesRoundTrip(t *testing.T) {
	for _, r := range scanRanges() {
		got, err := decodeScanRange(messageOf(&r))
		if err != nil || !same(got, r) {
			t.Errorf("%+v came as %+v: %v", r, got, err)
		}
		p := ScanPiece{Scanned: 77, Next: &Position{4, []byte("n")}, Entries: []ScanEntry{{Key: []byte("a"), Size: 9}}}
		if r.Mode == ScanDigests {
			p.Entries[0].Digest = [16]byte{1, 2, 3}
		} else {
			p.Entries[0].Object = []byte("object")
		}
		back, err := decodeScanPiece(encodeScanPiece(&p, r.Mode), &r)
		if err != nil || !same(back, p) {
			t.Errorf("%+v came as %+v: %v", p, back, err)
		}
	}
}

func TestScanBodiesAreStrict(t *testing.T) {
	for name, edit := range map[string]func(r *ScanRange){
		"no keys":         func(r *ScanRange) { r.MaxKeys = 0 },
		"too many keys":   func(r *ScanRange) { r.MaxKeys = pieceKeys + 1 },
		"no bytes":        func(r *ScanRange) { r.MaxBytes = 0 },
		"too many bytes":  func(r *ScanRange) { r.MaxBytes = pieceBytes + 1 },
		"no budget":       func(r *ScanRange) { r.Budget = 1 },
		"too much budget": func(r *ScanRange) { r.Budget = pieceBudget + 1 },
		"no such mode":    func(r *ScanRange) { r.Mode = 3 },
		"key too long":    func(r *ScanRange) { r.From.Key = make([]byte, maxPositionKey+1) },
		"bound too long":  func(r *ScanRange) { r.End = make([]byte, MaxKeySize+1) },
	} {
		r := scanRanges()[1]
		edit(&r)
		if _, err := decodeScanRange(messageOf(&r)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r := scanRanges()[0]
	two := ScanPiece{Entries: []ScanEntry{{Key: []byte("a"), Object: []byte("o")}, {Key: []byte("b"), Object: []byte("o")}}}
	if _, err := decodeScanPiece(encodeScanPiece(&two, ScanValues), &r); err == nil {
		t.Error("more keys than were asked for were accepted")
	}
}

func FuzzScanBodies(f *testing.F) {
	for _, r := range scanRanges() {
		f.Add(encodeScanRange(&r))
		p := ScanPiece{Scanned: 3, Next: &Position{4, []byte("n")}, Entries: []ScanEntry{{Key: []byte("a"), Object: []byte("o"), Size: 1}}}
		f.Add(encodeScanPiece(&p, r.Mode))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeScanRange(&Message{Body: b}); err == nil {
			again, err := decodeScanRange(messageOf(&r))
			if err != nil || !same(again, r) {
				t.Fatalf("range %+v, again %+v, %v", r, again, err)
			}
		}
		for mode := ScanValues; mode <= ScanDigests; mode++ {
			r := ScanRange{Mode: mode, MaxKeys: 100}
			p, err := decodeScanPiece(b, &r)
			if err != nil {
				continue
			}
			again, err := decodeScanPiece(encodeScanPiece(&p, mode), &r)
			if err != nil || !same(again, p) {
				t.Fatalf("piece %+v, again %+v, %v", p, again, err)
			}
			if _, err := checkPiece(&r, &p); err == nil && len(p.Entries) > 100 {
				t.Fatal("more keys than were asked for")
			}
		}
	})
}

func scanWantOf(prefix, start, end string, keysOnly bool, token []byte) *scanWant {
	return newScanWant(&ScanRequest{Prefix: []byte(prefix), Start: []byte(start), End: []byte(end), KeysOnly: keysOnly, PageToken: token})
}

func TestPageTokenIsBoundToItsScan(t *testing.T) {
	s := keys(2, 1)
	at := &Position{0x0102030405060708, []byte("key")}
	token := sealPage(s, 7, scanWantOf("p", "s", "e", false, nil), at)
	same := scanWantOf("p", "s", "e", false, token)
	if got, err := openPage(s, 7, same); err != nil || got.Compare(at) != 0 {
		t.Fatalf("%+v %v", got, err)
	}
	// Limits may change, and the key may be the older of two.
	same.maxKeys = 9
	for name, snap := range map[string]*[]uint8{"rotated": {3, 2}, "only it": {2}} {
		if _, err := openPage(keys(*snap...), 7, same); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	elsewhere := keys(2, 1)
	elsewhere.ClusterID = ring.ClusterID{2}
	for name, open := range map[string]func() error{
		"another prefix":    func() error { _, err := openPage(s, 7, scanWantOf("q", "s", "e", false, token)); return err },
		"another start":     func() error { _, err := openPage(s, 7, scanWantOf("p", "", "e", false, token)); return err },
		"moved bytes":       func() error { _, err := openPage(s, 7, scanWantOf("ps", "", "e", false, token)); return err },
		"another end":       func() error { _, err := openPage(s, 7, scanWantOf("p", "s", "ee", false, token)); return err },
		"without values":    func() error { _, err := openPage(s, 7, scanWantOf("p", "s", "e", true, token)); return err },
		"another tenant":    func() error { _, err := openPage(s, 8, same); return err },
		"another cluster":   func() error { _, err := openPage(elsewhere, 7, same); return err },
		"forgotten key":     func() error { _, err := openPage(keys(3, 1), 7, same); return err },
		"third of the keys": func() error { _, err := openPage(keys(4, 3, 2), 7, same); return err },
		"a context token": func() error {
			_, err := openPage(s, 7, scanWantOf("p", "s", "e", false, seal(s, 7, []byte("key"), causal.Context{{Actor: 1, Counter: 2}}, 5)))
			return err
		},
	} {
		if open() == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for i := range token {
		for bit := range 8 {
			bad := bytes.Clone(token)
			bad[i] ^= 1 << bit
			if _, err := openPage(s, 7, scanWantOf("p", "s", "e", false, bad)); err == nil {
				t.Errorf("opened with bit %d of byte %d flipped", bit, i)
			}
		}
		if _, err := openPage(s, 7, scanWantOf("p", "s", "e", false, token[:i])); err == nil && i > 0 {
			t.Errorf("opened with %d bytes", i)
		}
	}
	longest := sealPage(s, 7, same, &Position{1, make([]byte, maxPositionKey)})
	if _, err := openPage(s, 7, scanWantOf("p", "s", "e", false, longest)); err != nil || len(longest) > MaxPageTokenSize {
		t.Errorf("the longest token of %d bytes: %v", len(longest), err)
	}
	if sealPage(keys(), 7, same, at) != nil {
		t.Error("sealed without a key")
	}
}

func FuzzPageToken(f *testing.F) {
	s := keys(2, 1)
	f.Add(sealPage(s, 7, scanWantOf("p", "", "", false, nil), &Position{5, []byte("k")}))
	f.Add([]byte{2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := scanWantOf("p", "", "", false, b)
		if at, err := openPage(s, 7, w); err == nil && b[0] == 2 && !bytes.Equal(sealPage(s, 7, w, &at), b) {
			t.Fatalf("%x opens but was never sealed", b)
		}
	})
}
