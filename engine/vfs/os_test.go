package vfs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestWriteZerosKeepsBytes exercises what stands in for fallocate where the
// file system does not know it: only what is beyond the end is written.
func TestWriteZerosKeepsBytes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const end = 3<<20 + 17
	for _, to := range []int64{0, end, 100} {
		if _, err := f.f.WriteAt([]byte("hello"), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.writeZeros(to); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte("hello"), make([]byte, end-5)...); !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want hello and zeros up to %d", len(got), end)
	}
}

// TestModesAreTheOwnersAlone looks at what OS lets others see.
func TestModesAreTheOwnersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/b")
	if err := OS().MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	f, err := OS().Create(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{dir: dirMode, dir + "/f": fileMode} {
		fi, err := os.Stat(name)
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %v", name, fi.Mode().Perm(), err, want)
		}
	}
}
