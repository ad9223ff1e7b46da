package client

import (
	"context"
	"iter"

	"github.com/pairdb/pairdb/api/errcode"
)

const (
	// DefaultImportWorkers is how many items an Import has in flight.
	DefaultImportWorkers = 64
	// MaxImportWorkers is the most that it can have.
	MaxImportWorkers = 1024
	// DefaultImportBytes bounds the bytes that an Import has in flight: 64 MiB.
	DefaultImportBytes = 64 << 20
	// DefaultImportRetries is how many times an Import tries an item again.
	DefaultImportRetries = 6
)

// ImportItem is a value to store.
type ImportItem struct {
	Key string
	// Value belongs to the Import until it has returned.
	Value []byte
	// Options are those of its Put, behind the ones of the Import.
	Options []CallOption
	// At is where the item is in its source: its line, or its number. It is more
	// than that of the item before. 0: one more, from 0, so that items that say
	// nothing are numbered.
	At int
}

// ImportOptions say how an Import goes. The zero value is of use.
type ImportOptions struct {
	// Workers is how many items are in flight at most, 1 to MaxImportWorkers.
	// More make larger batches. 0: DefaultImportWorkers.
	Workers int
	// Bytes is how many bytes of keys and values are in flight at most; an item
	// that is larger goes by itself. 0: DefaultImportBytes.
	Bytes int64
	// Retries is how many times an item that failed is tried again, after pauses
	// that double from 200 ms to 5 s, less a random part, or are what a node asks
	// for, up to 30 s. 0: DefaultImportRetries. Negative: none.
	Retries int
	// Again lets items without an idempotency key be tried again even if they may
	// have been stored: for items without conditions, of which a second time is
	// the same. A value that somebody else stored in between is replaced.
	Again bool
	// Failed is told of each item that is given up, one at a time, and says
	// whether to go on. Nil: the first one ends the import.
	Failed func(at int, item ImportItem, err error) bool
	// Stored is told of each item that is stored. It is called from several
	// goroutines at once. Nil: nobody is told.
	Stored func(item ImportItem)
}

// ImportResult is how far an Import came.
type ImportResult struct {
	// Stored and Failed are how many items were; Bytes those of the values
	// stored.
	Stored, Failed, Bytes int64
	// Repeated is how many items were tried more than once.
	Repeated int64
	// Next is where to go on from: all items before it are stored, or Failed was
	// told of them. Some behind it may be stored, too.
	Next int
}

// Import stores all items. Those with the same key are stored in their order, so
// that the last one stays; others beside each other, small ones as batches (see
// Batcher), with bounds on what is in flight. It calls items on the goroutine of the
// caller, and returns when everything that it began has ended.
//
// An item whose error is marked as worth a retry is tried again if that cannot
// double an effect, or Again is set; ImportOptions.Retries says how often. This
// takes the place of Options.Retries, and is not part of what a Client as a whole
// may repeat: an item that waits takes one of the Workers, so that a cluster in
// trouble gets no more than these.
//
// The import ends early when ctx does, with its cause; when items returns an error,
// with that; when Failed says so or is nil, with an error that wraps that of the
// item; and when no other item will fare better: the tenant is not there, access is
// denied, or no endpoint could be reached in all the tries. The result is valid with
// any error. An item that was under way is not settled, and Next not behind it.
// While items waits for its next one, the end of the import waits, too. An item that
// failed with Indeterminate as its outcome may still be applied later.
func (c *Client) Import(ctx context.Context, items iter.Seq2[ImportItem, error], o ImportOptions, opts ...CallOption) (ImportResult, error) {
	if err := o.validate(); err != nil {
		return ImportResult{}, err
	}
	return newImporter(o, c.Batcher().Put).run(withoutRepeats(ctx), items, opts)
}

func (o *ImportOptions) validate() error {
	bad := func(format string, args ...any) error {
		return localError("import", writes, errcode.InvalidArgument, format, args...)
	}
	switch {
	case o.Workers < 0 || o.Workers > MaxImportWorkers:
		return bad("there are %d workers, it can be 1 to %d, or 0 for the default", o.Workers, MaxImportWorkers)
	case o.Bytes < 0:
		return bad("%d bytes may be in flight, it has to be 1 or more, or 0 for the default", o.Bytes)
	}
	return nil
}

// ensureDefaults fills what is not set.
func (o *ImportOptions) ensureDefaults() {
	if o.Workers == 0 {
		o.Workers = DefaultImportWorkers
	}
	if o.Bytes == 0 {
		o.Bytes = DefaultImportBytes
	}
	if o.Retries == 0 {
		o.Retries = DefaultImportRetries
	}
	if o.Failed == nil {
		o.Failed = func(int, ImportItem, error) bool { return false }
	}
	if o.Stored == nil {
		o.Stored = func(ImportItem) {}
	}
}
