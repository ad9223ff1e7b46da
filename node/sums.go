package node

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/node/replica/sums"
)

// sumsFile is the file of the range sums in a data directory. Without it all data
// is read once after the next start.
const sumsFile = "sums"

const (
	// saveEvery and saveFlushes are after how long, and how many flushes, the sums
	// are written to their file, some MB for 100 million keys: a range in which anything
	// is newer has to be read again after a crash.
	saveEvery   = time.Minute
	saveFlushes = 16
	// tendEach is how often it is looked whether there is anything to do for the
	// sums, restShare how many times as long as it worked the node rests in between,
	// and restAfterError how long after a failure.
	tendEach       = time.Second
	restShare      = 4
	restAfterError = 30 * time.Second
)

// tending is the job that keeps the range sums.
type tending struct {
	stop    chan struct{} // closed to end it
	stopped chan struct{} // closed when it has ended
	once    sync.Once
	flushes atomic.Int64 // since the start
	savedAt atomic.Int64 // Unix nanoseconds by the real clock, 0: never
}

// loadSums reads the file of the range sums and returns what it covers.
func (n *Node) loadSums() base.SeqNum {
	n.sums = sums.New(func() int {
		if l := n.gossip.Snapshot().Layout; l != nil {
			return l.Partitions()
		}
		return 0
	})
	seq, err := n.sums.Load(vfs.OS(), n.sumsPath())
	if err != nil {
		n.log.Warn("the range sums of the last run cannot be used; all data is read once in the background", "err", err)
		return 0
	}
	return seq
}

func (n *Node) sumsPath() string { return filepath.Join(n.cfg.Node.DataDir, sumsFile) }

// checkSums takes the file away if it knows of writes that the engine, which was set
// back or replaced, does not have: later on it would pass for one of this data. The
// store sees that, too, and does not believe what was loaded.
func (n *Node) checkSums(since base.SeqNum) error {
	if since <= n.db.VisibleSeq() {
		return nil
	}
	n.log.Warn("the range sums are of other data than is there; all data is read once in the background", "sums_of", since, "data", n.db.VisibleSeq())
	if err := vfs.OS().Remove(n.sumsPath()); err != nil {
		return fmt.Errorf("remove range sums of other data: %w", err)
	}
	if err := vfs.OS().SyncDir(n.cfg.Node.DataDir); err != nil {
		return fmt.Errorf("remove range sums of other data: %w", err)
	}
	return nil
}

// tendSums keeps the range sums until stopSums is called: it computes what is not known and
// writes the file now and then.
func (n *Node) tendSums() {
	t := &n.tending
	t.stop, t.stopped = make(chan struct{}), make(chan struct{})
	t.savedAt.Store(time.Now().UnixNano()) // as the file says, or there is nothing to lose
	n.jobs.Go("range sums", func() {
		defer close(t.stopped)
		timer := time.NewTimer(tendEach)
		defer timer.Stop()
		saved := int64(0) // flushes that were over at the last attempt to save
		tried := time.Now()
		for {
			select {
			case <-t.stop:
				return
			case <-timer.C:
			}
			began := time.Now()
			more, err := n.store.StepSums()
			rest := tendEach
			switch {
			case err != nil:
				n.log.Debug("range sums could not be computed; tried again later", "err", err)
				rest = restAfterError
			case more:
				rest = max(10*time.Millisecond, restShare*time.Since(began))
			}
			if f := t.flushes.Load(); time.Since(tried) >= saveEvery || f-saved >= saveFlushes {
				tried, saved = time.Now(), f
				n.saveSums()
			}
			timer.Reset(min(rest, restAfterError))
		}
	})
}

// saveSums writes the file. A failure costs time after the next start and no more.
func (n *Node) saveSums() {
	if err := n.store.SaveSums(vfs.OS(), n.sumsPath()); err != nil {
		n.log.Warn("the range sums could not be written", "err", err)
		return
	}
	n.tending.savedAt.Store(time.Now().UnixNano())
}

// stopSums tells the job to end; n.jobs has it.
func (n *Node) stopSums() {
	if t := &n.tending; t.stop != nil {
		t.once.Do(func() { close(t.stop) })
	}
}

// closeSums ends the job and writes the file, unless the disk does not let it.
func (n *Node) closeSums() {
	n.stopSums()
	if writes, reads := n.db.Hangs(); writes || reads {
		return
	}
	<-n.tending.stopped
	n.saveSums()
}
