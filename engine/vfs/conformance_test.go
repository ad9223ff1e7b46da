package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/engine/vfs"
)

// TestConformance holds every implementation to the same contract.
func TestConformance(t *testing.T) {
	impls := map[string]func(t *testing.T) (vfs.FS, string){
		"os":  func(t *testing.T) (vfs.FS, string) { return vfs.OS(), t.TempDir() },
		"mem": func(t *testing.T) (vfs.FS, string) { return memDir(t, vfs.NewMem()) },
		"inject": func(t *testing.T) (vfs.FS, string) {
			fsys, dir := memDir(t, vfs.NewMem())
			return vfs.Inject(fsys, nil), dir
		},
		"watch": func(t *testing.T) (vfs.FS, string) {
			fsys, dir := memDir(t, vfs.NewMem())
			return vfs.NewWatch(fsys, time.Now), dir
		},
		"crashed": func(t *testing.T) (vfs.FS, string) {
			fsys, dir := memDir(t, vfs.NewMem())
			return fsys.(*vfs.MemFS).Crash(vfs.CrashKeepAll, nil), dir
		},
	}
	cases := map[string]func(t *testing.T, fsys vfs.FS, dir string){
		"files": conformFiles, "append": conformAppend, "reuse": conformReuse,
		"names": conformNames, "trees": conformTrees, "sizes": conformSizes,
		"open after remove": conformUnlinked, "locks": conformLocks, "shared locks": conformSharedLocks,
		"errors": conformErrors, "random": conformRandom, "skip": conformSkip,
	}
	for name, impl := range impls {
		for what, run := range cases {
			t.Run(name+"/"+what, func(t *testing.T) {
				fsys, dir := impl(t)
				run(t, fsys, dir)
			})
		}
	}
}

func memDir(t *testing.T, m *vfs.MemFS) (vfs.FS, string) {
	t.Helper()
	must(t, m.MkdirAll("data/dir"))
	return m, "data/dir"
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, fsys vfs.FS, name, data string) vfs.File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	write(t, f, data)
	return f
}

func write(t *testing.T, f vfs.File, data string) {
	t.Helper()
	if n, err := io.WriteString(f, data); err != nil || n != len(data) {
		t.Fatalf("Write(%q) = %d, %v", data, n, err)
	}
}

// read returns the bytes of the file called name through a new handle.
func read(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	return readAll(t, f)
}

func readAll(t *testing.T, f vfs.File) string {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	buf := make([]byte, size)
	if n, err := f.ReadAt(buf, 0); int64(n) != size || (err != nil && err != io.EOF) {
		t.Fatalf("ReadAt = %d, %v; want %d bytes", n, err, size)
	}
	return string(buf)
}

func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error %v, want %v", err, target)
	}
}

