package sstable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/cache"
)

// byteFile is a vfs.File over memory.
type byteFile struct {
	b      []byte
	writes int
	reads  atomic.Int64
	fail   error // returned by Write and ReadAt
}

func (f *byteFile) Write(p []byte) (int, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	f.writes++
	f.b = append(f.b, p...)
	return len(p), nil
}

func (f *byteFile) ReadAt(p []byte, off int64) (int, error) {
	f.reads.Add(1)
	if f.fail != nil {
		return 0, f.fail
	}
	return bytes.NewReader(f.b).ReadAt(p, off)
}

func (f *byteFile) Close() error                 { return nil }
func (f *byteFile) Skip(int64) error             { return errors.ErrUnsupported }
func (f *byteFile) Sync() error                  { return nil }
func (f *byteFile) Preallocate(_, _ int64) error { return errors.ErrUnsupported }
func (f *byteFile) Truncate(int64) error         { return errors.ErrUnsupported }
func (f *byteFile) Size() (int64, error)         { return int64(len(f.b)), nil }

var _ io.ReaderAt = (*byteFile)(nil)

const testNonce = 0x1122334455667788

type kv struct {
	key   base.InternalKey
	value []byte
}

func ik(user string, seq base.SeqNum, kind base.Kind) base.InternalKey {
	return base.MakeInternalKey([]byte(user), seq, kind)
}

// build writes a table of sorted entries.
func build(t testing.TB, opts WriterOptions, entries []kv, rds ...base.RangeDel) (*byteFile, Meta) {
	t.Helper()
	if opts.Nonce == 0 {
		opts.Nonce = testNonce
	}
	f := &byteFile{}
	w := NewWriter(f, opts)
	for _, e := range entries {
		if err := w.Add(e.key, e.value); err != nil {
			t.Fatal(err)
		}
	}
	for _, rd := range rds {
		if err := w.AddRangeDel(rd); err != nil {
			t.Fatal(err)
		}
	}
	m, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if m.Size != int64(len(f.b)) {
		t.Fatalf("Meta.Size %d, file %d", m.Size, len(f.b))
	}
	return f, m
}

func open(t testing.TB, f *byteFile, c *cache.Cache) *Reader {
	t.Helper()
	r, err := NewReader(f, int64(len(f.b)), ReaderOptions{Cache: c, FileNum: 1, Name: "t.sst", Nonce: testNonce})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// numbered returns n entries k000000, k000001, ... of one version each, every
// seventh a delete.
func numbered(n, valueLen int) []kv {
	out := make([]kv, n)
	for i := range out {
		kind, value := base.KindSet, bytes.Repeat([]byte{byte('a' + i%26), byte(i)}, valueLen/2)
		if i%7 == 3 {
			kind, value = base.KindDelete, nil
		}
		out[i] = kv{ik(fmt.Sprintf("k%06d", i), base.SeqNum(i+1), kind), value}
	}
	return out
}

func dump(t testing.TB, r *Reader) []kv {
	t.Helper()
	it, err := r.NewIter()
	if err != nil {
		t.Fatal(err)
	}
	var out []kv
	for ok := it.First(); ok; ok = it.Next() {
		out = append(out, kv{it.Key().Clone(), bytes.Clone(it.Value())})
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func equal(a, b []kv) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d entries, want %d", len(a), len(b))
	}
	for i := range a {
		if base.Compare(a[i].key, b[i].key) != 0 || !bytes.Equal(a[i].value, b[i].value) {
			return fmt.Errorf("entry %d is %s, want %s", i, a[i].key, b[i].key)
		}
	}
	return nil
}
