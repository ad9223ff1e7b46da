package repair

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/gossip/ring"
)

// fakeReplica holds objects in memory and keeps rule T.
type fakeReplica struct {
	coord.Replica // what is not used here panics
	c             *cluster
	i             int

	mu                  sync.Mutex
	rows                map[ring.TenantNumber]map[string]causal.Object
	records             map[string]RecordRow
	session             uint64
	actor               uint64
	drawn               map[ring.Partition]uint64
	confirmed, released map[Span]causal.Confirmed
	votes               causal.Context
	// open are the idempotency keys of votes; once there are none of them any more,
	// votes is not either.
	open []RecordRow
	// told are the changes by which spans are gained of which all was told; atTold is
	// called before one gets in, without locks.
	told   map[Span]ring.Version
	atTold func(Span)
	// merged counts objects that came.
	merged int
	fail   func(op string) error
}

func newFakeReplica(c *cluster, i int) *fakeReplica {
	f := &fakeReplica{c: c, i: i}
	f.wipe()
	f.restart()
	return f
}

func (f *fakeReplica) wipe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows = map[ring.TenantNumber]map[string]causal.Object{tenantA: {}, tenantB: {}}
	f.records = map[string]RecordRow{}
	f.confirmed, f.released = map[Span]causal.Confirmed{}, map[Span]causal.Confirmed{}
}

func (f *fakeReplica) restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.session++
	f.actor = uint64(f.i+1)<<8 | f.session
	f.told = map[Span]ring.Version{}
	f.drawn = map[ring.Partition]uint64{}
}

// span is the span of a tenant's keys, as far as the node knows.
func (f *fakeReplica) span(t ring.TenantNumber, p ring.Partition) Span {
	if st := f.c.nodes[f.i].state.Load(); st != nil {
		if r, ok := st.TenantByNumber(t); ok {
			return Span{p, r.Class()}
		}
	}
	return Span{p, f.c.tenants[0].Class()}
}

// in reports whether a tenant's keys of a partition are in a span.
func (f *fakeReplica) in(s Span, t ring.TenantNumber, p ring.Partition) bool {
	return p == s.Partition && f.span(t, p) == s
}

// part gives tenants that have a class for themselves what is known of the one that they
// were born in, before that changes, or something becomes known of them. The replica is
// locked.
func (f *fakeReplica) part(p ring.Partition) {
	for _, t := range []ring.TenantNumber{tenantA, tenantB} {
		s := f.span(t, p)
		if _, ok := f.confirmed[s]; !ok && s.Class != s.Class.Born() {
			f.confirmed[s], f.released[s] = f.confirmed[Span{p, s.Class.Born()}], f.released[Span{p, s.Class.Born()}]
		}
	}
}

func lww(t ring.TenantNumber) bool { return t == tenantA }

func (f *fakeReplica) place(t ring.TenantNumber, key string) (ring.Token, ring.Partition) {
	tok := ring.KeyToken(t, []byte(key))
	return tok, f.c.layout.PartitionOf(tok)
}

// mint makes a write of a key that covers what is held here.
func (f *fakeReplica) mint(t ring.TenantNumber, key, value string) causal.Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, p := f.place(t, key)
	f.drawn[p]++
	held := f.rows[t][key]
	s := causal.Sibling{Dot: causal.Dot{Actor: f.actor, Counter: f.drawn[p]}, HLC: uint64(time.Now().UnixMilli()) << 16, Value: []byte(value)}
	if value == "" {
		s.Flags = causal.FlagTombstone
	}
	return causal.Mint(&held, held.Context, s)
}

// put makes a write and brings it to the nodes given.
func (c *cluster) put(at int, t ring.TenantNumber, key, value string, to ...int) causal.Object {
	o := c.nodes[at].data.mint(t, key, value)
	for _, i := range append(to, at) {
		c.nodes[i].data.join(t, key, o)
	}
	return o
}

func (f *fakeReplica) join(t ring.TenantNumber, key string, o causal.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := f.rows[t][key]
	f.rows[t][key] = causal.Join(&held, &o)
}

// Read implements Objects.
func (f *fakeReplica) Read(at coord.Address, done func([]byte, error)) {
	f.mu.Lock()
	o := f.rows[at.Tenant][string(at.Key)]
	f.part(at.Partition)
	c := f.confirmed[f.span(at.Tenant, at.Partition)]
	o = o.Settled(&c, lww(at.Tenant))
	f.mu.Unlock()
	if o.IsZero() {
		done(nil, nil)
		return
	}
	done(o.Append(nil), nil)
}

