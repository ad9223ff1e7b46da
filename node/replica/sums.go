package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
	"github.com/pairdb/pairdb/node/replica/sums"
)

// catchUp is what is left to do before the sums that were loaded can be believed:
// the leaves of keys in tables that are newer than the file have to be doubted.
type catchUp struct {
	mu sync.Mutex // held while it is done
	// since is what the file covers, 0 if nothing is left to do.
	since base.SeqNum
}

// beginSums looks whether the file that was loaded can be of this data.
func (s *Store) beginSums() {
	since := s.opts.Sums.Covered()
	if since > s.opts.Engine.VisibleSeq() {
		// It knows of writes that the engine does not have: that was set back.
		s.opts.Sums.Reset(s.opts.Engine)
		since = 0
	}
	s.catchUp.since = since
}

// caughtUp makes sure that the sums can be believed. Where it cannot find out what
// is newer than the file, it forgets the file.
func (s *Store) caughtUp() error {
	c := &s.catchUp
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since == 0 {
		return nil
	}
	err := s.opts.Engine.KeysSince(c.since,
		func(key []byte) { DoubtKey(s.opts.Sums, key) },
		func(start, end []byte) { doubtRange(s.opts.Sums, start, end) },
		func() bool { return false })
	if errors.Is(err, base.ErrClosed) {
		return readError(err)
	}
	if err != nil {
		s.opts.Sums.Reset(s.opts.Engine)
	}
	c.since = 0
	return nil
}

// sumPosition is where the object with a storage key is.
func sumPosition(key []byte) sums.Position {
	return sums.Position{
		Partition: ring.Partition(binary.BigEndian.Uint16(key)),
		Tenant:    tenantOf(key),
		Token:     ring.Token(binary.BigEndian.Uint64(key[7:])),
	}
}

// Recovered tells the sums of a key that the engine found in its log: what is stored
// there is newer than the file if seq is above what that covers. It is for
// engine.Options.OnRecovered.
func Recovered(s *sums.Sums, key []byte, seq base.SeqNum) {
	if seq > s.Covered() {
		DoubtKey(s, key)
	}
}

// DoubtKey says that what is stored at a storage key may be newer than the sums.
// Keys of other things than objects do not matter to them.
func DoubtKey(s *sums.Sums, key []byte) {
	if len(key) > keyHead && key[2] == kindObject {
		s.Doubt(sumPosition(key))
	}
}

// doubtRange does so for all storage keys from start to before end.
func doubtRange(s *sums.Sums, start, end []byte) {
	first, last := boundPartition(start), boundPartition(end)
	for p := int(first); p <= int(last) && p < s.Partitions(); p++ {
		s.Forget(ring.Partition(p))
	}
}

// boundPartition is the partition that a bound of storage keys, which may be shorter
// than any of them, is in.
func boundPartition(key []byte) uint16 {
	var b [2]byte
	copy(b[:], key)
	return binary.BigEndian.Uint16(b[:])
}

// count tells the sums that the batch with number seq made after of before at a
// storage key, or failed with err. The key's lock is held, so that the writes of a
// key are counted in their order, and the caller has entered the sums before the
// batch was applied. Whoever writes an object in any way has to do this.
func (s *Store) count(key []byte, before, after *causal.Object, seq base.SeqNum, err error) {
	at := sumPosition(key)
	if err == nil {
		s.opts.Sums.Add(at, key[keyHead:], before, after, seq)
		return
	}
	if e, ok := errors.AsType[*coord.Error](err); ok && e.Outcome == errcode.Indeterminate {
		s.opts.Sums.Doubt(at)
	}
}

// Tenants implements repair.Replica. If the partition cannot be read, tenants may
// be missing; Seen, which a round asks for first, fails then.
func (s *Store) Tenants(p ring.Partition) []ring.TenantNumber {
	if s.caughtUp() != nil || s.takesReads() != nil || s.opts.Sums.Know(p, s.reader()) != nil {
		return nil
	}
	tenants, _ := s.opts.Sums.Tenants(p)
	return tenants
}

// Depth implements repair.Replica.
func (s *Store) Depth(p ring.Partition, t ring.TenantNumber) int { return s.opts.Sums.Depth(p, t) }

// Sums implements repair.Replica. A range that cannot be cut so is
// INVALID_ARGUMENT.
func (s *Store) Sums(r repair.Range, bits int) ([]repair.Sum, error) {
	if err := s.readySums(); err != nil {
		return nil, err
	}
	of, newest, err := s.opts.Sums.Range(r, bits, s.reader())
	if err != nil {
		return nil, sumsError(err)
	}
	if err := s.awaitDurable(newest); err != nil {
		return nil, err
	}
	return of, nil
}

// Seen covers every dot that was applied in a partition or superseded, as far as
// is known, on disk: what was written before this start is known from the file of
// sums and from what was read since. It fails if it cannot be known which tenants
// have data here.
func (s *Store) Seen(p ring.Partition) (causal.Context, error) {
	if err := s.readySums(); err != nil {
		return nil, err
	}
	if err := s.opts.Sums.Know(p, s.reader()); err != nil {
		return nil, sumsError(err)
	}
	seen, newest := s.opts.Sums.Seen(p)
	if err := s.awaitDurable(newest); err != nil {
		return nil, err
	}
	return seen, nil
}

