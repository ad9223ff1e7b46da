package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/pairdb/pairdb/api/errcode"
)

const (
	// skippedDelays is how many of the shortest pauses an import leaves out, and
	// maxImportDelay what the others double up to: nobody waits for one of its
	// items, and a node that starts again takes its time.
	skippedDelays  = 2
	maxImportDelay = 5 * time.Second
	// maxImportPause bounds a pause, whatever a node asks for.
	maxImportPause = 30 * time.Second
)

// importer is one Import.
type importer struct {
	o   ImportOptions
	put func(ctx context.Context, key string, value []byte, opts ...CallOption) (*PutResult, error)
	// pause is the time before the n-th further try, from 1.
	pause func(n int, e *Error) time.Duration

	cancel   context.CancelCauseFunc // ends the import
	workers  *semaphore.Weighted
	inFlight *semaphore.Weighted
	running  sync.WaitGroup

	mu struct {
		sync.Mutex
		res ImportResult
		// open are the positions of the items that are not settled.
		open map[int]struct{}
		// behind has each key of which an item is under way, with those that
		// come after it.
		behind map[string][]ImportItem
	}
	// failing is held while Failed runs.
	failing sync.Mutex
	ended   bool // Failed said so; guarded by failing
}

func newImporter(o ImportOptions, put func(context.Context, string, []byte, ...CallOption) (*PutResult, error)) *importer {
	o.ensureDefaults()
	im := &importer{
		o: o, put: put,
		pause: func(n int, e *Error) time.Duration {
			return min(delay(n+skippedDelays, maxImportDelay, e, rand.Int64N), maxImportPause)
		},
		workers:  semaphore.NewWeighted(int64(o.Workers)),
		inFlight: semaphore.NewWeighted(o.Bytes),
	}
	im.mu.open = map[int]struct{}{}
	im.mu.behind = map[string][]ImportItem{}
	return im
}

// run stores the items, with opts before their own options.
func (im *importer) run(ctx context.Context, items iter.Seq2[ImportItem, error], opts []CallOption) (ImportResult, error) {
	ctx, im.cancel = context.WithCancelCause(ctx)
	defer im.cancel(nil)
	err := im.feed(ctx, items, opts)
	im.running.Wait()
	im.mu.Lock()
	defer im.mu.Unlock()
	for at := range im.mu.open {
		im.mu.res.Next = min(im.mu.res.Next, at)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return im.mu.res, err
}

// feed begins the items in their order, each once there is room for it.
func (im *importer) feed(ctx context.Context, items iter.Seq2[ImportItem, error], opts []CallOption) error {
	for item, err := range items {
		switch {
		case ctx.Err() != nil:
			return nil // run knows the cause
		case err != nil:
			return err
		}
		if err := im.open(&item); err != nil {
			return err
		}
		if im.workers.Acquire(ctx, 1) != nil || im.inFlight.Acquire(ctx, im.size(item)) != nil {
			return nil // it stays open
		}
		item.Options = append(slices.Clip(opts), item.Options...)
		im.begin(ctx, item)
	}
	return nil
}

// open notes an item, and numbers it if need be.
func (im *importer) open(item *ImportItem) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	switch next := im.mu.res.Next; {
	case item.At == 0:
		item.At = next
	case item.At < next:
		return localError("import", writes, errcode.InvalidArgument, "an item is at %d, and those before it came to %d", item.At, next-1)
	}
	im.mu.open[item.At] = struct{}{}
	im.mu.res.Next = item.At + 1
	return nil
}

// size is what an item takes of the bytes in flight.
func (im *importer) size(item ImportItem) int64 {
	return min(int64(len(item.Key)+len(item.Value)), im.o.Bytes)
}

// begin stores an item beside the others, or behind the one of its key that is
// under way.
func (im *importer) begin(ctx context.Context, item ImportItem) {
	im.mu.Lock()
	defer im.mu.Unlock()
	behind, busy := im.mu.behind[item.Key]
	if busy {
		im.mu.behind[item.Key] = append(behind, item)
		return
	}
	im.mu.behind[item.Key] = nil
	im.running.Go(func() {
		for more := true; more; item, more = im.nextOf(item.Key) {
			im.store(ctx, item)
			im.inFlight.Release(im.size(item))
			im.workers.Release(1)
		}
	})
}

// nextOf takes the next item of a key.
func (im *importer) nextOf(key string) (ImportItem, bool) {
	im.mu.Lock()
	defer im.mu.Unlock()
	behind := im.mu.behind[key]
	if len(behind) == 0 {
		delete(im.mu.behind, key)
		return ImportItem{}, false
	}
	im.mu.behind[key] = behind[1:]
	return behind[0], true
}

// store stores one item, if need be in several tries, and notes what became of it.
// When the import ends meanwhile the item stays open: not to be gone on behind.
func (im *importer) store(ctx context.Context, item ImportItem) {
	err := im.try(ctx, item)
	var e *Error
	switch {
	case err == nil:
		im.settle(item, nil)
		im.o.Stored(item)
	case ctx.Err() != nil:
	case errors.As(err, &e) && sameForAll(e):
		im.cancel(err)
	default:
		im.fail(item, err)
	}
}

// try puts an item until it is stored or not to be tried again.
func (im *importer) try(ctx context.Context, item ImportItem) error {
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, err := im.put(ctx, item.Key, item.Value, item.Options...)
		var e *Error
		if err == nil || !errors.As(err, &e) || n > im.o.Retries || !im.mayTryAgain(item, e) {
			return err
		}
		if n == 1 {
			im.mu.Lock()
			im.mu.res.Repeated++
			im.mu.Unlock()
		}
		if !sleep(ctx, im.pause(n, e)) {
			return context.Cause(ctx)
		}
	}
}

func (im *importer) mayTryAgain(item ImportItem, e *Error) bool {
	if !errcode.Lookup(e.Code).Retryable || errors.Is(e, ErrClosed) {
		return false
	}
	var o callOptions
	for _, opt := range item.Options {
		opt(&o)
	}
	return e.Outcome == errcode.NotApplied || im.o.Again || o.writeKind() == keyedWrites
}

// settle notes that an item is stored, or failed with err.
func (im *importer) settle(item ImportItem, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	delete(im.mu.open, item.At)
	if err != nil {
		im.mu.res.Failed++
		return
	}
	im.mu.res.Stored++
	im.mu.res.Bytes += int64(len(item.Value))
}

// fail tells of an item that failed, unless the import has ended for another.
func (im *importer) fail(item ImportItem, err error) {
	im.failing.Lock()
	defer im.failing.Unlock()
	if im.ended {
		return
	}
	im.ended = !im.o.Failed(item.At, item, err)
	im.settle(item, err)
	if im.ended {
		im.cancel(fmt.Errorf("import: item %d: %w", item.At, err))
	}
}