// Merge implements Objects.
func (f *fakeReplica) Merge(items []coord.MergeItem, done func(int, []byte, error)) {
	errs := make([]error, len(items))
	f.mu.Lock()
	for i := range items {
		it := &items[i]
		o, err := causal.Decode(bytes.Clone(it.Object))
		if err == nil && f.fail != nil {
			err = f.fail("merge")
		}
		if st := f.c.nodes[f.i].state.Load(); err == nil && st != nil && it.PV != 0 && it.PV != st.Layout().PV(it.Partition) {
			err = coord.ErrMoved
		}
		if err != nil {
			errs[i] = err
			continue
		}
		f.merged++
		held := f.rows[it.Tenant][string(it.Key)]
		if it.Refetch != nil {
			f.rows[it.Tenant][string(it.Key)] = causal.JoinFetched(&held, &o, it.Refetch)
			continue
		}
		if it.Gaining != 0 && f.told[f.span(it.Tenant, it.Partition)] != it.Gaining {
			f.rows[it.Tenant][string(it.Key)] = causal.Join(&held, &o)
			continue
		}
		f.part(it.Partition)
		c := f.confirmed[f.span(it.Tenant, it.Partition)]
		joined, stripped := causal.JoinUnder(&held, &o, &c, it.LWW)
		if stripped {
			errs[i] = coord.ErrStripped
		}
		f.rows[it.Tenant][string(it.Key)] = joined
	}
	f.mu.Unlock()
	for i, err := range errs {
		done(i, nil, err)
	}
}

// State implements Replica.
func (f *fakeReplica) State(s Span) (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := State{Session: f.session, Actor: f.actor, Drawn: f.drawn[s.Partition], Now: time.Now().UnixMilli(), Votes: slices.Clone(f.votes)}
	for t, rows := range f.rows {
		for key, o := range rows {
			if _, p := f.place(t, key); f.in(s, t, p) {
				st.Seen = causal.JoinContext(st.Seen, o.Context)
			}
		}
	}
	f.part(s.Partition)
	st.Confirmed, st.Released = f.confirmed[s], f.released[s]
	if f.fail != nil {
		return st, f.fail("state")
	}
	return st, nil
}

// Adopt implements Replica.
func (f *fakeReplica) Adopt(s Span, c *causal.Confirmed) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail("adopt"); err != nil {
			return err
		}
	}
	f.part(s.Partition)
	old := f.confirmed[s]
	f.confirmed[s] = old.Join(c)
	return nil
}

// Release implements Replica. It collects at once.
func (f *fakeReplica) Release(s Span, c *causal.Confirmed) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail("release"); err != nil {
			return err
		}
	}
	f.part(s.Partition)
	old := f.released[s]
	now := old.Join(c)
	f.released[s] = now
	for t, rows := range f.rows {
		for key, o := range rows {
			if _, p := f.place(t, key); !f.in(s, t, p) {
				continue
			}
			if o = o.Settled(&now, lww(t)); o.IsZero() {
				delete(rows, key)
			} else {
				rows[key] = o
			}
		}
	}
	return nil
}

// Tenants implements Replica.
func (f *fakeReplica) Tenants(p ring.Partition) (all []ring.TenantNumber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range []ring.TenantNumber{tenantA, tenantB} {
		for key := range f.rows[t] {
			if _, q := f.place(t, key); p == q {
				all = append(all, t)
				break
			}
		}
	}
	return all
}

// Depth implements Replica: leaves of 16 to 32 keys, so that there are some.
func (f *fakeReplica) Depth(p ring.Partition, t ring.TenantNumber) (depth int) {
	first, last := tokens(f.c.layout, p)
	for n := len(f.sorted(Range{p, t, first, last})); n > 64; n /= 2 {
		depth++
	}
	return depth
}

func (f *fakeReplica) sorted(r Range) (rows []Row) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, o := range f.rows[r.Tenant] {
		if tok, p := f.place(r.Tenant, key); p == r.Partition && tok >= r.First && tok <= r.Last {
			rows = append(rows, Row{Token: tok, Key: []byte(key), Object: o, Size: 100})
		}
	}
	slices.SortFunc(rows, func(a, b Row) int { return a.at().compare(b.at()) })
	return rows
}

// Sums implements Replica.
func (f *fakeReplica) Sums(r Range, bits int) ([]Sum, error) {
	if err := f.failed("sums"); err != nil {
		return nil, err
	}
	sums := make([]Sum, 1<<bits)
	for _, row := range f.sorted(r) {
		i := uint64(row.Token-r.First) / (uint64(r.Last-r.First)>>bits + 1)
		for k := range row.Object.Siblings {
			s := &row.Object.Siblings[k]
			b := fmt.Appendf(nil, "%q %v %d", row.Key, s.Dot, s.Flags&^causal.FlagStripped)
			sums[i].Count++
			sums[i].Lo += xxh3.Hash(b)
		}
	}
	return sums, nil
}

// Rows implements Replica.
func (f *fakeReplica) Rows(r Range, after *Row, limit int) (rows []Row, more bool, err error) {
	if err := f.failed("rows"); err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	f.part(r.Partition)
	c := f.confirmed[f.span(r.Tenant, r.Partition)]
	f.mu.Unlock()
	for _, row := range f.sorted(r) {
		if after != nil && row.at().compare(after.at()) <= 0 {
			continue
		}
		if len(rows) == limit {
			return rows, true, nil
		}
		row.Object = row.Object.Settled(&c, lww(r.Tenant))
		row.Object.Siblings = slices.Clone(row.Object.Siblings)
		for k := range row.Object.Siblings {
			row.Object.Siblings[k].Value = nil
		}
		rows = append(rows, row)
	}
	return rows, false, nil
}

// known returns what the replica has adopted, and gone what was released.
func (f *fakeReplica) known() map[Span]causal.Confirmed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.confirmed)
}

func (f *fakeReplica) gone() map[Span]causal.Confirmed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.released)
}
