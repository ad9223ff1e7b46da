package engine

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/wal"
)

const (
	// writeThreshold is how many bytes of records without a waiter gather
	// before they are handed to the kernel.
	writeThreshold = 256 << 10
	// maxPending bounds the records that wait for a leader.
	maxPending = 8 << 20
	// keepPending bounds the buffers kept between groups.
	keepPending = 1 << 20
)

// WriteOptions say how Apply writes.
type WriteOptions struct {
	// Sync makes Apply return only once the batch is durable. Without it the
	// caller waits with Commit.Wait, or accepts that the batch survives the
	// end of the process or the machine only once a later one is synced or
	// the memtable is flushed.
	Sync bool
	// Frees says that the batch takes the place of more than it brings, so
	// that it frees space once it is compacted. Such a batch is let through
	// on a full disk as long as there is room for its own traces. A batch of
	// nothing but deletes is known to.
	Frees bool
}

// Commit stands for an applied batch. It is a small value; the zero Commit is
// that of an empty batch in no DB and durable.
type Commit struct {
	db  *DB
	seq base.SeqNum
}

// Seq returns the sequence number of the batch's last operation.
func (c Commit) Seq() base.SeqNum { return c.seq }

// Wait returns once the batch is durable, or with the failure that means that
// it may never be. A caller that finds nobody syncing does it itself, for all
// that is pending; those that come while it does go together in the next sync.
func (c Commit) Wait() error {
	if c.db == nil {
		return nil
	}
	return c.db.WaitDurable(c.seq)
}

// commitQueue is the part of the DB that orders and syncs batches. It is
// guarded by DB.mu.
type commitQueue struct {
	last base.SeqNum // newest assigned
	// pending holds the records for the next group, each after its length;
	// spare is the buffer of the group before.
	pending, spare []byte
	// The live segment has room for limit bytes for certain. Of these, the
	// log used written when the last leader was done; the others bound what
	// the leader's group and the pending records take.
	//
	// Invariant: written + inflightBytes + pendingBytes <= limit, so that
	// what is visible can always be logged.
	limit, written, inflightBytes, pendingBytes int64

	// leading says that somebody owns the log. If it is going to sync,
	// inflight is the newest sequence number that will be durable then, else 0.
	leading  bool
	inflight base.SeqNum
	// rotating says that the leader is changing segments, so that nobody may
	// add to pending.
	rotating bool
	// inGroup wait for the group that is being synced, inNext for the one after
	// it.
	inGroup, inNext waitList
	// The next sync is put off for up to patience until expect writers wait for it,
	// if that is not 0. gathering says that somebody does.
	gather    gather
	expect    int
	patience  time.Duration
	gathering bool
	timer     Timer
	took      time.Duration // of the last sync
	// wanted counts those who wait to have the log to themselves: nobody is
	// handed the lead meanwhile.
	wanted int
}

// wakeAll makes everybody who waits look again. A gathering is over with that: its
// timer finds nobody, and whoever still has to wait begins another one.
func (q *commitQueue) wakeAll() {
	q.gathering = false
	q.inGroup.wakeAll()
	q.inNext.wakeAll()
}

// Apply makes the batch visible, all of it at once, and returns the token by
// which to wait until it is durable. After an error nothing was applied, but
// for WriteOptions.Sync: if waiting fails, the batch is visible and its
// durability unknown, and the DB is read-only. The batch may be used again.
func (db *DB) Apply(b *Batch, o WriteOptions) (Commit, error) {
	if b.err != nil {
		return Commit{}, b.err
	}
	if delay := db.slow.owed.Load(); delay > 0 {
		db.payDelay()
	}
	frees := false
	if int64(len(b.data)) > db.disk.unasked.Load() {
		var err error
		if frees, err = db.askDisk(b, o); err != nil {
			return Commit{}, err
		}
	}
	b.places.in = nil
	if !db.mu.TryLock() {
		// Instead of just waiting for whoever has the lock, do what needs none:
		// most of an insert is the search for its place, and its cache misses.
		rs := db.acquireState()
		b.places.find(rs.mem, b)
		rs.release()
		db.mu.Lock()
	}
	if b.count == 0 {
		c := Commit{db: db, seq: db.commit.last}
		db.mu.Unlock()
		return c, nil
	}
	full, err := db.makeRoomLocked(b)
	if err != nil {
		db.mu.Unlock()
		if full {
			db.retryFailed()
		}
		return Commit{}, err
	}
	q := &db.commit
	b.number(q.last + 1)
	if err := db.mem.apply(b.data, &b.places); err != nil {
		// The room was measured, so this is a broken invariant. Part of the
		// batch may be in the memtable but nothing is visible: stop here.
		first := db.failLocked(err)
		err = db.failed
		db.mu.Unlock()
		if first {
			db.reportFailure(err)
		}
		return Commit{}, err
	}
	q.pending = binary.AppendUvarint(q.pending, uint64(len(b.data)))
	q.pending = append(q.pending, b.data...)
	q.pendingBytes += wal.GroupBytes(len(b.data))
	q.last += base.SeqNum(b.count)
	c := Commit{db: db, seq: q.last}
	db.visible.Store(uint64(c.seq))
	db.stats.applied(b)
	db.oweDelayLocked(len(b.data))
	if frees {
		db.noteFreeingLocked(c.seq)
	}
	if o.Sync && !full {
		if err := db.stepLocked(c.seq); err != nil {
			return c, err
		}
		return c, c.Wait()
	}
	if !o.Sync && len(q.pending) >= writeThreshold && !q.leading {
		err = db.leadLocked()
	}
	db.mu.Unlock()
	if full {
		db.retryFailed()
	}
	if err == nil && o.Sync {
		err = c.Wait()
	}
	return c, err
}

