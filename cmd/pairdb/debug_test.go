package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
)

// storageKey is where the replica keeps an object of tenant 1.
func storageKey(partition uint16, key string) []byte {
	b := binary.BigEndian.AppendUint16(nil, partition)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint64(b, uint64(ring.KeyToken(1, []byte(key))))
	return append(b, key...)
}

// makeEngineDir makes an engine's directory with tables, a log and a manifest,
// the same each time.
func makeEngineDir(dir string) error {
	rng := rand.New(rand.NewPCG(1, 2))
	db, err := engine.Open(dir, engine.Options{Rand: rng.Uint64, BlockSize: 512, MemTableSize: 1 << 20, WALSegmentSize: 64 << 10, L0CompactionTrigger: 20})
	if err != nil {
		return err
	}
	b := engine.NewBatch()
	for i := range 100 {
		b.Set(storageKey(uint16(i/10), fmt.Sprintf("greeting-%02d", i)), bytes.Repeat([]byte{byte('a' + i%26)}, 40))
	}
	b.Delete([]byte("raw\x00key"))
	b.DeleteRange([]byte{0xff, 0xf0}, []byte{0xff, 0xff})
	if _, err := db.Apply(b, engine.WriteOptions{Sync: true}); err != nil {
		return err
	}
	if err := db.Flush(); err != nil {
		return err
	}
	for i := range 3 {
		b.Reset()
		b.Set(storageKey(7, fmt.Sprintf("late-%d", i)), []byte("value"))
		b.DeleteRange([]byte("from"), []byte("to"))
		if _, err := db.Apply(b, engine.WriteOptions{Sync: true}); err != nil {
			return err
		}
	}
	return db.Close()
}

// enginedir DIR makes an engine's directory.
func scriptEngineDir(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: enginedir DIR")
	}
	ts.Check(makeEngineDir(ts.MkAbs(args[0])))
}

// objectdir DIR makes an engine's directory with three objects, the last of them in
// the log only.
func scriptObjectDir(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: objectdir DIR")
	}
	db, err := engine.Open(ts.MkAbs(args[0]), engine.Options{MemTableSize: 1 << 20})
	ts.Check(err)
	write := causal.Dot{Actor: 0xfeed, Counter: 7}
	for i, s := range []causal.Sibling{
		{Dot: write, HLC: 65536, Flags: causal.FlagExpiry | causal.FlagJSON, ExpiresAt: 1500, Value: []byte("\"v\""), IdempotencyKey: []byte("id")},
		{Dot: write, HLC: 65537, Flags: causal.FlagTombstone},
		{Dot: write, HLC: 65538, Value: []byte("v")},
	} {
		o := causal.Object{Context: causal.NewContext(write, causal.Dot{Actor: 1, Counter: 2}), Siblings: []causal.Sibling{s}}
		b := engine.NewBatch()
		b.Set(storageKey(uint16(3*i), fmt.Sprintf("key-%d", i)), o.Append(nil))
		_, err := db.Apply(b, engine.WriteOptions{Sync: true})
		ts.Check(err)
		if i == 1 {
			ts.Check(db.Flush())
		}
	}
	ts.Check(db.Close())
}

// only VAR GLOB sets a variable to the last file that matches.
func scriptOnly(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: only VAR GLOB")
	}
	found, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(found) == 0 {
		ts.Fatalf("nothing matches %s", args[1])
	}
	ts.Setenv(args[0], found[len(found)-1])
}

// flip FILE OFFSET changes a bit of a byte; a negative offset counts from the end.
func scriptFlip(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(path, b, 0o600))
}

// dirContents reads every file below dir.
func dirContents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// debugTargets are the command lines that look at each file of a directory.
func debugTargets(dir string) [][]string {
	var all [][]string
	for kind, glob := range map[string]string{"sst": "*.sst", "wal": "wal/*.wal", "manifest": "MANIFEST-*"} {
		files, _ := filepath.Glob(filepath.Join(dir, glob)) // the pattern is sound
		for _, f := range files {
			all = append(all, []string{"debug", kind, f})
		}
	}
	slices.SortFunc(all, func(a, b []string) int { return strings.Compare(a[2], b[2]) })
	return all
}

// Nothing that a debug command does changes a byte.
func TestDebugChangesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := makeEngineDir(dir); err != nil {
		t.Fatal(err)
	}
	before := dirContents(t, dir)
	lines := append(debugTargets(dir), []string{"debug", "verify", dir})
	if len(lines) < 4 {
		t.Fatal(lines)
	}
	for _, line := range lines {
		for _, format := range formats() {
			code, stdout, stderr := runCLI(t, t.Context(), "", append(line, "-o", format)...)
			if code != 0 || stderr != "" || stdout == "" && format != formatPlain && format != formatJSONL {
				t.Errorf("%v -o %s: exit %d, %s%s", line, format, code, stdout, stderr)
			}
			if format == formatJSON && !json.Valid([]byte(stdout)) {
				t.Errorf("%v: no JSON: %s", line, stdout)
			}
		}
	}
	if after := dirContents(t, dir); !maps.Equal(before, after) {
		t.Error("the directory has changed")
	}
}

// Damage anywhere gives an exit code and words, never a panic, and never takes
// much memory; what a file holds cannot be taken for another kind.
func TestDebugHostileFiles(t *testing.T) {
	dir := t.TempDir()
	if err := makeEngineDir(dir); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 1<<40); err != nil { // a hole: it takes no space
		t.Fatal(err)
	}
	noise := make([]byte, 100<<10)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	contents := dirContents(t, dir)
	hostile := filepath.Join(t.TempDir(), "hostile")
	for _, kind := range []string{"sst", "wal", "manifest"} {
		try := func(what string, b []byte, codes ...int) {
			t.Helper()
			if err := os.WriteFile(hostile, b, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, flag := range []string{"--limit=5", map[string]string{"sst": "--keys", "wal": "--batches", "manifest": "--tables"}[kind]} {
				code, _, stderr := runCLI(t, t.Context(), "", "debug", kind, hostile, flag)
				if !slices.Contains(codes, code) || code != 0 && (stderr == "" || strings.Contains(stderr, "panic")) {
					t.Fatalf("%s, %s: exit %d: %s", kind, what, code, stderr)
				}
			}
		}
		try("empty", nil, 1)
		try("zeros", make([]byte, 4096), 1)
		try("noise", noise, 1)
		for path, b := range contents {
			ours := map[string]bool{"sst": strings.HasSuffix(path, ".sst"), "wal": strings.HasSuffix(path, ".wal"), "manifest": strings.Contains(path, "MANIFEST-")}[kind]
			if !ours {
				try(path, []byte(b), 1)
				continue
			}
			for range 60 {
				bad := []byte(b)
				bad[rng.IntN(min(len(bad), 8<<10))] ^= 1 << rng.IntN(8)
				try("flipped", bad, 0, 1)
				try("cut", []byte(b[:rng.IntN(min(len(b), 8<<10))]), 0, 1)
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if code, _, stderr := runCLI(t, t.Context(), "", "debug", kind, big); code != 1 || !strings.Contains(stderr, "is damaged, or not what") {
			t.Errorf("%s of a huge file: exit %d: %s", kind, code, stderr)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s took %d bytes to refuse a huge file", kind, n)
		}
	}
}