func conformFiles(t *testing.T, fsys vfs.FS, dir string) {
	f := create(t, fsys, dir+"/a", "hello ")
	write(t, f, "world")
	must(t, f.Sync())
	if got := readAll(t, f); got != "hello world" {
		t.Errorf("through the writer's handle: %q", got)
	}
	buf := make([]byte, 5)
	if n, err := f.ReadAt(buf, 6); n != 5 || (err != nil && err != io.EOF) || string(buf) != "world" {
		t.Errorf("ReadAt(6) = %d, %v, %q", n, err, buf)
	}
	if n, err := f.ReadAt(buf, 8); n != 3 || err != io.EOF {
		t.Errorf("ReadAt over the end = %d, %v, want 3, EOF", n, err)
	}
	if n, err := f.ReadAt(buf, 100); n != 0 || err != io.EOF {
		t.Errorf("ReadAt beyond the end = %d, %v, want 0, EOF", n, err)
	}
	must(t, f.Close())
	if got := read(t, fsys, dir+"//./a"); got != "hello world" {
		t.Errorf("through an unclean path: %q", got)
	}
	info, err := fsys.Stat(dir + "/a")
	if err != nil || info != (vfs.Info{Size: 11}) {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	if info, err := fsys.Stat(dir); err != nil || info != (vfs.Info{IsDir: true}) {
		t.Errorf("Stat(dir) = %+v, %v", info, err)
	}
	must(t, fsys.SyncDir(dir))
	usage, err := fsys.DiskUsage(dir)
	if err != nil || usage.Total <= 0 || usage.Free < 0 || usage.Free > usage.Total {
		t.Errorf("DiskUsage = %+v, %v", usage, err)
	}
}

func conformAppend(t *testing.T, fsys vfs.FS, dir string) {
	must(t, create(t, fsys, dir+"/a", "one").Close())
	f, err := fsys.OpenAppend(dir + "/a")
	must(t, err)
	write(t, f, "two")
	write(t, f, "three")
	must(t, f.Close())
	if got := read(t, fsys, dir+"/a"); got != "onetwothree" {
		t.Errorf("got %q", got)
	}
}

func conformReuse(t *testing.T, fsys vfs.FS, dir string) {
	must(t, create(t, fsys, dir+"/old", "0123456789").Close())
	f, err := fsys.Reuse(dir+"/old", dir+"/new")
	must(t, err)
	write(t, f, "ab")
	write(t, f, "c")
	must(t, f.Close())
	if got := read(t, fsys, dir+"/new"); got != "abc3456789" {
		t.Errorf("got %q", got)
	}
	_, err = fsys.Open(dir + "/old")
	wantIs(t, err, fs.ErrNotExist)
}

func conformNames(t *testing.T, fsys vfs.FS, dir string) {
	for _, name := range []string{"c", "a", "b"} {
		must(t, create(t, fsys, dir+"/"+name, name).Close())
	}
	wantList(t, fsys, dir, "a", "b", "c")
	must(t, fsys.Rename(dir+"/a", dir+"/b"))
	wantList(t, fsys, dir, "b", "c")
	if got := read(t, fsys, dir+"/b"); got != "a" {
		t.Errorf("renamed file holds %q", got)
	}
	must(t, fsys.Link(dir+"/b", dir+"/d"))
	must(t, fsys.Rename(dir+"/b", dir+"/d")) // two names of one file stay
	wantList(t, fsys, dir, "b", "c", "d")
	must(t, fsys.Remove(dir+"/b"))
	wantList(t, fsys, dir, "c", "d")
	if got := read(t, fsys, dir+"/d"); got != "a" {
		t.Errorf("linked file holds %q", got)
	}
	f, err := fsys.OpenAppend(dir + "/d")
	must(t, err)
	must(t, fsys.Link(dir+"/d", dir+"/e"))
	write(t, f, "+")
	must(t, f.Close())
	if got := read(t, fsys, dir+"/e"); got != "a+" {
		t.Errorf("link does not see a write: %q", got)
	}
}

func wantList(t *testing.T, fsys vfs.FS, dir string, want ...string) {
	t.Helper()
	got, err := fsys.List(dir)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("List(%s) = %q, %v, want %q", dir, got, err, want)
	}
}

func conformTrees(t *testing.T, fsys vfs.FS, dir string) {
	must(t, fsys.MkdirAll(dir+"/x/y/z"))
	must(t, fsys.MkdirAll(dir+"/x/y/z"))
	must(t, create(t, fsys, dir+"/x/y/f", "f").Close())
	wantList(t, fsys, dir+"/x/y", "f", "z")
	must(t, fsys.Rename(dir+"/x/y/f", dir+"/g"))
	wantList(t, fsys, dir, "g", "x")
	must(t, fsys.Rename(dir+"/x/y", dir+"/w"))
	wantList(t, fsys, dir+"/w", "z")
	must(t, create(t, fsys, dir+"/w/z/deep", "deep").Close())
	if err := fsys.Remove(dir + "/w"); err == nil {
		t.Error("Remove took a directory that is not empty")
	}
	must(t, fsys.RemoveAll(dir+"/w"))
	must(t, fsys.RemoveAll(dir+"/w"))
	must(t, fsys.RemoveAll(dir+"/nowhere/at/all"))
	wantList(t, fsys, dir, "g", "x")
	must(t, fsys.Remove(dir+"/x"))
	wantList(t, fsys, dir, "g")
}

