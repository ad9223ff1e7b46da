package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
)

// partition is what is known of one partition beside its data.
type partition struct {
	spans [ring.MaxRF + 1]span // by replication factor
	votes votes
}

// span is what is known of a repair.Span.
type span struct {
	// confirmed is what this node has adopted, released what it knows all owners to
	// have adopted, nil for nothing. They are published when they are on disk.
	// Whoever joins or mints under a key's lock loads them under it.
	confirmed, released atomic.Pointer[causal.Confirmed]
	// floor is the highest HLC of anything that was collected: what is minted of a
	// key of which nothing is left has to be above. It is raised before what it stands
	// for goes, and stored with that.
	floor atomic.Uint64
	// sweeping says that a sweep is due or under way.
	sweeping atomic.Bool
	// told is the version at which the change was proposed by which this node gains the
	// span, once an old owner has told it all there is. It ends with the process: what is
	// gained is compared again then.
	told atomic.Uint64

	// mu is held while any of it changes and is taken before the locks of keys.
	mu sync.Mutex
}

// nothing is what is confirmed as long as nobody has said anything.
var nothing causal.Confirmed

// partition returns what is known of a partition of a layout.
func (s *Store) partition(p ring.Partition) *partition {
	at := &s.partitions[p]
	if known := at.Load(); known != nil {
		return known
	}
	at.CompareAndSwap(nil, new(partition))
	return at.Load()
}

// spanOf returns what is known of the span of a key, nil if that is nothing.
func (s *Store) spanOf(p ring.Partition, rf uint8) *span {
	if int(p) >= len(s.partitions) || rf > ring.MaxRF {
		return nil
	}
	if known := s.partitions[p].Load(); known != nil {
		return &known.spans[rf]
	}
	return nil
}

// confirmed returns what is confirmed of the keys of a span, never nil.
func (s *Store) confirmed(p ring.Partition, rf uint8) *causal.Confirmed {
	if sp := s.spanOf(p, rf); sp != nil {
		if c := sp.confirmed.Load(); c != nil {
			return c
		}
	}
	return &nothing
}

// floor returns the clock above which a new write of a span has to be.
func (s *Store) floor(p ring.Partition, rf uint8) uint64 {
	if sp := s.spanOf(p, rf); sp != nil {
		return sp.floor.Load()
	}
	return 0
}

func loaded(p *atomic.Pointer[causal.Confirmed]) *causal.Confirmed {
	if c := p.Load(); c != nil {
		return c
	}
	return &nothing
}

// find checks that a span can be one and returns what is known of it.
func (s *Store) find(sp repair.Span) (*span, error) {
	if int(sp.Partition) >= len(s.partitions) || sp.RF < 1 || sp.RF > ring.MaxRF {
		return nil, &coord.Error{
			Code: errcode.InvalidArgument, Outcome: errcode.NotApplied,
			Message: fmt.Sprintf("there is no partition %d with %d owners", sp.Partition, sp.RF),
		}
	}
	return &s.partition(sp.Partition).spans[sp.RF], nil
}

// Adopt implements repair.Replica. When it returns, no merge is under way any more
// that does not know c. It is refused while an idempotency key has a vote here for a
// write that c covers and that was not made: c would say that it was.
func (s *Store) Adopt(of repair.Span, c *causal.Confirmed) error { return s.learn(of, c, false) }

// Release implements repair.Replica. It adopts c, too: if all owners know it, it is
// true.
func (s *Store) Release(of repair.Span, c *causal.Confirmed) error { return s.learn(of, c, true) }

