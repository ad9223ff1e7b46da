package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica/sums"
)

// BenchmarkSumsAfterStart tells how long a node with a million keys of 100 bytes
// takes until it knows all its sums: with a file of the last stop, with one that
// lacks the last 1,000 writes, and without any.
func BenchmarkSumsAfterStart(b *testing.B) {
	const keys, late = 1_000_000, 1000
	dir := b.TempDir()
	open := func(file bool) (*Store, *engine.DB) {
		of := sums.New(func() int { return 1024 })
		since, err := of.Load(vfs.OS(), dir+"/sums")
		if err != nil {
			b.Fatal(err)
		}
		if !file {
			of, since = sums.New(func() int { return 1024 }), 0
		}
		db, err := engine.Open(dir+"/data", engine.Options{
			OnRecovered: func(key []byte, seq base.SeqNum) { Recovered(of, key, seq) }, KeepDeletesAfter: since,
		})
		if err != nil {
			b.Fatal(err)
		}
		s, err := New(Options{Engine: db, Actor: 1, Scheduler: &goroutines{}, Sums: of, Records: NewRecordSpace(1<<30, func() time.Time { return noon })})
		if err != nil {
			b.Fatal(err)
		}
		return s, db
	}
	settle := func(s *Store) {
		for more := true; more; {
			var err error
			if more, err = s.StepSums(); err != nil {
				b.Fatal(err)
			}
		}
	}
	write := func(s *Store, n int, counter uint64) {
		for i := 0; i < n; i += 1000 {
			var items []coord.MergeItem
			for k := i; k < i+1000; k++ {
				a := sumAddress(k)
				a.Partition = ring.Partition(a.Token >> 54)
				o := causal.Mint(&causal.Object{}, causal.Context{{Actor: 9, Counter: counter}}, causal.Sibling{Dot: causal.Dot{Actor: 9, Counter: counter + 1}, Value: make([]byte, 100)})
				items = append(items, coord.MergeItem{Address: a, Object: o.Append(nil)})
			}
			done := make(chan error, 1)
			s.Merge(items, func(i int, _ []byte, err error) {
				if i == len(items)-1 || err != nil {
					done <- err
				}
			})
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
	s, db := open(true)
	settle(s)
	write(s, keys, 1)
	settle(s)
	start := time.Now()
	if err := s.SaveSums(vfs.OS(), dir+"/sums"); err != nil {
		b.Fatal(err)
	}
	saved := time.Since(start)
	if err := errors.Join(db.Flush(), db.Close()); err != nil {
		b.Fatal(err)
	}
	measure := func(name string, file bool) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				start := time.Now()
				s, db := open(file)
				opened := time.Since(start)
				settle(s)
				b.ReportMetric(float64(opened.Milliseconds()), "open-ms")
				b.ReportMetric(float64((time.Since(start) - opened).Milliseconds()), "sums-ms")
				b.ReportMetric(float64(s.opts.Sums.Stats().Recomputed), "keys-read")
				b.ReportMetric(float64(saved.Microseconds())/1000, "save-ms")
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	measure("none", false)
	measure("file", true)
	s, db = open(true)
	write(s, late, 5)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	measure("older file", true)
}
