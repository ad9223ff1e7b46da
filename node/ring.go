package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/gossip/schema"
	"github.com/pairdb/pairdb/node/rpc"
)

// barrier returns when no write goes on any more that was let through under an older
// version of the ring. Before the store is open there are none.
func (n *Node) barrier() {
	select {
	case <-n.opened:
		n.store.Barrier()
	default:
	}
}

// pv is the last version of the ring that touched a partition.
func (n *Node) pv(p ring.Partition) ring.Version {
	l := n.gossip.Snapshot().Layout
	if l == nil {
		return 0
	}
	return l.PV(p)
}

// cleaned says that this node holds nothing that it does not own. A node that leaves is
// retired once it has said so, and then no member hears it any more: its clients have
// to have their answers by then, and to be elsewhere.
func (n *Node) cleaned(v ring.Version) error {
	if n.isLeaving() && !n.left.Swap(true) {
		n.log.Info("this node has handed over its partitions and leaves the cluster: it sends its clients away")
		ctx, cancel := context.WithTimeout(n.ending, n.cfg.Timeouts.Shutdown)
		defer cancel()
		n.server.SetReady(n.serves)
		if err := errors.Join(n.http.Shutdown(ctx), n.server.StopClients(ctx)); err != nil {
			n.log.Warn("not all clients went away by themselves: they are cut off", "err", err)
		}
	}
	return n.gossip.SetClean(v)
}

// isLeaving says that this node is a member without partitions that is not to get any.
func (n *Node) isLeaving() bool {
	snap := n.gossip.Snapshot()
	return snap.Ring != nil && slices.ContainsFunc(snap.Ring.Outsiders(), func(o ring.Outsider) bool {
		return o.ID == snap.Self && o.Leaving
	})
}

// ringAdmin is who changes the ring for operators.
type ringAdmin struct {
	*gossip.Gossip
	n *Node
}

// AutoApply implements rpc.RingAdmin.
func (a ringAdmin) AutoApply() bool { return a.n.cfg.Ring.AutoApply }

// Check implements rpc.RingAdmin.
func (a ringAdmin) Check(i ring.Intent) error {
	if err := a.CheckIntent(i); err != nil {
		return fmt.Errorf("%s: %w", i.Verb, err)
	}
	return nil
}

// CheckGiveUp implements rpc.RingAdmin.
func (a ringAdmin) CheckGiveUp(lost []ring.NodeID) error {
	if err := a.Gossip.CheckGiveUp(lost); err != nil {
		return fmt.Errorf("%s: %w", ring.VerbGiveUp, err)
	}
	return nil
}

// transfers are what is moved to and from this node.
func (n *Node) transfers() []rpc.Transfer {
	list, v := n.repair.Transfers(), n.gossip.Snapshot()
	out := make([]rpc.Transfer, len(list))
	for i := range list {
		t := &list[i]
		out[i] = rpc.Transfer{
			ID: transferID(v, t), Kind: t.Kind, Partition: t.Span.Partition, Copies: v.Copies(t.Span.Class).To, From: t.From, To: t.To,
			KeysDone: t.KeysDone, BytesDone: t.BytesDone, BytesTotal: t.BytesTotal, State: t.State, Error: t.Error,
		}
	}
	return out
}

// transferID names what is moved, on this node: what it is, since when, of which partition,
// and whose it is, which is all tenants with a replication factor, or one by its name, or by
// its number once it is deleted.
func transferID(v *schema.Snapshot, t *repair.Transfer) string {
	whose := fmt.Sprintf("rf%d", t.Span.Class.Born())
	if n, own := t.Span.Class.Own(); own {
		whose = fmt.Sprintf("tenant%d", n)
		if known, ok := v.TenantByNumber(n); ok {
			whose = "tenant-" + known.Name
		}
	}
	return fmt.Sprintf("%s-%s-%d-%s", t.Kind, t.At, t.Span.Partition, whose)
}
