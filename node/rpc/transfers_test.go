package rpc

import (
	"fmt"
	"testing"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/gossip/ring"
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
