package node

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/events"
)

// TestMemberEvents: who comes, goes, dies, withdraws and starts again, and nothing
// twice. This node and what was so at the start are no events.
func TestMemberEvents(t *testing.T) {
	log := events.New(events.Options{Logger: slog.New(slog.DiscardHandler)})
	var seen watched
	b := schema.Member{ID: ring.NodeID{2}, Name: "b", Incarnation: 1}
	look := func(change func(*schema.Member)) {
		change(&b)
		seen.members(log, schema.Build(schema.Snapshot{Self: ring.NodeID{1}, Members: []schema.Member{{ID: ring.NodeID{1}, Name: "a", Withdrawn: b.Withdrawn}, b}}, nil))
	}
	live := func(l schema.Liveness) func(*schema.Member) { return func(m *schema.Member) { m.Liveness = l } }
	for _, change := range []func(*schema.Member){
		live(schema.LivenessUnknown), live(schema.Alive), live(schema.Alive), live(schema.Suspect), live(schema.Dead), live(schema.Dead),
		func(m *schema.Member) { m.Liveness, m.Incarnation = schema.Alive, 2 },
		func(m *schema.Member) { m.Incarnation = 3 },
		func(m *schema.Member) { m.Withdrawn = true },
		func(m *schema.Member) { m.Withdrawn = false },
		func(m *schema.Member) { m.Drained = true },
		func(m *schema.Member) { m.Drained = false },
		live(schema.Left),
	} {
		look(change)
	}
	list, _ := log.Newest(time.Time{}, 100)
	var got []string
	for _, e := range list {
		if e.Kind != events.Member || e.Count != 1 {
			t.Errorf("%+v", e)
		}
		got = append(got, e.Severity.String()+" "+e.Text)
	}
	seen.members(log, schema.Build(schema.Snapshot{Self: ring.NodeID{1}, Members: []schema.Member{{ID: ring.NodeID{1}, Name: "a"}}}, nil))
	if len(seen.known) != 1 {
		t.Errorf("%d nodes are remembered of a cluster of one", len(seen.known))
	}
	want := []string{
		"info b is there", "warning b is suspected: it does not answer gossip", "error b is dead: it does not answer gossip", "info b is back", "info b has started again",
		"warning b has withdrawn: its disk does not answer or can only be read, or all of its data is being fetched again", "info b takes part again",
		"info b is drained: it has sent its clients away", "info b serves clients again", "info b has left",
	}
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("%q", got)
	}
}

// TestDiskEvents: a disk that is well at the start is no event, and each change is.
func TestDiskEvents(t *testing.T) {
	log := events.New(events.Options{Logger: slog.New(slog.DiscardHandler)})
	var seen watched
	for _, state := range []string{"ok", "ok", "warn", "throttle", "full", "full", "ok"} {
		seen.disk(log, state)
	}
	list, _ := log.Newest(time.Time{}, 100)
	if len(list) != 4 || list[0].Severity != events.Warning || list[2].Severity != events.Error || list[3].Severity != events.Info {
		t.Errorf("%+v", list)
	}
}

