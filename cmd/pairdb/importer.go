package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// importBytesInFlight bounds the memory of an import: the sizes of the files
// that are being read and sent at one time. It bounds what they take at the nodes,
// too: each value is at all its owners, and any of them coordinates.
const importBytesInFlight = 32 << 20

// errChanged is the failure of a file that was written to while it was read.
var errChanged = errors.New("the file changed while it was read")

// putter and getter are what an import needs of a client.
type putter interface {
	Put(ctx context.Context, key string, value []byte, opts ...client.CallOption) (*client.PutResult, error)
}

type getter interface {
	Get(ctx context.Context, key string, opts ...client.CallOption) (*client.GetResult, error)
}

// sourceFile is one file of the folder.
type sourceFile struct {
	key  string // its path below the folder, with slashes
	path string
	// size and changed are those of the bytes that were imported.
	size    int64
	changed time.Time
}

// failedFile is a file that could not be imported or verified.
type failedFile struct {
	file sourceFile
	err  error
}

// importer copies a folder into a cluster, a key for each regular file, and
// compares it. It is used by one goroutine; its own workers end before its
// methods return.
type importer struct {
	dir         string
	level       client.Level
	concurrency int
	// rounds is how often files that failed are tried again.
	rounds int
	// pause is the time before the n-th further round, from 0.
	pause func(n int) time.Duration
	// skipped is told of each entry that is neither a folder nor a regular
	// file.
	skipped func(path, reason string)
	// reading is told of a file between its measuring and its reading, for
	// tests.
	reading func(path string)
	// moved counts files and bytes that are done, for a progress bar.
	moved progress

	inFlight *semaphore.Weighted
}

// transferResult is what one pass over the files did.
type transferResult struct {
	files, bytes int64
	retried      int
	failed       []failedFile
	took         time.Duration
	// done are the files that went well, if they were asked for.
	done []sourceFile
}

func newImporter(dir string, level client.Level, concurrency, rounds int) *importer {
	return &importer{
		dir: dir, level: level, concurrency: concurrency, rounds: rounds,
		pause:    retryPause,
		skipped:  func(string, string) {},
		reading:  func(string) {},
		inFlight: semaphore.NewWeighted(importBytesInFlight),
	}
}

// retryPause is the time before the n-th further attempt, from 0.
func retryPause(n int) time.Duration {
	return min(250*time.Millisecond<<min(n, 10), 5*time.Second)
}

// upload puts every regular file below the folder. keep asks for the list of
// what was imported, which verify takes. The error is one that stops the whole
// import; the result then says how far it came.
func (im *importer) upload(ctx context.Context, to putter, keep bool) (transferResult, error) {
	im.moved.reset()
	return im.transfer(ctx, im.walk(), keep, func(ctx context.Context, f *sourceFile) error {
		return im.withContents(ctx, f, func(data []byte) error {
			_, err := to.Put(ctx, f.key, data, client.WithLevel(im.level))
			return err
		})
	})
}

// verify reads every file of the list back and compares it with the folder,
// byte for byte.
func (im *importer) verify(ctx context.Context, from getter, files []sourceFile) (transferResult, error) {
	im.moved.reset()
	im.moved.expect(files)
	all := func(yield func(sourceFile, error) bool) {
		for _, f := range files {
			if !yield(f, nil) {
				return
			}
		}
	}
	return im.transfer(ctx, all, false, func(ctx context.Context, f *sourceFile) error {
		now := *f
		return im.withContents(ctx, &now, func(data []byte) error {
			if now.size != f.size || !now.changed.Equal(f.changed) {
				return errors.New("the file has changed since it was imported")
			}
			got, err := from.Get(ctx, f.key, client.WithLevel(im.level))
			if err != nil {
				return err
			}
			if !bytes.Equal(got.Value, data) {
				return fmt.Errorf("the value differs: %d bytes were read back, the file has %d", len(got.Value), len(data))
			}
			return nil
		})
	})
}

// walk lists the regular files. An entry that cannot be listed comes with its
// error.
func (im *importer) walk() iter.Seq2[sourceFile, error] {
	return func(yield func(sourceFile, error) bool) {
		// The callback's errors go to yield, so that the walk itself has none.
		_ = filepath.WalkDir(im.dir, func(path string, d fs.DirEntry, err error) error {
			rel, rerr := filepath.Rel(im.dir, path)
			f := sourceFile{key: filepath.ToSlash(rel), path: path}
			if err = errors.Join(err, rerr); err != nil {
				if !yield(f, err) {
					return fs.SkipAll
				}
				return nil
			}
			switch {
			case d.IsDir():
			case !d.Type().IsRegular():
				im.skipped(f.key, kindText(d.Type()))
			case !yield(f, nil):
				return fs.SkipAll
			}
			return nil
		})
	}
}

