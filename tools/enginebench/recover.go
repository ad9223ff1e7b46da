package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/pairdb/pairdb/engine"
	enginebase "github.com/pairdb/pairdb/engine/base"
)

// noFlush is a scheduler that never runs a job, so that all stays in the log.
type noFlush struct{}

func (noFlush) Go(string, func()) {}

// recoverCommand times opening a DB whose log holds everything, and one of many
// tables.
func recoverCommand(args []string) error {
	fs := flag.NewFlagSet("recover", flag.ExitOnError)
	dir := fs.String("dir", "", "folder for the data")
	gb := fs.Float64("gb", 10, "10^9 bytes of log")
	size := fs.Int("value", 1024, "bytes of a value")
	tables := fs.Int("tables", 1000, "tables of the second DB")
	fs.Parse(args) // exits on an error
	if *dir == "" {
		return errors.New("recover needs -dir")
	}
	if err := recoverLog(filepath.Join(*dir, "log"), int64(*gb*1e9), *size); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if err := openTables(filepath.Join(*dir, "tables"), *tables); err != nil {
		return fmt.Errorf("tables: %w", err)
	}
	return nil
}

func recoverLog(dir string, bytes int64, size int) (err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	n := uint64(bytes) / uint64(16+size)
	// Room is kept on the disk for the flush of all memtables there may be.
	db, err := engine.Open(dir, engine.Options{Scheduler: noFlush{}, MaxImmutable: int(bytes>>26) + 64})
	if err != nil {
		return err
	}
	order, rnd := newPerm(n), rand.New(rand.NewPCG(1, 1))
	key, b := make([]byte, 16), engine.NewBatch()
	start := time.Now()
	for i := range n {
		putKey(key, order.at(i)*2)
		b.Reset()
		b.Set(key, value(rnd, size))
		if _, err := db.Apply(b, engine.WriteOptions{}); err != nil {
			return err
		}
	}
	if err := db.Close(); err != nil { // syncs the log and flushes nothing
		return err
	}
	logged, err := diskUse(dir)
	if err != nil {
		return err
	}
	fmt.Printf("wrote %d pairs, %.1f GB of log, in %.1f s\n", n, float64(logged)/1e9, time.Since(start).Seconds())

	found := uint64(0)
	before, err := readUsage()
	if err != nil {
		return err
	}
	start = time.Now()
	db, err = engine.Open(dir, engine.Options{OnRecovered: func([]byte, enginebase.SeqNum) { found++ }})
	took := time.Since(start)
	if err != nil {
		return err
	}
	after, err := readUsage()
	if err != nil {
		return errors.Join(err, db.Close())
	}
	rss, err := procField("/proc/self/status", "VmRSS:")
	if err != nil {
		return errors.Join(err, db.Close())
	}
	fmt.Printf("recovered %d pairs in %.1f s, %.1f s of CPU, %.2f GB written, RSS %.0f MB\n",
		found, took.Seconds(), (after.cpu-before.cpu)/1e6, (after.written-before.written)/1e9, rss/1024)
	if found != n {
		err = fmt.Errorf("%d pairs recovered of %d", found, n)
	}
	var dst []byte
	for i := uint64(0); i < n && err == nil; i += 997 {
		putKey(key, order.at(i)*2)
		if dst, err = db.Get(dst[:0], key); err == nil && len(dst) != size {
			err = fmt.Errorf("value of %d bytes", len(dst))
		}
	}
	b.Reset()
	b.Set(key, dst)
	start = time.Now()
	if _, werr := db.Apply(b, engine.WriteOptions{Sync: true}); err == nil {
		err = werr
	}
	fmt.Printf("first synced write after %.3f s\n", time.Since(start).Seconds())
	return errors.Join(err, db.Close())
}

func openTables(dir string, tables int) (err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	opts := engine.Options{TargetFileSize: 64 << 10, MemTableSize: 16 << 20}
	db, err := engine.Open(dir, opts)
	if err != nil {
		return err
	}
	rnd, key, b := rand.New(rand.NewPCG(1, 1)), make([]byte, 16), engine.NewBatch()
	// Ascending keys: the tables do not overlap and none is merged away.
	for x := uint64(0); ; x++ {
		putKey(key, x)
		b.Reset()
		b.Set(key, value(rnd, 1000))
		if _, err := db.Apply(b, engine.WriteOptions{}); err != nil {
			return err
		}
		if x%1000 == 0 {
			files := 0
			for _, l := range db.Metrics().Levels {
				files += l.Files
			}
			if files >= tables {
				break
			}
		}
	}
	if err := errors.Join(db.Flush(), db.Close()); err != nil {
		return err
	}
	start := time.Now()
	if db, err = engine.Open(dir, opts); err != nil {
		return err
	}
	took := time.Since(start)
	files := 0
	for _, l := range db.Metrics().Levels {
		files += l.Files
	}
	fmt.Printf("opened a DB of %d tables in %.3f s\n", files, took.Seconds())
	return db.Close()
}
