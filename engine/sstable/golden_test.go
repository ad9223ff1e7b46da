package sstable

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
)

// Files written by the first release must be readable for ever, and the same
// input must go on making the same uncompressed file. (Compressors may change
// what they make; what they made must still be read.) A failure here means that
// the format changed: that takes a new version number, not new golden files.
func TestGoldenFiles(t *testing.T) {
	entries := append(numbered(60, 40),
		kv{ik("k000060", 9, base.KindSet), []byte("new")},
		kv{ik("k000060", 8, base.KindDelete), nil},
		kv{ik("k000060", 7, base.KindSet), []byte("old")})
	rd := base.RangeDel{Start: []byte("k000010"), End: []byte("k000020"), Seq: 99}
	for name, opts := range map[string]WriterOptions{
		"none": {BlockSize: 256, IndexBlockSize: 128},
		"s2":   {BlockSize: 512, Codec: CodecS2},
		"zstd": {BlockSize: 1024, Codec: CodecZstd},
	} {
		path := filepath.Join("testdata", "v1-"+name+".sst")
		golden, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r := open(t, &byteFile{b: golden}, nil)
		if err := equal(dump(t, r), entries); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if got := fmt.Sprint(r.RangeDels()); got != fmt.Sprint([]base.RangeDel{rd}) {
			t.Errorf("%s: range deletes %s", path, got)
		}
		if err := r.VerifyChecksums(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		f, m := build(t, opts, entries, rd)
		if name == "none" && !bytes.Equal(f.b, golden) {
			t.Errorf("%s: the writer makes another file now", path)
		}
		if fmt.Sprint(m.Properties.Smallest, m.Properties.Largest, m.Entries) != fmt.Sprint(r.props.Smallest, r.props.Largest, r.props.Entries) {
			t.Errorf("%s: properties %+v", path, r.props)
		}
	}
}

// Readers of two tables share a cache too small for either, with evictions all
// the time.
func TestConcurrentReaders(t *testing.T) {
	entries := numbered(4000, 100)
	c := cache.New(64 << 10)
	dec := NewDecoder()
	var readers [2]*Reader
	for i, codec := range []Codec{CodecS2, CodecZstd} {
		f, _ := build(t, WriterOptions{Codec: codec, IndexBlockSize: 2048}, entries)
		r, err := NewReader(f, int64(len(f.b)), ReaderOptions{Cache: c, FileNum: uint64(i), Decoder: dec})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers[i] = r
	}
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(g, 3))
			r := readers[g%2]
			it, err := r.NewIter()
			if err != nil {
				t.Error(err)
				return
			}
			for range 800 {
				i := rnd.IntN(len(entries))
				v, _, at, ok, err := r.Get(nil, entries[i].key.UserKey, 1<<40)
				if err != nil || !ok || at != entries[i].key.SeqNum() || !bytes.Equal(v, entries[i].value) {
					t.Errorf("Get %s: %d %v %v", entries[i].key, at, ok, err)
					return
				}
				ok = it.SeekGE(entries[i].key)
				for j := i; ok && j < min(i+20, len(entries)); j++ {
					if base.Compare(it.Key(), entries[j].key) != 0 || !bytes.Equal(it.Value(), entries[j].value) {
						t.Errorf("at %s, want %s", it.Key(), entries[j].key)
						return
					}
					ok = it.Next()
				}
			}
			if err := it.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
