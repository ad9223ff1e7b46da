package coord_test

import (
	"fmt"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
)

// deletedOps are operations of a tenant that may be deleted; each returns its error.
func (w *moving) deletedOps(tenant, key string, l quorum.Level) map[string]func(n *movingNode) error {
	ops := w.movingOps(tenant, key, l)
	ops["get"] = func(n *movingNode) error {
		_, err := call(w, func(done func(coord.GetResponse, error)) {
			n.coord.StartGet(coord.GetRequest{Tenant: tenant, Key: []byte(key), Level: l}, done)
		})
		if notFound(err) {
			return nil
		}
		return err
	}
	return ops
}

// TestDeletedTenantIsFinal: who does not know yet that a tenant was deleted is told so by
// the first owner that does, and does not ask again.
func TestDeletedTenantIsFinal(t *testing.T) {
	for _, others := range []int{deleted, created} {
		w := newMoving(t, 3, []int{0, 1, 2}, []int{0, 1, 2, 3})
		for _, tenant := range movingTenants {
			for name, op := range w.deletedOps(tenant, "k", quorum.All) {
				for _, n := range w.nodes {
					w.everywhere(others)
					n.at = finalized
					began := w.now
					if err := op(n); !isCode(err, errcode.TenantNotFound) {
						t.Errorf("%s through %s, to which it was not said: %v", name, n.id.Short(), err)
					}
					if took := w.now.Sub(began); took > 100*movingStep {
						t.Errorf("%s through %s takes %v", name, n.id.Short(), took)
					}
					w.settle()
				}
			}
		}
		w.nothingOfNewTenants(t)
	}
}

// TestTenantDeletedMeanwhile: an operation during which its tenant is deleted, and another
// one is created that is called the same, at each node just before that serves the message
// with one number, or writes, or is answered, ends as if it came before, or says that the tenant is no more. Nothing
// of it is done in the new tenant.
func TestTenantDeletedMeanwhile(t *testing.T) {
	for _, to := range []int{deleted, created} {
		for first := 1; first <= 12; first++ {
			for _, when := range []string{"asked", "writing", "answered"} {
				w := newMoving(t, 3, []int{0, 1, 2}, []int{0, 1, 2, 3})
				for _, tenant := range movingTenants {
					for name, op := range w.deletedOps(tenant, "k", quorum.Quorum) {
						for _, n := range w.nodes {
							what := fmt.Sprintf("%d, from %d on, when %s: %s through %s", to, first, when, name, n.id.Short())
							w.everywhere(finalized)
							seen := 0
							step := func(n *movingNode) {
								if seen++; seen >= first {
									n.at = to
								}
							}
							for _, n := range w.nodes {
								n.before = nil
								if when == "writing" {
									n.before = func() { step(n) }
								}
							}
							w.deliver, w.heard = nil, nil
							switch when {
							case "asked":
								w.deliver = func(_, to *movingNode, _ *coord.Message) { step(to) }
							case "answered":
								w.heard = step
							}
							began := w.now
							err := op(n)
							if err != nil && !isCode(err, errcode.TenantNotFound) && (name != "put if" || !isCode(err, errcode.PreconditionFailed)) {
								t.Errorf("%s: %v", what, err)
							}
							if took := w.now.Sub(began); took > 100*movingStep {
								t.Errorf("%s takes %v", what, took)
							}
							w.settle()
							for _, n := range w.nodes {
								if under := n.coord.UnderWay(); under != 0 {
									t.Errorf("%s: %d operations and callbacks are left at %s", what, under, n.id.Short())
								}
							}
						}
					}
				}
				w.nothingOfNewTenants(t)
			}
		}
	}
}

// nothingOfNewTenants fails if anything was written in the tenants that were created last.
func (w *moving) nothingOfNewTenants(t *testing.T) {
	t.Helper()
	for _, name := range movingTenants {
		fresh, _ := w.log[created].Tenant(name)
		for _, n := range w.nodes {
			for key := range n.live {
				if key[0] == byte('0'+fresh.Number) {
					t.Errorf("%s has %q of a tenant in which nothing was written", n.id.Short(), key)
				}
			}
		}
	}
}

// TestHintOfDeletedTenant: what was to be brought somewhere is let go of, by whoever of
// the two knows that the tenant was deleted.
func TestHintOfDeletedTenant(t *testing.T) {
	for _, knows := range []int{0, 1} {
		w := newMoving(t, 3, []int{0, 1, 2}, []int{0, 1, 2})
		w.everywhere(finalized)
		if _, err := w.put(w.nodes[0], coord.PutRequest{Tenant: movingTenants[0], Key: []byte("k"), Value: []byte("v"), Level: quorum.All}); err != nil {
			t.Fatal(err)
		}
		w.settle()
		w.nodes[knows].at = deleted
		at := coord.Address{Tenant: w.number(movingTenants[0]), Key: []byte("k")}
		how := coord.DeliveryFailed
		w.nodes[0].coord.Deliver(w.nodes[1].id, at, nil, func(d coord.Delivered, _ int, _ string) { how = d })
		w.settle()
		if how != coord.DeliveryGone {
			t.Errorf("node %d knows: the hint ends with %d", knows, how)
		}
	}
}

// TestValueShareFitsBothFactors: while a tenant that keeps siblings gets more copies, or
// fewer, a value must fit as often as the larger number of owners may mint one.
func TestValueShareFitsBothFactors(t *testing.T) {
	const largest = 30 << 20
	for _, c := range []struct{ rf, to int }{{4, 7}, {7, 4}} {
		w := newMovingTo(t, c.rf, c.to, []int{0, 1, 2, 3, 4, 5, 6}, []int{0, 1, 2, 3, 4, 5, 6})
		for at, n := range []int{c.rf, 7, 7, c.to} {
			w.everywhere(at)
			for _, over := range []int{0, 1} {
				value := make([]byte, largest/n+over)
				_, err := w.put(w.nodes[0], coord.PutRequest{Tenant: movingTenants[1], Key: []byte("k"), Value: value, Level: quorum.One})
				if tooLarge := isCode(err, errcode.ValueTooLarge); tooLarge != (over == 1) {
					t.Errorf("%d to %d, at %d: a value of %d bytes: %v", c.rf, c.to, at, len(value), err)
				}
				w.settle()
			}
		}
	}
}
