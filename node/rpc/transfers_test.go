package rpc

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
)

func TestTransferReport(t *testing.T) {
	var all []Transfer
	for i := range 150 {
		all = append(all, Transfer{ID: fmt.Sprint("d", i), Kind: TransferGain, State: TransferDone, KeysDone: 1, BytesDone: 9, BytesTotal: 9})
	}
	for i := range 1200 {
		all = append(all, Transfer{ID: fmt.Sprint("w", i), Kind: TransferCleanup, State: TransferWaiting, BytesTotal: 10})
	}
	all = append(all, Transfer{ID: "r", Kind: TransferGain, State: TransferRunning, KeysDone: 2, BytesDone: 5, BytesTotal: 20, Error: "again"})
	r := reportOf(all)
	if len(r.GetTransfers()) != maxTransfers || r.GetTransfers()[0].GetId() != "r" || r.GetTransfers()[0].GetError() != "again" || r.GetTransfers()[1].GetState() != TransferWaiting {
		t.Errorf("%d are listed, %v first", len(r.GetTransfers()), r.GetTransfers()[0])
	}
	if r.GetRunning() != 1 || r.GetWaiting() != 1200 || r.GetGainsLeft() != 1 || r.GetKeysDone() != 152 || r.GetBytesDone() != 5 || r.GetBytesTotal() != 12020 {
		t.Errorf("running %d, waiting %d, gains %d, keys %d, bytes %d of %d", r.GetRunning(), r.GetWaiting(), r.GetGainsLeft(), r.GetKeysDone(), r.GetBytesDone(), r.GetBytesTotal())
	}
	all = append(all, Transfer{ID: "x", Kind: "more", State: TransferWaiting})
	if r := reportOf(all); r.GetBytesTotal() != 0 || r.GetWaiting() != 1201 {
		t.Errorf("a part is no estimate of the whole: %d", r.GetBytesTotal())
	}
	done := reportOf(all[:150])
	if len(done.GetTransfers()) != maxDoneTransfers || done.GetTransfers()[0].GetId() != "d149" || done.GetTransfers()[99].GetId() != "d50" {
		t.Errorf("%d that ended are listed, the first is %v", len(done.GetTransfers()), done.GetTransfers()[0])
	}
}

