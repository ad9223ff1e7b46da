package sstable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
)

var errOneWay = errors.New("entries differ by direction")

// readAll reads everything a table says, each way, and returns the first
// error. Whatever it returns without one is in the result.
func readAll(f *byteFile) ([]kv, []base.RangeDel, error) {
	r, err := NewReader(f, int64(len(f.b)), ReaderOptions{Cache: cache.New(1 << 20), FileNum: 1, Name: "t.sst"})
	if err != nil {
		return nil, nil, err
	}
	it, err := r.NewIter()
	if err != nil {
		return nil, nil, err
	}
	var out []kv
	for ok := it.First(); ok; ok = it.Next() {
		out = append(out, kv{it.Key().Clone(), bytes.Clone(it.Value())})
	}
	n := len(out)
	for ok := it.Error() == nil && it.Last(); ok; ok = it.Prev() {
		n--
	}
	if err := it.Close(); err != nil {
		return nil, nil, err
	}
	if n != 0 {
		return nil, nil, fmt.Errorf("%w: %d more forwards", errOneWay, n)
	}
	for _, e := range out {
		if _, _, _, _, err := r.Get(nil, e.key.UserKey, e.key.SeqNum()); err != nil {
			return nil, nil, err
		}
	}
	return out, r.RangeDels(), r.VerifyChecksums()
}

func smallTables(t testing.TB) map[string]*byteFile {
	rd := base.RangeDel{Start: []byte("k000002"), End: []byte("k000009"), Seq: 70}
	a, _ := build(t, WriterOptions{BlockSize: 128, RestartInterval: 4}, numbered(14, 16), rd)
	b, _ := build(t, WriterOptions{BlockSize: 256, IndexBlockSize: 80, Codec: CodecS2}, numbered(30, 32), rd)
	c, _ := build(t, WriterOptions{BlockSize: 512, Codec: CodecZstd, BitsPerKey: -1}, numbered(16, 60))
	return map[string]*byteFile{"raw": a, "s2 two-level": b, "zstd no filter": c}
}

// mustBeCorrupt fails unless reading f gives a CorruptError that names a place.
func mustBeCorrupt(t *testing.T, what string, f *byteFile) {
	t.Helper()
	_, _, err := readAll(f)
	var ce *base.CorruptError
	if !errors.As(err, &ce) || !errors.Is(err, base.ErrCorrupt) {
		t.Fatalf("%s: %v is not a CorruptError", what, err)
	}
	if ce.File != "t.sst" || ce.Offset < 0 || ce.Offset > int64(len(f.b)) {
		t.Fatalf("%s: error names %s at %d", what, ce.File, ce.Offset)
	}
}

func TestEveryTruncation(t *testing.T) {
	for name, f := range smallTables(t) {
		for n := range len(f.b) {
			mustBeCorrupt(t, fmt.Sprintf("%s cut to %d of %d bytes", name, n, len(f.b)), &byteFile{b: f.b[:n]})
		}
		// Bytes behind the end hide the footer or belie its size.
		mustBeCorrupt(t, name+" with a second footer", &byteFile{b: append(bytes.Clone(f.b), f.b[len(f.b)-footerSize:]...)})
	}
}

// Every single-bit error anywhere in a file is found.
func TestEveryBitFlip(t *testing.T) {
	for name, f := range smallTables(t) {
		if _, _, err := readAll(f); err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(f.b)
		for i := range b {
			for bit := range 8 {
				b[i] ^= 1 << bit
				mustBeCorrupt(t, fmt.Sprintf("%s, bit %d of byte %d", name, bit, i), &byteFile{b: b})
				b[i] ^= 1 << bit
			}
		}
	}
}

