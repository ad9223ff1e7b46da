package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// fakeStore is a cluster of one map. Its hooks may be nil.
type fakeStore struct {
	mu struct {
		sync.Mutex
		values map[string][]byte
		puts   map[string]int
	}
	// onPut and onGet may refuse the n-th try, from 1, for a key.
	onPut func(key string, n int) error
	onGet func(key string) error

	active, most atomic.Int64
}

func newFakeStore() *fakeStore {
	s := &fakeStore{}
	s.mu.values = make(map[string][]byte)
	s.mu.puts = make(map[string]int)
	return s
}

func (s *fakeStore) Put(_ context.Context, key string, value []byte, _ ...client.CallOption) (*client.PutResult, error) {
	now := s.active.Add(int64(len(value)))
	defer s.active.Add(-int64(len(value)))
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	s.mu.Lock()
	s.mu.puts[key]++
	n := s.mu.puts[key]
	s.mu.Unlock()
	if s.onPut != nil {
		if err := s.onPut(key, n); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.values[key] = bytes.Clone(value)
	return &client.PutResult{}, nil
}

func (s *fakeStore) Get(_ context.Context, key string, _ ...client.CallOption) (*client.GetResult, error) {
	if s.onGet != nil {
		if err := s.onGet(key); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.mu.values[key]
	if !ok {
		return nil, &client.Error{Op: "get", Code: errcode.KeyNotFound, Message: "none"}
	}
	return &client.GetResult{Value: v}, nil
}

func (s *fakeStore) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for k := range s.mu.values {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

func codeError(code errcode.Code) error {
	return &client.Error{Op: "put", Code: code, Message: "made to fail"}
}

// testImporter imports dir without waiting between rounds.
func testImporter(dir string, rounds int) *importer {
	im := newImporter(dir, client.LevelQuorum, 8, rounds)
	im.pause = func(int) time.Duration { return 0 }
	return im
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImportOddNames(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"plain": "1", "a b\tc\nd": "2", "\xff\xfe": "not UTF-8", "sub/..x/{tag}": "3", "-": "4", "@x": "", "ü": "5",
	}
	writeFiles(t, dir, files)
	if err := os.Symlink("plain", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	im := testImporter(dir, 0)
	skipped := map[string]string{}
	im.skipped = func(path, reason string) { skipped[path] = reason }
	store := newFakeStore()
	res, err := im.upload(t.Context(), store, true)
	if err != nil || len(res.failed) != 0 || res.files != int64(len(files)) {
		t.Fatalf("%+v: %v", res, err)
	}
	for name, data := range files {
		if got := store.mu.values[name]; string(got) != data {
			t.Errorf("%q has %q, want %q", name, got, data)
		}
	}
	if len(skipped) != 2 || !strings.Contains(skipped["link"], "symbolic link") || !strings.Contains(skipped["pipe"], "pipe") {
		t.Errorf("skipped %v", skipped)
	}
	back, err := im.verify(t.Context(), store, res.done)
	if err != nil || len(back.failed) != 0 || back.files != res.files || back.bytes != res.bytes {
		t.Fatalf("%+v: %v", back, err)
	}
}

func TestImportRetries(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for i := range 50 {
		files[fmt.Sprintf("f%02d", i)] = strings.Repeat("x", i)
	}
	writeFiles(t, dir, files)
	store := newFakeStore()
	store.onPut = func(key string, n int) error {
		switch {
		case key == "f07": // never
			return codeError(errcode.QuorumNotReached)
		case key == "f08": // not worth another try
			return codeError(errcode.ValueTooLarge)
		case strings.HasSuffix(key, "5") && n <= 2:
			return codeError(errcode.Timeout)
		}
		return nil
	}
	res, err := testImporter(dir, 3).upload(t.Context(), store, false)
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for _, f := range res.failed {
		failed = append(failed, f.file.key)
	}
	slices.Sort(failed)
	if want := []string{"f07", "f08"}; !slices.Equal(failed, want) {
		t.Errorf("failed %v, want %v", failed, want)
	}
	if res.files != 48 || res.retried != 6 || len(store.keys()) != 48 {
		t.Errorf("%d files, %d retried, %d stored", res.files, res.retried, len(store.keys()))
	}
	if n := store.mu.puts["f07"]; n != 4 {
		t.Errorf("a file that always fails was tried %d times, want 1 and 3 more", n)
	}
	if n := store.mu.puts["f08"]; n != 1 {
		t.Errorf("a file that is too large was tried %d times", n)
	}
}

func TestImportStopsWhenHopeless(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for i := range 500 {
		files[fmt.Sprintf("f%03d", i)] = "x"
	}
	writeFiles(t, dir, files)
	store := newFakeStore()
	store.onPut = func(string, int) error { return codeError(errcode.TenantNotFound) }
	res, err := testImporter(dir, 3).upload(t.Context(), store, false)
	if !errors.Is(err, client.ErrTenantNotFound) || res.files != 0 || len(store.mu.puts) > 100 {
		t.Fatalf("%d files tried, %v", len(store.mu.puts), err)
	}
}

func TestImportInterrupted(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"a": "1", "b": "2"})
	ctx, cancel := context.WithCancelCause(t.Context())
	store := newFakeStore()
	store.onPut = func(string, int) error { cancel(errInterrupted); return codeError(errcode.Unavailable) }
	res, err := testImporter(dir, 3).upload(ctx, store, false)
	if !errors.Is(err, errInterrupted) || len(res.failed) != 0 {
		t.Fatalf("%+v: %v", res, err)
	}
}

func TestImportBoundsBytesInFlight(t *testing.T) {
	dir := t.TempDir()
	const size = 8 << 20
	for i := range 20 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	im := testImporter(dir, 0)
	im.concurrency = 20
	store := newFakeStore()
	res, err := im.upload(t.Context(), store, false)
	if err != nil || res.files != 20 {
		t.Fatalf("%+v: %v", res, err)
	}
	if most := store.most.Load(); most > importBytesInFlight {
		t.Errorf("%d bytes were in flight, at most %d may be", most, importBytesInFlight)
	}
}

// A file that changes while it is read is tried again, and has failed if it does
// not come to rest.
func TestImportChangingFile(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"log": "1"})
	im := testImporter(dir, 2)
	var reads int
	im.reading = func(path string) {
		reads++
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = f.WriteString("more")
		if err := errors.Join(err, f.Close()); err != nil {
			t.Error(err)
		}
	}
	store := newFakeStore()
	res, err := im.upload(t.Context(), store, false)
	if err != nil || len(res.failed) != 1 || !errors.Is(res.failed[0].err, errChanged) || reads != 3 || len(store.keys()) != 0 {
		t.Fatalf("%d reads, %+v: %v", reads, res, err)
	}
	im.reading = func(string) {}
	if res, err = im.upload(t.Context(), store, false); err != nil || res.files != 1 {
		t.Fatalf("%+v: %v", res, err)
	}
}

