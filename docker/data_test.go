package docker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pairdb/pairdb/client"
)

// workers is how many operations the tests keep under way.
const workers = 16

// data is numbered keys of which the first n were acknowledged at QUORUM.
type data struct{ n int }

func key(i int) string { return fmt.Sprintf("key/%06d", i) }

func value(i int) string { return strings.Repeat(fmt.Sprintf("value %d ", i), 40) }

// dial gives a client of one node, by its published port.
func dial(t *testing.T, c *container, tenant string) *client.Client {
	t.Helper()
	at, err := c.published("50051/tcp")
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Options{Endpoints: []string{at}, NoRouting: true, Tenant: tenant})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	return cl
}

// write writes so many more keys through a node. Each has to succeed.
func (d *data) write(t *testing.T, c *container, more int) {
	t.Helper()
	cl := dial(t, c, "")
	each(t, more, func(ctx context.Context, i int) error {
		_, err := cl.Put(ctx, key(d.n+i), []byte(value(d.n+i)), client.WithLevel(client.LevelQuorum))
		return err
	})
	d.n += more
}

// compare reads all keys through a node. Each has to be there, as it was written.
func (d *data) compare(t *testing.T, c *container, level client.Level) {
	t.Helper()
	cl := dial(t, c, "")
	each(t, d.n, func(ctx context.Context, i int) error {
		res, err := cl.Get(ctx, key(i), client.WithLevel(level))
		if err == nil && string(res.Siblings[0].Value) != value(i) {
			err = fmt.Errorf("it holds %.40q", res.Siblings[0].Value)
		}
		if err != nil {
			return fmt.Errorf("%s at %v: %w", key(i), level, err)
		}
		return nil
	})
}

// each calls f for 0 to n-1 from several workers, and ends the test if one failed.
func each(t *testing.T, n int, f func(ctx context.Context, i int) error) {
	t.Helper()
	var next, failed atomic.Int64
	var first atomic.Pointer[error]
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() < 100; i = int(next.Add(1)) - 1 {
				if err := f(shared.ctx, i); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if k := failed.Load(); k > 0 {
		t.Fatalf("%d of at most %d failed, the first: %v", k, n, *first.Load())
	}
}
