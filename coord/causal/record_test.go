package causal

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawRecord(t *rapid.T) Record {
	var dots []Dot
	for range rapid.IntRange(1, 4).Draw(t, "actors") {
		dots = append(dots, Dot{rapid.Uint64Range(1, 9).Draw(t, "actor"), rapid.Uint64Range(1, 1<<40).Draw(t, "counter")})
	}
	seen := NewContext(dots...)
	d := seen[rapid.IntRange(0, len(seen)-1).Draw(t, "which")]
	d.Counter = rapid.Uint64Range(1, d.Counter).Draw(t, "dot")
	r := Record{
		Dot: d, HLC: rapid.Uint64().Draw(t, "hlc"), Context: seen, Expires: rapid.Int64().Draw(t, "expires"),
		Flags: rapid.SampledFrom([]Flags{0, FlagJSON, FlagTombstone, FlagExpiry, FlagExpiry | FlagJSON}).Draw(t, "flags"),
		Round: rapid.Uint32().Draw(t, "round"), Applied: rapid.Bool().Draw(t, "applied"),
	}
	if r.Flags&FlagExpiry != 0 {
		r.ExpiresAt = rapid.Int64().Draw(t, "expires at")
	}
	r.Payload = PayloadHash(r.Flags, Expiry{}, rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "value"))
	return r
}

func TestRecordRoundTripsAndIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		b := r.Append(nil)
		if len(b) > r.EncodedLen() {
			t.Fatalf("%d bytes, bound %d", len(b), r.EncodedLen())
		}
		got, err := DecodeRecord(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v came back as %+v, %v", r, got, err)
		}
		for cut := range b {
			if _, err := DecodeRecord(b[:cut]); err == nil {
				t.Fatalf("the first %d of %d bytes decode", cut, len(b))
			}
		}
		if _, err := DecodeRecord(append(b, 0)); err == nil {
			t.Fatal("a byte too many decodes")
		}
		// Whoever finishes the write makes the same object, which is one.
		o := r.Object([]byte("v"))
		if r.Flags&FlagTombstone != 0 {
			o = r.Object(nil)
		}
		if p, err := Decode(o.Append(nil)); err != nil || !p.Equal(&o) || !p.Has(r.Dot) || p.Siblings[0].ExpiresAt != r.ExpiresAt {
			t.Fatalf("its object: %+v, %v", p, err)
		}
	})
}

// TestRecordFormatIsPermanent pins the bytes of format 1.
func TestRecordFormatIsPermanent(t *testing.T) {
	r := Record{
		Dot: Dot{2, 300}, HLC: 0x0102, Flags: FlagJSON, Context: Context{{1, 1}, {2, 300}},
		Payload: [16]byte{0xaa, 15: 0xbb}, Expires: 7, Round: 3, Applied: true,
	}
	want := "01" + "01" + "04" + "03" + "0000000000000102" + "0000000000000007" +
		"aa" + "0000000000000000000000000000" + "bb" +
		"02" + "0000000000000001" + "01" + "0000000000000002" + "ac02" + "01" + "ac02"
	if got := hex.EncodeToString(r.Append(nil)); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	// With an expiry there is one field more, behind the hash.
	r.Flags, r.ExpiresAt = FlagExpiry, 0x0900
	want = "01" + "01" + "02" + want[6:72] + "0000000000000900" + want[72:]
	if got := hex.EncodeToString(r.Append(nil)); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// TestAppliedRecordsConverge: in whatever order owners hear of applied records,
// each ends with the same one.
func TestAppliedRecordsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawRecord(t), drawRecord(t), drawRecord(t)
		a.Applied, b.Applied, c.Applied = true, true, true
		a.Expires, b.Expires, c.Expires = a.Expires&1, b.Expires&1, c.Expires&1
		keep := func(rs ...*Record) *Record {
			k := rs[0]
			for _, r := range rs[1:] {
				if k.Yields(r) {
					k = r
				}
			}
			return k
		}
		x, y, z := keep(&a, &b, &c), keep(&c, &b, &a), keep(&b, &c, &a)
		if x.Dot != y.Dot || y.Dot != z.Dot || x.Expires != y.Expires || y.Expires != z.Expires {
			t.Fatalf("%+v, %+v, %+v", x, y, z)
		}
	})
}

func TestVotesGiveWay(t *testing.T) {
	for _, c := range []struct {
		held, next Record
		want       bool
	}{
		{Record{}, Record{}, false},
		{Record{}, Record{Round: 1}, true},
		{Record{Round: 2}, Record{Round: 1}, false},
		{Record{Applied: true}, Record{Round: 9}, false},
	} {
		if got := c.held.GivesWay(&c.next); got != c.want {
			t.Errorf("%+v gives way to %+v: %v", c.held, c.next, got)
		}
	}
	vote, final := Record{Round: 5, Expires: 9}, Record{Applied: true, Expires: 1}
	if !vote.Yields(&final) {
		t.Error("a vote stays although the owners have agreed")
	}
}

func TestRecordsExpire(t *testing.T) {
	r := Record{Expires: 1000}
	if !r.Live(time.UnixMilli(999)) || r.Live(time.UnixMilli(1000)) {
		t.Error("the instant itself is not past")
	}
}

func TestPayloadHash(t *testing.T) {
	seen := map[[16]byte]string{}
	for name, h := range map[string][16]byte{
		"empty":        PayloadHash(0, Expiry{}, nil),
		"deleted":      PayloadHash(FlagTombstone, Expiry{}, nil),
		"json":         PayloadHash(FlagJSON, Expiry{}, []byte("1")),
		"bytes":        PayloadHash(0, Expiry{}, []byte("1")),
		"for a while":  PayloadHash(0, Expiry{ExpiryAfter, 9}, []byte("1")),
		"for longer":   PayloadHash(0, Expiry{ExpiryAfter, 10}, []byte("1")),
		"until then":   PayloadHash(0, Expiry{ExpiryAt, 9}, []byte("1")),
		"empty, while": PayloadHash(0, Expiry{ExpiryAfter, 9}, nil),
	} {
		if other, ok := seen[h]; ok {
			t.Errorf("%s has the hash of %s", name, other)
		}
		seen[h] = name
	}
	if PayloadHash(FlagStripped, Expiry{}, []byte("1")) != PayloadHash(0, Expiry{}, []byte("1")) {
		t.Error("a flag of one copy changed the hash")
	}
}

func FuzzDecodeRecord(f *testing.F) {
	r := Record{Dot: Dot{1, 2}, Context: Context{{1, 3}, {9, 1}}, HLC: 5, Expires: 6, Round: 200}
	f.Add(r.Append(nil))
	r.Applied, r.Flags = true, FlagTombstone
	f.Add(r.Append(nil))
	r.Flags, r.ExpiresAt = FlagExpiry, 12
	f.Add(r.Append(nil))
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeRecord(b); err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Fatalf("%x decodes but is not canonical", b)
		}
	})
}
