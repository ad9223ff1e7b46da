package replica

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// model is three owners of some keys. Whatever happens to them, a quorum must read the
// last write that a quorum has, and nothing that was overwritten or deleted before.
type model struct {
	t      *rapid.T
	owners [3]*modelOwner
	keys   map[string]*modelKey
	// flying are merges that may yet arrive.
	flying []flight
	// sent are merges of which a copy may have been kept somewhere for any time.
	sent   []flight
	now    int64 // Unix ms
	actors uint64
	writes int
	names  map[causal.Dot]string
	// calm says that nobody crashes any more.
	calm bool
}

type flight struct {
	to  int
	key string
	o   causal.Object
}

// modelKey is what readers may see of a key, by the names of writes: a letter, d for a
// delete, and a number; "" is none.
type modelKey struct {
	// last is the latest write that a quorum has, open those that may become it.
	last string
	open map[string]bool
	// ends is when a value expires.
	ends map[string]int64
}

// over reports whether a write shows nothing, or may show nothing by now.
func (k *modelKey) over(name string, now int64) bool {
	end, ok := k.ends[name]
	return name == "" || name[0] == 'd' || ok && end <= now+30 // by somebody's clock
}

type modelOwner struct {
	*Store
	m      *model
	fs     *vfs.MemFS
	db     *engine.DB
	jobs   queue
	sweeps queue
	skew   int64
}

// Go keeps sweeps apart, so that they run whenever the model says so.
func (w *modelOwner) Go(name string, f func()) {
	if name == "replica sweep" {
		w.sweeps.Go(name, f)
	} else {
		w.jobs.Go(name, f)
	}
}

func newModel(t *rapid.T) *model {
	m := &model{t: t, now: 1000, keys: map[string]*modelKey{}, names: map[causal.Dot]string{}}
	for _, k := range []string{"k", "l"} {
		m.keys[k] = &modelKey{open: map[string]bool{}, ends: map[string]int64{}}
	}
	for i := range m.owners {
		m.owners[i] = &modelOwner{m: m, fs: vfs.NewMem(), skew: rapid.Int64Range(-30, 30).Draw(t, "skew")}
		m.owners[i].start()
	}
	return m
}

func (m *model) close() {
	for _, w := range m.owners {
		if err := w.db.Close(); err != nil {
			m.t.Error(err)
		}
	}
}

func (w *modelOwner) start() {
	db, err := engine.Open("data", engine.Options{FS: w.fs, Scheduler: &w.jobs, MemTableSize: 128 << 10, WALSegmentSize: 128 << 10, CacheSize: 1 << 20})
	if err != nil {
		w.m.t.Fatal(err)
	}
	w.m.actors++
	now := func() time.Time { return time.UnixMilli(w.m.now + w.skew) }
	w.db = db
	w.Store, err = New(Options{Engine: db, Actor: w.m.actors, Scheduler: w, Records: NewRecordSpace(1<<20, now), Tenant: lwwTenants, Sums: newSums()})
	if err != nil {
		w.m.t.Fatal(err)
	}
}

// crash loses what is not on disk.
func (w *modelOwner) crash() {
	fs := w.fs.Crash(vfs.CrashDropUnsynced, nil)
	w.jobs, w.sweeps = queue{}, queue{}
	_ = w.db.Close() // of the old file system, which nobody sees any more
	w.jobs, w.sweeps, w.fs = queue{}, queue{}, fs
	w.start()
}

func (m *model) chance(name string, n int) bool { return rapid.IntRange(1, n).Draw(m.t, name) == 1 }

// merge brings an object to an owner and says what it answers; ok is false if it
// crashed before.
func (m *model) merge(i int, key string, o *causal.Object) (uncovered causal.Object, err error, ok bool) {
	w := m.owners[i]
	w.Merge([]coord.MergeItem{{Address: spanned(key), Object: o.Append(nil), LastWriteWins: true}}, func(_ int, b []byte, e error) {
		ok, err = true, e
		if e == nil {
			uncovered, err = causal.Decode(b)
		}
	})
	if !m.calm && m.chance("crash before the sync", 30) {
		w.crash()
		return uncovered, nil, false
	}
	w.jobs.run()
	return uncovered, err, ok
}

