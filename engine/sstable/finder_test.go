package sstable

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
)

// A Finder says of ascending keys what Lookup says of each.
func TestFinder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	var entries []kv
	for i := range 400 {
		for v := range 1 + rng.IntN(4)*rng.IntN(3) { // versions, some over several blocks
			seq := base.SeqNum(1000 - 10*v)
			entries = append(entries, kv{ik(fmt.Sprintf("k%04d", 2*i), seq, base.Kind(1+rng.IntN(2))), bytes.Repeat([]byte{byte(i)}, rng.IntN(40))})
		}
	}
	for name, o := range map[string]WriterOptions{
		"one level":   {BlockSize: 128},
		"two levels":  {BlockSize: 128, IndexBlockSize: 100, Codec: CodecS2},
		"one block":   {BlockSize: 1 << 20},
		"no filter":   {BlockSize: 64, BitsPerKey: -1, Codec: CodecZstd},
		"two, filter": {BlockSize: 256, IndexBlockSize: 200},
	} {
		f, _ := build(t, o, entries)
		c := cache.New(1 << 20)
		r := open(t, f, c)
		var fd Finder
		for range 50 {
			keys := make([]string, 1+rng.IntN(60))
			for i := range keys {
				keys[i] = fmt.Sprintf("k%04d", rng.IntN(810))
			}
			slices.Sort(keys)
			fd.Begin(r)
			seq := base.SeqNum(970 + rng.IntN(35))
			for _, k := range keys {
				wv, wk, wa, wok, werr := r.Lookup([]byte("x"), []byte(k), seq)
				gv, gk, ga, gok, gerr := fd.Lookup([]byte("x"), []byte(k), seq)
				if !bytes.Equal(gv, wv) || gk != wk || ga != wa || gok != wok || gerr != nil || werr != nil {
					t.Fatalf("%s: %s at %d: %q %s %d %v %v, want %q %s %d %v %v", name, k, seq, gv, gk, ga, gok, gerr, wv, wk, wa, wok, werr)
				}
			}
			fd.End()
		}
		fd.Begin(r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, _, _, err := fd.Lookup(nil, []byte("k"), 1); !errors.Is(err, base.ErrClosed) {
			t.Fatal(err)
		}
		fd.End()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if used := c.Stats().InUse; used != 0 {
			t.Errorf("%s: %d bytes of blocks are still held", name, used)
		}
	}
}

// Damage in a block is found by a Finder, too.
func TestFinderFindsDamage(t *testing.T) {
	f, _ := build(t, WriterOptions{BlockSize: 128, IndexBlockSize: 100}, numbered(60, 16))
	found := 0
	for i := range len(f.b) - footerSize {
		b := bytes.Clone(f.b)
		b[i] ^= 4
		r, err := NewReader(&byteFile{b: b}, int64(len(b)), ReaderOptions{Name: "t.sst"})
		if err != nil {
			continue
		}
		var fd Finder
		fd.Begin(r)
		for n := range 60 {
			if _, _, _, _, err = fd.Lookup(nil, fmt.Appendf(nil, "k%06d", n), 1000); err != nil {
				if !errors.Is(err, base.ErrCorrupt) {
					t.Fatalf("byte %d: %v", i, err)
				}
				found++
				break
			}
		}
		fd.End()
	}
	if found < 100 {
		t.Errorf("only %d changes were found", found)
	}
}
