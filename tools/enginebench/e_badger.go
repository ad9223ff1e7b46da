package main

import (
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

type badgerEng struct{ db *badger.DB }

func init() {
	engines["badger"] = func(c Config) (Engine, error) {
		o := badger.DefaultOptions(c.Dir).
			WithLogger(nil).
			WithSyncWrites(c.Sync).
			WithMemTableSize(c.MemMiB << 20).
			WithBlockCacheSize(c.CacheMiB << 20).
			WithIndexCacheSize(0). // all indices and blooms in memory, badger's default
			WithBloomFalsePositive(0.01).
			WithDetectConflicts(false).
			WithCompression(options.Snappy).
			WithMetricsEnabled(false)
		db, err := badger.Open(o)
		if err != nil {
			return nil, err
		}
		return &badgerEng{db}, nil
	}
}

func (e *badgerEng) Put(k, v []byte) error {
	// badger keeps the slices until commit: hand it copies, as its docs say.
	kk := append([]byte(nil), k...)
	vv := append([]byte(nil), v...)
	t := e.db.NewTransaction(true)
	defer t.Discard()
	if err := t.Set(kk, vv); err != nil {
		return err
	}
	return t.Commit()
}

func (e *badgerEng) Get(k, dst []byte) (out []byte, ok bool, err error) {
	t := e.db.NewTransaction(false)
	defer t.Discard()
	it, err := t.Get(k)
	if err == badger.ErrKeyNotFound {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	dst, err = it.ValueCopy(dst[:0])
	return dst, true, err
}

func (e *badgerEng) Scan(start []byte, n int) (c int, b int, err error) {
	t := e.db.NewTransaction(false)
	defer t.Discard()
	o := badger.DefaultIteratorOptions
	it := t.NewIterator(o)
	defer it.Close()
	for it.Seek(start); it.Valid() && c < n; it.Next() {
		i := it.Item()
		b += len(i.Key())
		if err = i.Value(func(v []byte) error { b += len(v); return nil }); err != nil {
			return
		}
		c++
	}
	return
}

func (e *badgerEng) Settle() error {
	// badger has no public flush nor in-progress gauge: wait until the tables stop changing.
	last, calm := "", 0
	for i := 0; i < 240 && calm < 12; i++ {
		s := ""
		for _, l := range e.db.Levels() {
			s += string(rune('a'+l.NumTables%26)) + time.Duration(l.Size).String()
		}
		if s == last {
			calm++
		} else {
			calm = 0
		}
		last = s
		time.Sleep(250 * time.Millisecond)
	}
	return nil
}
func (e *badgerEng) Close() error { return e.db.Close() }
