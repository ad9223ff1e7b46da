package sums

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"pgregory.net/rapid"

	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/repair"
	"github.com/pairdb/pairdb/engine/base"
	"github.com/pairdb/pairdb/engine/vfs"
	"github.com/pairdb/pairdb/gossip/ring"
)

// place is where a key of the model is.
type place struct {
	Position
	key string
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Tenant, b.Tenant),
		cmp.Compare(a.Token, b.Token), cmp.Compare(a.key, b.key))
}

// version is what a write left at a key; an object without anything is a delete.
type version struct {
	seq    base.SeqNum
	object causal.Object
}

// world is a store with writers that get on step by step, whenever anybody else
// waits for anything: that is how a test gets at all interleavings.
type world struct {
	t      *rapid.T
	s      *Sums
	places []place

	stored           map[place][]version // ascending
	visible, durable base.SeqNum
	keep             base.SeqNum // what KeepDeletesAfter was told
	counter          uint64
	writers          []*writer
	busy             map[place]bool
	still            bool // no writer moves
	doubts           bool // some write was doubted
	seen             causal.Context
	fs               *vfs.MemFS
	broken           error // of reading
}

// writer is somebody who writes some keys in a batch.
type writer struct {
	places        []place
	before, after []causal.Object
	pass          Pass
	seq           base.SeqNum
	step          int // 0: to be applied; then so many keys were counted, and one more
	doubt         bool
}

var errBroken = errors.New("broken disk")

func newWorld(t *rapid.T, partitions int, keys int) *world {
	w := &world{t: t, stored: map[place][]version{}, busy: map[place]bool{}, fs: vfs.NewMem()}
	if err := errors.Join(w.fs.MkdirAll("d"), w.fs.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	shift := uint(0)
	for 1<<shift < partitions {
		shift++
	}
	tokens := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1<<64 - 1, 1 << 63, 1<<63 - 1, 1 << 62}))
	for i := range keys {
		token := tokens.Draw(t, "token")
		p := place{Position{Tenant: ring.TenantNumber(1 + i%3%2), Token: ring.Token(token)}, fmt.Sprint(i)}
		p.Partition = ring.Partition(token >> (64 - shift))
		w.places = append(w.places, p)
	}
	w.begin(partitions)
	return w
}

func (w *world) begin(partitions int) {
	w.s = New(func() int { return partitions })
	w.s.sizes = sizes{target: 8, large: 12, small: 3}
	w.s.gate.pause = w.tick
}

// chance draws a yes once in n times.
func (w *world) chance(n int) bool { return rapid.IntRange(0, n-1).Draw(w.t, "chance") == 0 }

// ticks lets writers get on a little.
func (w *world) ticks() {
	if w.still {
		return
	}
	for range rapid.IntRange(0, 2).Draw(w.t, "ticks") {
		w.tick()
	}
}

// tick is one step of one writer, perhaps a new one.
func (w *world) tick() {
	if n := len(w.writers); !w.still && n < 4 && (n == 0 || w.chance(3)) {
		w.enter()
		return
	}
	if len(w.writers) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.writers)-1).Draw(w.t, "writer")
	if w.writers[i].tick(w) {
		w.writers = slices.Delete(w.writers, i, i+1)
	}
}

// enter begins a write of keys that nobody writes just then.
func (w *world) enter() {
	x := &writer{doubt: w.chance(12)}
	for range rapid.IntRange(1, 3).Draw(w.t, "keys") {
		p := rapid.SampledFrom(w.places).Draw(w.t, "key")
		if !w.busy[p] {
			w.busy[p] = true
			x.places = append(x.places, p)
		}
	}
	if len(x.places) == 0 {
		return
	}
	x.pass = w.s.Enter(rapid.IntRange(0, 99).Draw(w.t, "hint"))
	w.writers = append(w.writers, x)
}

// tick reports whether the writer is done.
func (x *writer) tick(w *world) bool {
	if x.step == 0 {
		x.seq = w.visible + base.SeqNum(len(x.places))
		for _, p := range x.places {
			before := w.at(p, base.MaxSeqNum)
			x.before = append(x.before, before)
			x.after = append(x.after, w.mutate(before))
			w.stored[p] = append(w.stored[p], version{x.seq, x.after[len(x.after)-1]})
		}
		w.visible = x.seq
		x.step++
		return false
	}
	if i := x.step - 1; i < len(x.places) {
		p := x.places[i]
		if x.doubt {
			w.s.Doubt(p.Position)
			w.doubts = true
		} else {
			w.s.Add(p.Position, []byte(p.key), &x.before[i], &x.after[i], x.seq)
		}
		delete(w.busy, p)
		x.step++
		return false
	}
	x.pass.Leave()
	return true
}

