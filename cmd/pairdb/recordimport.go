package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// recordImporter puts the records of a file. Records of one key are put in their
// order, so that the last one is what stays; others run beside each other. It is
// used by one goroutine, for one run; its own workers end before that returns.
type recordImporter struct {
	level   client.Level
	workers int
	// retries is how often a record that failed is tried again.
	retries int
	// maxFailed is how many records may fail before the import stops.
	maxFailed int
	// pause is the time before the n-th retry, from 0.
	pause func(n int) time.Duration
	// failed is told of each record that failed, one at a time.
	failed func(failedRecord)
	// moved counts what is done, for a progress bar.
	moved progress

	mu struct {
		sync.Mutex
		res recordResult
		// open are the lines of the records under way.
		open map[int]bool
	}
	inFlight *semaphore.Weighted
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
	im := &recordImporter{
		level: level, workers: workers, retries: retries, maxFailed: maxFailed,
		pause:    retryPause,
		failed:   func(failedRecord) {},
		inFlight: semaphore.NewWeighted(importBytesInFlight),
	}
	im.mu.open = map[int]bool{}
	im.mu.res.next = 1
	return im
}

// errTooManyFailed stops an import.
var errTooManyFailed = errors.New("too many records failed")

// run puts the records of in, but those before the line from. The error is one
// that stopped it; the result then says how far it came.
func (im *recordImporter) run(ctx context.Context, to putter, in recordReader, from int) (recordResult, error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queues := make([]chan record, im.workers)
	var wg sync.WaitGroup
	for i := range queues {
		queues[i] = make(chan record, 1)
		wg.Go(func() {
			for r := range queues[i] {
				im.put(ctx, cancel, to, r)
			}
		})
	}
	err := im.feed(ctx, cancel, queues, in, from)
	for _, q := range queues {
		close(q)
	}
	wg.Wait()
	im.mu.Lock()
	defer im.mu.Unlock()
	for line := range im.mu.open {
		im.mu.res.next = min(im.mu.res.next, line)
	}
	im.mu.res.took = time.Since(began)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return im.mu.res, err
}

// feed reads the records and hands each to the worker of its key.
func (im *recordImporter) feed(ctx context.Context, cancel context.CancelCauseFunc, queues []chan record, in recordReader, from int) error {
	seed := maphash.MakeSeed()
	records := readAhead(ctx, in)
	for {
		var r readRecord
		select {
		case <-ctx.Done():
			return nil
		case r = <-records:
		}
		var bad *lineError
		switch {
		case errors.Is(r.err, io.EOF):
			return nil
		case errors.As(r.err, &bad):
			if bad.line >= from {
				im.fail(cancel, failedRecord{line: bad.line, err: bad.err})
			}
			im.passed(bad.line)
			continue
		case r.err != nil:
			return r.err
		}
		if r.line < from {
			im.passed(r.line)
			continue
		}
		if len(r.value) > client.MaxValueSize {
			im.fail(cancel, failedRecord{r.line, r.key, fmt.Errorf("%s: the value has %d bytes, at most %d (10 MiB) are possible", errcode.ValueTooLarge, len(r.value), client.MaxValueSize)})
			im.passed(r.line)
			continue
		}
		if im.inFlight.Acquire(ctx, r.size()) != nil {
			return nil // stopped
		}
		im.begin(r.line)
		select {
		case queues[maphash.String(seed, r.key)%uint64(len(queues))] <- r.record:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *record) size() int64 { return int64(len(r.key) + len(r.value)) }

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

// put puts one record, if need be several times.
func (im *recordImporter) put(ctx context.Context, cancel context.CancelCauseFunc, to putter, r record) {
	defer im.inFlight.Release(r.size())
	opts := []client.CallOption{client.WithLevel(im.level)}
	if !r.expires.IsZero() {
		opts = append(opts, client.WithExpiry(r.expires))
	}
	var err error
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return // it stays open: not to be gone on behind
		}
		if _, err = to.Put(ctx, r.key, r.value, opts...); err == nil || !mayPass(err) || n == im.retries {
			break
		}
		if n == 0 {
			im.mu.Lock()
			im.mu.res.retried++
			im.mu.Unlock()
		}
		if sleep(ctx, im.pause(n)) != nil {
			return
		}
	}
	switch {
	case err == nil:
		im.mu.Lock()
		im.mu.res.stored++
		im.mu.res.bytes += int64(len(r.value))
		im.mu.Unlock()
		im.moved.add(int64(len(r.value)))
	case ctx.Err() != nil:
		return
	case hopeless(err):
		cancel(err)
		return
	default:
		im.fail(cancel, failedRecord{r.line, r.key, err})
	}
	im.mu.Lock()
	delete(im.mu.open, r.line)
	im.mu.Unlock()
}

// begin notes that a record is under way.
func (im *recordImporter) begin(line int) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.mu.open[line] = true
	im.mu.res.next = line + 1
}

// passed notes that there is nothing more to do for a line.
func (im *recordImporter) passed(line int) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.mu.res.next = line + 1
}

func (im *recordImporter) fail(cancel context.CancelCauseFunc, f failedRecord) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if len(im.mu.res.failed) == im.maxFailed {
		return // stopped already
	}
	im.mu.res.failed = append(im.mu.res.failed, f)
	im.failed(f)
	if len(im.mu.res.failed) == im.maxFailed {
		cancel(errTooManyFailed)
	}
}
