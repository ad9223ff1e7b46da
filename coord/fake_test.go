package coord_test

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
)

// fakeDisk is a replica in a map whose syncs take a millisecond. The scripts
// run on it, so that their times are round; the random simulation runs on the
// real store.
type fakeDisk struct {
	n        *simNode
	live     map[string][]byte
	synced   map[string][]byte
	counters map[uint16]uint64
	actor    uint64
	broken   bool
	// unsynced is per key how many writes wait for a sync.
	unsynced map[string]int
	refuse   error
}

func newFakeDisk(n *simNode) disk { return &fakeDisk{n: n, synced: map[string][]byte{}} }

// fakeActor is the actor of a node's start: scripts name dots by it.
func fakeActor(node, start int) uint64 { return uint64(node+1)<<32 | uint64(start) }

func (d *fakeDisk) open(n *simNode) (coord.Replica, uint64) {
	d.live, d.counters, d.actor = map[string][]byte{}, map[uint16]uint64{}, fakeActor(n.i, n.start)
	d.unsynced = map[string]int{}
	for k, v := range d.synced {
		d.live[k] = v
	}
	return d, d.actor
}

func (d *fakeDisk) crash(*rand.Rand, harm) { d.live = nil }
func (d *fakeDisk) failSyncs()             { d.broken = true }

func (d *fakeDisk) object(at coord.Address) causal.Object {
	m := d.live
	if m == nil {
		m = d.synced
	}
	o, err := causal.Decode(m[string(at.Key)])
	if err != nil {
		panic(err)
	}
	return o
}

// sync calls done when what keys hold now is on disk.
func (d *fakeDisk) sync(done func(error), keys ...string) {
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = d.live[key]
		d.unsynced[key]++
	}
	d.n.later(time.Millisecond+d.n.syncing, func() {
		for _, key := range keys {
			d.unsynced[key]--
		}
		if d.broken {
			done(&coord.Error{Code: errcode.CommitLogFailed, Outcome: errcode.Indeterminate, Message: "the log could not be written or synced"})
			return
		}
		for i, key := range keys {
			d.synced[key] = values[i]
		}
		done(nil)
	})
}

// recordKey is where the record of an idempotency key is; no object is there.
func recordKey(at coord.Address, id []byte) string { return string(at.Key) + "\x00" + string(id) }

func (d *fakeDisk) record(at coord.Address, id []byte) *causal.Record {
	m := d.live
	if m == nil {
		m = d.synced
	}
	b := m[recordKey(at, id)]
	if b == nil {
		return nil
	}
	r, err := causal.DecodeRecord(b)
	if err != nil {
		panic(err)
	}
	return &r
}

func (d *fakeDisk) Update(at coord.Address, edit func(*causal.Object, func() causal.Dot) (causal.Object, error), durable func(error)) ([]byte, error) {
	held := d.object(at)
	o, err := edit(&held, func() causal.Dot {
		d.counters[uint16(at.Partition)]++
		return causal.Dot{Actor: d.actor, Counter: d.counters[uint16(at.Partition)]}
	})
	if err == nil {
		err = d.refuse
	}
	if err != nil {
		return nil, err
	}
	b := o.Append(nil)
	d.live[string(at.Key)] = b
	d.sync(durable, string(at.Key))
	return b, nil
}

func (d *fakeDisk) Merge(items []coord.MergeItem, done func(int, []byte, error)) {
	for i, it := range items {
		in, err := causal.Decode(it.Object)
		if err != nil {
			done(i, nil, errors.New("bad object"))
			continue
		}
		held := d.object(it.Address)
		var body []byte
		if stub, ok := causal.Uncovered(&held, &in); ok {
			body = stub.Append(nil)
		}
		joined := causal.Join(&held, &in)
		if it.LastWriteWins {
			joined.StripLosers(&held, &in)
		}
		keys := []string{string(it.Key)}
		d.live[keys[0]] = joined.Append(nil)
		if it.Record != nil {
			keys = append(keys, recordKey(it.Address, it.IdempotencyKey))
			if old := d.record(it.Address, it.IdempotencyKey); old == nil || old.Yields(it.Record) {
				d.live[keys[1]] = it.Record.Append(nil)
			}
		}
		d.sync(func(err error) { done(i, body, err) }, keys...)
	}
}

func (d *fakeDisk) Read(at coord.Address, done func([]byte, error)) {
	v := d.live[string(at.Key)]
	if d.unsynced[string(at.Key)] > 0 {
		d.sync(func(err error) { done(v, err) }, string(at.Key))
		return
	}
	done(v, nil)
}

func (d *fakeDisk) Lookup(at coord.Address, id []byte, now time.Time, done func(coord.Held, error)) {
	o := d.object(at)
	h := coord.Held{Context: o.Context}
	if r := d.record(at, id); r != nil && r.Live(now) {
		h.Record = r
	}
	if w := o.Winner(); w != nil {
		h.HLC = w.HLC
	}
	key := recordKey(at, id)
	if d.unsynced[string(at.Key)]+d.unsynced[key] > 0 {
		d.sync(func(err error) { done(h, err) }, string(at.Key), key)
		return
	}
	done(h, nil)
}

func (d *fakeDisk) Claim(at coord.Address, id []byte, r *causal.Record, now time.Time, done func(causal.Record, error)) {
	if d.refuse != nil {
		done(causal.Record{}, d.refuse)
		return
	}
	held := d.record(at, id)
	if held == nil || !held.Live(now) || held.GivesWay(r) {
		held = r
		d.live[recordKey(at, id)] = r.Append(nil)
	}
	kept := *held
	d.sync(func(err error) { done(kept, err) }, recordKey(at, id))
}

func (d *fakeDisk) ReadDigest(at coord.Address, done func([16]byte, error)) {
	d.Read(at, func(b []byte, err error) {
		o, derr := causal.Decode(b)
		if derr != nil {
			panic(derr)
		}
		done(o.Digest(), err)
	})
}
