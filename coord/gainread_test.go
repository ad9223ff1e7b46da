package coord_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/peerhealth"
	"github.com/pairdb/pairdb/coord/quorum"
)

// TestReadsShowNothingOfGainers: nodes that are about to own a key hold what was deleted
// long ago, since they join what comes whole until they have fetched it. No read and no
// scan shows it, whatever the old owners hold, or all of them; and what they show, enough
// of those nodes hold.
func TestReadsShowNothingOfGainers(t *testing.T) {
	for _, c := range []struct {
		name string
		// held says which old owners hold the value.
		held [3]bool
	}{
		{"nothing", [3]bool{}},
		{"all", [3]bool{true, true, true}},
		{"two", [3]bool{true, true, false}},
	} {
		for _, tenant := range movingTenants {
			for _, l := range []quorum.Level{quorum.One, quorum.Quorum, quorum.All} {
				t.Run(c.name+" "+tenant+" "+l.String(), func(t *testing.T) {
					w := newMoving(t, 3, []int{0, 1, 2}, []int{3, 4, 5})
					w.everywhere(proposed)
					at := coord.Address{Tenant: w.number(tenant)}
					want, value := []string(nil), causal.Dot{Actor: 98, Counter: 1}
					if c.held[0] {
						want = []string{"lives"}
					}
					keys := w.moves(tenant, 3)
					for _, key := range keys {
						at.Key = []byte(key)
						for i, n := range w.nodes {
							s := causal.Sibling{Dot: causal.Dot{Actor: 99, Counter: 1}, HLC: 9, Value: []byte("dead")}
							if i < 3 {
								s = causal.Sibling{Dot: value, HLC: 1, Value: []byte("lives")}
							}
							if i >= 3 || c.held[i] {
								o := causal.Object{Context: causal.NewContext(s.Dot), Siblings: []causal.Sibling{s}}
								n.live[movingKey(at, nil)] = o.Append(nil)
							}
						}
					}
					for _, key := range keys[:2] {
						for _, n := range w.nodes[:3] {
							if got := w.values(n, tenant, key, l); l != quorum.One && !slices.Equal(got, want) || slices.Contains(got, "dead") {
								t.Errorf("a read through %s shows %q", n.id.Short(), got)
							}
						}
						if on := w.having(w.sets(tenant, key, proposed).Owners[3:], func(n *movingNode) bool {
							at.Key = []byte(key)
							return n.object(n.synced, at).Context.Covers(value)
						}); l != quorum.One && c.held[0] && on&(on-1) == 0 {
							t.Errorf("what a read shows is at %b of those that confirm it", on)
						}
					}
					res, err := call(w, func(done func(coord.ScanResponse, error)) {
						w.nodes[0].coord.StartScan(coord.ScanRequest{Tenant: tenant, Level: l}, done)
					})
					if err != nil {
						t.Fatal(err)
					}
					for _, it := range res.Items {
						for _, s := range it.Siblings {
							if string(s.Value) != "lives" {
								t.Errorf("a scan shows %q", s.Value)
							}
						}
					}
					if n := len(res.Items); l != quorum.One && n != len(want)*len(keys) {
						t.Errorf("a scan shows %d keys", n)
					}
				})
			}
		}
	}
}

// TestReadAsksAGainerFirst: the disk of the only old owner did not answer, so it is asked
// last, and for a digest, as long as no whole object is wanted of it. One of the nodes that
// are about to own the key has sent the same as it holds; another one holds nothing. What
// the old owner holds is shown.
func TestReadAsksAGainerFirst(t *testing.T) {
	for _, tenant := range movingTenants {
		for _, l := range []quorum.Level{quorum.Quorum, quorum.All} {
			w := newMoving(t, 3, []int{0}, []int{1, 2, 3})
			w.everywhere(proposed)
			keys := w.moves(tenant, 2)
			at := coord.Address{Tenant: w.number(tenant), Key: []byte(keys[0])}
			value := causal.Dot{Actor: 98, Counter: 1}
			o := causal.Object{Context: causal.NewContext(value), Siblings: []causal.Sibling{{Dot: value, HLC: 1, Value: []byte("lives")}}}
			first := w.sets(tenant, keys[0], proposed).Owners[1]
			for _, n := range w.nodes {
				if n.id == first || n == w.nodes[0] {
					n.live[movingKey(at, nil)] = o.Append(nil)
				}
			}
			w.nodes[0].hangs = true
			w.nodes[0].coord.StartPut(coord.PutRequest{Tenant: tenant, Key: []byte(keys[1]), Level: quorum.One}, func(coord.WriteResponse, error) {})
			w.run(10*time.Second, func() bool { return false })
			if h := w.nodes[0].coord.PeerHealth(); !slices.ContainsFunc(h, func(s peerhealth.Status) bool { return s.Part == peerhealth.Disk && s.State != peerhealth.Closed }) {
				t.Fatalf("the disk is believed to answer: %+v", h)
			}
			w.nodes[0].hangs = false // which nobody knows yet
			if got := w.values(w.nodes[0], tenant, keys[0], l); !slices.Equal(got, []string{"lives"}) {
				t.Errorf("%s at %v: a read shows %q", tenant, l, got)
			}
		}
	}
}

// values are what a read finds, sorted.
func (w *moving) values(n *movingNode, tenant, key string, l quorum.Level) (all []string) {
	w.t.Helper()
	res, err := call(w, func(done func(coord.GetResponse, error)) {
		n.coord.StartGet(coord.GetRequest{Tenant: tenant, Key: []byte(key), Level: l}, done)
	})
	if err != nil && !notFound(err) {
		w.t.Fatal(err)
	}
	for _, s := range res.Siblings {
		all = append(all, string(s.Value))
	}
	slices.Sort(all)
	return all
}
