package coord

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/api/errcode"
)

// CheckBatch says what is wrong with a batch as a whole or with one of its
// items, whose number the *Error names. It changes nothing. A batch that has
// passed may still fail item by item.
func (c *Coordinator) CheckBatch(items []Item) error {
	bad := func(code errcode.Code, format string, args ...any) error {
		return &Error{Code: code, Outcome: batchOutcome(items, errcode.NotApplied), Message: fmt.Sprintf(format, args...)}
	}
	if len(items) == 0 {
		return bad(errcode.InvalidArgument, "the batch is empty")
	}
	if len(items) > MaxBatchItems {
		return bad(errcode.InvalidArgument, "the batch has %d items, at most %d are allowed", len(items), MaxBatchItems)
	}
	total := 0
	requests := make([]request, len(items))
	for i := range items {
		r := &requests[i]
		*r = items[i].request()
		if r.kind == 0 {
			return bad(errcode.InvalidArgument, "item %d asks for nothing", i)
		}
		if err := c.validate(r); err != nil {
			return bad(err.Code, "item %d: %s", i, err.Message)
		}
		total += r.size()
	}
	if total > MaxBatchBytes {
		return bad(errcode.InvalidArgument, "the batch has %d bytes of keys, values, contexts and idempotency keys, at most %d are allowed", total, MaxBatchBytes)
	}
	if i, k, ok := sameKey(requests); ok {
		return bad(errcode.InvalidArgument, "items %d and %d have the same key; a batch has no order, so put one of them into another batch", i, k)
	}
	return nil
}

// batchOutcome is o unless the batch only reads.
func batchOutcome(items []Item, o errcode.Outcome) errcode.Outcome {
	if len(items) == 0 || slices.ContainsFunc(items, func(it Item) bool { return it.Get == nil }) {
		return o
	}
	return ""
}

// sameKey finds two items with one key, unless both only read it.
func sameKey(requests []request) (i, k int, ok bool) {
	order := make([]int, len(requests))
	for n := range order {
		order[n] = n
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := &requests[a], &requests[b]
		// Of one key what writes comes first.
		return cmp.Or(bytes.Compare(x.key, y.key), cmp.Compare(x.tenant, y.tenant), cmp.Compare(x.kind, y.kind), cmp.Compare(a, b))
	})
	for n := 1; n < len(order); n++ {
		x, y := &requests[order[n-1]], &requests[order[n]]
		if bytes.Equal(x.key, y.key) && x.tenant == y.tenant && x.kind != KindGet {
			return min(order[n-1], order[n]), max(order[n-1], order[n]), true
		}
	}
	return 0, 0, false
}
