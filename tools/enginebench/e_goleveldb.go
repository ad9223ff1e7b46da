package main

import (
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

type glEng struct {
	db *leveldb.DB
	wo *opt.WriteOptions
}

func init() {
	engines["goleveldb"] = func(c Config) (Engine, error) {
		db, err := leveldb.OpenFile(c.Dir, &opt.Options{
			BlockCacheCapacity:     int(c.CacheMiB << 20),
			WriteBuffer:            int(c.MemMiB << 20),
			Filter:                 filter.NewBloomFilter(c.BloomBits),
			OpenFilesCacheCapacity: 4096,
			CompactionTotalSize:    256 << 20,
			Compression:            opt.SnappyCompression,
		})
		if err != nil {
			return nil, err
		}
		return &glEng{db, &opt.WriteOptions{Sync: c.Sync}}, nil
	}
}
func (e *glEng) Put(k, v []byte) error { return e.db.Put(k, v, e.wo) }
func (e *glEng) Get(k, dst []byte) ([]byte, bool, error) {
	v, err := e.db.Get(k, nil)
	if err == leveldb.ErrNotFound {
		return dst, false, nil
	}
	return v, err == nil, err
}

func (e *glEng) Scan(start []byte, n int) (c, b int, err error) {
	it := e.db.NewIterator(&util.Range{Start: start}, nil)
	defer it.Release()
	for ok := it.Next(); ok && c < n; ok = it.Next() {
		b += len(it.Key()) + len(it.Value())
		c++
	}
	return c, b, it.Error()
}

func (e *glEng) Settle() error {
	last, calm := "", 0
	for i := 0; i < 240 && calm < 8; i++ {
		s, _ := e.db.GetProperty("leveldb.stats")
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
func (e *glEng) Close() error { return e.db.Close() }
