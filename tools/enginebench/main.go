// Command enginebench puts PairDB's engine and its peers under the same loads.
// It is a module of its own so that no peer becomes a dependency of the product.
//
//	enginebench run -engine pairdb -dir D -keys 1000000 -value 100 -phases fill,rr1,over1
//	enginebench compare -dir D -rounds 3
//	enginebench recover -dir D -gb 10
//
// run prints one JSON line for each phase. compare runs every engine in a process
// of its own, one after the other and round after round, and prints medians.
// recover times opening a DB of ours that has much log, and one of many tables. The
// data lies in folders below -dir, which are removed. Phases: fill (each key
// once, random order), rr and warm (uniform reads), miss (absent keys), zipf (reads, theta
// 0.99), scan (seek and 100 entries), mix (half writes), over (random
// overwrites), put (meant for -sync); the number behind is the goroutines.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("say run, compare or recover; -h tells more"))
	}
	var err error
	switch os.Args[1] {
	case "run":
		err = runCommand(os.Args[2:])
	case "compare":
		err = compareCommand(os.Args[2:])
	case "recover":
		err = recoverCommand(os.Args[2:])
	default:
		err = fmt.Errorf("there is no command %q; say run, compare or recover", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "enginebench:", err)
	os.Exit(1)
}

// runFlags are those of run, which compare passes on.
type runFlags struct {
	Config
	engine, phases, profile string
	keys                    uint64
	value                   int
	dur, overDur            time.Duration
	verbose                 bool
}

func runCommand(args []string) (err error) {
	var f runFlags
	fs := flag.NewFlagSet("run", flag.ExitOnError)
	fs.StringVar(&f.engine, "engine", "pairdb", "which engine")
	fs.StringVar(&f.Dir, "dir", "", "folder for the data, made if it is not there")
	fs.Uint64Var(&f.keys, "keys", 1_000_000, "keys of the data set")
	fs.IntVar(&f.value, "value", 100, "bytes of a value")
	fs.StringVar(&f.phases, "phases", "fill,rr1", "what to do, in this order")
	fs.DurationVar(&f.dur, "dur", 3*time.Second, "length of timed phases")
	fs.DurationVar(&f.overDur, "overdur", 12*time.Second, "length of the overwrite phase")
	fs.BoolVar(&f.Sync, "sync", false, "sync every write")
	fs.Int64Var(&f.CacheMiB, "cache", 256, "block cache, MiB")
	fs.Int64Var(&f.MemMiB, "memtable", 64, "memtable, MiB")
	fs.IntVar(&f.Jobs, "jobs", 2, "background compactions")
	fs.StringVar(&f.profile, "cpuprofile", "", "write a CPU profile of all phases to this file")
	fs.BoolVar(&f.verbose, "v", false, "print figures of the engine's own after each phase, where it has any")
	fs.Parse(args) // exits on an error
	f.BloomBits = 10
	if f.Dir == "" {
		return errors.New("run needs -dir")
	}
	phases, err := parsePhases(f.phases, f.dur, f.overDur)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.Dir, 0o755); err != nil {
		return err
	}
	open, ok := engines[f.engine]
	if !ok {
		return fmt.Errorf("there is no engine %q (rocksdb needs -tags rocksdb)", f.engine)
	}
	e, err := open(f.Config)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.engine, err)
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if f.profile != "" {
		out, err := os.Create(f.profile)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	b := &bench{
		e: e, name: f.engine, dir: f.Dir, keys: f.keys, value: f.value,
		seed: uint64(time.Now().UnixNano()), order: newPerm(f.keys),
	}
	enc := json.NewEncoder(os.Stdout)
	for _, p := range phases {
		r, err := b.run(p)
		if err != nil {
			return err
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, r.String())
		if s, ok := e.(interface{ Figures() string }); ok && f.verbose {
			fmt.Fprintln(os.Stderr, s.Figures())
		}
	}
	return nil
}
