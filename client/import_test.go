package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client/clienttest"
)

// slowStore is a map whose puts take turns that a test decides.
type slowStore struct {
	mu     sync.Mutex
	values map[string]string
	do     func(ctx context.Context, key, value string) error
}

func (s *slowStore) put(ctx context.Context, key string, value []byte, _ ...CallOption) (*PutResult, error) {
	if s.do != nil {
		if err := s.do(ctx, key, string(value)); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string]string{}
	}
	s.values[key] = string(value)
	return &PutResult{}, nil
}

// numbered are n items; the value of each is its number.
func numbered(n int, key func(i int) string) iter.Seq2[ImportItem, error] {
	return func(yield func(ImportItem, error) bool) {
		for i := range n {
			if !yield(ImportItem{Key: key(i), Value: fmt.Append(nil, i)}, nil) {
				return
			}
		}
	}
}

func ownKey(i int) string { return fmt.Sprint("k", i) }

// importInto imports into a store, without pauses.
func importInto(ctx context.Context, s *slowStore, items iter.Seq2[ImportItem, error], o ImportOptions) (ImportResult, error) {
	im := newImporter(o, s.put)
	im.pause = func(int, *Error) time.Duration { return 0 }
	return im.run(ctx, items, nil)
}

// The last value of a key stays, however many are under way and fail at first.
func TestLastItemOfAKeyStays(t *testing.T) {
	const n, keys = 2000, 7
	var mu sync.Mutex
	seen := map[string]int{}
	store := &slowStore{do: func(_ context.Context, key, value string) error {
		mu.Lock()
		defer mu.Unlock()
		if seen[key+value]++; len(seen)%3 == 0 && seen[key+value] == 1 {
			return &Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied}
		}
		return nil
	}}
	res, err := importInto(t.Context(), store, numbered(n, func(i int) string { return fmt.Sprint("k", i%keys) }), ImportOptions{Workers: 32})
	if err != nil || res.Stored != n || res.Failed != 0 || res.Repeated == 0 || res.Next != n {
		t.Fatalf("%+v, %v", res, err)
	}
	for i := n - keys; i < n; i++ {
		if key := fmt.Sprint("k", i%keys); store.values[key] != fmt.Sprint(i) {
			t.Errorf("%s has the value %s, want %d", key, store.values[key], i)
		}
	}
}