// TestTraffic: rates are over the last minute, what is an answer is no failure, and
// times lie in the right bucket.
func TestTraffic(t *testing.T) {
	ops := newOperations(prometheus.NewRegistry())
	now := time.Unix(1000, 0)
	for range 1000 { // long before
		ops.observe(coord.KindPut, quorum.Quorum, errcode.Timeout, time.Second)
	}
	tr := newTraffic(ops, now)
	for range 24 {
		for range 50 {
			ops.observe(coord.KindGet, quorum.One, errcode.OK, 3*time.Millisecond)
			ops.observe(coord.KindGet, quorum.All, errcode.KeyNotFound, 3*time.Millisecond)
		}
		for i := range 20 {
			code := errcode.OK
			if i == 0 {
				code = errcode.QuorumNotReached
			}
			ops.observe(coord.KindPut, quorum.Quorum, code, time.Duration(10+i)*time.Millisecond)
		}
		now = now.Add(trafficEach)
		tr.tick(now)
	}
	window, list := tr.rates(now)
	if window != time.Minute || len(list) != 2 || list[0].GetOperation() != "get" || list[1].GetOperation() != "put" {
		t.Fatalf("over %s: %v", window, list)
	}
	get, put := list[0], list[1]
	if get.GetPerSecond() != 20 || get.GetFailedPerSecond() != 0 || put.GetPerSecond() != 4 || put.GetFailedPerSecond() != 0.2 {
		t.Errorf("%v; %v", get, put)
	}
	// The buckets are 2 to 4, 8 to 16 and 16 to 32 ms.
	if p := get.GetP99().AsDuration(); p < 2*time.Millisecond || p > 4*time.Millisecond {
		t.Errorf("gets take %s", p)
	}
	if p50, p99 := put.GetP50().AsDuration(), put.GetP99().AsDuration(); p50 < 16*time.Millisecond || p50 > 24*time.Millisecond || p99 <= p50 || p99 > 32*time.Millisecond {
		t.Errorf("puts take %s and %s", p50, p99)
	}
}

// TestObserverOfANode: a node that serves has its events and its traffic, and keys
// are counted once, at the node that coordinates.
func TestObserverOfANode(t *testing.T) {
	nodes := startNodes(t, 0)
	nodes[0].stop()
	n, err := Open(nodes[0].cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.release(); err != nil {
			t.Error(err)
		}
	}()
	n.happened.Add(events.Breaker, events.Warning, "n2 is left alone", "peer", "n2")
	ctx := t.Context()
	for range 10 {
		if _, err := n.coord.Put(ctx, coord.PutRequest{Tenant: "default", Key: []byte("hot"), Value: []byte("v"), Level: quorum.One, IfAbsent: false}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.coord.Delete(ctx, coord.DeleteRequest{Tenant: "default", Key: []byte("hot"), Level: quorum.One}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.coord.Get(ctx, coord.GetRequest{Tenant: "default", Key: []byte("cold"), Level: quorum.One}); err == nil {
			t.Error("there is a value")
		}
	}
	r := observer{n}.Observe(&peerv1.ObserveRequest{Events: &peerv1.EventQuery{Limit: 100}, Traffic: &peerv1.TrafficQuery{HotKeys: 5}})
	breaker := func(e *pairdbv1.Event) bool { // a slow disk may have had something to say before
		return e.GetKind() == "breaker" && e.GetDetails()[0].GetValue() == "n2"
	}
	if !slices.ContainsFunc(r.GetEvents(), breaker) || r.GetNumber() == 0 {
		t.Errorf("events %v", r.GetEvents())
	}
	keys := r.GetHotKeys()
	if len(keys) != 2 || string(keys[0].GetKey()) != "cold" || keys[0].GetWrite() || string(keys[1].GetKey()) != "hot" || !keys[1].GetWrite() {
		t.Fatalf("hot keys %v", keys)
	}
	if ratio := keys[1].GetLow() / keys[0].GetLow(); ratio < 1.99 || ratio > 2.01 {
		t.Errorf("20 writes are %g times 10 reads", ratio)
	}
	if ops := r.GetTraffic().GetOperations(); len(ops) != 3 || ops[0].GetOperation() != "delete" {
		t.Errorf("operations %v", ops)
	}
	again := observer{n}.Observe(&peerv1.ObserveRequest{Events: &peerv1.EventQuery{Incarnation: r.GetIncarnation(), Number: r.GetNumber(), Limit: 100}})
	for _, e := range again.GetEvents() { // a slow disk may have had something to say
		if e.GetNumber() <= r.GetNumber() {
			t.Errorf("again: %v", e)
		}
	}
	if again.GetTraffic() != nil {
		t.Errorf("again: %v", again)
	}
}
