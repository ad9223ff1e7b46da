package coord_test

import (
	"cmp"
	"errors"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// movingOps are operations on one key, by name; each returns what names its outcome.
func (w *moving) movingOps(tenant, key string, l quorum.Level) map[string]func(n *movingNode) error {
	ops := map[string]func(n *movingNode) error{
		"put": func(n *movingNode) error {
			_, err := w.put(n, coord.PutRequest{Tenant: tenant, Key: []byte(key), Level: l, Value: []byte("v")})
			return err
		},
		"put if": func(n *movingNode) error {
			_, err := w.put(n, coord.PutRequest{Tenant: tenant, Key: []byte(key + "absent"), IfAbsent: true, Level: l, Value: []byte("v")})
			return err
		},
		"delete": func(n *movingNode) error {
			_, err := call(w, func(done func(coord.WriteResponse, error)) {
				n.coord.StartDelete(coord.DeleteRequest{Tenant: tenant, Key: []byte(key), Level: l}, done)
			})
			return err
		},
		"get": func(n *movingNode) error {
			w.read(n, tenant, key, l)
			return nil
		},
		"scan": func(n *movingNode) error {
			_, err := call(w, func(done func(coord.ScanResponse, error)) {
				n.coord.StartScan(coord.ScanRequest{Tenant: tenant, Level: l}, done)
			})
			return err
		},
	}
	if tenant == movingTenants[0] {
		ops["once"] = func(n *movingNode) error {
			_, err := w.put(n, coord.PutRequest{Tenant: tenant, Key: []byte(key), Level: l, Value: []byte("v"), IdempotencyKey: []byte("id")})
			return err
		}
	}
	return ops
}

// TestEverybodyCatchesUp: an operation succeeds whatever versions of the ring its
// coordinator and the owners know when it begins.
func TestEverybodyCatchesUp(t *testing.T) {
	for _, turn := range turns {
		if turn.rf == 7 {
			continue
		}
		for at := stable; at <= finalized; at++ {
			for others := stable; others <= finalized; others++ {
				w := newMovingTo(t, turn.rf, cmp.Or(turn.to, turn.rf), turn.old, turn.next)
				w.scanned = func(n *movingNode, r *coord.ScanRange) {
					if known, _ := n.view().TenantByNumber(r.Tenant); known.Class() != r.Class {
						t.Errorf("%s: %s is scanned as one of %v, and is of %v", turn.name, known.Name, r.Class, known.Class())
					}
				}
				for _, tenant := range movingTenants {
					key := w.moves(tenant, 1)[0]
					for name, op := range w.movingOps(tenant, key, quorum.All) {
						for _, n := range w.nodes {
							w.everywhere(others)
							n.at = at
							if err := op(n); err != nil && name != "put if" {
								t.Errorf("%s: %s through %s, which is at %d, the others at %d: %v", turn.name, name, n.id.Short(), at, others, err)
							}
							w.settle()
						}
					}
				}
			}
		}
	}
}

// TestRingMovesAllTheTime: an operation succeeds while the ring moves under it again
// and again, at each node just before that serves the message with one number, and what
// has been minted stays what it is.
func TestRingMovesAllTheTime(t *testing.T) {
	for _, turn := range turns {
		if turn.rf == 7 {
			continue
		}
		for each := 1; each <= 4; each++ {
			for _, local := range []bool{false, true} {
				w := newMovingTo(t, turn.rf, cmp.Or(turn.to, turn.rf), turn.old, turn.next)
				for _, tenant := range movingTenants {
					key := w.moves(tenant, 1)[0]
					for name, op := range w.movingOps(tenant, key, quorum.Quorum) {
						for i, n := range w.nodes {
							w.everywhere(stable)
							mints := 0
							for _, n := range w.nodes {
								n.mints = 0
								n.before = nil
							}
							steps, seen := 0, 0
							step := func(n *movingNode) {
								if seen++; seen%each == 0 && steps < finalized {
									steps++
									n.at = max(n.at, steps)
								}
							}
							w.deliver = nil
							if local {
								for _, n := range w.nodes {
									n.before = func() { step(n) }
								}
							} else {
								w.deliver = func(_, to *movingNode, _ *coord.Message) { step(to) }
							}
							if err := op(n); err != nil && (name != "put if" || !isCode(err, errcode.PreconditionFailed)) {
								t.Errorf("%s, each %d, local %v: %s through %d: %v", turn.name, each, local, name, i, err)
							}
							w.settle()
							for _, n := range w.nodes {
								mints += n.mints
							}
							if (name == "put" || name == "delete") && mints != 1 {
								t.Errorf("%s, each %d, local %v: %s through %d was minted %d times", turn.name, each, local, name, i, mints)
							}
						}
					}
				}
			}
		}
	}
}

func isCode(err error, code errcode.Code) bool {
	var e *coord.Error
	return errors.As(err, &e) && e.Code == code
}

// TestOnceAcrossAChange: an attempt at each stage is the same write.
func TestOnceAcrossAChange(t *testing.T) {
	for _, turn := range turns {
		for from := stable; from <= finalized; from++ {
			w := newMovingTo(t, turn.rf, cmp.Or(turn.to, turn.rf), turn.old, turn.next)
			tenant := movingTenants[0]
			key := w.moves(tenant, 1)[0]
			var first coord.WriteResponse
			for at := from; at <= finalized; at++ {
				w.everywhere(at)
				if at == proposed && from == stable {
					w.copyAll(tenant, key)
				}
				for i, n := range w.nodes {
					res, err := w.put(n, coord.PutRequest{Tenant: tenant, Key: []byte(key), Value: []byte("v"), IdempotencyKey: []byte("id")})
					if err != nil {
						t.Fatalf("%s from %d, at %d through %d: %v", turn.name, from, at, i, err)
					}
					if first.Dot.IsZero() {
						first = res
					} else if res.Dot != first.Dot || !res.Duplicate {
						t.Fatalf("%s from %d, at %d through %d: %+v, first %+v", turn.name, from, at, i, res, first)
					}
				}
			}
		}
	}
}

// copyAll gives all nodes what one has of a key, records and all.
func (w *moving) copyAll(tenant, key string) {
	owner := w.sets(tenant, key, stable).Owners[0]
	for k, v := range w.nodes[owner[0]-1].synced {
		for _, n := range w.nodes {
			n.live[k], n.synced[k] = v, v
		}
	}
}

// gainer finds a key that one node gains, and it.
func (w *moving) gainer(tenant string) (key string, n *movingNode) {
	key = w.moves(tenant, 1)[0]
	s := w.sets(tenant, key, proposed)
	for i, id := range s.Owners {
		if s.W1>>i&1 == 0 {
			return key, w.nodes[id[0]-1]
		}
	}
	w.t.Fatal("nobody gains")
	return "", nil
}

// TestGainerWaits: a node that is about to own a key serves nothing of it before it
// knows what was confirmed, and then all that has waited.
func TestGainerWaits(t *testing.T) {
	for _, tenant := range movingTenants {
		w := newMoving(t, 3, []int{0, 1, 2}, []int{0, 1, 2, 3})
		w.everywhere(proposed)
		key, g := w.gainer(tenant)
		g.unknown = true
		answered := 0
		for i, l := range []quorum.Level{quorum.Quorum, quorum.All} {
			w.nodes[0].coord.StartPut(coord.PutRequest{Tenant: tenant, Key: []byte(key), Level: l, Value: []byte("v")}, func(_ coord.WriteResponse, err error) {
				if err != nil {
					t.Error(err)
				}
				answered++
			})
			w.run(100*time.Millisecond, func() bool { return false })
			if answered != 1 || g.gained != 0 || len(g.live) != 0 {
				t.Fatalf("%v: %d have been answered, the gainer took %d", l, answered, g.gained)
			}
			if i == 0 && w.read(g, tenant, key, quorum.Quorum) != "v" {
				t.Fatal("a read through the gainer misses the write")
			}
			if i == 0 {
				continue
			}
			g.know()
			w.settle()
			if answered != 2 || g.gained < 2 {
				t.Fatalf("%d have been answered, the gainer took %d", answered, g.gained)
			}
		}
	}
}

// TestGainerWaitsNoLonger: what waits at a gainer that never gets to know ends by its
// deadline, and so does a scan that this node coordinates itself.
func TestGainerWaitsNoLonger(t *testing.T) {
	w := newMoving(t, 1, []int{0}, []int{1})
	w.everywhere(proposed)
	tenant := movingTenants[0]
	key, g := w.gainer(tenant)
	g.unknown = true
	_, err := w.put(w.nodes[0], coord.PutRequest{Tenant: tenant, Key: []byte(key), Value: []byte("v")})
	if !isCode(err, errcode.Timeout) {
		t.Errorf("put: %v", err)
	}
	_, err = call(w, func(done func(coord.ScanResponse, error)) {
		g.coord.StartScan(coord.ScanRequest{Tenant: tenant}, done)
	})
	if err == nil {
		t.Error("a scan has shown what may have been collected")
	}
	w.settle()
	if under := g.coord.UnderWay(); under != 0 || len(g.live) != 0 {
		t.Errorf("%d are under way, the gainer has taken %d", under, len(g.live))
	}
	// And then it is as if nothing had been.
	g.know()
	if _, err = w.put(w.nodes[0], coord.PutRequest{Tenant: tenant, Key: []byte(key), Value: []byte("v")}); err != nil {
		t.Error(err)
	}
}

// TestGainerTakesNoMore than it has room for.
func TestGainerTakesNoMore(t *testing.T) {
	w := newMoving(t, 3, []int{0, 1, 2}, []int{0, 1, 2, 3})
	w.everywhere(proposed)
	tenant := movingTenants[0]
	key, g := w.gainer(tenant)
	g.unknown = true
	var m coord.Message
	w.deliver = func(_, to *movingNode, got *coord.Message) {
		if to == g {
			m = *got
		}
	}
	w.nodes[0].coord.StartPut(coord.PutRequest{Tenant: tenant, Key: []byte(key), Value: []byte("v")}, func(coord.WriteResponse, error) {})
	w.settle()
	if m.Op != coord.OpMerge {
		t.Fatal("the gainer got no merge")
	}
	m.Deadline = time.Time{}
	for name, c := range map[string]struct{ n, size int }{"messages": {5000, 100}, "bytes": {50, 2 << 20}} {
		refused, served := 0, 0
		g.unknown = true
		m.Body = append(m.Body[:0:0], m.Body...)
		for range c.n {
			big := m
			big.Op, big.Body = coord.OpLookup, make([]byte, c.size)
			g.coord.HandlePeer(movingID(0), []coord.Message{big}, func(_ int, r coord.Reply) {
				if r.Status == coord.StatusOverloaded {
					refused++
				} else {
					served++
				}
			})
		}
		if refused == 0 || served != 0 {
			t.Errorf("of %d %s %d are refused, %d served", c.n, name, refused, served)
		}
		g.know()
		w.settle()
		if refused+served != c.n || served < 10 {
			t.Errorf("of %d %s %d are refused, %d served in the end", c.n, name, refused, served)
		}
	}
}

// TestFailuresLookAtTheNewerRing: an operation whose owners are gone goes on under the
// newer ring that its coordinator has learned meanwhile, instead of failing.
func TestFailuresLookAtTheNewerRing(t *testing.T) {
	for name := range map[string]bool{"put": true, "get": true, "scan": true, "once": true} {
		w := newMoving(t, 3, []int{0, 1, 2}, []int{3, 4, 5})
		tenant := movingTenants[0]
		key := w.moves(tenant, 1)[0]
		w.everywhere(stable)
		c := w.nodes[0]
		for _, n := range w.nodes[1:3] {
			n.down = true
		}
		for _, n := range w.nodes[3:] {
			n.at = finalized
		}
		w.deliver = nil
		w.later(500*time.Microsecond, func() { c.at = finalized })
		if err := w.movingOps(tenant, key, quorum.Quorum)[name](c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
