package sstable

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
	"pgregory.net/rapid"
)

func drawTable(t *rapid.T) ([]kv, WriterOptions) {
	keys := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) base.InternalKey {
		return ik(rapid.StringMatching(`[ab]{0,4}`).Draw(t, "user"),
			base.SeqNum(rapid.IntRange(1, 30).Draw(t, "seq")),
			rapid.SampledFrom([]base.Kind{base.KindSet, base.KindDelete}).Draw(t, "kind"))
	}), 0, 120, func(k base.InternalKey) string { return k.String() }).Draw(t, "keys")
	slices.SortFunc(keys, base.Compare)
	out := make([]kv, len(keys))
	for i, k := range keys {
		out[i] = kv{k, []byte(strings.Repeat(k.String(), i%4))}
	}
	return out, WriterOptions{
		BlockSize:       rapid.SampledFrom([]int{64, 100, 400, 4096}).Draw(t, "block"),
		IndexBlockSize:  rapid.SampledFrom([]int{64, 150, 4096}).Draw(t, "index"),
		RestartInterval: rapid.SampledFrom([]int{1, 2, 5, 16}).Draw(t, "restart"),
		BitsPerKey:      rapid.SampledFrom([]int{-1, 1, 10, 20}).Draw(t, "bits"),
		Codec:           rapid.SampledFrom([]Codec{CodecNone, CodecS2, CodecZstd}).Draw(t, "codec"),
		Nonce:           testNonce,
	}
}

// Tables of any layout against a sorted slice.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model, opts := drawTable(t)
		f := &byteFile{}
		w := NewWriter(f, opts)
		for _, e := range model {
			if err := w.Add(e.key, e.value); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		size := rapid.SampledFrom([]int64{0, 600, 1 << 20}).Draw(t, "cache")
		r, err := NewReader(f, int64(len(f.b)), ReaderOptions{Cache: cache.New(size), FileNum: 7, Nonce: testNonce})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.VerifyChecksums(); err != nil {
			t.Fatal(err)
		}
		it, err := r.newIter(rapid.SampledFrom([]iterMode{modeFill, modeNoFill, modeDirect}).Draw(t, "mode"))
		if err != nil {
			t.Fatal(err)
		}
		m := &modelIter{model: model, it: it, pos: -1}
		t.Repeat(map[string]func(*rapid.T){
			"first":  func(t *rapid.T) { m.pos = 0; m.check(t, it.First()) },
			"last":   func(t *rapid.T) { m.pos = len(model) - 1; m.check(t, it.Last()) },
			"seekGE": func(t *rapid.T) { k := drawTarget(t); m.pos = m.search(k); m.check(t, it.SeekGE(k)) },
			"seekLT": func(t *rapid.T) { k := drawTarget(t); m.pos = m.search(k) - 1; m.check(t, it.SeekLT(k)) },
			"next":   func(t *rapid.T) { m.step(t, 1, it.Next) },
			"prev":   func(t *rapid.T) { m.step(t, -1, it.Prev) },
			"get": func(t *rapid.T) {
				k := drawTarget(t)
				i := m.search(k)
				want := i < len(model) && bytes.Equal(model[i].key.UserKey, k.UserKey)
				v, kind, at, ok, err := r.Get(nil, k.UserKey, k.SeqNum())
				if err != nil || ok != want || ok && (at != model[i].key.SeqNum() || kind != model[i].key.Kind() || !bytes.Equal(v, model[i].value)) {
					t.Fatalf("Get %s: %q %s %d %v %v", k, v, kind, at, ok, err)
				}
				if want && !r.MayContain(k.UserKey) {
					t.Fatal("filter denies a stored key")
				}
			},
		})
		if err := errors.Join(it.Close(), r.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

func drawTarget(t *rapid.T) base.InternalKey {
	return base.SearchKey([]byte(rapid.StringMatching(`[a-c]{0,5}`).Draw(t, "target")), base.SeqNum(rapid.IntRange(0, 31).Draw(t, "at")))
}

type modelIter struct {
	model []kv
	it    *Iter
	pos   int
}

func (m *modelIter) search(k base.InternalKey) int {
	i, _ := slices.BinarySearchFunc(m.model, k, func(e kv, k base.InternalKey) int { return base.Compare(e.key, k) })
	return i
}

func (m *modelIter) step(t *rapid.T, by int, move func() bool) {
	if m.it.Valid() {
		m.pos += by
		m.check(t, move())
	}
}

func (m *modelIter) check(t *rapid.T, ok bool) {
	want := m.pos >= 0 && m.pos < len(m.model)
	if ok != want || m.it.Valid() != want || m.it.Error() != nil {
		t.Fatalf("ok %v, valid %v, want %v at %d: %v", ok, m.it.Valid(), want, m.pos, m.it.Error())
	}
	if want && (base.Compare(m.it.Key(), m.model[m.pos].key) != 0 || !bytes.Equal(m.it.Value(), m.model[m.pos].value)) {
		t.Fatalf("at %s, want %s", m.it.Key(), m.model[m.pos].key)
	}
}
