package e2e

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// The ports of a node on a lan that tests cut.
const (
	lanPeerPort   = 50052
	lanGossipPort = 7946
)

// through is what the clients of one node met while a port was cut.
type through struct {
	mu      sync.Mutex
	acked   []string
	fails   map[errcode.Code]int
	first   error
	slowest time.Duration
	// late are those that failed, and took longer than soon for that.
	late int
}

// soon is how long nobody minds to wait for a refusal.
const soon = time.Second

func (w *through) note(key string, took time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slowest = max(w.slowest, took)
	if err == nil {
		w.acked = append(w.acked, key)
		return
	}
	if w.first == nil {
		w.first = err
	}
	w.fails[client.CodeOf(err)]++
	if took > soon {
		w.late++
	}
}

func (w *through) failed() (n int) {
	for _, times := range w.fails {
		n += times
	}
	return n
}

// writeThrough writes at QUORUM through every node until stop is closed, and reads
// each key through the next node.
func (s *storm) writeThrough(what string, stop <-chan struct{}) []*through {
	seen := make([]*through, len(s.agents))
	var wg sync.WaitGroup
	for i := range s.agents {
		w := &through{fails: map[errcode.Code]int{}}
		seen[i] = w
		for worker := range 2 {
			wg.Go(func() {
				pace := time.NewTicker(20 * time.Millisecond)
				defer pace.Stop()
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					case <-pace.C:
					}
					key := fmt.Sprintf("%s/%d/%d/%d", what, i, worker, n)
					began := time.Now()
					_, err := s.clients[i].Put(s.t.Context(), key, []byte(key), client.WithLevel(client.LevelQuorum))
					w.note(key, time.Since(began), err)
					if err != nil {
						continue
					}
					res, err := s.clients[(i+1)%len(s.clients)].Get(s.t.Context(), key, client.WithLevel(client.LevelQuorum))
					switch {
					case errors.Is(err, client.ErrKeyNotFound):
						s.wrong("%s: %s was acknowledged and is not found", what, key)
					case err == nil && string(res.Siblings[0].Value) != key:
						s.wrong("%s: %s reads %q", what, key, res.Siblings[0].Value)
					}
				}
			})
		}
	}
	wg.Wait()
	return seen
}

// cutPortUnderLoad cuts one port of the last node for a time, with clients at every
// node; mended, all nodes are healthy again by themselves and have every write that
// was acknowledged, through each.
func cutPortUnderLoad(t *testing.T, what string, port int) []*through {
	const settle, cut = 8 * time.Second, 5 * time.Second
	s := newStorm(t, 1, 3)
	last := len(s.agents) - 1
	load := func(what string, d time.Duration) []*through {
		stop := make(chan struct{})
		time.AfterFunc(d, func() { close(stop) })
		seen := s.writeThrough(what, stop)
		for i, w := range seen {
			t.Logf("%s: through node-%d %d writes were acknowledged, %v failed, the slowest took %s", what, i+1, len(w.acked), w.fails, w.slowest.Round(time.Millisecond))
			if w.first != nil {
				t.Logf("%s: the first: %v", what, w.first)
			}
			// The client gives up after its patience, and hears of that when there is a processor for it.
			if w.slowest > 2*patience {
				t.Errorf("%s: an operation through node-%d took %s", what, i+1, w.slowest)
			}
		}
		return seen
	}
	acked := func(all ...[]*through) (keys []string) {
		for _, seen := range all {
			for _, w := range seen {
				keys = append(keys, w.acked...)
			}
		}
		return keys
	}
	began := time.Now()
	s.lan.cutPort(last, port)
	early := load(what+": at first", settle)
	late := load(what+": settled", cut)
	s.lan.mendPort(last, port)
	mended := time.Now()
	s.waitHealthy()
	t.Logf("%s: cut for %s, healthy %s after it was mended", what, mended.Sub(began).Round(time.Millisecond), time.Since(mended).Round(time.Millisecond))
	for i, w := range late {
		if n := w.failed(); w.late*10 > n {
			t.Errorf("%s: through node-%d %d of %d writes that fail are told so after more than %s", what, i+1, w.late, n, soon)
		}
	}
	for i, w := range append(early[:last:last], late[:last]...) {
		// The first requests may have waited for the node that does not answer.
		if len(w.acked) == 0 || w.failed()*50 > len(w.acked) {
			t.Errorf("%s: through a node whose ports are open (%d) %d writes failed and %d were taken: %v", what, i, w.failed(), len(w.acked), w.first)
		}
	}
	for i, key := range acked(early, late) {
		res, err := s.clients[i%len(s.clients)].Get(t.Context(), key, client.WithLevel(client.LevelQuorum))
		if err != nil || string(res.Siblings[0].Value) != key {
			t.Fatalf("%s: %s was acknowledged: %v", what, key, err)
		}
	}
	return late
}

// TestGossipPortCut: of one node gossip is cut, by UDP and TCP, and all else goes
// through. The others take it for dead and it takes them for dead, but its requests
// reach them, so clients at each node go on.
func TestGossipPortCut(t *testing.T) {
	t.Parallel()
	late := cutPortUnderLoad(t, "gossip cut", lanGossipPort)
	w := late[len(late)-1]
	if len(w.acked) == 0 || w.failed()*50 > len(w.acked) {
		t.Errorf("through the node that hears no gossip %d writes failed and %d were taken: %v", w.failed(), len(w.acked), w.first)
	}
}

// TestPeerPortCut: of one node the port between nodes is cut, and gossip goes
// through, so that membership finds nothing wrong. Clients at the others go on, and
// those at that node are told soon that the level cannot be met.
func TestPeerPortCut(t *testing.T) {
	t.Parallel()
	late := cutPortUnderLoad(t, "peer port cut", lanPeerPort)
	w := late[len(late)-1]
	if len(w.acked) > 0 {
		t.Errorf("through the node that reaches no other, %d writes were acknowledged at QUORUM", len(w.acked))
	}
	for code := range w.fails {
		if code != errcode.QuorumNotReached && code != errcode.Timeout && code != errcode.Unavailable {
			t.Errorf("through the node that reaches no other writes fail with %s: %v", code, w.first)
		}
	}
}
