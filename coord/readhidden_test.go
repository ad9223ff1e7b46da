package coord_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// hiddenDelete is a key with a value at all three owners and a delete at a and b. A
// read at c has c's answer and has asked one of the others when a round brings c the
// delete, and then all owners have had it.
type hiddenDelete struct {
	t   *testing.T
	w   *world
	at  coord.Address
	key string
	// asked is the owner that c has asked, unasked the other.
	asked, unasked *simNode
}

func newHiddenDelete(t *testing.T, tenant string) *hiddenDelete {
	t.Helper()
	h := &hiddenDelete{t: t, w: newWorld(1, 3, 3, newStoreDisk), key: "k"}
	h.at = h.w.addressIn(tenant, h.key)
	a := h.w.node("a")
	var written coord.WriteResponse
	h.call(func(done func(error)) {
		a.coord.StartPut(coord.PutRequest{Tenant: tenant, Key: []byte(h.key), Value: []byte("v"), Level: quorum.All}, func(r coord.WriteResponse, err error) {
			written = r
			done(err)
		})
	})
	h.cut("c", true)
	h.call(func(done func(error)) {
		a.coord.StartDelete(coord.DeleteRequest{Tenant: tenant, Key: []byte(h.key), Token: written.Token, Level: quorum.Quorum}, func(_ coord.WriteResponse, err error) { done(err) })
	})
	h.w.advance(time.Minute)
	h.cut("c", false)
	h.w.advance(time.Minute)
	if o := h.w.node("c").disk.object(h.at); len(o.Siblings) != 1 || o.Siblings[0].Tombstone() {
		t.Fatalf("c holds %s", h.w.objectString(o))
	}
	return h
}

// call runs one operation, which has to succeed.
func (h *hiddenDelete) call(start func(done func(error))) {
	h.t.Helper()
	if err := h.ask(start); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hiddenDelete) ask(start func(done func(error))) (err error) {
	h.t.Helper()
	answered := false
	start(func(e error) { answered, err = true, e })
	for !answered {
		if !h.w.step(h.w.now + time.Minute) {
			h.t.Fatal("no answer")
		}
	}
	return err
}

func (h *hiddenDelete) cut(node string, cut bool) {
	n := h.w.node(node)
	for _, m := range h.w.nodes {
		if m != n {
			h.w.net.cut[[2]int{n.i, m.i}], h.w.net.cut[[2]int{m.i, n.i}] = cut, cut
		}
	}
}

// mend brings c the delete, and makes it known to be everywhere to the nodes, which
// then show nothing.
func (h *hiddenDelete) mend(nodes ...*simNode) {
	h.t.Helper()
	o := h.asked.disk.object(h.at)
	item := coord.MergeItem{Address: h.at, Object: o.Append(nil), LastWriteWins: h.at.LWW}
	store := func(n *simNode) *storeDisk { return n.disk.(*storeDisk) }
	store(h.w.node("c")).rep.Merge([]coord.MergeItem{item}, func(int, []byte, error) {})
	c := causal.Confirmed{Seen: o.Context, Expired: simEpoch.Add(h.w.now).UnixMilli()}
	for _, n := range nodes {
		if err := store(n).rep.Adopt(spanOf(h.at), &c); err != nil {
			h.t.Error(err)
		}
	}
}

// writeAgain has the asked owner collect the delete and make another write, w.
func (h *hiddenDelete) writeAgain(tenant string) {
	h.t.Helper()
	rep := h.asked.disk.(*storeDisk).rep
	st, err := rep.State(spanOf(h.at))
	if err == nil {
		err = rep.Release(spanOf(h.at), &st.Confirmed)
	}
	if err != nil {
		h.t.Error(err)
	}
	h.w.after(100*time.Millisecond, func() {
		if o := h.asked.disk.object(h.at); !o.IsZero() {
			h.t.Errorf("it has not collected %s", h.w.objectString(o))
		}
		h.asked.coord.StartPut(coord.PutRequest{Tenant: tenant, Key: []byte(h.key), Value: []byte("w"), Level: quorum.One}, func(_ coord.WriteResponse, err error) {
			if err != nil {
				h.t.Error(err)
			}
		})
	})
}

