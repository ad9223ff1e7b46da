package vfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/pairdb/pairdb/engine/vfs"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// dump returns every name with its bytes, long ones as length and runs.
func dump(t *testing.T, fsys vfs.FS, dir string) string {
	t.Helper()
	var lines []string
	names, err := fsys.List(dir)
	must(t, err)
	for _, name := range names {
		path := strings.TrimPrefix(dir+"/"+name, "/")
		info, err := fsys.Stat(path)
		must(t, err)
		if info.IsDir {
			lines = append(lines, path+"/")
			if sub := dump(t, fsys, path); sub != "" {
				lines = append(lines, sub)
			}
			continue
		}
		lines = append(lines, path+"="+runs(read(t, fsys, path)))
	}
	sort.Strings(lines)
	return strings.Join(lines, " ")
}

// runs shortens a string of repeated bytes: "aaaab" is "a4b".
func runs(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		j := i
		for j < len(s) && s[j] == s[i] {
			j++
		}
		c := string(s[i])
		if s[i] == 0 {
			c = "."
		}
		b.WriteString(c)
		if j-i > 1 {
			fmt.Fprint(&b, j-i)
		}
		i = j
	}
	return b.String()
}

// outcomes crashes m many times and returns how often each dump came out.
func outcomes(t *testing.T, m *vfs.MemFS, mode vfs.CrashMode) map[string]int {
	t.Helper()
	before := dump(t, m, "")
	got := map[string]int{}
	rng := newRand(7)
	for range 300 {
		c := m.Crash(mode, rng)
		got[dump(t, c, "")]++
		// What survived a crash is durable.
		if again := dump(t, c.Crash(vfs.CrashDropUnsynced, rng), ""); got[again] == 0 {
			t.Fatalf("a second crash changed the disk to %q", again)
		}
	}
	if after := dump(t, m, ""); after != before {
		t.Fatalf("crashing changed the original from %q to %q", before, after)
	}
	return got
}

func wantOutcomes(t *testing.T, m *vfs.MemFS, mode vfs.CrashMode, want ...string) {
	t.Helper()
	got := outcomes(t, m, mode)
	for _, w := range want {
		if got[w] == 0 {
			t.Errorf("%v never left %q", mode, w)
		}
		delete(got, w)
	}
	for g := range got {
		t.Errorf("%v left %q", mode, g)
	}
}

// TestCrashModes has a disk with a synced file that was overwritten and
// extended, a new file that was synced without its directory, one the other way
// round, and a removed one.
func TestCrashModes(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "old", "aa")
	must(t, f.Sync())
	must(t, create(t, m, "gone", "g").Sync())
	g := create(t, m, "named", "")
	must(t, m.SyncDir("."))
	write(t, g, "n")                              // 1
	must(t, create(t, m, "nameless", "u").Sync()) // name is 2
	write(t, f, "b")                              // 3
	must(t, m.Remove("gone"))                     // 4

	start := "gone=g named= old=a2"
	end := "named=n nameless=u old=a2b"
	for mode, want := range map[vfs.CrashMode][]string{
		vfs.CrashDropUnsynced: {start},
		vfs.CrashKeepAll:      {end},
		vfs.CrashPrefix: {
			start, "gone=g named=n old=a2", "gone=g named=n nameless=u old=a2",
			"gone=g named=n nameless=u old=a2b", end,
		},
		// A one byte write has no boundary inside: it is lost.
		vfs.CrashTorn512:   {start, "gone=g named=n nameless=u old=a2"},
		vfs.CrashTorn4K:    {start, "gone=g named=n nameless=u old=a2"},
		vfs.CrashBlocks:    {end, "named=. nameless=u old=a2b", "named=n nameless=u old=a2.", "named=. nameless=u old=a2."},
		vfs.CrashSizeZero:  {"named=. nameless=u old=a2."},
		vfs.CrashNamesOnly: {"named= nameless=u old=a2"},
		vfs.CrashDataOnly:  {"gone=g named=n old=a2b"},
		vfs.CrashReordered: {
			start, "gone=g named=n old=a2", "gone=g named= old=a2b", "gone=g named=n old=a2b",
			"gone=g named= nameless=u old=a2", "gone=g named=n nameless=u old=a2",
			"gone=g named= nameless=u old=a2b", "gone=g named=n nameless=u old=a2b",
			"named= nameless=u old=a2", "named=n nameless=u old=a2", "named= nameless=u old=a2b", end,
		},
	} {
		t.Run(mode.String(), func(t *testing.T) { wantOutcomes(t, m, mode, want...) })
	}
	t.Run(vfs.CrashSizeGarbage.String(), func(t *testing.T) {
		got := outcomes(t, m, vfs.CrashSizeGarbage)
		if len(got) < 100 {
			t.Errorf("only %d kinds of garbage in two bytes", len(got))
		}
		for d := range got {
			c := strings.HasPrefix(d, "named=") && strings.Contains(d, " nameless=u ") && strings.Contains(d, " old=a")
			if !c || strings.Contains(d, "gone") {
				t.Errorf("left %q", d)
			}
		}
	})
	if n := len(vfs.CrashModes()); n != 11 {
		t.Errorf("%d modes, tested are 11", n)
	}
}