func kindText(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link, not followed"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "not a regular file"
}

// transfer does work for each file of first, and again for those that failed in
// a way that may pass.
func (im *importer) transfer(ctx context.Context, first iter.Seq2[sourceFile, error], keep bool, work func(context.Context, *sourceFile) error) (transferResult, error) {
	var res transferResult
	began := time.Now()
	pending, err := im.round(ctx, first, keep, work, &res)
	for n := 0; n < im.rounds && err == nil && len(pending) > 0; n++ {
		if n == 0 {
			res.retried = len(pending)
		}
		if err = sleep(ctx, im.pause(n)); err != nil {
			break
		}
		again := pending
		pending, err = im.round(ctx, func(yield func(sourceFile, error) bool) {
			for _, p := range again {
				if !yield(p.file, nil) {
					return
				}
			}
		}, keep, work, &res)
	}
	res.failed = append(res.failed, pending...)
	res.took = time.Since(began)
	return res, err
}

// round works on files with many in flight. Files that may go well another time
// are returned, those that will not are added to res.failed.
func (im *importer) round(ctx context.Context, files iter.Seq2[sourceFile, error], keep bool, work func(context.Context, *sourceFile) error, res *transferResult) ([]failedFile, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	feed := make(chan sourceFile)
	var mu sync.Mutex // guards pending and res
	var pending []failedFile
	settle := func(f sourceFile, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			res.files++
			res.bytes += f.size
			im.moved.add(f.size)
			if keep {
				res.done = append(res.done, f)
			}
		case ctx.Err() != nil && !errors.Is(err, errChanged):
			// Stopped: the file neither went well nor failed.
		case hopeless(err):
			cancel(err)
		case mayPass(err):
			pending = append(pending, failedFile{f, err})
		default:
			res.failed = append(res.failed, failedFile{f, err})
		}
	}
	var wg sync.WaitGroup
	for range im.concurrency {
		wg.Go(func() {
			for f := range feed {
				settle(f, work(ctx, &f))
			}
		})
	}
	for f, err := range files {
		if err != nil {
			settle(f, err)
			continue
		}
		select {
		case feed <- f:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(feed)
	wg.Wait()
	if ctx.Err() != nil {
		return pending, context.Cause(ctx)
	}
	return pending, nil
}

// hopeless says that no other file will fare better.
func hopeless(err error) bool {
	switch client.CodeOf(err) {
	case errcode.TenantNotFound, errcode.InvalidTenantID, errcode.Unauthorized, errcode.Forbidden:
		return true
	}
	return false
}

// mayPass says that the same file may go well another time. Putting it twice
// does no harm: it is the same value.
func mayPass(err error) bool {
	var e *client.Error
	if errors.As(err, &e) {
		return errcode.Lookup(e.Code).Retryable
	}
	return errors.Is(err, errChanged)
}

// withContents reads a file within the bound on bytes in flight and calls do
// with them. It sets the file's size and time of change.
func (im *importer) withContents(ctx context.Context, f *sourceFile, do func([]byte) error) error {
	// Between walk and here the file may have become a link or a pipe: neither
	// is followed or waited for.
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close() // only read from: nothing is lost if closing fails
	before, err := file.Stat()
	if err != nil {
		return err
	}
	if !before.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file any more", f.path)
	}
	if before.Size() > client.MaxValueSize {
		return fmt.Errorf("%s: the file has %d bytes, at most %d (10 MiB) are possible", errcode.ValueTooLarge, before.Size(), client.MaxValueSize)
	}
	if err := im.inFlight.Acquire(ctx, before.Size()); err != nil {
		return err
	}
	defer im.inFlight.Release(before.Size())
	im.reading(f.path)
	// One byte more than there should be, to notice a file that grows.
	data := make([]byte, before.Size()+1)
	n, err := io.ReadFull(file, data)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	after, err := file.Stat()
	if err != nil {
		return err
	}
	if int64(n) != before.Size() || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return errChanged
	}
	f.size, f.changed = before.Size(), before.ModTime()
	return do(data[:n])
}

// sleep waits, or returns the cause of ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// progress counts what is done and, once known, what there is to do. It is safe
// for concurrent use.
type progress struct {
	// unit is what is counted; empty: files.
	unit                   string
	files, bytes           atomic.Int64
	totalFiles, totalBytes atomic.Int64
	known                  atomic.Bool
}

func (p *progress) reset() {
	p.files.Store(0)
	p.bytes.Store(0)
}

func (p *progress) add(bytes int64) {
	p.files.Add(1)
	p.bytes.Add(bytes)
}

func (p *progress) expect(files []sourceFile) {
	var total int64
	for _, f := range files {
		total += f.size
	}
	p.totalFiles.Store(int64(len(files)))
	p.totalBytes.Store(total)
	p.known.Store(true)
}