// VerifySums reads a partition and holds it against its sums. It returns how many
// leaves differed; they are right afterwards. Writes go on meanwhile.
func (s *Store) VerifySums(p ring.Partition) (differed int, err error) {
	if err := s.readySums(); err != nil {
		return 0, err
	}
	differed, err = s.opts.Sums.Verify(p, s.reader())
	return differed, sumsError(err)
}

// StepSums does a piece of what the sums have to do in the background: read what
// they do not know, divide leaves and join them. more is false when nothing is left
// to do for now; an error is that of one partition, the next call goes on with
// another.
func (s *Store) StepSums() (more bool, err error) {
	if err := s.readySums(); err != nil {
		return true, err
	}
	more, err = s.opts.Sums.Step(s.reader())
	return more, sumsError(err)
}

// SaveSums writes the file of the sums. It does nothing if the last one says all.
func (s *Store) SaveSums(fsys vfs.FS, name string) error {
	if err := s.caughtUp(); err != nil {
		return err
	}
	if !s.opts.Sums.Changed() {
		return nil
	}
	return s.opts.Sums.Save(fsys, name, s.opts.Engine)
}

// ForgetSums says that data of a partition came or went by other ways than writes.
func (s *Store) ForgetSums(p ring.Partition) { s.opts.Sums.Forget(p) }

func (s *Store) readySums() error {
	if err := s.takesReads(); err != nil {
		return err
	}
	return s.caughtUp()
}

// awaitDurable returns once all up to seq is on disk.
func (s *Store) awaitDurable(seq base.SeqNum) error {
	if s.opts.Engine.DurableSeq() >= seq {
		return nil
	}
	if err := s.takesWrites(); err != nil {
		return err
	}
	if err := s.opts.Engine.WaitDurable(seq); err != nil {
		return writeError(err, false)
	}
	return nil
}

// sumsError gives an error of the sums its code.
func sumsError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*coord.Error](err); ok {
		return err
	}
	if errors.Is(err, sums.ErrRange) {
		return &coord.Error{Code: errcode.InvalidArgument, Outcome: errcode.NotApplied, Message: "the range cannot be summed so", Err: err}
	}
	return &coord.Error{Code: errcode.Unavailable, Outcome: errcode.NotApplied, Message: "range sums are not known", Err: err}
}

// sumReader reads for the sums.
type sumReader struct{ s *Store }

func (s *Store) reader() sums.Reader { return sumReader{s} }

// Snapshot implements sums.Reader.
func (r sumReader) Snapshot() sums.View { return &sumView{s: r.s, at: r.s.opts.Engine.Snapshot()} }

// VisibleSeq implements sums.Reader.
func (r sumReader) VisibleSeq() base.SeqNum { return r.s.opts.Engine.VisibleSeq() }

// sumView implements sums.View.
type sumView struct {
	s       *Store
	at      *engine.Snapshot
	objects causal.Slab
}

// Seq implements sums.View.
func (v *sumView) Seq() base.SeqNum { return v.at.Seq() }

// Close implements sums.View.
func (v *sumView) Close() { _ = v.at.Close() } // it never fails

// Scan implements sums.View.
func (v *sumView) Scan(p ring.Partition, t ring.TenantNumber, first, last ring.Token, fn func(ring.Token, []byte, *causal.Object)) (err error) {
	at := coord.Address{Partition: p, Tenant: t, Token: first}
	lower := appendHead(nil, kindObject, &at)
	at.Token = last
	upper := coord.Successor(appendHead(nil, kindObject, &at)) // the token after it, or the next tenant
	it, err := v.at.NewIter(lower, upper)
	if err != nil {
		return v.s.readError(p, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = v.s.readError(p, cerr)
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		o, err := v.objects.Decode(it.Value())
		if err != nil {
			return v.s.undecodable(it.Key(), "the stored object", err)
		}
		fn(ring.Token(binary.BigEndian.Uint64(it.Key()[7:])), it.Key()[keyHead:], &o)
		v.objects.Reset()
	}
	return nil
}

// sampleKeys is how many keys of a tenant are looked at to tell how many it has.
const sampleKeys = 512

// Tenants implements sums.View.
func (v *sumView) Tenants(p ring.Partition, fn func(t ring.TenantNumber, keys int, within uint64)) (err error) {
	head := append(binary.BigEndian.AppendUint16(nil, uint16(p)), kindObject)
	it, err := v.at.NewIter(head, coord.Successor(head))
	if err != nil {
		return v.s.readError(p, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = v.s.readError(p, cerr)
		}
	}()
	for ok := it.First(); ok; {
		tenant := bytes.Clone(it.Key()[:7])
		from := binary.BigEndian.Uint64(it.Key()[7:])
		at, n := from, 0
		for ; ok && n < sampleKeys && bytes.HasPrefix(it.Key(), tenant); ok = it.Next() {
			at = binary.BigEndian.Uint64(it.Key()[7:])
			n++
		}
		within := uint64(0)
		if ok && bytes.HasPrefix(it.Key(), tenant) {
			within = at - from
			next := coord.Successor(tenant)
			ok = next != nil && it.SeekGE(next)
		}
		fn(tenantOf(tenant), n, within)
	}
	return nil
}