// A file that loses its end while it is open.
func TestShrinksWhileOpen(t *testing.T) {
	f, _ := build(t, WriterOptions{}, numbered(2000, 100))
	r := open(t, f, nil)
	f.b = f.b[:1000]
	if _, _, _, _, err := r.Get(nil, []byte("k001000"), 1<<40); !errors.Is(err, base.ErrCorrupt) {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	f.fail = boom
	if _, _, _, _, err := r.Get(nil, []byte("k001000"), 1<<40); !errors.Is(err, boom) || errors.Is(err, base.ErrCorrupt) {
		t.Fatalf("a failed read must not pass for damage: %v", err)
	}
	it, err := r.NewIter()
	if err != nil {
		t.Fatal(err)
	}
	if it.First() || !errors.Is(it.Error(), boom) || it.Valid() {
		t.Fatal(it.Error())
	}
	f.fail = nil
	if f2, _ := build(t, WriterOptions{}, numbered(2000, 100)); true {
		f.b = f2.b
	}
	if !it.First() || it.Error() != nil {
		t.Fatalf("an iterator must recover when the file does: %v", it.Error())
	}
}

// Two blocks of one length and codec change places, in one file and between
// files: the bytes of each are intact, only their place is wrong.
func TestMisplacedBlocks(t *testing.T) {
	entries := numbered(200, 30)
	f, _ := build(t, WriterOptions{BlockSize: 512}, entries)
	r := open(t, f, nil)
	var hs []handle
	var it blockIter
	it.init(r.index)
	for ok := it.first(); ok; ok = it.step() {
		h, _ := decodeHandle(it.value)
		hs = append(hs, h)
	}
	swapped := 0
	for i, a := range hs {
		for _, b := range hs[i+1:] {
			if a.length != b.length {
				continue
			}
			bad := bytes.Clone(f.b)
			n := a.length + trailerSize
			copy(bad[a.offset:a.offset+n], f.b[b.offset:])
			copy(bad[b.offset:b.offset+n], f.b[a.offset:])
			if _, _, err := readAll(&byteFile{b: bad}); !errors.Is(err, base.ErrCorrupt) {
				t.Fatalf("blocks at %d and %d swapped: %v", a.offset, b.offset, err)
			}
			swapped++
		}
	}
	if swapped == 0 {
		t.Fatal("no two blocks of one length")
	}
	g, _ := build(t, WriterOptions{BlockSize: 512, Nonce: testNonce + 1}, entries)
	bad := bytes.Clone(f.b)
	copy(bad, g.b[:hs[0].length+trailerSize])
	if _, _, err := readAll(&byteFile{b: bad}); !errors.Is(err, base.ErrCorrupt) {
		t.Fatalf("a block of another file: %v", err)
	}
	if _, err := NewReader(g, int64(len(g.b)), ReaderOptions{Nonce: testNonce}); !errors.Is(err, base.ErrCorrupt) {
		t.Fatalf("a whole other file: %v", err)
	}
}

func TestNewerVersion(t *testing.T) {
	f, _ := build(t, WriterOptions{}, numbered(10, 10))
	at := len(f.b) - footerSize
	f.b[at+footVersion]++
	sum := newChecksummer(testNonce).sum(uint64(at), f.b[at:at+footCRC])
	binary.LittleEndian.PutUint32(f.b[at+footCRC:], sum)
	if _, _, err := readAll(f); !errors.Is(err, base.ErrFormat) || errors.Is(err, base.ErrCorrupt) {
		t.Fatal(err)
	}
}

// reseal makes the checksums of a changed file right again: what an attacker
// or a broken writer could produce. It follows the footer's and the index's
// handles as far as they make sense.
func reseal(b []byte) {
	if len(b) < footerSize {
		return
	}
	at := len(b) - footerSize
	copy(b[at+footMagic:], magic)
	b[at+footVersion] = formatVersion
	binary.LittleEndian.PutUint64(b[at+footFileSize:], uint64(len(b)))
	crc := newChecksummer(binary.LittleEndian.Uint64(b[at+footNonce:]))
	binary.LittleEndian.PutUint32(b[at+footCRC:], crc.sum(uint64(at), b[at:at+footCRC]))
	foot, err := decodeFooter(b[at:], uint64(len(b)))
	if err != nil {
		return
	}
	seal := func(h handle) {
		if h.within(uint64(at)) {
			end := h.offset + h.length + 1
			binary.LittleEndian.PutUint32(b[end:], crc.sum(h.offset, b[h.offset:end]))
		}
	}
	for _, h := range []handle{foot.index, foot.filter, foot.rangeDel, foot.props} {
		seal(h)
	}
	sealIndex(b, foot.index, seal, int(foot.levels))
}

func sealIndex(b []byte, h handle, seal func(handle), levels int) {
	r := &Reader{dec: NewDecoder()}
	raw := b[h.offset : h.offset+h.length]
	dec, err := r.decodeInto(nil, h, raw, Codec(b[h.offset+h.length]))
	if err != nil {
		return
	}
	blk, ok := parseBlock(dec)
	if !ok {
		return
	}
	var it blockIter
	it.init(blk)
	for ok := it.first(); ok; ok = it.step() {
		child, ok := decodeHandle(it.value)
		if !ok || !child.within(uint64(len(b)-footerSize)) {
			continue
		}
		seal(child)
		if levels > 1 {
			sealIndex(b, child, seal, levels-1)
		}
	}
}

// With checksums made right again, damage must still neither panic nor take
// memory out of proportion; wrong contents are allowed.
func TestResealedDamage(t *testing.T) {
	for name, f := range smallTables(t) {
		for i := range f.b {
			for _, x := range []byte{0xff, 0x80, 0x01} {
				b := bytes.Clone(f.b)
				b[i] ^= x
				reseal(b)
				if _, _, err := readAll(&byteFile{b: b}); err != nil && !errors.Is(err, base.ErrCorrupt) &&
					!errors.Is(err, errOneWay) {
					t.Fatalf("%s, byte %d: %v", name, i, err)
				}
			}
		}
	}
}

// A block that claims to decode to 4 GiB, or whose compressed form does, is
// refused before memory is taken for it.
func TestDecodedLengthIsBounded(t *testing.T) {
	bomb := append(binary.LittleEndian.AppendUint32(nil, 1<<32-1), 0xff, 0xff, 0xff, 0xff, 0x0f, 0)
	if _, err := decodedLen(bomb); !errors.Is(err, errLength) {
		t.Fatal(err)
	}
	d := NewDecoder()
	small := make([]byte, 16)
	for _, codec := range []Codec{CodecS2, CodecZstd} {
		e := encoder{codec: codec}
		payload, got, err := e.encode(make([]byte, 8<<20))
		if err != nil || got != codec {
			t.Fatal(got, err)
		}
		var before, after runtime.MemStats
		if err := d.decode(make([]byte, 8<<20), payload, codec); err != nil {
			t.Fatal(err) // sound, and warms the decoder up
		}
		runtime.ReadMemStats(&before)
		if err := d.decode(small, payload, codec); err == nil {
			t.Fatalf("%s decoded into less than it needs", codec)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Fatalf("%s took %d bytes to refuse", codec, n)
		}
	}
	if err := d.decode(small, make([]byte, 8), Codec(9)); !errors.Is(err, errCodec) {
		t.Fatal(err)
	}
}

func FuzzReader(f *testing.F) {
	for _, t := range smallTables(f) {
		f.Add(t.b, false)
		f.Add(t.b, true)
		f.Add(t.b[:len(t.b)-1], true)
	}
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			reseal(b)
		}
		_, _, _ = readAll(&byteFile{b: b}) // must return, and without a panic
	})
}

