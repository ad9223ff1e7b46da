package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pairdb/pairdb/engine"
)

// pairdbEng runs our engine with its defaults but for what every engine here is
// given. A batch is used by one writer at a time, so writers take turns at some.
type pairdbEng struct {
	db      *engine.DB
	opts    engine.WriteOptions
	batches sync.Pool
}

func init() {
	engines["pairdb"] = func(c Config) (Engine, error) {
		db, err := engine.Open(c.Dir, engine.Options{
			CacheSize:         c.CacheMiB << 20,
			MemTableSize:      c.MemMiB << 20,
			BloomBitsPerKey:   c.BloomBits,
			MaxBackgroundJobs: c.Jobs,
		})
		if err != nil {
			return nil, err
		}
		return &pairdbEng{
			db: db, opts: engine.WriteOptions{Sync: c.Sync},
			batches: sync.Pool{New: func() any { return engine.NewBatch() }},
		}, nil
	}
}

func (e *pairdbEng) Put(k, v []byte) error {
	b := e.batches.Get().(*engine.Batch)
	defer e.batches.Put(b)
	b.Reset()
	b.Set(k, v)
	_, err := e.db.Apply(b, e.opts)
	return err
}

func (e *pairdbEng) Get(k, dst []byte) ([]byte, bool, error) {
	v, err := e.db.Get(dst[:0], k)
	if errors.Is(err, engine.ErrNotFound) {
		return dst, false, nil
	}
	return v, err == nil, err
}

func (e *pairdbEng) Scan(start []byte, n int) (c, b int, err error) {
	it, err := e.db.NewIter(nil, nil)
	if err != nil {
		return 0, 0, err
	}
	for ok := it.SeekGE(start); ok && c < n; ok = it.Next() {
		b += len(it.Key()) + len(it.Value())
		c++
	}
	return c, b, errors.Join(it.Error(), it.Close())
}

func (e *pairdbEng) Settle() error {
	if err := e.db.Flush(); err != nil {
		return err
	}
	for i, calm := 0, 0; i < 240 && calm < 4; i++ {
		if p := e.db.Metrics().Pools; p["compact"].Busy+p["compact"].Queued+p["flush"].Busy == 0 {
			calm++
		} else {
			calm = 0
		}
		time.Sleep(250 * time.Millisecond)
	}
	return nil
}

// Figures returns the engine's own metrics.
func (e *pairdbEng) Figures() string { return fmt.Sprintf("%+v", e.db.Metrics()) }

func (e *pairdbEng) Close() error { return e.db.Close() }