// during calls f, once, when c has read its own copy and its question is on the way to
// another owner, which takes a while; behind, if not nil, is called when it then writes
// back there.
func (h *hiddenDelete) during(f, behind func()) (happened func() bool) {
	w := h.w
	ran := false
	w.log = func(line string) {
		for i, name := range []string{"a", "b"} {
			if !ran && strings.Contains(line, fmt.Sprintf(" send c>%s op %d ", name, coord.OpDigest)) {
				ran = true
				h.asked, h.unasked = w.nodes[i], w.nodes[1-i]
				w.net.slow[i] = 200 * time.Millisecond
				w.after(0, f)
			}
			if ran && behind != nil && h.asked == w.nodes[i] && strings.Contains(line, fmt.Sprintf(" send c>%s op 1", name)) {
				behind()
				behind = nil
			}
		}
	}
	return func() bool { return ran && w.counts["read repairs"] > 0 }
}

// reads are the ways to read the key through c; what they return are its values.
func (h *hiddenDelete) reads(tenant string) map[string]func() (values []string, err error) {
	c := h.w.node("c").coord
	show := func(siblings []causal.Sibling) (values []string) {
		for i := range siblings {
			values = append(values, string(siblings[i].Value))
		}
		return values
	}
	return map[string]func() ([]string, error){
		"get": func() (values []string, err error) {
			err = h.ask(func(done func(error)) {
				c.StartGet(coord.GetRequest{Tenant: tenant, Key: []byte(h.key), Level: quorum.Quorum}, func(r coord.GetResponse, err error) {
					values = show(r.Siblings)
					done(err)
				})
			})
			if e, ok := err.(*coord.Error); ok && e.Code == errcode.KeyNotFound {
				err = nil
			}
			return values, err
		},
		"scan": func() (values []string, err error) {
			err = h.ask(func(done func(error)) {
				c.StartScan(coord.ScanRequest{Tenant: tenant, Level: quorum.Quorum}, func(r coord.ScanResponse, err error) {
					for i := range r.Items {
						values = append(values, show(r.Items[i].Siblings)...)
					}
					done(err)
				})
			})
			return values, err
		},
	}
}

// TestReadDoesNotMissAHiddenDelete: a read that has a value from one owner before a
// round brings the delete there, and nothing from another, which has the delete and does
// not show it any more, does not return the value: also if a third one has to hold it
// instead, which has the delete and may not know yet that all have, or if the key has been
// collected and written again where nothing would be shown.
func TestReadDoesNotMissAHiddenDelete(t *testing.T) {
	for _, tenant := range []string{simTenant, simKeeper} {
		for _, how := range []string{"get", "scan"} {
			for _, c := range []struct {
				name                  string
				third, knowing, again bool
			}{
				{name: "two owners", knowing: true},
				{name: "a third owner", third: true},
				{name: "a third owner that knows", third: true, knowing: true},
				{name: "written again", third: true, knowing: true, again: true},
			} {
				t.Run(tenant+" "+how+" "+c.name, func(t *testing.T) {
					h := newHiddenDelete(t, tenant)
					var turn func()
					if c.third {
						turn = func() { h.cut(h.unasked.name, false); h.cut(h.asked.name, true) }
					}
					happened := h.during(func() {
						nodes := []*simNode{h.w.node("c"), h.asked}
						if c.knowing {
							nodes = h.w.nodes
						}
						h.mend(nodes...)
						h.cut(h.unasked.name, c.third)
						if c.again {
							h.writeAgain(tenant)
						}
					}, turn)
					values, err := h.reads(tenant)[how]()
					switch {
					case err != nil:
						t.Error(err)
					case !happened():
						t.Error("the owners were not found to differ")
					case slices.Contains(values, "v") || len(values) > 0 && !c.again:
						t.Errorf("%q is returned, and v was deleted", values)
					}
					h.w.advance(time.Minute)
					for _, n := range h.w.nodes {
						o := n.disk.object(h.at)
						for i := range o.Siblings {
							if string(o.Siblings[i].Value) == "v" {
								t.Errorf("%s holds %s", n.name, h.w.objectString(o))
							}
						}
					}
				})
			}
		}
	}
}