func rep(s string, n int) string { return strings.Repeat(s, n) }

func TestCrashTornInsideOneWrite(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", rep("a", 1000))
	must(t, f.Sync())
	must(t, m.SyncDir(""))
	write(t, f, rep("b", 1000)) // 1000..2000: boundaries 1024 and 1536
	wantOutcomes(t, m, vfs.CrashTorn512, "f=a1000b24", "f=a1000b536")
	wantOutcomes(t, m, vfs.CrashTorn4K, "f=a1000")
	write(t, f, rep("c", 8000)) // 2000..10000: boundaries 4096 and 8192
	wantOutcomes(t, m, vfs.CrashTorn4K, "f=a1000", "f=a1000b1000c2096", "f=a1000b1000c6192")
}

func TestCrashBlocks(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", rep("a", 5000))
	must(t, f.Sync())
	must(t, m.SyncDir(""))
	write(t, f, rep("b", 7500)) // blocks 1 (from 5000), 2 and 3 (up to 12500)
	var want []string
	for i := range 8 {
		part := func(bit int, n int) string {
			if i&bit != 0 {
				return rep("b", n)
			}
			return rep("\x00", n)
		}
		want = append(want, "f="+runs(rep("a", 5000)+part(1, 3192)+part(2, 4096)+part(4, 212)))
	}
	wantOutcomes(t, m, vfs.CrashBlocks, want...)
}

func TestCrashBlocksHoldSomeMoment(t *testing.T) {
	m := vfs.NewMem()
	must(t, create(t, m, "f", "aaaa").Sync())
	must(t, m.SyncDir(""))
	f, err := m.Reuse("f", "f")
	must(t, err)
	write(t, f, "b")
	must(t, f.Truncate(2))
	must(t, f.Truncate(4))
	write(t, f, "c")
	// The size is final, the block is of any moment.
	wantOutcomes(t, m, vfs.CrashBlocks, "f=a4", "f=ba3", "f=ba.2", "f=bc.2")
	wantOutcomes(t, m, vfs.CrashPrefix, "f=a4", "f=ba3", "f=ba", "f=ba.2", "f=bc.2")
	wantOutcomes(t, m, vfs.CrashKeepAll, "f=bc.2")
	must(t, f.Sync())
	wantOutcomes(t, m, vfs.CrashDropUnsynced, "f=bc.2")
}

func TestCrashGarbageOnlyInNewBlocks(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", rep("a", 100))
	must(t, f.Preallocate(0, 16384))
	must(t, f.Sync())
	must(t, m.SyncDir(""))
	write(t, f, rep("b", 4096))
	c := m.Crash(vfs.CrashSizeGarbage, newRand(1))
	got := read(t, c, "f")
	if want := rep("a", 100) + rep("\x00", 3996); got[:4096] != want {
		t.Error("the synced block changed")
	}
	if strings.Count(got[4096:8192], "\x00") > 200 {
		t.Error("the new block is not garbage")
	}
	if got[8192:] != rep("\x00", 8192) {
		t.Error("blocks nobody wrote changed")
	}
}

func TestCrashRenamesBetweenDirectories(t *testing.T) {
	m := vfs.NewMem()
	must(t, m.MkdirAll("x"))
	must(t, m.MkdirAll("y"))
	must(t, create(t, m, "x/a", "1").Sync())
	for _, dir := range []string{"", "x", "y"} {
		must(t, m.SyncDir(dir))
	}
	must(t, m.Rename("x/a", "x/b"))
	must(t, m.Rename("x/b", "y/c"))
	must(t, create(t, m, "y/d", "").Sync())
	wantOutcomes(t, m, vfs.CrashPrefix, "x/ x/a=1 y/", "x/ x/b=1 y/", "x/ y/ y/c=1", "x/ y/ y/c=1 y/d=")
	wantOutcomes(t, m, vfs.CrashReordered, "x/ x/a=1 y/", "x/ x/b=1 y/", "x/ x/a=1 y/ y/c=1",
		"x/ x/b=1 y/ y/c=1", "x/ y/ y/c=1", "x/ x/a=1 y/ y/c=1 y/d=", "x/ x/b=1 y/ y/c=1 y/d=", "x/ y/ y/c=1 y/d=")
	wantOutcomes(t, m, vfs.CrashNamesOnly, "x/ y/ y/c=1 y/d=")
	must(t, m.SyncDir("x"))
	wantOutcomes(t, m, vfs.CrashDropUnsynced, "x/ y/ y/c=1")
}

func TestCrashKeepsHardLinksTogether(t *testing.T) {
	m := vfs.NewMem()
	must(t, create(t, m, "a", "1").Sync())
	must(t, m.Link("a", "b"))
	must(t, m.SyncDir(""))
	c := m.Crash(vfs.CrashDropUnsynced, newRand(1))
	f, err := c.OpenAppend("b")
	must(t, err)
	write(t, f, "2")
	if got := dump(t, c, ""); got != "a=12 b=12" {
		t.Errorf("got %q", got)
	}
	if got := dump(t, m, ""); got != "a=1 b=1" {
		t.Errorf("the original became %q", got)
	}
}

