package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// register is one key with a single writer. Its values are 1, 2, 3, …
type register struct {
	key string
	// acked is the last value acknowledged, tried the last one sent.
	acked, tried int
	// retired registers had an indeterminate write: values in (acked, tried]
	// may or may not be there.
	retired bool
}

// load writes registers from several clients until it is stopped, and knows
// what may be read back afterwards.
type load struct {
	t    *testing.T
	stop chan struct{}
	once sync.Once // closes stop
	wg   sync.WaitGroup
	acks atomic.Int64
	// dark is odd while acknowledgements are no promise: see power.
	dark  atomic.Int64
	mu    sync.Mutex
	regs  []*register
	fails map[errcode.Code]int
}

// startLoad runs writers single-writer loops over the given endpoints, until end is called
// or the test ends: without their nodes they would take all of the machine from the tests
// that come after.
func startLoad(t *testing.T, endpoints []string, writers int) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{}), fails: map[errcode.Code]int{}}
	for w := range writers {
		// Each writer prefers another node.
		own := append(append([]string{}, endpoints[w%len(endpoints):]...), endpoints[:w%len(endpoints)]...)
		c, err := client.New(client.Options{Endpoints: own, NoRouting: true, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		l.wg.Go(func() {
			defer func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}()
			l.write(w, c)
		})
	}
	t.Cleanup(l.end)
	return l
}

// TestLoadEndsWithItsTest: one that is left by a test that fails does not go on.
func TestLoadEndsWithItsTest(t *testing.T) {
	var l *load
	t.Run("left", func(t *testing.T) { l = startLoad(t, []string{"127.0.0.1:1"}, 4) })
	select {
	case <-l.stop:
	default:
		t.Error("its writers go on")
	}
}

func (l *load) write(w int, c *client.Client) {
	var r *register
	for n := 0; ; {
		select {
		case <-l.stop:
			return
		default:
		}
		// A register of its own now and then: many keys and long ones.
		if r == nil || r.retired || r.tried%50 == 49 {
			n++
			r = &register{key: fmt.Sprintf("reg/%d/%d", w, n)}
			l.mu.Lock()
			l.regs = append(l.regs, r)
			l.mu.Unlock()
		}
		r.tried++
		dark := l.dark.Load()
		_, err := c.Put(context.Background(), r.key, []byte(strconv.Itoa(r.tried)), client.WithLevel(client.LevelQuorum))
		if err == nil && (dark%2 == 1 || l.dark.Load() != dark) {
			r.retired = true
			continue
		}
		if err == nil {
			r.acked = r.tried
			l.acks.Add(1)
			continue
		}
		var e *client.Error
		if !errors.As(err, &e) {
			l.t.Errorf("put %s: untyped error %v", r.key, err)
			return
		}
		l.mu.Lock()
		l.fails[e.Code]++
		l.mu.Unlock()
		if e.Outcome != errcode.NotApplied {
			r.retired = true
		}
	}
}

// power says that the power is cut, or back. In between an acknowledgement is
// no promise, see kerneltest.Loop.Cut: the write may or may not be there.
func (l *load) power() { l.dark.Add(1) }

// end stops the writers and waits for them; again is no error.
func (l *load) end() {
	l.once.Do(func() { close(l.stop) })
	l.wg.Wait()
}

// waitAcks waits until n writes were acknowledged.
func (l *load) waitAcks(n int64) {
	l.t.Helper()
	if err := poll(60*time.Second, func() (bool, error) { return l.acks.Load() >= n, nil }); err != nil {
		l.t.Fatalf("only %d of %d writes were acknowledged: %v", l.acks.Load(), n, err)
	}
}

// verify reads every register at QUORUM through c and compares. It says how many there
// are: one whose first write failed may never have come to be.
func (l *load) verify(c *client.Client) (found int) {
	l.t.Helper()
	lost, retired := 0, 0
	for _, r := range l.regs {
		got := 0
		res, err := c.Get(context.Background(), r.key, client.WithLevel(client.LevelQuorum))
		switch {
		case err == nil:
			found++
			if got, err = strconv.Atoi(string(res.Siblings[0].Value)); err != nil {
				l.t.Errorf("%s: value %q was never written", r.key, res.Siblings[0].Value)
				continue
			}
		case client.CodeOf(err) != errcode.KeyNotFound:
			l.t.Errorf("get %s: %v", r.key, err)
			continue
		}
		high := r.acked
		if r.retired {
			high, retired = r.tried, retired+1
		}
		if got < r.acked || got > high {
			lost++
			l.t.Errorf("%s: read %d, want %d..%d", r.key, got, r.acked, high)
		}
	}
	l.t.Logf("checked %d registers, %d acknowledged writes, %d retired after an indeterminate write, %d lost; failures while faulty: %v",
		len(l.regs), l.acks.Load(), retired, lost, l.fails)
	return found
}
