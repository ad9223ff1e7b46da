package rpc

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// TestPendingTable runs the table against a map.
func TestPendingTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var table pendingTable
	model := make(map[uint64]time.Time)
	var gone []uint64
	now := time.Unix(0, 0)
	reply := func(coord.Reply, error) {}
	for step := range 20000 {
		switch rng.IntN(10) {
		case 0, 1, 2, 3, 4:
			d := now.Add(time.Duration(rng.IntN(1000)))
			id := table.add(pendingSlot{reply: reply, deadline: d})
			if _, twice := model[id]; twice || id == 0 {
				t.Fatalf("step %d: id %d given twice", step, id)
			}
			model[id] = d
		case 5, 6, 7:
			for id, d := range model {
				s, ok := table.take(id)
				if !ok || !s.deadline.Equal(d) {
					t.Fatalf("step %d: take %d: %v", step, id, ok)
				}
				delete(model, id)
				gone = append(gone, id)
				break
			}
		case 8:
			if len(gone) > 0 {
				if _, ok := table.take(gone[rng.IntN(len(gone))]); ok {
					t.Fatalf("step %d: taken twice", step)
				}
			}
			if _, ok := table.take(rng.Uint64()); ok {
				t.Fatalf("step %d: an id nobody gave", step)
			}
		case 9:
			now = now.Add(time.Duration(rng.IntN(200)))
			want, next := 0, time.Time{}
			for id, d := range model {
				if !d.After(now) {
					want++
					delete(model, id)
					gone = append(gone, id)
				} else if next.IsZero() || d.Before(next) {
					next = d
				}
			}
			if over := table.sweep(now); len(over) != want || !table.next.Equal(next) {
				t.Fatalf("step %d: %d over, want %d; next %v, want %v", step, len(over), want, table.next, next)
			}
		}
		if table.count != len(model) {
			t.Fatalf("step %d: count %d, want %d", step, table.count, len(model))
		}
	}
	if all := table.clear(); len(all) != len(model) || table.count != 0 {
		t.Errorf("cleared %d of %d", len(all), len(model))
	}
}

// TestOutboxStaysSmall: a queue that is never empty does not creep.
func TestOutboxStaysSmall(t *testing.T) {
	p := newPeer(&Peers{opts: PeersOptions{Cluster: func() ring.ClusterID { return testCluster }}}, nodeB)
	o := &p.mu.lanes[LaneSmall]
	push := func() {
		f := &pendingFrame{buf: new([]byte)}
		o.push(f)
		o.add(f, 10)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	push()
	for i := range 100000 {
		push()
		if f := o.take(func() bool { return false }); f.seq != uint64(i+1) {
			t.Fatalf("frame %d at place %d", f.seq, i+1)
		}
	}
	if o.items != 1 || o.bytes != 10 || cap(o.frames) > 512 {
		t.Errorf("%d items, %d bytes, room for %d frames", o.items, o.bytes, cap(o.frames))
	}
	if frames := o.drop(); len(frames) != 1 || !o.empty() || o.takenSeq != o.lastSeq {
		t.Errorf("dropped %d", len(frames))
	}
}