// mutate returns what a write makes of an object: a write that saw it or did not,
// one that merged nothing new, or nothing at all.
func (w *world) mutate(o causal.Object) causal.Object {
	if !o.IsZero() && w.chance(4) {
		return causal.Object{} // collected
	}
	w.counter++
	s := causal.Sibling{Dot: causal.Dot{Actor: 1 + w.counter%3, Counter: w.counter}}
	if w.chance(3) {
		s.Flags = causal.FlagTombstone
	}
	saw := o.Context
	if w.chance(3) {
		saw = nil
	}
	out := causal.Mint(&o, saw, s)
	if w.chance(4) {
		out.StripLosers()
	}
	w.seen = causal.JoinContext(w.seen, out.Context)
	return out
}

// at is what a snapshot shows.
func (w *world) at(p place, seq base.SeqNum) causal.Object {
	for _, v := range slices.Backward(w.stored[p]) {
		if v.seq <= seq {
			return v.object
		}
	}
	return causal.Object{}
}

// quiet lets all writers end.
func (w *world) quiet() {
	for len(w.writers) > 0 {
		if w.writers[0].tick(w) {
			w.writers = w.writers[1:]
		}
	}
}

// want is the sum of a stretch of tokens as stored now.
func (w *world) want(p ring.Partition, t ring.TenantNumber, first, last ring.Token) repair.Sum {
	var d repair.Sum
	for _, q := range w.places {
		if q.Partition == p && q.Tenant == t && q.Token >= first && q.Token <= last {
			o := w.at(q, base.MaxSeqNum)
			Object(&d, []byte(q.key), &o)
		}
	}
	return d
}

// check holds all that the sums say against what is stored, with nobody writing.
func (w *world) check() {
	w.quiet()
	w.still = true
	defer func() { w.still = false }()
	parts := w.s.Partitions()
	for p := range ring.Partition(parts) {
		if err := w.s.Know(p, w); err != nil {
			w.t.Fatal(err)
		}
		tenants, known := w.s.Tenants(p)
		if !known {
			w.t.Fatalf("partition %d is not known", p)
		}
		first, last := w.s.tokens(&grid{}, p, 0)
		for t := range ring.TenantNumber(4) {
			if want := w.want(p, t, first, last); want.Count > 0 && !slices.Contains(tenants, t) {
				w.t.Fatalf("partition %d: %d is not among the tenants %v", p, t, tenants)
			}
			for _, bits := range []int{0, w.s.Depth(p, t), 3, rapid.IntRange(0, 6).Draw(w.t, "bits")} {
				w.checkRange(repair.Range{Partition: p, Tenant: t, First: first, Last: last}, bits)
			}
		}
		seen, newest := w.s.Seen(p)
		if newest > w.visible {
			w.t.Fatalf("partition %d has a write of the future", p)
		}
		if !w.seen.CoversAll(seen) {
			w.t.Fatalf("partition %d has seen %v, there was %v", p, seen, w.seen)
		}
	}
}

func (w *world) checkRange(r repair.Range, bits int) {
	got, newest, err := w.s.Range(r, bits, w)
	if err != nil {
		w.t.Fatalf("%v into 2^%d: %v", r, bits, err)
	}
	if newest > w.visible {
		w.t.Fatalf("sums with a write of the future")
	}
	if len(got) != 1<<bits {
		w.t.Fatalf("%d sums of 2^%d", len(got), bits)
	}
	size := uint64(r.Last-r.First)>>bits + 1
	for i := range got {
		first := r.First + ring.Token(uint64(i)*size)
		if want := w.want(r.Partition, r.Tenant, first, first+ring.Token(size-1)); got[i] != want {
			w.t.Fatalf("partition %d, tenant %d, part %d of 2^%d (depth %d): %v, want %v", r.Partition, r.Tenant, i, bits, w.s.Depth(r.Partition, r.Tenant), got[i], want)
		}
	}
}

// Snapshot implements Reader.
func (w *world) Snapshot() View { return &worldView{w, w.visible} }

// VisibleSeq implements Reader and Log.
func (w *world) VisibleSeq() base.SeqNum { return w.visible }

// WaitDurable implements Log.
func (w *world) WaitDurable(seq base.SeqNum) error {
	if seq > w.visible {
		w.t.Fatalf("wait for %d, %d is visible", seq, w.visible)
	}
	w.ticks()
	if w.broken != nil {
		return w.broken
	}
	w.durable = max(w.durable, seq)
	return nil
}

// KeepDeletesAfter implements Log.
func (w *world) KeepDeletesAfter(seq base.SeqNum) { w.keep = seq }

type worldView struct {
	w   *world
	seq base.SeqNum
}

func (v *worldView) Seq() base.SeqNum { return v.seq }
func (v *worldView) Close()           {}