func conformSizes(t *testing.T, fsys vfs.FS, dir string) {
	f := create(t, fsys, dir+"/a", "abcdef")
	must(t, f.Preallocate(0, 3))
	if got := readAll(t, f); got != "abcdef" {
		t.Errorf("Preallocate of what exists changed it: %q", got)
	}
	must(t, f.Preallocate(4, 6000))
	want := "abcdef" + string(make([]byte, 6004-6))
	if got := readAll(t, f); got != want {
		t.Errorf("after Preallocate: %d bytes, %q...", len(got), got[:10])
	}
	write(t, f, "gh") // the position did not move
	must(t, f.Truncate(7))
	if got := readAll(t, f); got != "abcdefg" {
		t.Errorf("after Truncate: %q", got)
	}
	must(t, f.Truncate(9))
	if got := readAll(t, f); got != "abcdefg\x00\x00" {
		t.Errorf("after growing Truncate: %q", got)
	}
	must(t, f.Sync())
	must(t, f.Close())
}

func conformUnlinked(t *testing.T, fsys vfs.FS, dir string) {
	f := create(t, fsys, dir+"/a", "abc")
	must(t, fsys.Remove(dir+"/a"))
	write(t, f, "def")
	must(t, f.Sync())
	if got := readAll(t, f); got != "abcdef" {
		t.Errorf("got %q", got)
	}
	must(t, create(t, fsys, dir+"/a", "new").Close())
	must(t, f.Close())
	if got := read(t, fsys, dir+"/a"); got != "new" {
		t.Errorf("got %q", got)
	}
}

func conformLocks(t *testing.T, fsys vfs.FS, dir string) {
	l, err := fsys.Lock(dir + "/LOCK")
	must(t, err)
	if _, err := fsys.Lock(dir + "/LOCK"); err == nil {
		t.Error("a second holder got the lock")
	}
	other, err := fsys.Lock(dir + "/OTHER")
	must(t, err)
	must(t, l.Close())
	l, err = fsys.Lock(dir + "/LOCK")
	must(t, err)
	must(t, l.Close())
	must(t, other.Close())
	wantList(t, fsys, dir, "LOCK", "OTHER")
}

func conformSharedLocks(t *testing.T, fsys vfs.FS, dir string) {
	_, err := fsys.LockShared(dir + "/LOCK")
	wantIs(t, err, fs.ErrNotExist)
	l, err := fsys.Lock(dir + "/LOCK")
	must(t, err)
	_, err = fsys.LockShared(dir + "/LOCK")
	wantIs(t, err, syscall.EWOULDBLOCK)
	must(t, l.Close())
	first, err := fsys.LockShared(dir + "/LOCK")
	must(t, err)
	second, err := fsys.LockShared(dir + "/LOCK")
	must(t, err)
	must(t, first.Close())
	if _, err := fsys.Lock(dir + "/LOCK"); err == nil {
		t.Error("a shared lock did not keep Lock out")
	}
	must(t, second.Close())
	l, err = fsys.Lock(dir + "/LOCK")
	must(t, err)
	must(t, l.Close())
	wantList(t, fsys, dir, "LOCK")
}