func (s *Store) learn(of repair.Span, c *causal.Confirmed, release bool) error {
	sp, err := s.find(of)
	if err != nil {
		return err
	}
	if err := s.takesWrites(); err != nil {
		return err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	confirmed, released := loaded(&sp.confirmed), loaded(&sp.released)
	news := !c.Within(confirmed)
	if news {
		if err := s.admits(of, c); err != nil {
			return err
		}
		all := confirmed.Join(c)
		confirmed = &all
	}
	sweep := release && !c.Within(released)
	if sweep {
		all := released.Join(c)
		released = &all
	}
	if !news && !sweep {
		return nil
	}
	b := s.batches.Get().(*engine.Batch)
	defer s.releaseBatch(b)
	b.Set(spanKey(of), appendSpan(nil, sp.floor.Load(), confirmed, released))
	seq, err := s.apply(b, false)
	if err == nil {
		if err = s.opts.Engine.WaitDurable(seq); err != nil {
			err = writeError(err, true)
		}
	}
	if err != nil {
		return err
	}
	sp.confirmed.Store(confirmed)
	sp.released.Store(released)
	s.passLocks()
	if sweep {
		s.sweep(of)
	}
	return nil
}

// Barrier returns when every write that was let through before the call is visible, and
// those that come later go by what Options.PV says by now. A node says that it goes by
// a new version of the ring after that has been published and Barrier has returned.
func (s *Store) Barrier() { s.passLocks() }

// passLocks returns once every lock of a key has been free: whoever holds one from
// now on has seen what was published before the call, and what was minted before it
// is visible or never will be.
func (s *Store) passLocks() {
	for i := range s.stripes {
		s.stripes[i].Lock()
		//lint:ignore SA2001 nothing is to be done with it
		s.stripes[i].Unlock()
	}
}

// What is known of a span is stored as
//
//	format u8 = 1, floor u64,
//	length uvarint and what is confirmed, length uvarint and what is released,
//	as causal encodes them
//
// under [partition u16][kind u8][rf u8]. Stored data depends on it.
const formatSpan = 1

var errSpan = errors.New("what is confirmed of a span does not decode")

func spanKey(of repair.Span) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(of.Partition)), kindSpan, of.RF)
}

func appendSpan(dst []byte, floor uint64, confirmed, released *causal.Confirmed) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, formatSpan), floor)
	for _, c := range []*causal.Confirmed{confirmed, released} {
		b := c.Append(nil)
		dst = append(binary.AppendUvarint(dst, uint64(len(b))), b...)
	}
	return dst
}

func decodeSpan(b []byte) (floor uint64, confirmed, released causal.Confirmed, err error) {
	if len(b) < 9 || b[0] != formatSpan {
		return 0, confirmed, released, fmt.Errorf("%w: format %x", errSpan, b[:min(len(b), 1)])
	}
	floor, b = binary.BigEndian.Uint64(b[1:]), b[9:]
	for _, c := range []*causal.Confirmed{&confirmed, &released} {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return 0, confirmed, released, errSpan
		}
		if *c, err = causal.DecodeConfirmed(b[w : w+int(n)]); err != nil {
			return 0, confirmed, released, fmt.Errorf("%w: %w", errSpan, err)
		}
		b = b[w+int(n):]
	}
	if len(b) > 0 {
		return 0, confirmed, released, errSpan
	}
	return floor, confirmed, released, nil
}

// loadSpans reads what an earlier start knew of the spans, in two seeks for each
// partition with data.
func (s *Store) loadSpans() (err error) {
	it, err := s.opts.Engine.NewIter(nil, nil)
	if err != nil {
		return fmt.Errorf("read what is confirmed: %w", err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("read what is confirmed: %w", cerr)
		}
	}()
	for ok := it.First(); ok; {
		key := it.Key()
		if len(key) < 3 {
			ok = it.Next()
			continue
		}
		p := ring.Partition(binary.BigEndian.Uint16(key))
		if int(p) >= len(s.partitions) {
			break
		}
		head := append(bytes.Clone(key[:2]), kindSpan)
		for ok = it.SeekGE(head); ok && bytes.HasPrefix(it.Key(), head); ok = it.Next() {
			if len(it.Key()) != len(head)+1 || it.Key()[3] > ring.MaxRF {
				return fmt.Errorf("partition %d: %w: key %x", p, errSpan, it.Key())
			}
			floor, confirmed, released, err := decodeSpan(it.Value())
			if err != nil {
				return fmt.Errorf("partition %d: %w", p, err)
			}
			sp := &s.partition(p).spans[it.Key()[3]]
			sp.floor.Store(floor)
			sp.confirmed.Store(&confirmed)
			sp.released.Store(&released)
		}
		if ok && bytes.HasPrefix(it.Key(), head[:2]) {
			ok = it.SeekGE(coord.Successor(head[:2]))
		}
	}
	return nil
}

// ParseSpan takes apart what is stored of a span beside its data, for tools: what this
// node knows that all owners have had, and that all of them know to. ok is false for
// the storage key of anything else.
func ParseSpan(key, value []byte) (of repair.Span, confirmed, released causal.Confirmed, ok bool, err error) {
	if len(key) != 4 || key[2] != kindSpan {
		return of, confirmed, released, false, nil
	}
	of = repair.Span{Partition: ring.Partition(binary.BigEndian.Uint16(key)), RF: key[3]}
	_, confirmed, released, err = decodeSpan(value)
	return of, confirmed, released, true, err
}