func (v *worldView) Scan(p ring.Partition, t ring.TenantNumber, first, last ring.Token, fn func(ring.Token, []byte, *causal.Object)) error {
	all := slices.Clone(v.w.places)
	slices.SortFunc(all, comparePlaces)
	for _, q := range all {
		if q.Partition != p || q.Tenant != t || q.Token < first || q.Token > last {
			continue
		}
		if !v.w.still {
			v.w.ticks()
		}
		if v.w.broken != nil {
			return v.w.broken
		}
		if o := v.w.at(q, v.seq); !o.IsZero() {
			fn(q.Token, []byte(q.key), &o)
		}
	}
	return nil
}

func (v *worldView) Tenants(p ring.Partition, fn func(ring.TenantNumber, int, uint64)) error {
	if v.w.broken != nil {
		return v.w.broken
	}
	keys := map[ring.TenantNumber]int{}
	for _, q := range v.w.places {
		if o := v.w.at(q, v.seq); q.Partition == p && !o.IsZero() {
			keys[q.Tenant]++
		}
	}
	for _, t := range slices.Sorted(maps.Keys(keys)) {
		v.w.ticks()
		fn(t, keys[t], 0)
	}
	return nil
}

// crash loses what is not durable, and starts anew with the file.
func (w *world) crash(partitions int, mode vfs.CrashMode) {
	w.writers, w.busy = nil, map[place]bool{}
	// Some of what nobody waited for may be there.
	upTo := w.durable + base.SeqNum(rapid.IntRange(0, int(w.visible-w.durable)).Draw(w.t, "survives"))
	last := base.SeqNum(0)
	for p, versions := range w.stored {
		versions = slices.DeleteFunc(versions, func(v version) bool { return v.seq > upTo })
		w.stored[p] = versions
		if n := len(versions); n > 0 {
			last = max(last, versions[n-1].seq)
		}
	}
	w.visible = max(upTo, last)
	w.durable = w.visible
	w.fs = w.fs.Crash(mode, rand.New(rand.NewPCG(rapid.Uint64().Draw(w.t, "crash seed"), 1)))
	w.broken = nil
	w.reopen(partitions)
}

func (w *world) reopen(partitions int) {
	w.begin(partitions)
	since, err := w.s.Load(w.fs, "d/sums")
	if err != nil {
		w.t.Fatalf("load: %v", err)
	}
	if since > w.visible {
		w.t.Fatalf("the file covers %d, %d is there", since, w.visible)
	}
	if w.keep != 0 && since != 0 && w.keep > since {
		w.t.Fatalf("deletes are kept after %d, the file covers %d", w.keep, since)
	}
	if since == 0 {
		w.keep = 0
		return
	}
	w.keep = since
	for _, p := range w.places {
		for _, v := range w.stored[p] {
			if v.seq > since {
				w.s.Doubt(p.Position)
			}
		}
	}
}

// save writes the file while writers go on. From call number breaks on nothing gets
// to the disk any more; 0: all does.
func (w *world) save(breaks int) error {
	calls := 0
	fsys := vfs.Inject(w.fs, func(op vfs.Op) error {
		w.ticks()
		if calls++; calls == breaks {
			w.broken = errBroken
		}
		return w.broken
	})
	return w.s.Save(fsys, "d/sums", w)
}

// listReader shows the first keys of a list, without versions: whoever uses it
// writes nothing while anybody reads.
type listReader struct {
	seq   base.SeqNum
	has   int
	place func(i int) (Position, []byte)
}

func (r *listReader) Snapshot() View          { return r }
func (r *listReader) VisibleSeq() base.SeqNum { return r.seq }
func (r *listReader) Seq() base.SeqNum        { return r.seq }
func (r *listReader) Close()                  {}

func (r *listReader) Scan(p ring.Partition, t ring.TenantNumber, first, last ring.Token, fn func(ring.Token, []byte, *causal.Object)) error {
	o := causal.Object{Context: causal.Context{{Actor: 1, Counter: 1}}, Siblings: []causal.Sibling{{Dot: causal.Dot{Actor: 1, Counter: 1}}}}
	for i := range r.has {
		if at, key := r.place(i); at.Partition == p && at.Tenant == t && at.Token >= first && at.Token <= last {
			fn(at.Token, key, &o)
		}
	}
	return nil
}

func (r *listReader) Tenants(p ring.Partition, fn func(ring.TenantNumber, int, uint64)) error {
	if r.has > 0 {
		if at, _ := r.place(0); at.Partition == p {
			fn(at.Tenant, r.has, 0)
		}
	}
	return nil
}

// listLog is a Log on which everything is durable.
type listLog struct{ seq, keep base.SeqNum }

func (l *listLog) VisibleSeq() base.SeqNum          { return l.seq }
func (l *listLog) WaitDurable(base.SeqNum) error    { return nil }
func (l *listLog) KeepDeletesAfter(seq base.SeqNum) { l.keep = seq }