func TestCrashUnsyncedDirectory(t *testing.T) {
	m := vfs.NewMem()
	must(t, m.MkdirAll("x/y"))
	must(t, create(t, m, "x/y/f", "1").Sync())
	must(t, m.SyncDir("x/y"))
	must(t, m.SyncDir("x"))
	wantOutcomes(t, m, vfs.CrashDropUnsynced, "")
	must(t, m.SyncDir(""))
	wantOutcomes(t, m, vfs.CrashDropUnsynced, "x/ x/y/ x/y/f=1")
}

func TestCrashIsDeterministic(t *testing.T) {
	build := func() *vfs.MemFS {
		m := vfs.NewMem()
		for i := range 20 {
			f := create(t, m, fmt.Sprint("f", i), rep("a", i*700))
			if i%3 == 0 {
				must(t, f.Sync())
			}
			if i%7 == 0 {
				must(t, m.SyncDir(""))
			}
			write(t, f, rep("b", i*900))
		}
		return m
	}
	a, b := build(), build()
	for _, mode := range vfs.CrashModes() {
		ra, rb := newRand(3), newRand(3)
		for range 20 {
			if dump(t, a.Crash(mode, ra), "") != dump(t, b.Crash(mode, rb), "") {
				t.Fatalf("%v: the same seed left two disks", mode)
			}
		}
	}
}

// TestCrashedDisksAreApart writes to the original and to crashed copies of it
// and sees that none sees another's bytes.
func TestCrashedDisksAreApart(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", rep("a", 10000))
	must(t, f.Sync())
	must(t, m.SyncDir(""))
	for _, mode := range vfs.CrashModes() {
		write(t, f, "x") // something pending
		c := m.Crash(mode, newRand(1))
		first := dump(t, c, "")
		d := c.Crash(mode, newRand(1))
		g, err := d.Reuse("f", "f")
		must(t, err)
		write(t, g, rep("z", 9000))
		must(t, g.Sync())
		write(t, f, "yyyyy")
		must(t, f.Sync())
		if got := dump(t, c, ""); got != first {
			t.Errorf("%v: crashed disk changed from %q to %q", mode, first, got)
		}
		if strings.Contains(dump(t, m, ""), "z") {
			t.Errorf("%v: the original saw a write to a copy", mode)
		}
	}
}

func TestLimit(t *testing.T) {
	m := vfs.NewMem()
	m.SetLimit(1000)
	f := create(t, m, "a", rep("a", 600))
	g := create(t, m, "b", "")
	wantIs(t, g.Preallocate(0, 401), syscall.ENOSPC)
	n, err := g.Write(make([]byte, 500))
	if n != 400 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write = %d, %v, want 400 bytes and ENOSPC", n, err)
	}
	if n, err := g.Write([]byte("x")); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write = %d, %v, want ENOSPC", n, err)
	}
	wantIs(t, g.Truncate(401), syscall.ENOSPC)
	if u, err := m.DiskUsage(""); err != nil || u != (vfs.Usage{Total: 1000}) {
		t.Errorf("DiskUsage = %+v, %v", u, err)
	}
	// Space comes back when the last name and the last handle are gone.
	must(t, m.Link("a", "c"))
	must(t, m.Remove("a"))
	must(t, m.Remove("c"))
	wantIs(t, g.Truncate(401), syscall.ENOSPC)
	must(t, f.Close())
	must(t, g.Truncate(1000))
	must(t, g.Truncate(100))
	if u, err := m.DiskUsage(""); err != nil || u.Free != 900 {
		t.Errorf("DiskUsage = %+v, %v", u, err)
	}
	c := m.Crash(vfs.CrashKeepAll, nil)
	if u, err := c.DiskUsage(""); err != nil || u != (vfs.Usage{Total: 1000, Free: 900}) {
		t.Errorf("DiskUsage after a crash = %+v, %v", u, err)
	}
	m.SetLimit(0)
	must(t, g.Truncate(1<<20))
}

func TestLocksEndWithACrash(t *testing.T) {
	m := vfs.NewMem()
	_, err := m.Lock("LOCK")
	must(t, err)
	l, err := m.Crash(vfs.CrashKeepAll, nil).Lock("LOCK")
	must(t, err)
	must(t, l.Close())
	_, err = m.Lock("LOCK")
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the crash released the original's lock: %v", err)
	}
}

// BenchmarkCrash is one crash of a disk with 40 files of 1 MiB, one of them
// dirty.
func BenchmarkCrash(b *testing.B) {
	m := vfs.NewMem()
	for i := range 40 {
		f, _ := m.Create(fmt.Sprint("f", i))
		f.Write(make([]byte, 1<<20))
		f.Sync()
	}
	m.SyncDir("")
	f, _ := m.OpenAppend("f0")
	f.Write(make([]byte, 10000))
	rng := newRand(1)
	modes := vfs.CrashModes()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Crash(modes[i%len(modes)], rng)
	}
}