func TestTransfersOfAllNodes(t *testing.T) {
	c := newRing(t, 3)
	from := []ring.NodeID{layoutNode(1).ID, layoutNode(2).ID}
	asker := &bookAsker{fakeAsker: &fakeAsker{silent: map[string]bool{"peer2": true}}, report: &peerv1.TransferReport{
		Transfers: []*pairdbv1.Transfer{{Id: "t1", Kind: TransferGain, State: TransferRunning, To: &pairdbv1.TransferNode{NodeId: "??"}}, {Id: "t2", State: TransferDone}},
		Running:   1, GainsLeft: 1, BytesDone: 3, BytesTotal: 30,
	}}
	s, client := c.serve(asker,
		Transfer{ID: "g1", Kind: TransferGain, Partition: 5, Copies: 3, From: from, To: layoutNode(0).ID, State: TransferRunning, BytesDone: 1, BytesTotal: 10},
		Transfer{ID: "g2", Kind: TransferCleanup, From: from[:1], State: TransferWaiting, BytesTotal: 10}, Transfer{ID: "g3", State: TransferDone})
	ctx := testContext(t)
	list := func(all bool) *pairdbv1.TransfersResponse {
		t.Helper()
		r, err := client.Transfers(ctx, &pairdbv1.TransfersRequest{All: all})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	ids := func(r *pairdbv1.TransfersResponse) (got string) {
		for _, x := range r.GetTransfers() {
			got += x.GetId() + " "
		}
		return got
	}
	r := list(false)
	if got := ids(r); got != "g1 t1 g2 " {
		t.Errorf("listed %s", got)
	}
	first := r.GetTransfers()[0]
	if first.GetTo().GetName() != "node0" || len(first.GetFrom()) != 2 || first.GetFrom()[1].GetName() != "node2" || first.GetPartition() != 5 || first.GetReplicationFactor() != 3 {
		t.Errorf("%v", first)
	}
	if r.GetRunning() != 2 || r.GetWaiting() != 1 || r.GetBytesDone() != 4 || r.GetBytesTotal() != 50 || r.GetSpans() != 0 || len(r.GetUnreachable()) != 1 || r.GetRing().GetStage() != "stable" {
		t.Errorf("%v", r)
	}
	if got := ids(list(true)); got != "g1 t1 g2 g3 t2 " {
		t.Errorf("all: %s", got)
	}
	asker.report.BytesTotal = 0
	if r := list(false); r.GetBytesTotal() != 0 {
		t.Errorf("one does not know how much there is: %d", r.GetBytesTotal())
	}
	if r := s.observeLocal(&peerv1.ObserveRequest{}); r.GetTransfers() != nil || r.GetChanges() != nil {
		t.Errorf("told without being asked: %v", r)
	}
}

// TestChangeThatNobodyTellsOf: that nobody knows a change is said only if all that may be there
// have answered.
func TestChangeThatNobodyTellsOf(t *testing.T) {
	c := newRing(t, 3)
	_, client := c.serve(&bookAsker{fakeAsker: &fakeAsker{silent: map[string]bool{"peer2": true}}})
	ask := func() error {
		_, err := client.ChangeStatus(testContext(t), &pairdbv1.ChangeStatusRequest{Id: strings.Repeat("0b", 16)})
		return err
	}
	refused(t, ask(), errcode.Unavailable, "node2")
	c.meta.with(t, map[int]schema.Liveness{2: schema.Dead})
	refused(t, ask(), errcode.MigrationNotFound)
}

// TestNothingIsMovedOnceAllHaveLooked: a change is over before the nodes that lost something
// by it have looked for that. Until each has said that it holds nothing of it, or lists it,
// something waits.
func TestNothingIsMovedOnceAllHaveLooked(t *testing.T) {
	c := newRing(t, 4)
	asker := &bookAsker{fakeAsker: &fakeAsker{silent: map[string]bool{"peer2": true}}, report: new(peerv1.TransferReport)}
	_, client := c.serve(asker)
	want := func(what string, waiting uint64) {
		t.Helper()
		r, err := client.Transfers(testContext(t), &pairdbv1.TransfersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if r.GetWaiting() != waiting || len(r.GetTransfers()) != 0 {
			t.Errorf("%s: %d wait, want %d: %v", what, r.GetWaiting(), waiting, r)
		}
	}
	want("as it was founded", 0)
	change := c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2))
	at := c.state.Version()
	for i := range 3 {
		c.report(i, ring.Report{Acked: at, Synced: at})
	}
	want("while it is changed", 0)
	c.step(ring.KindCommit, change)
	c.step(ring.KindFinalize, change)
	at = c.state.Version()
	want("nobody has looked", 4)
	c.report(0, ring.Report{Clean: at})
	c.report(1, ring.Report{Clean: at - 1}) // of an earlier change
	want("one has looked", 3)
	c.report(1, ring.Report{Clean: at})
	asker.report.Waiting = 2
	want("one lists it, and one does not answer", 5) // both that answer have two
	asker.report.Waiting = 0
	c.report(3, ring.Report{Clean: at})
	want("one does not answer", 1)
	c.meta.with(t, map[int]schema.Liveness{2: schema.Dead})
	want("it is gone", 0)
	c.report(2, ring.Report{Clean: at})
	want("all have looked", 0)
}

// TestWhoWasNeverMetIsGone: a node that was dead before this one started is never met by its
// gossip, which cannot say that it is dead. It is not waited for without end.
func TestWhoWasNeverMetIsGone(t *testing.T) {
	c := newRing(t, 4)
	change := c.propose(nil, nil, layoutNode(0), layoutNode(1), layoutNode(2))
	at := c.state.Version()
	for i := range 3 {
		c.report(i, ring.Report{Acked: at, Synced: at})
	}
	c.step(ring.KindCommit, change)
	c.step(ring.KindFinalize, change)
	for _, i := range []int{0, 1, 3} {
		c.report(i, ring.Report{Clean: c.state.Version()})
	}
	c.meta.with(t, map[int]schema.Liveness{2: schema.LivenessUnknown})
	var since atomic.Int64
	began := time.Now()
	opts := serverOptions(t, c.meta.Snapshot().Self, c.meta, echo)
	opts.Ring, opts.Asker = c, &bookAsker{fakeAsker: &fakeAsker{silent: map[string]bool{"peer2": true}}, report: new(peerv1.TransferReport)}
	opts.Now = func() time.Time { return began.Add(time.Duration(since.Load())) }
	_, conn := clientOf(t, opts)
	client := pairdbv1.NewClusterClient(conn)
	want := func(waiting uint64, code errcode.Code) {
		t.Helper()
		r, err := client.Transfers(testContext(t), &pairdbv1.TransfersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if r.GetWaiting() != waiting {
			t.Errorf("%d wait, want %d", r.GetWaiting(), waiting)
		}
		_, err = client.ChangeStatus(testContext(t), &pairdbv1.ChangeStatusRequest{Id: strings.Repeat("0b", 16)})
		refused(t, err, code)
	}
	want(1, errcode.Unavailable)
	since.Store(int64(metWithin + 1))
	want(0, errcode.MigrationNotFound)
}
