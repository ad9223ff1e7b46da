package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/gossip/ring"
)

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
	// sweeping says that a sweep is due or under way; sweeps.mu guards queued, which is
	// how often it is among those.
	sweeping atomic.Bool
	queued   int
	// told is the version at which the change was proposed by which this node gains the
	// span, once an old owner has told it all there is. It ends with the process: what is
	// gained is compared again then.
	told atomic.Uint64

	// mu is held while any of it changes and is taken before the locks of keys. That of
	// a class that tenants share is taken before that of one that was born in it.
	mu sync.Mutex
}

// Adopt implements repair.Replica. When it returns, no merge is under way any more
// that does not know c. It is refused while an idempotency key has a vote here for a
// write that c covers and that was not made: c would say that it was.
func (s *Store) Adopt(of repair.Span, c *causal.Confirmed) error { return s.learn(of, c, false) }

// Release implements repair.Replica. It adopts c, too: if all owners know it, it is
// true.
func (s *Store) Release(of repair.Span, c *causal.Confirmed) error { return s.learn(of, c, true) }

func (s *Store) learn(of repair.Span, c *causal.Confirmed, release bool) error {
	if err := s.takesWrites(); err != nil {
		return err
	}
	h, err := s.hold(of)
	if err != nil {
		return err
	}
	defer h.free()
	to := h.known
	news := !c.Within(to.confirmed)
	if news {
		if err := s.admits(of, c); err != nil {
			return err
		}
		all := to.confirmed.Join(c)
		to.confirmed = &all
	}
	sweep := release && !c.Within(to.released)
	if sweep {
		all := to.released.Join(c)
		to.released = &all
	}
	if !news && !sweep {
		return nil
	}
	return h.store(to, sweep)
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
// under [partition u16][kind u8][class], the class as ring encodes it. Stored data depends on it.
const formatSpan = 1

var errSpan = errors.New("what is confirmed of a span does not decode")

func spanKey(of repair.Span) []byte {
	return ring.AppendClass(append(binary.BigEndian.AppendUint16(nil, uint16(of.Partition)), kindSpan), of.Class)
}

// classOf returns the class of what is known of a span, by its storage key; ok is false
// for that of anything else.
func classOf(key []byte) (c ring.Class, ok bool) {
	if len(key) < 4 || key[2] != kindSpan {
		return 0, false
	}
	c, rest, ok := ring.CutClass(key[3:])
	return c, ok && len(rest) == 0
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
// partition with data. Of a partition under quarantine some may be lost.
func (s *Store) loadSpans() (err error) {
	for _, p := range s.marks.List() {
		s.partition(p).lost.Store(true)
	}
	var last *partition
	it, err := s.opts.Engine.NewIter(nil, nil)
	if err != nil {
		return fmt.Errorf("read what is confirmed: %w", err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("read what is confirmed: %w", cerr)
			if last != nil {
				last.lost.Store(true) // if the store is to go on all the same
			}
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
			class, ok := classOf(it.Key())
			if !ok {
				return fmt.Errorf("partition %d: %w: key %x", p, errSpan, it.Key())
			}
			floor, confirmed, released, err := decodeSpan(it.Value())
			if err != nil {
				return fmt.Errorf("partition %d: %w", p, err)
			}
			last = s.partition(p)
			sp := last.add(class)
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
	class, ok := classOf(key)
	if !ok {
		return of, confirmed, released, false, nil
	}
	of = repair.Span{Partition: ring.Partition(binary.BigEndian.Uint16(key)), Class: class}
	_, confirmed, released, err = decodeSpan(value)
	return of, confirmed, released, true, err
}
