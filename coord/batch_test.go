package coord_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

func putItem(key, value string) coord.Item {
	return coord.Item{Put: &coord.PutRequest{Tenant: simTenant, Key: []byte(key), Value: []byte(value)}}
}

func getItem(key string) coord.Item {
	return coord.Item{Get: &coord.GetRequest{Tenant: simTenant, Key: []byte(key)}}
}

func deleteItem(key string) coord.Item {
	return coord.Item{Delete: &coord.DeleteRequest{Tenant: simTenant, Key: []byte(key)}}
}

// bundler is a rig whose transport takes messages together.
type bundler struct {
	*rig
	mu    sync.Mutex
	calls map[ring.NodeID][]int // the sizes of what came together
}

func (b *bundler) SendAll(to ring.NodeID, msgs []coord.Outgoing) {
	b.mu.Lock()
	b.calls[to] = append(b.calls[to], len(msgs))
	b.mu.Unlock()
	for _, m := range msgs {
		m.Reply(coord.Reply{Status: coord.StatusOK}, nil)
	}
}

// TestBatchGoesTogether: each owner gets what a batch has for it in one piece, of
// at most 128 messages.
func TestBatchGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bundler{rig: newRig(t, 3, coord.Metrics{}), calls: map[ring.NodeID][]int{}}
		b.onUpdate = func(_ []byte, durable func(error)) { durable(nil) }
		c, err := coord.New(coord.Options{Self: b.self, View: b.view, Replica: b, Transport: b, Clock: b, CatchUp: b.catchUp})
		if err != nil {
			t.Fatal(err)
		}
		var items []coord.Item
		for i := range 300 {
			items = append(items, putItem(fmt.Sprint("k", i), "v"))
		}
		results, err := c.Batch(t.Context(), items)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Err != nil || r.Write.Acks < 2 {
				t.Errorf("item %d: %+v", i, r)
			}
		}
		for _, id := range []ring.NodeID{{2}, {3}} {
			if got := fmt.Sprint(b.calls[id]); got != "[128 128 44]" {
				t.Errorf("node %s got %s", id, got)
			}
		}
		if len(b.sends()) != 0 {
			t.Error("messages went alone")
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestBatchIsCheckedFirst: whatever is wrong with one item is wrong with the
// batch, and no item is begun.
func TestBatchIsCheckedFirst(t *testing.T) {
	_, all := newLive(t, false)
	c := all[0]
	many := make([]coord.Item, coord.MaxBatchItems+1)
	for i := range many {
		many[i] = putItem(fmt.Sprint("m", i), "v")
	}
	big := []coord.Item{putItem("b1", strings.Repeat("x", 9<<20)), putItem("b2", strings.Repeat("x", 8<<20))}
	with := func(change func(*coord.PutRequest)) []coord.Item {
		it := putItem("bad", "v")
		change(it.Put)
		return []coord.Item{putItem("good", "v"), it}
	}
	for _, tc := range []struct {
		items []coord.Item
		code  errcode.Code
		says  string
	}{
		{nil, errcode.InvalidArgument, "is empty"},
		{many, errcode.InvalidArgument, "1001 items"},
		{big, errcode.InvalidArgument, "at most 16777216"},
		{[]coord.Item{putItem("good", "v"), {}}, errcode.InvalidArgument, "item 1 asks for nothing"},
		{[]coord.Item{putItem("good", "v"), putItem("x", "v"), deleteItem("good")}, errcode.InvalidArgument, "items 0 and 2 have the same key"},
		{[]coord.Item{getItem("good"), putItem("good", "v")}, errcode.InvalidArgument, "items 0 and 1 have the same key"},
		{with(func(r *coord.PutRequest) { r.Key = nil }), errcode.InvalidKey, "item 1: "},
		{with(func(r *coord.PutRequest) { r.Key = make([]byte, 1025) }), errcode.KeyTooLarge, "item 1: "},
		{with(func(r *coord.PutRequest) { r.Value = make([]byte, coord.MaxValueSize+1) }), errcode.ValueTooLarge, "item 1: "},
		{with(func(r *coord.PutRequest) { r.Tenant = "NO" }), errcode.InvalidTenantID, "item 1: "},
		{with(func(r *coord.PutRequest) { r.Token = make([]byte, coord.MaxTokenSize+1) }), errcode.InvalidArgument, "item 1: "},
		{with(func(r *coord.PutRequest) { r.IdempotencyKey = make([]byte, 257) }), errcode.InvalidArgument, "item 1: "},
		{with(func(r *coord.PutRequest) { r.Level = 9 }), errcode.InvalidArgument, "item 1: "},
		{with(func(r *coord.PutRequest) { r.Deadline = time.Now().Add(-time.Second) }), errcode.Timeout, "item 1 was over"},
	} {
		results, err := c.Batch(t.Context(), tc.items)
		wantCode(t, err, tc.code, errcode.NotApplied)
		if results != nil || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v, %d results; want %q", err, len(results), tc.says)
		}
	}
	for _, key := range []string{"good", "x", "m0", "b1"} {
		_, err := c.Get(t.Context(), coord.GetRequest{Tenant: simTenant, Key: []byte(key), Level: quorum.All})
		wantCode(t, err, errcode.KeyNotFound, "")
	}
	// Reads of one key do not contradict each other.
	if _, err := c.Batch(t.Context(), []coord.Item{getItem("a"), getItem("a")}); err != nil {
		t.Error(err)
	}
}