// write is a put, or a delete, at an owner, which mints again if it is told that it has
// missed something that would win.
func (m *model) write() {
	key := rapid.SampledFrom([]string{"k", "l"}).Draw(m.t, "key")
	i := rapid.IntRange(0, 2).Draw(m.t, "minter")
	w, k := m.owners[i], m.keys[key]
	s := causal.Sibling{Flags: causal.FlagTombstone}
	m.writes++
	value := fmt.Sprint("d", m.writes)
	if !m.chance("delete", 2) {
		value = fmt.Sprint("v", m.writes)
		s.Flags, s.Value = 0, []byte(value)
		if m.chance("expires", 4) {
			s.Flags, s.ExpiresAt = causal.FlagExpiry, m.now+rapid.Int64Range(1, 300).Draw(m.t, "ttl")
			k.ends[value] = s.ExpiresAt
		}
	}
	k.open[value] = true
	var above causal.Context
	var aboveHLC uint64
	for range 2 {
		var hlc uint64
		b, err := w.Update(spanned(key), func(held *causal.Object, mint func() causal.Dot) (causal.Object, error) {
			s.Dot, s.HLC = mint(), uint64(max(m.now+w.skew, int64(held.Floor)+1, int64(aboveHLC)+1))
			m.names[s.Dot] = value
			o := causal.Mint(held, causal.JoinContext(held.Context, above), s)
			o.StripLosers()
			for i := range o.Siblings {
				if o.Siblings[i].Dot == s.Dot {
					hlc = o.Siblings[i].HLC
				}
			}
			return o, nil
		}, func(error) {})
		if err != nil {
			m.t.Fatal(err)
		}
		w.jobs.run()
		o, err := causal.Decode(b)
		if err != nil {
			m.t.Fatal(err)
		}
		acks, again := 1, false
		for j := range m.owners {
			if j == i {
				continue
			}
			m.sent = append(m.sent, flight{j, key, o})
			switch {
			case m.chance("lost", 4):
			case m.chance("late", 4):
				m.flying = append(m.flying, flight{j, key, o})
			default:
				held, err, ok := m.merge(j, key, &o)
				if ok && err == nil {
					acks++
					if h := held.Winner(); h != nil && h.HLC >= hlc && !o.Context.Covers(h.Dot) {
						again = true
						above, aboveHLC = causal.JoinContext(above, held.Context), max(aboveHLC, h.HLC)
					}
				}
			}
		}
		if acks < 2 {
			return // it may be seen, or not
		}
		if !again {
			m.has(key, value)
			return
		}
		if m.chance("crash of the minter", 20) {
			w.crash()
			return
		}
	}
}

// has notes that a quorum has a write: what was there before is over, and so is what
// was tried before and is not concurrent with anything that will be.
func (m *model) has(key, value string) {
	k := m.keys[key]
	if k.last != value {
		delete(k.open, k.last)
	}
	k.last = value
}

// read is a read of two owners.
func (m *model) read() {
	key := rapid.SampledFrom([]string{"k", "l"}).Draw(m.t, "key")
	leave := rapid.IntRange(0, 2).Draw(m.t, "not asked")
	for range 10 {
		if m.readOnce(key, leave) {
			return
		}
	}
	m.t.Fatalf("a read of %s never ends", key)
}