func conformErrors(t *testing.T, fsys vfs.FS, dir string) {
	must(t, create(t, fsys, dir+"/a", "a").Close())
	_, err := fsys.Create(dir + "/a")
	wantIs(t, err, fs.ErrExist)
	wantIs(t, fsys.Link(dir+"/a", dir+"/a"), fs.ErrExist)
	_, err = fsys.Create(dir + "/none/a")
	wantIs(t, err, fs.ErrNotExist)
	for _, open := range []func(string) (vfs.File, error){fsys.Open, fsys.OpenAppend} {
		_, err := open(dir + "/none")
		wantIs(t, err, fs.ErrNotExist)
	}
	_, err = fsys.Reuse(dir+"/none", dir+"/b")
	wantIs(t, err, fs.ErrNotExist)
	wantIs(t, fsys.Rename(dir+"/none", dir+"/b"), fs.ErrNotExist)
	wantIs(t, fsys.Link(dir+"/none", dir+"/b"), fs.ErrNotExist)
	wantIs(t, fsys.Remove(dir+"/none"), fs.ErrNotExist)
	wantIs(t, fsys.SyncDir(dir+"/none"), fs.ErrNotExist)
	_, err = fsys.Stat(dir + "/none")
	wantIs(t, err, fs.ErrNotExist)
	_, err = fsys.List(dir + "/none")
	wantIs(t, err, fs.ErrNotExist)
	_, err = fsys.DiskUsage(dir + "/none")
	wantIs(t, err, fs.ErrNotExist)
	if err := fsys.MkdirAll(dir + "/a/b"); err == nil {
		t.Error("MkdirAll made a directory below a file")
	}
	f, err := fsys.Open(dir + "/a")
	must(t, err)
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("a file opened for reading was written to")
	}
	must(t, f.Close())
	_, err = f.ReadAt(make([]byte, 1), 0)
	wantIs(t, err, fs.ErrClosed)
	wantIs(t, f.Close(), fs.ErrClosed)
	if got := read(t, fsys, dir+"/a"); got != "a" {
		t.Errorf("a failed call changed the file: %q", got)
	}
}

// conformRandom writes, grows and cuts a file of several pages and compares it
// with a byte slice.
func conformRandom(t *testing.T, fsys vfs.FS, dir string) {
	rng := newRand(1)
	f := create(t, fsys, dir+"/a", "")
	var want []byte
	pos := 0
	for range 200 {
		switch rng.IntN(8) {
		case 0:
			size := rng.IntN(30000)
			must(t, f.Truncate(int64(size)))
			want = append(want[:min(size, len(want))], make([]byte, max(size-len(want), 0))...)
		case 1:
			end := len(want) + rng.IntN(5000)
			must(t, f.Preallocate(int64(len(want)/2), int64(end-len(want)/2+1)))
			want = append(want, make([]byte, end+1-len(want))...)
		case 2:
			must(t, f.Sync())
		default:
			p := bytes.Repeat([]byte{byte(rng.IntN(255) + 1)}, rng.IntN(6000))
			write(t, f, string(p))
			want = append(want, make([]byte, max(pos+len(p)-len(want), 0))...)
			copy(want[pos:], p)
			pos += len(p)
			if pos > 100000 {
				must(t, f.Close())
				var err error
				f, err = fsys.Reuse(dir+"/a", dir+"/a")
				must(t, err)
				pos = 0
			}
		}
		if got := readAll(t, f); got != string(want) {
			t.Fatalf("content differs from the model at byte %d of %d and %d", diff(got, string(want)), len(got), len(want))
		}
	}
	must(t, f.Close())
}

func diff(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// conformSkip: a skip changes nothing; what is written behind it lies where it
// says, and a hole reads as zeros.
func conformSkip(t *testing.T, fsys vfs.FS, dir string) {
	f := create(t, fsys, dir+"/a", "0123456789")
	must(t, f.Close())
	f, err := fsys.Reuse(dir+"/a", dir+"/b")
	must(t, err)
	write(t, f, "ab")
	must(t, f.Skip(3))
	must(t, f.Skip(0))
	write(t, f, "cd")
	if size, err := f.Size(); size != 10 || err != nil {
		t.Errorf("size %d, %v", size, err)
	}
	must(t, f.Skip(7)) // to four bytes behind the end
	if size, err := f.Size(); size != 10 || err != nil {
		t.Errorf("size %d after a skip, %v", size, err)
	}
	write(t, f, "e")
	b := make([]byte, 15)
	if n, err := f.ReadAt(b, 0); n != 15 || err != nil || string(b) != "ab234cd789\x00\x00\x00\x00e" {
		t.Errorf("%d bytes %q, %v", n, b, err)
	}
	must(t, f.Close())
	if err := f.Skip(1); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("skip of a closed file: %v", err)
	}
}