func FuzzBlock(f *testing.F) {
	w := blockWriter{interval: 4}
	for _, e := range numbered(30, 8) {
		w.add(e.key.UserKey, e.key.Trailer, e.value, commonPrefix(w.last, e.key.UserKey))
	}
	f.Add(bytes.Clone(w.finish()), []byte("k000010"), uint64(300))
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0}, []byte{}, uint64(0))
	f.Add([]byte{0, 1, 0, 'a', 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, []byte("a"), uint64(2))
	f.Fuzz(func(t *testing.T, b, userKey []byte, tr uint64) {
		blk, ok := parseBlock(b)
		if !ok {
			return
		}
		key := base.InternalKey{UserKey: userKey, Trailer: base.Trailer(tr)}
		value, at, found, same, err := blk.find(userKey, key.Trailer)
		var it blockIter
		it.init(blk)
		var keys []base.InternalKey
		sorted, starts := true, map[int]bool{}
		for ok := it.first(); ok; ok = it.step() {
			starts[it.off] = true
			k := it.internalKey().Clone()
			sorted = sorted && (len(keys) == 0 || base.Compare(keys[len(keys)-1], k) < 0)
			keys = append(keys, k)
		}
		whole := !it.bad
		for i := range blk.numRestarts() {
			sorted = sorted && starts[blk.restart(i)] && (i == 0 || blk.restart(i-1) < blk.restart(i))
		}
		ge := it.seekGE(key)
		// In a sound block both searches agree.
		if whole && sorted && err == nil && !it.bad {
			if ge != found || ge && (it.trailer != at || !bytes.Equal(it.value, value) || same != bytes.Equal(it.key, userKey)) {
				t.Fatalf("seekGE %v %s, find %v %v", ge, it.internalKey(), found, same)
			}
		}
		it.seekLT(key)
		n := 0
		for ok := it.last(); ok && n <= len(b); ok = it.prev() {
			n++
		}
	})
}