// TestBatchHasAResultPerItem: items of all kinds, one of which fails, each as a
// request of its own would.
func TestBatchHasAResultPerItem(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lossy=%v", lossy), func(t *testing.T) {
			_, all := newLive(t, lossy)
			const n = 600
			var items []coord.Item
			for i := range n {
				items = append(items, putItem(fmt.Sprint("k", i), fmt.Sprint("v", i)))
			}
			wrong := n / 2
			items[wrong].Put.Token = []byte("forged")
			results, err := all[0].Batch(t.Context(), items)
			if err != nil {
				t.Fatal(err)
			}
			var reads []coord.Item
			for i, r := range results {
				switch {
				case i == wrong:
					wantCode(t, r.Err, errcode.InvalidArgument, errcode.NotApplied)
				case r.Err != nil && !lossy:
					t.Errorf("put %d: %v", i, r.Err)
				}
				reads = append(reads, getItem(fmt.Sprint("k", i)))
			}
			got, err := all[1].Batch(t.Context(), reads)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range got {
				var e *coord.Error
				switch {
				case errors.As(r.Err, &e) && e.Outcome != "":
					t.Errorf("a read with the outcome %q", e.Outcome)
				case i == wrong:
					if e == nil || !lossy && e.Code != errcode.KeyNotFound {
						t.Errorf("what was refused: %v, %v", r.Get.Siblings, r.Err)
					}
				case results[i].Err == nil && r.Err == nil && string(r.Get.Siblings[0].Value) != fmt.Sprint("v", i):
					t.Errorf("get %d: %q", i, r.Get.Siblings[0].Value)
				case r.Err != nil && !lossy:
					t.Errorf("get %d: %v", i, r.Err)
				}
			}
		})
	}
}

// TestBatchAnswerHasABound: values beyond it are left out, item by item, and none
// that fits is.
func TestBatchAnswerHasABound(t *testing.T) {
	_, all := newLive(t, false)
	var items []coord.Item
	for i := range 5 {
		key := fmt.Sprint("big", i)
		if _, err := all[0].Put(t.Context(), coord.PutRequest{Tenant: simTenant, Key: []byte(key), Value: make([]byte, 5<<20)}); err != nil {
			t.Fatal(err)
		}
		items = append(items, getItem(key))
	}
	items = append(items, putItem("after", "v"), getItem("absent"))
	results, err := all[0].Batch(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		switch {
		case i < 3 || i == 5:
			if r.Err != nil {
				t.Errorf("item %d: %v", i, r.Err)
			}
		case i < 5:
			wantCode(t, r.Err, errcode.ResourceExhausted, "")
			if r.Get.Siblings != nil {
				t.Errorf("item %d keeps its value", i)
			}
		default:
			wantCode(t, r.Err, errcode.KeyNotFound, "")
		}
	}
}

