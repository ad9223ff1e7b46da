package coord_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
)

// turns are changes of the layout of different kinds.
var turns = []struct {
	name      string
	rf        int
	old, next []int
	// to is how many copies there are to be, 0 for as many as before.
	to int
}{
	{"one joins", 3, []int{0, 1, 2}, []int{0, 1, 2, 3}, 0},
	{"two join one", 3, []int{0}, []int{0, 1, 2}, 0},
	{"one is replaced", 3, []int{0, 1, 2}, []int{0, 1, 3}, 0},
	{"all are replaced", 3, []int{0, 1, 2}, []int{3, 4, 5}, 0},
	{"all of many", 7, []int{0, 1, 2, 3, 4, 5, 6}, []int{7, 8, 9, 10, 11, 12, 13}, 0},
	{"five become three", 5, []int{0, 1, 2, 3, 4}, []int{0, 1, 2}, 0},
	{"one copy moves", 1, []int{0}, []int{1}, 0},
	{"two copies", 2, []int{0, 1}, []int{1, 2}, 0},
	{"three copies become five", 3, []int{0, 1, 2, 3, 4}, []int{0, 1, 2, 3, 4}, 5},
	{"five copies become two", 5, []int{0, 1, 2, 3, 4}, []int{0, 1, 2, 3, 4}, 2},
	{"one copy becomes three", 1, []int{0, 1, 2}, []int{0, 1, 2}, 3},
	{"two copies become more than nodes", 2, []int{0, 1, 2}, []int{0, 1, 2}, 6},
	{"three copies become two while one joins", 3, []int{0, 1, 2}, []int{0, 1, 2, 3}, 2},
	{"one copy becomes four while all are replaced", 1, []int{0, 1}, []int{2, 3, 4, 5}, 4},
}

// eachStage runs f for every change, as it is in each of its stages at all nodes.
func eachStage(t *testing.T, f func(t *testing.T, w *moving, at int)) {
	for _, turn := range turns {
		for at := stable; at <= finalized; at++ {
			t.Run(fmt.Sprintf("%s, %d", turn.name, at), func(t *testing.T) {
				w := newMovingTo(t, turn.rf, cmp.Or(turn.to, turn.rf), turn.old, turn.next)
				w.everywhere(at)
				f(t, w, at)
				w.settle()
				for _, n := range w.nodes {
					if under := n.coord.UnderWay(); under != 0 {
						t.Errorf("%d operations and callbacks are left at %s", under, n.id.Short())
					}
				}
			})
		}
	}
}

// call runs an operation until it has answered.
func call[R any](w *moving, start func(done func(R, error))) (res R, err error) {
	w.t.Helper()
	answered := false
	start(func(r R, e error) { res, err, answered = r, e, true })
	w.run(time.Minute, func() bool { return answered })
	if !answered {
		w.t.Fatal("there is no answer")
	}
	return res, err
}

func (w *moving) put(n *movingNode, r coord.PutRequest) (coord.WriteResponse, error) {
	w.t.Helper()
	return call(w, func(done func(coord.WriteResponse, error)) { n.coord.StartPut(r, done) })
}

// read is what a read finds, "" for nothing.
func (w *moving) read(n *movingNode, tenant, key string, l quorum.Level) string {
	w.t.Helper()
	res, err := call(w, func(done func(coord.GetResponse, error)) {
		n.coord.StartGet(coord.GetRequest{Tenant: tenant, Key: []byte(key), Level: l}, done)
	})
	if notFound(err) {
		return ""
	}
	if err != nil {
		w.t.Fatalf("read through %s: %v", n.id.Short(), err)
	}
	return string(res.Siblings[0].Value)
}

func notFound(err error) bool {
	var e *coord.Error
	return errors.As(err, &e) && e.Code == errcode.KeyNotFound
}

// on is a bit for each owner that has a write on disk.
func (w *moving) on(s ring.Sets, tenant ring.TenantNumber, key string, d causal.Dot) uint16 {
	return w.having(s.Owners, func(n *movingNode) bool {
		o := n.object(n.synced, coord.Address{Tenant: tenant, Key: []byte(key)})
		return o.Context.Covers(d)
	})
}

func (w *moving) number(tenant string) ring.TenantNumber {
	t, ok := w.log[0].Tenant(tenant)
	if !ok {
		w.t.Fatal("there is no tenant", tenant)
	}
	return t.Number
}

// write runs the k-th kind of write of a key.
func (w *moving) write(n *movingNode, k int, tenant, key string, l quorum.Level) (coord.WriteResponse, error) {
	w.t.Helper()
	put := coord.PutRequest{Tenant: tenant, Key: []byte(key), Level: l, Value: []byte("v")}
	switch k % 3 {
	case 0:
		return w.put(n, put)
	case 1:
		return call(w, func(done func(coord.WriteResponse, error)) {
			n.coord.StartDelete(coord.DeleteRequest{Tenant: tenant, Key: []byte(key), Level: l}, done)
		})
	}
	beside := put
	beside.Key = []byte(key + " beside")
	return call(w, func(done func(coord.WriteResponse, error)) {
		var of [2]coord.ItemResult
		left := 2
		n.coord.StartAll([]coord.Item{{Put: &put}, {Put: &beside}}, func(i int, r coord.ItemResult) {
			of[i] = r
			if left--; left == 0 {
				done(of[0].Write, errors.Join(of[0].Err, of[1].Err))
			}
		})
	})
}