func TestVerifyFindsDifferences(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"same": "1", "other": "2", "gone": "3", "edited": "4", "removed": "5"})
	im := testImporter(dir, 0)
	store := newFakeStore()
	up, err := im.upload(t.Context(), store, true)
	if err != nil || up.files != 5 {
		t.Fatal(up, err)
	}
	store.mu.values["other"] = []byte("x")
	delete(store.mu.values, "gone")
	writeFiles(t, dir, map[string]string{"edited": "44"})
	if err := os.Remove(filepath.Join(dir, "removed")); err != nil {
		t.Fatal(err)
	}
	back, err := im.verify(t.Context(), store, up.done)
	if err != nil || back.files != 1 {
		t.Fatal(back, err)
	}
	want := map[string]string{"other": "differs", "gone": "KEY_NOT_FOUND", "edited": "changed since", "removed": "no such file"}
	for _, f := range back.failed {
		if w := want[f.file.key]; w == "" || !strings.Contains(f.err.Error(), w) {
			t.Errorf("%s: %v, want %q", f.file.key, f.err, w)
		}
		delete(want, f.file.key)
	}
	if len(want) != 0 {
		t.Errorf("not found: %v", want)
	}
}

func TestVerifyRetries(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"a": "1"})
	im := testImporter(dir, 2)
	store := newFakeStore()
	up, err := im.upload(t.Context(), store, true)
	if err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int64
	store.onGet = func(string) error {
		if tries.Add(1) < 3 {
			return codeError(errcode.QuorumNotReached)
		}
		return nil
	}
	back, err := im.verify(t.Context(), store, up.done)
	if err != nil || back.files != 1 || back.retried != 1 {
		t.Fatal(back, err)
	}
}

func TestProgressLine(t *testing.T) {
	var p progress
	p.add(1_500_000)
	if got, want := progressLine("importing", &p, time.Second), "importing 1 files, 1.5 MB, 1.5 MB/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.expect([]sourceFile{{size: 1_500_000}, {size: 1_500_000}})
	got := progressLine("importing", &p, 3*time.Second)
	want := "importing [" + strings.Repeat("#", 15) + strings.Repeat(".", 15) + "] 1/2 files, 1.5/3.0 MB, 0.5 MB/s"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	// More than was counted, and nothing at all, are no trouble.
	p.expect(nil)
	_ = progressLine("importing", &p, 0)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"a": "12", "b/c": "3"})
	p.countAhead(t.Context(), dir)
	if p.totalFiles.Load() != 2 || p.totalBytes.Load() != 3 {
		t.Error(p.totalFiles.Load(), p.totalBytes.Load())
	}
	var out lockedBuffer
	stop := drawProgress(&out, "importing", &p)
	stop()
	stop()
	if !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("the bar was not cleared: %q", out.String())
	}
}