func (m *model) shown(i int, key string) (o causal.Object) {
	w := m.owners[i]
	w.Read(spanned(key), func(b []byte, err error) {
		if err == nil {
			o, err = causal.Decode(b)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	})
	w.jobs.run()
	return o
}

func (m *model) readOnce(key string, leave int) bool {
	var joined causal.Object
	held := map[int]causal.Object{}
	for i := range m.owners {
		if i != leave {
			held[i] = m.shown(i, key)
			o := held[i]
			joined = causal.Join(&joined, &o)
		}
	}
	joined.StripLosers()
	w := joined.Winner()
	for i := range m.owners {
		if o, asked := held[i]; asked && !o.Equal(&joined) {
			theirs, err, ok := m.merge(i, key, &joined)
			if !ok {
				return true // no answer
			}
			if coord.IsStripped(err) {
				return false
			}
			if err != nil {
				m.t.Fatal(err)
			}
			if t := theirs.Winner(); t != nil && w != nil && !joined.Context.Covers(t.Dot) && t.Beats(w) && !(theirs.Context.Covers(w.Dot) && !theirs.Has(w.Dot)) {
				return false
			}
		}
	}
	name := ""
	if w != nil && w.Flags&causal.FlagStripped == 0 {
		name = m.names[w.Dot]
	}
	m.saw(key, name)
	return true
}

// saw checks the write that a quorum has read. Where it has read nothing, what was there
// shows nothing any more.
func (m *model) saw(key, name string) {
	k := m.keys[key]
	if name == k.last || name == "" && k.over(k.last, m.now) {
		return
	}
	if name == "" {
		for open := range k.open {
			if k.over(open, m.now) {
				return
			}
		}
	}
	if !k.open[name] {
		m.t.Fatalf("%s is read as %q, when %q is the last write that a quorum has, and %v may be", key, name, k.last, slices.Sorted(maps.Keys(k.open)))
	}
	m.has(key, name)
}

// land brings what is in flight to an end.
func (m *model) land() {
	for len(m.flying) > 0 {
		f := m.flying[0]
		m.flying = m.flying[1:]
		if m.chance("arrives", 2) {
			_, err, _ := m.merge(f.to, f.key, &f.o)
			if err != nil && !coord.IsStripped(err) {
				m.t.Fatal(err)
			}
		}
	}
}

// step is something that happens, also in the middle of a round.
func (m *model) step() {
	switch rapid.IntRange(0, 9).Draw(m.t, "step") {
	case 0, 1, 2:
		m.write()
	case 3, 4:
		m.read()
	case 5:
		if len(m.flying) > 0 {
			n := rapid.IntRange(0, len(m.flying)-1).Draw(m.t, "flight")
			f := m.flying[n]
			m.flying = slices.Delete(m.flying, n, n+1)
			if _, err, _ := m.merge(f.to, f.key, &f.o); err != nil && !coord.IsStripped(err) {
				m.t.Fatal(err)
			}
		}
	case 6:
		m.now += rapid.Int64Range(1, 100).Draw(m.t, "passes")
	case 7:
		m.owners[rapid.IntRange(0, 2).Draw(m.t, "sweeper")].sweeps.run()
	case 8:
		m.resend()
	case 9:
		if m.chance("crash", 3) {
			m.owners[rapid.IntRange(0, 2).Draw(m.t, "crashes")].crash()
		}
	}
}

// resend delivers something old of which all owners are known to have had all.
func (m *model) resend() {
	if len(m.sent) == 0 {
		return
	}
	f := m.sent[rapid.IntRange(0, len(m.sent)-1).Draw(m.t, "resent")]
	for _, w := range m.owners {
		if !w.confirmed(theSpan.Partition, theSpan.Class).Seen.CoversAll(f.o.Context) {
			return
		}
	}
	if _, err, _ := m.merge(f.to, f.key, &f.o); err != nil && !coord.IsStripped(err) {
		m.t.Fatal(err)
	}
}

func (m *model) steps(n int) {
	for range rapid.IntRange(0, n).Draw(m.t, "steps") {
		m.step()
	}
}

var errVoid = errors.New("the round is void")

// state is what an owner says whose sums have been asked for, as each round does: what it
// has not read since its start it has not seen.
func (m *model) state(i int) repair.State {
	w := m.owners[i]
	const tokens = ring.Token(1) << 54 // of one of 1024 partitions
	first := ring.Token(theSpan.Partition) * tokens
	for _, t := range w.Tenants(theSpan.Partition) {
		if _, err := w.Sums(repair.Range{Partition: theSpan.Partition, Tenant: t, First: first, Last: first + tokens - 1}, 0); err != nil {
			m.t.Fatal(err)
		}
	}
	st, err := m.owners[i].State(theSpan)
	if err != nil {
		m.t.Fatal(err)
	}
	return st
}

// round makes all owners equal and follows what they have. busy says that other things
// go on meanwhile.
func (m *model) round(busy bool) (err error) {
	meanwhile := func(n int) {
		if busy {
			m.steps(n)
		}
	}
	var begun [3]repair.State
	for i := range begun {
		begun[i] = m.state(i)
		meanwhile(2)
	}
	var c, known causal.Confirmed
	for i := range begun {
		known = known.Join(&begun[i].Confirmed)
		c.Seen = causal.JoinContext(c.Seen, begun[i].Seen)
		if now := begun[i].Now; i == 0 || now < c.Expired {
			c.Expired = now
		}
	}
	for i := range begun {
		for k := range c.Seen {
			if c.Seen[k].Actor == begun[i].Actor {
				c.Seen[k].Counter = begun[i].Drawn
			}
		}
	}
	c.Seen = slices.DeleteFunc(c.Seen, func(d causal.Dot) bool { return d.Counter == 0 })
	for i := range begun {
		m.hand(i, m.owners[i].Adopt, &known)
		meanwhile(1)
	}
	m.land()
	for i := range begun {
		if m.state(i).Session != begun[i].Session {
			return errVoid
		}
	}
	m.exchange(meanwhile)
	for i := range begun {
		if m.state(i).Session != begun[i].Session {
			return errVoid
		}
	}
	for i := range begun {
		m.hand(i, m.owners[i].Adopt, &c)
		meanwhile(2)
		if busy && m.chance("the driver dies", 8) {
			return errVoid
		}
	}
	m.land()
	for i := range begun {
		m.hand(i, m.owners[i].Release, &c)
		meanwhile(2)
		if busy && m.chance("the driver dies", 8) {
			return errVoid
		}
	}
	return nil
}

func (m *model) hand(i int, to func(repair.Span, *causal.Confirmed) error, c *causal.Confirmed) {
	if err := to(theSpan, c); err != nil {
		m.t.Fatal(err)
	}
	m.owners[i].jobs.run()
}

// exchange brings what each owner shows to all others. It reads what the sums of each
// need, as a comparison does: so an owner learns what it had seen before it crashed.
func (m *model) exchange(meanwhile func(int)) {
	for _, w := range m.owners {
		for more := true; more; {
			var err error
			if more, err = w.StepSums(); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	for _, key := range []string{"k", "l"} {
		for i := range m.owners {
			for j := range m.owners {
				if i == j {
					continue
				}
				o := m.shown(i, key)
				for range 3 {
					_, err, ok := m.merge(j, key, &o)
					if err != nil && !coord.IsStripped(err) {
						m.t.Fatal(err)
					}
					if ok {
						break
					}
				}
			}
			meanwhile(1)
		}
	}
}

// TestModel: through lost and late merges, crashes, rounds that are given up and
// collecting at any time, no write that a quorum has is lost, nothing comes back, and
// in the end nothing is left of what was deleted.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		defer m.close()
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			m.steps(6)
			if rapid.Bool().Draw(t, "round") && m.round(rapid.Bool().Draw(t, "busy")) == nil { // void rounds are part of it
				m.owners[rapid.IntRange(0, 2).Draw(m.t, "sweeper")].sweeps.run()
				for range 3 {
					m.resend()
					m.read()
				}
			}
		}
		m.calm = true
		m.land()
		m.now += 1000
		for range 3 {
			if err := m.round(false); err != nil {
				t.Fatal(err)
			}
			for _, w := range m.owners {
				w.sweeps.run()
			}
		}
		m.read()
		m.finish()
	})
}

// finish checks that all owners store the same, and only values.
func (m *model) finish() {
	for _, key := range []string{"k", "l"} {
		a := spanned(key)
		var first []byte
		for i, w := range m.owners {
			b, _, err := w.db.GetSeq(nil, appendKey(nil, &a))
			if err != nil && !isMissing(err) {
				m.t.Fatal(err)
			}
			o, err := causal.Decode(b)
			if err != nil {
				m.t.Fatal(err)
			}
			if o.Transient() {
				m.t.Fatalf("owner %d still stores %v of %s", i, o, key)
			}
			if _, _, err := w.db.GetSeq(nil, entryOf(a)); !isMissing(err) {
				m.t.Fatalf("owner %d has %s in its index, and stores %v", i, key, o)
			}
			var dots []byte
			for k := range o.Siblings {
				dots = fmt.Appendf(dots, "%v %q;", o.Siblings[k].Dot, o.Siblings[k].Value)
			}
			if i == 0 {
				first = dots
			} else if string(first) != string(dots) {
				m.t.Fatalf("of %s, owner 0 stores %s and owner %d %s", key, first, i, dots)
			}
		}
	}
}
