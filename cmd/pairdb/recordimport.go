package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/pairdb/pairdb/client"
)

// recordImporter imports the records of a file: it numbers them by their lines,
// and lists those that fail. It is used by one goroutine, for one run.
type recordImporter struct {
	level   client.Level
	workers int
	// retries is how often a record that failed is tried again.
	retries int
	// maxFailed is how many records may fail before the import stops; those
	// under way then may fail, too.
	maxFailed int
	// failed is told of each record that failed, one at a time.
	failed func(failedRecord)
	// moved counts what is done, for a progress bar.
	moved progress

	mu struct {
		sync.Mutex
		failed []failedRecord
	}
	// read is the line behind what was read and is done with, or begun; begun is
	// the one behind the last record that was begun, 0 for none.
	read, begun int
}

// failedRecord is a record that was not stored.
type failedRecord struct {
	line int
	key  string // "" if it could not be read
	err  error
}

// recordResult is what became of a file.
type recordResult struct {
	stored, bytes, retried int64
	failed                 []failedRecord
	took                   time.Duration
	// next is the line to go on from: every record before it is stored, or failed.
	next int
}

func newRecordImporter(level client.Level, workers, retries, maxFailed int) *recordImporter {
	return &recordImporter{
		level: level, workers: workers, retries: retries, maxFailed: maxFailed,
		failed: func(failedRecord) {}, read: 1,
	}
}

// errTooManyFailed stops an import.
var errTooManyFailed = errors.New("too many records failed")

// run puts the records of in, but those before the line from. The error is one
// that stopped it; the result then says how far it came.
func (im *recordImporter) run(ctx context.Context, to *client.Client, in recordReader, from int) (recordResult, error) {
	began := time.Now()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	o := client.ImportOptions{
		Workers: im.workers, Retries: im.retries,
		Again:  true, // it is the same value
		Stored: func(item client.ImportItem) { im.moved.add(int64(len(item.Value))) },
		Failed: func(line int, item client.ImportItem, err error) bool {
			full := im.fail(failedRecord{line, item.Key, err})
			if full {
				stop() // nobody may write to the pipe any more
			}
			return !full
		},
	}
	if o.Retries == 0 {
		o.Retries = -1
	}
	done, err := to.Import(ctx, im.items(reading, in, from), o, client.WithLevel(im.level))
	im.mu.Lock()
	defer im.mu.Unlock()
	if err != nil && ctx.Err() == nil && len(im.mu.failed) >= im.maxFailed {
		err = errTooManyFailed
	}
	res := recordResult{
		stored: done.Stored, bytes: done.Bytes, retried: done.Repeated, failed: im.mu.failed, took: time.Since(began), next: done.Next,
	}
	if done.Next == im.begun {
		res.next = im.read // lines behind the last record that was begun are done with, too
	}
	return res, err
}

// items are the records from a line on, at their lines. Those that cannot be read
// are listed.
func (im *recordImporter) items(ctx context.Context, in recordReader, from int) iter.Seq2[client.ImportItem, error] {
	return func(yield func(client.ImportItem, error) bool) {
		records := readAhead(ctx, in)
		for {
			var r readRecord
			select {
			case <-ctx.Done():
				return
			case r = <-records:
			}
			var bad *lineError
			switch {
			case errors.Is(r.err, io.EOF):
				return
			case errors.As(r.err, &bad):
				im.read = bad.line + 1
				if bad.line >= from && im.fail(failedRecord{line: bad.line, err: bad.err}) {
					yield(client.ImportItem{}, errTooManyFailed)
					return
				}
			case r.err != nil:
				yield(client.ImportItem{}, r.err)
				return
			case r.line < from:
				im.read = r.line + 1
			case !yield(r.item(), nil):
				return
			default:
				im.begun = r.line + 1
				im.read = im.begun
			}
		}
	}
}

// item is what Import takes of a record.
func (r *record) item() client.ImportItem {
	it := client.ImportItem{Key: r.key, Value: r.value, At: r.line}
	if !r.expires.IsZero() {
		it.Options = []client.CallOption{client.WithExpiry(r.expires)}
	}
	return it
}

// readRecord is what next of a reader returned.
type readRecord struct {
	record
	err error
}

// readAhead reads until the end, or until ctx ends. A read that does not return,
// from a pipe nobody writes to, does not hold up the caller; its goroutine then
// ends with the process.
func readAhead(ctx context.Context, in recordReader) <-chan readRecord {
	out := make(chan readRecord)
	go func() {
		for {
			r, err := in.next()
			select {
			case out <- readRecord{r, err}:
			case <-ctx.Done():
				return
			}
			var bad *lineError
			if err != nil && !errors.As(err, &bad) {
				return
			}
		}
	}()
	return out
}

// fail lists a record that failed, and says whether that is enough.
func (im *recordImporter) fail(f failedRecord) (full bool) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.mu.failed = append(im.mu.failed, f)
	im.failed(f)
	return len(im.mu.failed) >= im.maxFailed
}
