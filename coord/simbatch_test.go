package coord_test

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// batchedKey is a key that is written by batches alone, each after the answer to
// the one before.
type batchedKey struct {
	name string
	// written is the number of the last write, acknowledged that of the last one
	// that was, and possible has those that may be there although they were not.
	written, acknowledged, acks int
	possible                    map[int]bool
	answered                    bool
}

// heard notes the result of the last write.
func (k *batchedKey) heard(t *testing.T, seed uint64, err error) {
	var e *coord.Error
	switch {
	case k.answered:
		t.Errorf("seed %d: %s/%d has two results", seed, k.name, k.written)
	case err == nil:
		k.acknowledged = k.written
		k.acks++
	case !errors.As(err, &e) || e.Outcome == "":
		t.Errorf("seed %d: %s/%d: %v", seed, k.name, k.written, err)
	case e.Outcome == errcode.Indeterminate:
		k.possible[k.written] = true
	}
	k.answered = true
}

// TestSimulatedBatches: nodes crash and messages are lost or come twice while
// batches are written through any node. Each item has one result, and at the end
// each key holds the last write that was acknowledged, or a later one that was in
// doubt.
func TestSimulatedBatches(t *testing.T) {
	acknowledged, doubts := 0, 0
	for seed := uint64(1); seed <= 15; seed++ {
		rng := rand.New(rand.NewPCG(seed, 17))
		w := newWorld(seed, 5, 3, newFakeDisk)
		w.net.jitter, w.net.drop, w.net.dup = 10*time.Millisecond, 0.03, 0.05
		keys := make([]*batchedKey, 40)
		for i := range keys {
			keys[i] = &batchedKey{name: "batched" + strconv.Itoa(i), possible: map[int]bool{}, answered: true}
		}
		batch := func() {
			n := w.nodes[rng.IntN(len(w.nodes))]
			if !n.up {
				return
			}
			var items []coord.Item
			var of []*batchedKey
			for _, k := range keys {
				// A node that crashed says nothing: those writes stay unanswered.
				if k.answered && rng.IntN(3) > 0 {
					k.written, k.answered = k.written+1, false
					items, of = append(items, putItem(k.name, strconv.Itoa(k.written))), append(of, k)
				}
			}
			n.coord.StartAll(items, func(i int, r coord.ItemResult) { of[i].heard(t, seed, r.Err) })
			w.after(10*time.Second, func() {
				for i, k := range of {
					if want := string(items[i].Put.Value); !k.answered && strconv.Itoa(k.written) == want {
						k.possible[k.written], k.answered = true, true
					}
				}
			})
		}
		for range 60 {
			batch()
			if n := w.nodes[rng.IntN(len(w.nodes))]; rng.IntN(15) == 0 && n.up {
				n.crash(rng, keepDisk)
				w.after(time.Duration(rng.IntN(1500))*time.Millisecond, func() {
					if !n.up {
						n.boot()
					}
				})
			}
			w.advance(time.Duration(rng.IntN(400)) * time.Millisecond)
		}
		w.advance(20 * time.Second)
		w.net.drop, w.net.dup = 0, 0
		for _, n := range w.nodes {
			if !n.up {
				n.boot()
			}
		}
		w.advance(5 * time.Second)
		for _, k := range keys {
			got := -1
			w.node("a").coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(k.name), Level: quorum.All}, func(r coord.GetResponse, err error) {
				var e *coord.Error
				switch {
				case err == nil:
					got, err = strconv.Atoi(string(r.Siblings[0].Value))
					if err != nil {
						t.Error(err)
					}
				case errors.As(err, &e) && e.Code == errcode.KeyNotFound:
					got = 0
				default:
					t.Errorf("seed %d: read %s: %v", seed, k.name, err)
				}
			})
			w.advance(5 * time.Second)
			if got != k.acknowledged && !(got > k.acknowledged && k.possible[got]) {
				t.Errorf("seed %d: %s holds write %d, of %d the last acknowledged is %d and possible are %v", seed, k.name, got, k.written, k.acknowledged, k.possible)
			}
			acknowledged += k.acks
			doubts += len(k.possible)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d writes acknowledged, %d in doubt", acknowledged, doubts)
	if doubts == 0 {
		t.Error("nothing went wrong, so this shows nothing")
	}
}