// TestWritesHaveTheirLevelInBothSets: through whatever node they come. Only those that
// are read mint.
func TestWritesHaveTheirLevelInBothSets(t *testing.T) {
	eachStage(t, func(t *testing.T, w *moving, at int) {
		for _, tenant := range movingTenants {
			key := w.moves(tenant, 1)[0]
			s := w.sets(tenant, key, at)
			mints := func(n *movingNode) bool { return n.mints > 0 }
			for _, l := range []quorum.Level{quorum.One, quorum.Quorum, quorum.All} {
				goal := quorum.Goal{First: quorum.Of(l, s.W1), Second: quorum.Of(l, s.W2)}
				for k, n := range w.nodes {
					for _, n := range w.nodes {
						n.mints = 0
					}
					res, err := w.write(n, k, tenant, key, l)
					if err != nil {
						t.Fatalf("%v through %s: %v", l, n.id.Short(), err)
					}
					if on := w.on(s, w.number(tenant), key, res.Dot); !goal.Met(on) {
						t.Fatalf("%v through %s: it is at %b, of %b and %b", l, n.id.Short(), on, s.W1, s.W2)
					}
					if res.Acks < goal.First.Need || res.Replicas != bits.OnesCount16(s.W1) {
						t.Fatalf("%v through %s: %d of %d owners are told", l, n.id.Short(), res.Acks, res.Replicas)
					}
					if k%3 < 2 && w.having(s.Owners, mints)&^s.R1 != 0 {
						t.Fatalf("%v through %s: minted by %b, %b are read", l, n.id.Short(), w.having(s.Owners, mints), s.R1)
					}
				}
			}
		}
	})
}

// plant gives one node a write that no other has, as its coordinator's death leaves it.
func (w *moving) plant(id ring.NodeID, tenant, key string, o *causal.Object) {
	n := w.nodes[id[0]-1]
	at := movingKey(coord.Address{Tenant: w.number(tenant), Key: []byte(key)}, nil)
	n.live[at] = o.Append(nil)
	n.synced[at] = n.live[at]
}

// TestNoReadGoesBack: what a read has shown at one stage is shown at all later ones,
// though only one owner had it, and nobody has fetched anything. It goes for gets and
// for scans, and for a value and a delete.
func TestNoReadGoesBack(t *testing.T) {
	for _, scans := range []bool{false, true} {
		for _, l := range []quorum.Level{quorum.Quorum, quorum.All} {
			eachStage(t, func(t *testing.T, w *moving, at int) {
				for _, tenant := range movingTenants {
					// From the first, one in the middle, and the last owner.
					for i, key := range w.moves(tenant, 3) {
						dot := causal.Dot{Actor: 99, Counter: uint64(i + 1)}
						first := causal.Mint(&causal.Object{}, nil, causal.Sibling{Dot: dot, HLC: 1, Value: []byte("half")})
						s := w.sets(tenant, key, at)
						w.noReadGoesBack(t, at, tenant, key, &first, s.Owners[len(s.Owners)*i/2-i/2], scans, l)
					}
				}
			})
		}
	}
}

func (w *moving) noReadGoesBack(t *testing.T, at int, tenant, key string, o *causal.Object, half ring.NodeID, scans bool, l quorum.Level) {
	t.Helper()
	w.everywhere(at)
	w.plant(half, tenant, key, o)
	show := func(n *movingNode) string {
		if !scans {
			return w.read(n, tenant, key, l)
		}
		res, err := call(w, func(done func(coord.ScanResponse, error)) {
			n.coord.StartScan(coord.ScanRequest{Tenant: tenant, Level: l, Start: []byte(key), End: append([]byte(key), 0)}, done)
		})
		if err != nil {
			t.Fatalf("scan through %s: %v", n.id.Short(), err)
		}
		if len(res.Items) == 0 {
			return ""
		}
		return string(res.Items[0].Siblings[0].Value)
	}
	shown, by := false, ring.NodeID{}
	for ; at <= finalized; at++ {
		w.everywhere(at)
		for _, n := range w.nodes[:min(len(w.nodes), 6)] {
			switch got := show(n); {
			case got != "":
				shown, by = true, n.id
			case shown:
				t.Fatalf("%s has shown %q, which only %s had; %s does not, at stage %d", by.Short(), key, half.Short(), n.id.Short(), at)
			}
		}
	}
	if l == quorum.All && !shown && w.having(w.sets(tenant, key, finalized).Owners, func(n *movingNode) bool { return n.id == half }) != 0 {
		t.Fatal("a read at ALL has not seen it")
	}
}