// A key that takes long holds up what has the same key, and no other.
func TestSlowKeyHoldsUpNoOther(t *testing.T) {
	const n = 200
	var left atomic.Int64
	left.Store(n)
	done := make(chan struct{})
	store := &slowStore{do: func(ctx context.Context, key, _ string) error {
		if key == "slow" {
			select {
			case <-done:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		if left.Add(-1) == 0 {
			close(done)
		}
		return nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := importInto(ctx, store, numbered(n+2, func(i int) string {
		if i < 2 {
			return "slow"
		}
		return ownKey(i)
	}), ImportOptions{Workers: 4})
	if err != nil || res.Stored != n+2 || store.values["slow"] != "1" {
		t.Errorf("%+v, %v, slow has %q", res, err, store.values["slow"])
	}
}

// What was stopped goes on from where it says, and nothing is left out.
func TestStoppedImportGoesOn(t *testing.T) {
	const n = 500
	stopped := errors.New("stopped")
	for _, how := range []string{"context", "items", "callback"} {
		t.Run(how, func(t *testing.T) {
			store := &slowStore{}
			ctx, cancel := context.WithCancelCause(t.Context())
			store.do = func(ctx context.Context, key, value string) error {
				if key == "k100" && how == "context" {
					cancel(stopped)
				}
				if key == "k100" && how == "callback" {
					return stopped
				}
				if len(value) == 3 && value >= "120" && how == "callback" {
					<-ctx.Done() // it has ended by then
				}
				return ctx.Err()
			}
			items := func(yield func(ImportItem, error) bool) {
				for item := range numbered(n, ownKey) {
					if item.Key == "k150" && how == "items" {
						yield(ImportItem{}, stopped)
						return
					}
					if !yield(item, nil) {
						return
					}
				}
			}
			res, err := importInto(ctx, store, items, ImportOptions{Workers: 16})
			if !errors.Is(err, stopped) || res.Next > 150 {
				t.Fatalf("stopped at %d, %v, want 150 at most", res.Next, err)
			}
			if how == "items" && res.Next != 150 {
				t.Errorf("what was begun was not ended: next is %d", res.Next)
			}
			for i := range res.Next {
				if _, ok := store.values[ownKey(i)]; !ok && (how != "callback" || i != 100) {
					t.Errorf("%d is not stored, and the import would go on from %d", i, res.Next)
				}
			}
			store.do = nil
			rest := func(yield func(ImportItem, error) bool) {
				for i := res.Next; i < n; i++ {
					if !yield(ImportItem{Key: ownKey(i), At: i}, nil) {
						return
					}
				}
			}
			res, err = importInto(t.Context(), store, rest, ImportOptions{})
			want := n
			if how == "callback" && res.Stored < n-100 {
				want-- // the one that failed is not gone back to
			}
			if err != nil || len(store.values) != want || res.Next != n {
				t.Errorf("%d keys, %+v, %v", len(store.values), res, err)
			}
		})
	}
}

// Items that fail are told of one at a time, until the callback has enough.
func TestImportStopsWhenFailedSaysSo(t *testing.T) {
	store := &slowStore{do: func(context.Context, string, string) error { return &Error{Code: errcode.InvalidKey, Message: "no"} }}
	told := 0
	res, err := importInto(t.Context(), store, numbered(100, ownKey), ImportOptions{Workers: 8, Failed: func(at int, item ImportItem, err error) bool {
		if item.At != at || item.Key != ownKey(at) || !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%d: %+v, %v", at, item, err)
		}
		told++
		return told < 3
	}})
	if !errors.Is(err, ErrInvalidKey) || res.Failed != 3 || told != 3 || res.Next > 100 || res.Stored != 0 {
		t.Errorf("%d told, %+v, %v", told, res, err)
	}
	res, err = importInto(t.Context(), store, numbered(100, ownKey), ImportOptions{})
	if !errors.Is(err, ErrInvalidKey) || res.Failed != 1 {
		t.Errorf("without a callback: %+v, %v", res, err)
	}
	goOn := func(int, ImportItem, error) bool { return true }
	if res, err = importInto(t.Context(), store, numbered(100, ownKey), ImportOptions{Failed: goOn}); err != nil || res.Failed != 100 || res.Next != 100 {
		t.Errorf("%+v, %v", res, err)
	}
}

// Positions are the caller's, if it has any.
func TestImportPositions(t *testing.T) {
	at := func(all ...int) iter.Seq2[ImportItem, error] {
		return func(yield func(ImportItem, error) bool) {
			for _, n := range all {
				if !yield(ImportItem{Key: fmt.Sprint(n), At: n}, nil) {
					return
				}
			}
		}
	}
	for _, tc := range []struct {
		at         []int
		next, code int
	}{{[]int{3, 7, 0, 20}, 21, 0}, {nil, 0, 0}, {[]int{3, 3}, 4, 1}, {[]int{-1}, 0, 1}} {
		res, err := importInto(t.Context(), &slowStore{}, at(tc.at...), ImportOptions{})
		if res.Next != tc.next || (err != nil) != (tc.code == 1) || err != nil && CodeOf(err) != errcode.InvalidArgument {
			t.Errorf("%v: %+v, %v", tc.at, res, err)
		}
	}
}

// What may have been stored is sent again only if that is known to do no harm.
func TestImportTriesAgain(t *testing.T) {
	fails := func(code errcode.Code, outcome errcode.Outcome) error {
		return clienttest.FailWrite(code, outcome, 0, 2, "made to fail")
	}
	for _, tc := range []struct {
		name  string
		err   error
		again bool
		opts  []CallOption
		asked int32
	}{
		{"refused", fails(errcode.RateLimited, errcode.NotApplied), false, nil, 4},
		{"in doubt", fails(errcode.QuorumNotReached, errcode.Indeterminate), false, nil, 1},
		{"in doubt, again", fails(errcode.QuorumNotReached, errcode.Indeterminate), true, nil, 4},
		{"in doubt with a key", fails(errcode.QuorumNotReached, errcode.Indeterminate), false, []CallOption{WithIdempotencyKey("1")}, 4},
		{"with a key at one", fails(errcode.QuorumNotReached, errcode.Indeterminate), false, []CallOption{WithIdempotencyKey("1"), WithLevel(LevelOne)}, 1},
		{"late, again", fails(errcode.Timeout, errcode.Indeterminate), true, nil, 4},
		{"wrong", fails(errcode.InvalidArgument, errcode.NotApplied), true, nil, 1},
		{"no tenant", fails(errcode.TenantNotFound, errcode.NotApplied), true, nil, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _, servers := start(t, 1, Options{NoRouting: true, Retries: 5})
			var asked atomic.Int32
			servers[0].SetHook(func(context.Context, string, any) error { asked.Add(1); return tc.err })
			im := newImporter(ImportOptions{Retries: 3, Again: tc.again}, c.Batcher().Put)
			im.pause = func(int, *Error) time.Duration { return 0 }
			res, err := im.run(withoutRepeats(t.Context()), numbered(1, ownKey), tc.opts)
			if err == nil || res.Stored != 0 || asked.Load() != tc.asked {
				t.Errorf("asked %d times, want %d: %+v, %v", asked.Load(), tc.asked, res, err)
			}
			if repeated := min(int64(tc.asked)-1, 1); res.Repeated != repeated {
				t.Errorf("repeated %d, want %d", res.Repeated, repeated)
			}
		})
	}
}

// What no item can do ends the import, with its position behind nothing that is
// not stored.
func TestImportEndsWhenHopeless(t *testing.T) {
	told := func(int, ImportItem, error) bool { t.Error("Failed was told"); return true }
	c, store, servers := start(t, 1, Options{NoRouting: true})
	var asked atomic.Int32
	servers[0].SetHook(func(context.Context, string, any) error { asked.Add(1); return nil })
	res, err := c.Import(t.Context(), numbered(10_000, ownKey), ImportOptions{Failed: told}, WithTenant("nobody"))
	if !errors.Is(err, ErrTenantNotFound) || res.Next != 0 || store.Len() != 0 || asked.Load() > 1000 {
		t.Errorf("%+v after %d requests, %v", res, asked.Load(), err)
	}
	gone, _, _ := start(t, 0, Options{Endpoints: []string{deadEndpoint(t)}})
	res, err = gone.Import(t.Context(), numbered(10_000, ownKey), ImportOptions{Failed: told, Retries: -1})
	if !errors.Is(err, ErrNotConnected) || res.Next != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err = gone.Import(t.Context(), numbered(10, ownKey), ImportOptions{Failed: told}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Items and bytes in flight are bounded, and one that is larger than the bound is
// stored all the same.
func TestImportIsBounded(t *testing.T) {
	var items, size, mostItems, mostSize atomic.Int64
	most := func(of *atomic.Int64, now int64) {
		for old := of.Load(); now > old && !of.CompareAndSwap(old, now); old = of.Load() {
		}
	}
	store := &slowStore{do: func(_ context.Context, key, value string) error {
		n := int64(len(key) + len(value))
		most(&mostItems, items.Add(1))
		if n <= 100 {
			most(&mostSize, size.Add(n))
			defer size.Add(-n)
		}
		defer items.Add(-1)
		return nil
	}}
	all := func(yield func(ImportItem, error) bool) {
		for i := range 1000 {
			if !yield(ImportItem{Key: "k", Value: make([]byte, i%120)}, nil) || !yield(ImportItem{Key: ownKey(i), Value: make([]byte, i%120)}, nil) {
				return
			}
		}
	}
	res, err := importInto(t.Context(), store, all, ImportOptions{Workers: 5, Bytes: 100})
	if err != nil || res.Stored != 2000 || mostItems.Load() > 5 || mostSize.Load() > 100 {
		t.Errorf("%d items, %d bytes in flight, %+v, %v", mostItems.Load(), mostSize.Load(), res, err)
	}
}

// Small items travel together, each with its options, and large ones alone.
func TestImport(t *testing.T) {
	c, store, servers := start(t, 1, Options{NoRouting: true})
	if _, err := c.CreateTenant(t.Context(), NewTenant{ID: "shop"}); err != nil {
		t.Fatal(err)
	}
	var batched, single, keyed atomic.Int64
	servers[0].SetHook(func(_ context.Context, method string, req any) error {
		p, ok := req.(*pairdbv1.PutRequest)
		switch {
		case !ok:
			return nil
		case method == pairdbv1.KV_Put_FullMethodName:
			single.Add(1)
		default:
			batched.Add(1)
		}
		if len(p.GetIdempotencyKey()) > 0 {
			keyed.Add(1)
		}
		return nil
	})
	items := func(yield func(ImportItem, error) bool) {
		for i := range 1000 {
			item := ImportItem{Key: ownKey(i), Value: fmt.Append(nil, i)}
			switch {
			case i == 500:
				item.Value = make([]byte, batchedValue+1)
			case i%10 == 0:
				item.Options = []CallOption{WithIdempotencyKey("once")}
			case i == 7:
				item.Options = []CallOption{WithTenant("default")}
			}
			if !yield(item, nil) {
				return
			}
		}
	}
	var stored atomic.Int64
	opts := slices.Grow([]CallOption{WithTenant("shop")}, 4)
	res, err := c.Import(t.Context(), items, ImportOptions{Stored: func(ImportItem) { stored.Add(1) }}, opts...)
	if err != nil || res.Stored != 1000 || stored.Load() != 1000 || res.Next != 1000 || res.Bytes != 2890-3+batchedValue+1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if batched.Load() == 0 || single.Load() == 0 || keyed.Load() != 99 {
		t.Errorf("%d batched, %d single, %d keyed", batched.Load(), single.Load(), keyed.Load())
	}
	for i := range 1000 {
		tenant := "shop"
		if i == 7 {
			tenant = "default"
		}
		if v, ok := store.Value(tenant, ownKey(i)); !ok || i != 500 && string(v) != fmt.Sprint(i) {
			t.Errorf("%d: %q, %v", i, v, ok)
		}
	}
}

func TestImportOptionsAreChecked(t *testing.T) {
	c, _, _ := start(t, 0, Options{})
	for _, o := range []ImportOptions{{Workers: -1}, {Workers: MaxImportWorkers + 1}, {Bytes: -1}} {
		if _, err := c.Import(t.Context(), numbered(1, ownKey), o); CodeOf(err) != errcode.InvalidArgument {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
