package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/engine/manifest"
	"github.com/pairdb/pairdb/engine/vfs"
)

func readWhole(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	return b, nil
}

func writeWhole(fs vfs.FS, name string, b []byte) error {
	if err := fs.Remove(name); err != nil {
		return err
	}
	f, err := fs.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// damaged opens the DB of a disk on which one file was changed: it must answer
// as if nothing had happened or say ErrCorrupt, sooner or later, and never give
// a wrong answer.
func damaged(disk *vfs.MemFS, name string, b []byte, want map[string]string) (noticed bool, err error) {
	if err := writeWhole(disk, name, b); err != nil {
		return false, err
	}
	report, err := VerifyDir(context.Background(), disk, "db", VerifyOptions{})
	if err != nil {
		return false, fmt.Errorf("verify the directory: %w", err)
	}
	defer func() {
		if seen := len(report.Damage) > 0; err == nil && seen != noticed {
			err = fmt.Errorf("use of the DB noticed damage: %t; VerifyDir found %v", noticed, report.Damage)
		}
	}()
	allowed := func(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFormat) }
	opts := tiny(disk, 3)
	opts.Scheduler = &queued{} // nothing but what the test does
	db, err := Open("db", opts)
	if err != nil {
		if !allowed(err) {
			return false, fmt.Errorf("open: %w", err)
		}
		return true, nil
	}
	defer db.Close()
	for _, check := range []func() error{
		func() error { return compare(db, want) },
		func() error { return db.Compact(nil, nil) },
		func() error { return compare(db, want) },
		db.Verify,
	} {
		if err := check(); err != nil {
			noticed = true
			if !allowed(err) {
				return true, err
			}
		}
	}
	return noticed, nil
}

// TestDamageToEveryFile changes the files of a closed DB one at a time: a bit
// in each byte, each page zeroed, each file cut short, files of a kind swapped.
// Only a sample is done unless PAIRDB_CRASH_FULL is set.
func TestDamageToEveryFile(t *testing.T) {
	stride, cut := 13, 39
	if os.Getenv("PAIRDB_CRASH_FULL") != "" {
		stride, cut = 1, 1
	} else if raceEnabled || testing.Short() {
		stride, cut = 131, 393
	}
	mem := vfs.NewMem()
	s := newScript(mem, 1)
	if err := s.run(90); err != nil {
		t.Fatal(err)
	}
	// A table made elsewhere, so that its number is part of what is damaged.
	if err := errors.Join(s.open(), s.ingest(), s.close()); err != nil {
		t.Fatal(err)
	}
	state, _, err := manifest.Load(mem, "db")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(state.Version.String(), "renumbered") {
		t.Fatal("the fixture has no ingested table")
	}
	want := s.model.now()
	rng := rand.New(rand.NewPCG(1, 7))
	files := map[string][]byte{}
	var names []string
	for _, dir := range []string{"db", "db/wal"} {
		list, err := mem.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list {
			if n == lockName || n == walDir {
				continue
			}
			name := dir + "/" + n
			if files[name], err = readWhole(mem, name); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	tried, noticed := 0, 0
	try := func(name string, b []byte, what string) {
		tried++
		seen, err := damaged(mem.Crash(vfs.CrashKeepAll, rng), name, b, want)
		if err != nil {
			t.Fatalf("%s, %s: %v", name, what, err)
		}
		if seen {
			noticed++
		}
	}
	for _, name := range names {
		raw := files[name]
		for i := tried % stride; i < len(raw); i += stride {
			b := append([]byte(nil), raw...)
			b[i] ^= 1 << rng.IntN(8)
			try(name, b, fmt.Sprintf("bit flipped in byte %d", i))
		}
		for i := 0; i < len(raw); i += 512 {
			b := append([]byte(nil), raw...)
			clear(b[i:min(i+512, len(b))])
			try(name, b, fmt.Sprintf("zeros from %d", i))
		}
		for n := tried % stride; n < len(raw); n += cut {
			try(name, raw[:n:n], fmt.Sprintf("cut to %d", n))
		}
		for _, other := range names {
			if other != name {
				try(name, files[other], "holds "+other)
			}
		}
	}
	t.Logf("%d changes to %d files, %d noticed", tried, len(names), noticed)
	if len(names) < 5 || noticed < tried/4 {
		t.Error("the fixture is too small to mean anything")
	}
}