// DurableSeq returns the newest sequence number known to be durable.
func (db *DB) DurableSeq() base.SeqNum { return base.SeqNum(db.durable.Load()) }

// VisibleSeq returns the newest sequence number that reads see.
func (db *DB) VisibleSeq() base.SeqNum { return base.SeqNum(db.visible.Load()) }

// WaitDurable returns once everything up to seq is durable; see Commit.Wait.
// seq must have been applied.
func (db *DB) WaitDurable(seq base.SeqNum) error {
	if db.DurableSeq() >= seq {
		return nil
	}
	return db.wait(min(seq, db.VisibleSeq()))
}

// leadLocked writes all that is pending as one group, without the lock and
// without a sync. Nobody is leading when it is called.
func (db *DB) leadLocked() error {
	group := db.beginLocked(false)
	db.mu.Unlock()
	err := db.lead(group, false)
	db.mu.Lock()
	return err
}

// beginLocked takes the lead and the pending records.
func (db *DB) beginLocked(sync bool) (group []byte) {
	q := &db.commit
	q.leading = true
	db.stats.leadBegan.Store(db.opts.Now().UnixNano())
	q.inflight = 0
	if sync {
		q.inflight = q.last
	}
	q.gathering = false
	if sync {
		if q.expect > 0 {
			q.gather.outcome(q.inNext.n+1, q.expect)
			q.expect = 0
		}
		// Who waited for the next group waits for this one now.
		q.inGroup, q.inNext = q.inNext, q.inGroup
	}
	group = q.pending
	q.inflightBytes, q.pendingBytes = q.pendingBytes, 0
	q.pending, q.spare = q.spare[:0], nil
	return group
}

// writeGroup writes records to the log. Only the leader calls it.
func (db *DB) writeGroup(group []byte, sync bool) error {
	for rest := group; len(rest) > 0; {
		n, w := binary.Uvarint(rest)
		end := w + int(n)
		if err := db.log.Append(rest[w:end]); err != nil {
			return err
		}
		rest = rest[end:]
	}
	if !sync {
		return db.log.CommitNoSync()
	}
	start := db.opts.Now()
	err := db.log.Commit()
	db.commit.took = db.opts.Now().Sub(start) // only the leader looks at it
	db.stats.synced(db.commit.took, len(group))
	return err
}

// endLocked gives the lead back after a group was written with result err, or
// to somebody who waits for the next group. The caller passes the returned
// handOver on once it has released mu. The records of a group are
// visible, so that any failure is final.
func (db *DB) endLocked(group []byte, synced bool, err error) (handOver, error) {
	q := &db.commit
	q.leading = false
	db.stats.leadBegan.Store(0)
	q.written, q.inflightBytes = db.log.Size(), 0
	if cap(group) <= keepPending {
		q.spare = group[:0]
	}
	if err != nil {
		first := db.failLocked(err) // wakes everybody
		err = db.failed
		if first {
			db.mu.Unlock()
			db.reportFailure(err)
			db.mu.Lock()
		}
		return handOver{}, err
	}
	var h handOver
	if synced {
		db.raiseDurableLocked(q.inflight)
		h.done = q.inGroup
		q.inGroup = waitList{}
		q.expect, q.patience = q.gather.plan(q.took, h.done.n+1, q.inNext.n)
	}
	switch {
	case q.inNext.empty():
	case q.wanted > 0 || db.usableLocked() != nil:
		h.next = q.inNext.first() // to look again
	case synced && q.expect > 0:
		db.gatherLocked()
	default:
		h.next = q.inNext.first()
		q.reserveFor(h.next)
	}
	db.progress.Broadcast()
	return h, nil
}

func (db *DB) raiseDurableLocked(seq base.SeqNum) {
	if seq > db.DurableSeq() {
		db.durable.Store(uint64(seq))
	}
}

// rotateLogLocked writes and syncs what is pending, goes on in a new log
// segment if the live one is in use, and reserves need bytes there. Nobody is
// leading when it is called. ErrDiskFull leaves everything as it was.
func (db *DB) rotateLogLocked(need int64) error {
	q := &db.commit
	group := db.beginLocked(true)
	q.rotating = true
	num := db.newFileNum()
	db.mu.Unlock()

	start := db.opts.Now()
	err := db.writeGroup(group, true)
	db.stats.syncedAlone(db.opts.Now().Sub(start))
	written := err == nil
	rotated := false
	if err == nil && db.log.Size() > wal.SegmentOverhead {
		err = db.log.Rotate(num)
		rotated = err == nil
	}
	if err == nil {
		err = db.log.Reserve(need)
	}
	db.pollDisk() // now that it has taken space

	db.mu.Lock()
	q.rotating = false
	if rotated {
		db.segs = append(db.segs, num)
		db.stats.rotations.Add(1)
		q.limit = db.segSize
	}
	if err == nil {
		q.limit = max(q.limit, db.log.Size()+need)
	}
	failed := err
	if written && !errors.Is(err, ErrReadOnly) {
		// The group is durable and the log usable; at most the room is missing.
		failed = nil
	}
	h, failed := db.endLocked(group, true, failed)
	db.mu.Unlock()
	h.pass()
	db.mu.Lock()
	if failed != nil {
		return failed
	}
	return err
}
