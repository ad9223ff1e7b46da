package coord_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/replica"
	"github.com/pairdb/pairdb/node/replica/sums"
)

// live is a cluster of real goroutines in one process: what the simulation
// cannot show is what the race detector sees here.
type live struct {
	nodes map[ring.NodeID]*coord.Coordinator
	wg    sync.WaitGroup
	// every third message of a node's is lost if lossy is set.
	lossy bool
}

type liveNode struct {
	l    *live
	id   ring.NodeID
	mu   sync.Mutex
	sent int
}

func (n *liveNode) Now() time.Time                                  { return time.Now() }
func (n *liveNode) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
func (n *liveNode) Go(_ string, f func())                           { n.l.wg.Go(f) }

func (n *liveNode) Send(to ring.NodeID, m *coord.Message, reply func(coord.Reply, error)) {
	n.mu.Lock()
	n.sent++
	lost := n.l.lossy && n.sent%3 == 0
	n.mu.Unlock()
	if lost {
		reply(coord.Reply{}, fmt.Errorf("send: %w", coord.ErrNotSent))
		return
	}
	sent := *m
	sent.Key, sent.Body = append([]byte(nil), m.Key...), append([]byte(nil), m.Body...)
	n.l.wg.Go(func() {
		n.l.nodes[to].HandlePeer(n.id, []coord.Message{sent}, func(_ int, r coord.Reply) {
			n.l.wg.Go(func() { reply(r, nil) })
		})
	})
}

func newLive(t testing.TB, lossy bool) (*live, []*coord.Coordinator) {
	l := &live{nodes: map[ring.NodeID]*coord.Coordinator{}, lossy: lossy}
	var members []ring.LayoutNode
	for i := range 3 {
		members = append(members, ring.LayoutNode{ID: ring.NodeID{byte(i + 1)}, Name: nodeName(i), Zone: nodeName(i), Capacity: 1})
	}
	layout, err := ring.NewLayout(simPartitions, members)
	if err != nil {
		t.Fatal(err)
	}
	view := schema.Build(schema.Snapshot{Version: 1, Layout: layout, Ready: true, TokenKeys: []schema.TokenKey{{ID: 1}}},
		[]*schema.Tenant{
			{Number: 7, Name: simTenant, RF: 3, Policy: schema.PolicyLWW, Version: 1},
			{Number: 8, Name: simKeeper, RF: 3, Policy: schema.PolicySiblings, Version: 1},
		})
	var all []*coord.Coordinator
	for i, m := range members {
		db, err := engine.Open("data", engine.Options{FS: vfs.NewMem(), MemTableSize: 8 << 20})
		if err != nil {
			t.Fatal(err)
		}
		n := &liveNode{l: l, id: m.ID}
		rep, err := replica.New(replica.Options{Engine: db, Actor: uint64(i + 1), Scheduler: n, Records: replica.NewRecordSpace(1<<30, n.Now), Sums: sums.New(func() int { return simPartitions })})
		if err != nil {
			t.Fatal(err)
		}
		c, err := coord.New(coord.Options{
			Self: m.ID, View: func() *schema.Snapshot { return view }, Replica: rep, Transport: n, Clock: n,
			CatchUp: func(_ ring.NodeID, _ ring.Version, done func(error)) { done(errors.New("nothing to learn")) },
			// A machine that stands still fails nothing.
			WriteTimeout: 30 * time.Second, ReadTimeout: 30 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		l.nodes[m.ID] = c
		all = append(all, c)
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		for _, c := range all {
			if err := c.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
		l.wg.Wait()
	})
	return l, all
}

func TestLiveCluster(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lossy=%v", lossy), func(t *testing.T) {
			_, all := newLive(t, lossy)
			var clients sync.WaitGroup
			for client := range 8 {
				clients.Go(func() { liveClient(t, all, client, lossy) })
			}
			clients.Wait()
		})
	}
}

// liveClient is the one writer of a key of its own, and one of many of a key
// that all share.
func liveClient(t *testing.T, all []*coord.Coordinator, client int, lossy bool) {
	ctx := t.Context()
	mine, shared := []byte(fmt.Sprint("mine", client)), []byte("shared")
	excused := func(err error) bool {
		var e *coord.Error
		return lossy && errors.As(err, &e) && (e.Code == errcode.QuorumNotReached || e.Code == errcode.Timeout)
	}
	for i := range 60 {
		c := all[(client+i)%len(all)]
		value := fmt.Sprint(client, "/", i)
		if _, err := c.Put(ctx, coord.PutRequest{Tenant: simTenant, Key: shared, Value: []byte(value)}); err != nil && !excused(err) {
			t.Errorf("put: %v", err)
		}
		if _, err := c.Put(ctx, coord.PutRequest{Tenant: simTenant, Key: mine, Value: []byte(value)}); excused(err) {
			continue
		} else if err != nil {
			t.Errorf("put: %v", err)
		}
		got, err := all[(client+i+1)%len(all)].Get(ctx, coord.GetRequest{Tenant: simTenant, Key: mine})
		if excused(err) {
			continue
		}
		if err != nil || string(got.Siblings[0].Value) != value {
			t.Errorf("get: %+v, %v; want %q", got.Siblings, err, value)
			return
		}
		if i%10 == 0 {
			level := []quorum.Level{quorum.One, quorum.Quorum, quorum.All}[i/10%3]
			if _, err := c.Delete(ctx, coord.DeleteRequest{Tenant: simTenant, Key: shared, Level: level}); err != nil && !excused(err) {
				t.Errorf("delete: %v", err)
			}
		}
	}
}

func BenchmarkPut(b *testing.B) {
	_, all := newLive(b, false)
	value := make([]byte, 1024)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := all[i%3].Put(b.Context(), coord.PutRequest{Tenant: simTenant, Key: []byte(fmt.Sprint("k", i%1000)), Value: value}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	_, all := newLive(b, false)
	if _, err := all[0].Put(b.Context(), coord.PutRequest{Tenant: simTenant, Key: []byte("k"), Value: make([]byte, 1024), Level: quorum.All}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := all[i%3].Get(b.Context(), coord.GetRequest{Tenant: simTenant, Key: []byte("k")}); err != nil {
			b.Fatal(err)
		}
	}
}
