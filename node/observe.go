package node

import (
	"context"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/events"
)

// openEvents makes the log of events. It is the first part of a node, since all
// others may have something to say.
func (n *Node) openEvents() error {
	n.happened = events.New(events.Options{Logger: n.log.With("component", "events"), Now: n.clock.Now, Observe: n.events.event})
	return nil
}

// watch lets what is counted fade and notes what becomes of the members and the
// disk, until ctx ends.
func (n *Node) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var seen watched
	noted := time.Now()
	for {
		changed := n.gossip.Changed()
		seen.members(n.happened, n.gossip.Snapshot())
		seen.disk(n.happened, n.db.Metrics().Disk.State.String())
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case now := <-tick.C:
			n.hot.Tick(now)
			n.streams.watch(now, n.ops.waited())
			if now.Sub(noted) >= trafficEach {
				noted = now
				n.traffic.tick(now)
			}
		}
	}
}

// watched is what was last known of what is watched for changes.
type watched struct {
	known map[string]memberState // by node id
	state string                 // of the disk
}

type memberState struct {
	liveness    schema.Liveness
	withdrawn   bool
	drained     bool
	incarnation uint64
}

// members notes which of the others came, went, died or withdrew. What the first
// look shows is no event.
func (w *watched) members(log *events.Log, snap *schema.Snapshot) {
	first := w.known == nil
	before := w.known
	w.known = make(map[string]memberState, len(snap.Members)) // without those that are gone
	for i := range snap.Members {
		m := &snap.Members[i]
		id := m.ID.String()
		now, old := memberState{m.Liveness, m.Withdrawn, m.Drained, m.Incarnation}, before[id]
		w.known[id] = now
		if first || m.ID == snap.Self {
			continue
		}
		note := func(s events.Severity, text string) {
			log.Add(events.Member, s, m.Name+" "+text, "node_id", id, "address", m.Addresses.Peer)
		}
		if now.liveness != old.liveness {
			switch now.liveness {
			case schema.Alive:
				if old.liveness == schema.LivenessUnknown {
					note(events.Info, "is there")
				} else {
					note(events.Info, "is back")
				}
			case schema.Suspect:
				note(events.Warning, "is suspected: it does not answer gossip")
			case schema.Dead:
				note(events.Error, "is dead: it does not answer gossip")
			case schema.Left:
				note(events.Info, "has left")
			}
		} else if now.liveness == schema.Alive && old.incarnation != 0 && now.incarnation > old.incarnation {
			note(events.Info, "has started again")
		}
		switch {
		case now.drained && !old.drained:
			note(events.Info, "is drained: it has sent its clients away")
		case !now.drained && old.drained && now.liveness == schema.Alive:
			note(events.Info, "serves clients again")
		}
		switch {
		case now.withdrawn && !old.withdrawn:
			note(events.Warning, "has withdrawn: its disk does not answer or can only be read, or all of its data is being fetched again")
		case !now.withdrawn && old.withdrawn && now.liveness == schema.Alive:
			note(events.Info, "takes part again")
		}
	}
}

// disk notes how full the disk is, when that changes. The engine has logged it.
func (w *watched) disk(log *events.Log, state string) {
	old := w.state
	w.state = state
	if state == old || old == "" && state == "ok" {
		return
	}
	switch state {
	case "ok":
		log.AddLogged(events.Disk, events.Info, "the disk has room again", "state", state)
	case "warn":
		log.AddLogged(events.Disk, events.Warning, "the disk is filling up", "state", state)
	case "throttle":
		log.AddLogged(events.Disk, events.Warning, "the disk is nearly full: large writes are refused", "state", state)
	default:
		log.AddLogged(events.Disk, events.Error, "the disk is full: writes are refused, deletes and reads go on", "state", state)
	}
}

// observer is rpc.Observer.
type observer struct{ n *Node }

// Observe implements rpc.Observer.
func (o observer) Observe(req *peerv1.ObserveRequest) *peerv1.ObserveResponse {
	_, incarnation, _ := o.n.gossip.Identity()
	resp := &peerv1.ObserveResponse{Incarnation: incarnation}
	if q := req.GetEvents(); q != nil {
		var list []events.Event
		if q.GetIncarnation() == incarnation && q.GetNumber() > 0 {
			list, resp.Number = o.n.happened.After(q.GetNumber(), int(q.GetLimit()))
		} else {
			var since time.Time
			if q.GetSince() != nil {
				since = q.GetSince().AsTime()
			}
			list, resp.Number = o.n.happened.Newest(since, int(q.GetLimit()))
		}
		for i := range list {
			resp.Events = append(resp.Events, eventMessage(&list[i]))
		}
	}
	if q := req.GetTraffic(); q != nil {
		now := time.Now()
		window, ops := o.n.traffic.rates(now)
		top := o.n.hot.Top(now, int(min(q.GetHotKeys(), math.MaxInt16)))
		resp.Traffic = &pairdbv1.NodeTraffic{
			Window: durationpb.New(window.Round(time.Millisecond)), Operations: ops, UnderWay: uint64(o.n.coord.UnderWay()),
			ReadsPerSecond: top.Reads, WritesPerSecond: top.Writes,
		}
		resp.ReadFloor, resp.WriteFloor = top.ReadFloor, top.WriteFloor
		for _, k := range top.Keys {
			resp.HotKeys = append(resp.HotKeys, &peerv1.KeyRate{
				Tenant: uint32(k.Tenant), Key: k.Key, Write: k.Write, Low: k.Low, High: k.High, Noise: k.Noise,
			})
		}
	}
	if req.GetHints() {
		for _, t := range o.n.hints.store.Targets() {
			resp.Hints = append(resp.Hints, &peerv1.HintBacklog{Target: t.ID[:], Count: uint64(t.Count), Bytes: uint64(t.Bytes), OldestAt: timestamppb.New(t.Oldest)})
		}
	}
	return resp
}

func eventMessage(e *events.Event) *pairdbv1.Event {
	out := &pairdbv1.Event{
		Number: e.Number, Time: timestamppb.New(e.Time), Last: timestamppb.New(e.Last), Kind: string(e.Kind), Severity: e.Severity.String(),
		Text: e.Text, Count: e.Count, LeftOut: e.LeftOut,
	}
	for _, d := range e.Details {
		out.Details = append(out.Details, &pairdbv1.EventDetail{Key: d.Key, Value: d.Value})
	}
	return out
}
