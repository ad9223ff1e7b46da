package node

import (
	"time"

	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/node/events"
)

// engineEvents is what the engine calls. Nothing in it waits.
func (n *Node) engineEvents() engine.Events {
	return engine.Events{
		Flushed: func(int, int64) { n.tending.flushes.Add(1) },
		BackgroundError: func(job string, err error) {
			n.happened.Add(events.Engine, events.Error, "engine job failed and will be tried again", "job", job, "err", err.Error())
		},
		Damaged: n.damagedTable,
		DiskStalled: func(p vfs.Pending) {
			n.setStalled(&p)
			n.happened.AddLogged(events.Disk, events.Error, "the disk does not answer: this node withdraws", "op", p.Op.String(), "file", p.File.String())
		},
		DiskRecovered: func(p vfs.Pending) {
			n.setStalled(nil)
			n.happened.AddLogged(events.Disk, events.Info, "the disk answers again", "after", p.Age.Round(time.Millisecond).String())
		},
		ReadOnly: func(err error) { // once; the engine has logged it
			close(n.readOnly)
			n.happened.AddLogged(events.Engine, events.Error, "writing has ended for good: a write or sync failed; restart the node once the disk is sound", "err", err.Error())
		},
	}
}

// serves says whether clients may be sent here.
func (n *Node) serves() bool {
	select {
	case <-n.readOnly:
		return false
	default:
		return n.gossip.Snapshot().Ready && n.met.Load() && !n.stopping.Load() && !n.left.Load() && !n.drain.begun.Load() && n.stalled.Load() == nil
	}
}

// withdraw tells whoever waits for the disk that it does not answer, and the
// members whether this node's data can be used. It is a job: the metadata may wait
// for the same disk.
func (n *Node) withdraw() {
	// What holds by the time that it is this job's turn is told.
	n.withdrawing.Lock()
	defer n.withdrawing.Unlock()
	stalled := n.stalled.Load() != nil
	if stalled {
		n.store.FailWaiting()
	}
	// Nothing here can be used while all of it is fetched again.
	all := len(n.allPartitions())
	withdrawn := stalled || all > 0 && n.marks.Len() >= all
	select {
	case <-n.readOnly:
		withdrawn = true
	default:
	}
	n.gossip.SetWithdrawn(withdrawn)
}

// setStalled notes that the disk hangs, or with nil that it answers again. It
// waits for nothing.
func (n *Node) setStalled(p *vfs.Pending) {
	n.stalled.Store(p)
	select {
	case n.stallChanged <- struct{}{}:
	default:
	}
}