// TestBatchIsDoneOnce: a batch that is sent again through another node has the
// results it had.
func TestBatchIsDoneOnce(t *testing.T) {
	_, all := newLive(t, false)
	var items []coord.Item
	for i := range 40 {
		it := putItem(fmt.Sprint("once", i), fmt.Sprint(i))
		if i%4 == 0 {
			it = deleteItem(fmt.Sprint("once", i))
			it.Delete.IdempotencyKey = []byte("d")
		} else {
			it.Put.IdempotencyKey = []byte("p")
		}
		items = append(items, it)
	}
	first, err := all[0].Batch(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	again, err := all[1].Batch(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	for i := range items {
		a, b := first[i], again[i]
		if a.Err != nil || b.Err != nil || a.Write.Dot != b.Write.Dot || a.Write.Duplicate || !b.Write.Duplicate {
			t.Errorf("item %d: %+v, then %+v", i, a, b)
		}
	}
}

// TestForwardedBatch: a node that owns none of the keys hands them over in few
// frames, and owners down make their items fail alone.
func TestForwardedBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1, 5, 3, newFakeDisk)
		n := w.node("a")
		var items []coord.Item
		for i := range 60 {
			items = append(items, putItem(fmt.Sprint("k", i), "v"))
		}
		w.node("b").crash(nil, keepDisk)
		w.node("c").crash(nil, keepDisk)
		results := make([]*coord.ItemResult, len(items))
		n.coord.StartAll(items, func(i int, r coord.ItemResult) {
			if results[i] != nil {
				t.Errorf("item %d is answered twice", i)
			}
			results[i] = &r
		})
		w.advance(20 * time.Second)
		done, failed := 0, 0
		for i, r := range results {
			down := 0
			for _, name := range w.owners(simTenant, string(items[i].Put.Key)) {
				if name == "b" || name == "c" {
					down++
				}
			}
			switch {
			case r == nil:
				t.Errorf("item %d has no result", i)
			case r.Err == nil && down < 2:
				done++
			case r.Err != nil && down == 2:
				failed++
			case r.Err != nil && down == 1:
				// It was handed to the owner that is down, and is in doubt.
				var e *coord.Error
				if !errors.As(r.Err, &e) || e.Outcome != errcode.Indeterminate {
					t.Errorf("item %d: %v", i, r.Err)
				}
			default:
				t.Errorf("item %d, %d owners down: %v", i, down, r.Err)
			}
		}
		if done == 0 || failed == 0 {
			t.Errorf("%d done, %d failed: the test shows nothing", done, failed)
		}
	})
}

// TestBatchGivesUp: the caller's end is the end of the wait, not of the writes.
func TestBatchGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, coord.Metrics{})
		var durable []func(error)
		r.onUpdate = func(_ []byte, d func(error)) { durable = append(durable, d) }
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			_, err := r.coord.Batch(ctx, []coord.Item{putItem("a", "v"), putItem("b", "v")})
			got <- err
		}()
		synctest.Wait()
		cancel()
		err := <-got
		wantCode(t, err, errcode.Timeout, errcode.Indeterminate)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		for _, d := range durable {
			d(nil)
		}
		for _, s := range r.sends() {
			s.reply(coord.Reply{Status: coord.StatusOK}, nil)
		}
		if err := r.coord.Close(t.Context()); err != nil || len(durable) != 2 {
			t.Errorf("%v, %d of 2 writes made", err, len(durable))
		}
	})
}
