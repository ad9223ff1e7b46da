package main

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

type pebbleEng struct {
	db *pebble.DB
	wo *pebble.WriteOptions
}

func init() {
	engines["pebble"] = func(c Config) (Engine, error) {
		cache := pebble.NewCache(c.CacheMiB << 20)
		defer cache.Unref()
		o := &pebble.Options{
			Cache:                       cache,
			MemTableSize:                uint64(c.MemMiB << 20),
			MemTableStopWritesThreshold: 4,
			L0CompactionThreshold:       4,
			L0StopWritesThreshold:       20,
			LBaseMaxBytes:               256 << 20,
			FormatMajorVersion:          pebble.FormatNewest,
			CompactionConcurrencyRange:  func() (int, int) { return 1, c.Jobs },
			Logger:                      quiet{},
		}
		for i := range o.Levels {
			o.Levels[i].FilterPolicy = bloom.FilterPolicy(c.BloomBits)
		}
		db, err := pebble.Open(c.Dir, o)
		if err != nil {
			return nil, err
		}
		wo := pebble.NoSync
		if c.Sync {
			wo = pebble.Sync
		}
		return &pebbleEng{db, wo}, nil
	}
}

type quiet struct{}

func (quiet) Infof(string, ...interface{})      {}
func (quiet) Errorf(string, ...interface{})     {}
func (quiet) Fatalf(f string, a ...interface{}) { panic(f) }

func (e *pebbleEng) Put(k, v []byte) error { return e.db.Set(k, v, e.wo) }
func (e *pebbleEng) Get(k, dst []byte) ([]byte, bool, error) {
	v, c, err := e.db.Get(k)
	if err == pebble.ErrNotFound {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	dst = append(dst[:0], v...)
	return dst, true, c.Close()
}

func (e *pebbleEng) Scan(start []byte, n int) (int, int, error) {
	it, err := e.db.NewIter(nil)
	if err != nil {
		return 0, 0, err
	}
	c, b := 0, 0
	for ok := it.SeekGE(start); ok && c < n; ok = it.Next() {
		b += len(it.Key()) + len(it.Value())
		c++
	}
	return c, b, it.Close()
}

func (e *pebbleEng) Settle() error {
	if err := e.db.Flush(); err != nil {
		return err
	}
	for i, calm := 0, 0; i < 240 && calm < 4; i++ {
		m := e.db.Metrics()
		if m.Compact.NumInProgress == 0 && m.Flush.NumInProgress == 0 {
			calm++
		} else {
			calm = 0
		}
		time.Sleep(250 * time.Millisecond)
	}
	return nil
}
func (e *pebbleEng) Close() error { return e.db.Close() }
