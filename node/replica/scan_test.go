package replica

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/engine"
	"github.com/pairdb/pairdb/gossip/ring"
)

// scanNow scans and lets everything run that the answer waits for.
func (b *bench) scanNow(t *testing.T, r coord.ScanRange) coord.ScanPiece {
	t.Helper()
	var p coord.ScanPiece
	err := fmt.Errorf("no answer")
	b.Scan(&r, func(got coord.ScanPiece, e error) { p, err = got, e })
	b.jobs.run()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// everything is a range without a bound.
func everything(p ring.Partition, tenant ring.TenantNumber) coord.ScanRange {
	return coord.ScanRange{Partition: p, Tenant: tenant, MaxKeys: 1000, MaxBytes: 1 << 20, Budget: 10_000}
}

// TestScanMatchesModel compares scans in random pieces with a sorted list, with
// random bounds, modes, overwritten and deleted keys and flushes.
func TestScanMatchesModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	b := newBench(t)
	type place struct {
		partition ring.Partition
		tenant    ring.TenantNumber
	}
	model := map[place]map[string]coord.Address{}
	objects := map[string][]byte{}
	id := func(a *coord.Address) string { return string(appendKey(nil, a)) }
	for i := range 600 {
		a := coord.Address{
			Partition: ring.Partition(rng.IntN(3)), Tenant: ring.TenantNumber(7 + rng.IntN(2)), Token: ring.Token(rng.IntN(5)) << 60,
			Key: fmt.Appendf(nil, "%c%d", 'a'+rng.IntN(3), rng.IntN(60)),
		}
		flags := causal.Flags(0)
		value := strings.Repeat("x", rng.IntN(200))
		if rng.IntN(5) == 0 {
			flags, value = causal.FlagTombstone, ""
		}
		o, err := b.Update(a, func(o *causal.Object, dot func() causal.Dot) (causal.Object, error) {
			return causal.Mint(o, o.Context, causal.Sibling{Dot: dot(), HLC: uint64(i), Flags: flags, Value: []byte(value)}), nil
		}, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		at := place{a.Partition, a.Tenant}
		if model[at] == nil {
			model[at] = map[string]coord.Address{}
		}
		model[at][id(&a)], objects[id(&a)] = a, o
		if i%200 == 100 {
			b.jobs.run()
			done := make(chan error, 1)
			go func() { done <- b.db.Flush() }()
			for len(done) == 0 {
				b.jobs.run()
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	b.jobs.run()
	for range 300 {
		r := everything(ring.Partition(rng.IntN(3)), ring.TenantNumber(7+rng.IntN(2)))
		r.Mode = coord.ScanMode(rng.IntN(3))
		r.MaxKeys, r.MaxBytes, r.Budget = 1+rng.IntN(40), 1+rng.IntN(4000), 5+rng.IntN(200)
		if rng.IntN(2) == 0 {
			r.Start, r.End = []byte("b"), []byte("b3")
		}
		strict := rng.IntN(4) == 0
		if rng.IntN(3) == 0 {
			r.Group, r.From.Token = true, ring.Token(rng.IntN(5))<<60
		}
		if rng.IntN(3) == 0 {
			r.Until = &coord.Position{Token: ring.Token(rng.IntN(5)) << 60, Key: []byte("b2")}
		}
		var want []string
		for k, a := range model[place{r.Partition, r.Tenant}] {
			pos := coord.Position{Token: a.Token, Key: a.Key}
			if r.Wants(a.Key) && (!r.Group || a.Token == r.From.Token) && (r.Until == nil || pos.Compare(r.Until) < 0) && pos.Compare(&r.From) >= 0 {
				want = append(want, k)
			}
		}
		slices.Sort(want)
		var got []string
		for pieces := 0; ; pieces++ {
			r.Strict = strict && pieces%2 == 0
			p := b.scanNow(t, r)
			if len(p.Entries) > r.MaxKeys || p.Scanned > r.Budget || pieces > 2000 {
				t.Fatalf("a piece of %d keys after %d entries for %+v", len(p.Entries), p.Scanned, r)
			}
			size := 0
			for i := range p.Entries {
				e := &p.Entries[i]
				size += entryOverhead + len(e.Key) + len(e.Object)
				k := want[min(len(got), len(want)-1)]
				if !bytes.Equal([]byte(k)[keyHead:], e.Key) {
					t.Fatalf("%+v: key %d is %q, want %q", r, len(got), e.Key, k)
				}
				got = append(got, k)
				checkEntry(t, e, r.Mode, objects[k])
			}
			if (r.Strict || len(p.Entries) > 1) && size > r.MaxBytes {
				t.Fatalf("a piece of %d bytes, %d are allowed", size, r.MaxBytes)
			}
			if p.Next == nil {
				break
			}
			if c := p.Next.Compare(&r.From); c < 0 || c == 0 && !r.Strict {
				t.Fatalf("from %+v to %+v", r.From, *p.Next)
			}
			r.From = *p.Next
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v: %d keys of %d", r, len(got), len(want))
		}
	}
}

func checkEntry(t *testing.T, e *coord.ScanEntry, mode coord.ScanMode, object []byte) {
	t.Helper()
	o, err := causal.Decode(object)
	if err != nil {
		t.Fatal(err)
	}
	ok := e.Size == len(object)
	switch mode {
	case coord.ScanValues:
		ok = ok && bytes.Equal(e.Object, object)
	case coord.ScanDigests:
		ok = ok && e.Digest == o.Digest() && e.Object == nil
	case coord.ScanKeys:
		got, err := causal.Decode(e.Object)
		ok = ok && err == nil && got.Equal(&o) && got.Digest() == o.Digest()
		for _, s := range got.Siblings {
			ok = ok && len(s.Value) == 0
		}
	}
	if !ok {
		t.Fatalf("mode %d: entry %+v of %x", mode, e, object)
	}
}

// TestScanShowsOnlyWhatIsOnDisk: a scan that meets a write without its sync
// waits, and fails if the sync does.
func TestScanShowsOnlyWhatIsOnDisk(t *testing.T) {
	for _, broken := range []bool{false, true} {
		b := newBench(t)
		b.put(t, "k", "v")
		b.fail = broken
		answered := 0
		var got error
		r := everything(3, 7)
		b.Scan(&r, func(p coord.ScanPiece, err error) {
			answered++
			got = err
			if len(p.Entries) != 1 && err == nil {
				t.Errorf("%d entries", len(p.Entries))
			}
		})
		// The scan runs before the job that syncs.
		last := len(b.jobs.jobs) - 1
		scan := b.jobs.jobs[last]
		b.jobs.jobs = b.jobs.jobs[:last]
		scan()
		if answered > 0 {
			t.Error("shown before the sync")
		}
		b.jobs.run()
		if answered != 1 || (got != nil) != broken {
			t.Errorf("broken %v: answered %d times, %v", broken, answered, got)
		}
	}
}

// TestScansTakeTurns: no more scans run at once than there are jobs for, all are
// answered, and too many are refused.
func TestScansTakeTurns(t *testing.T) {
	b := newBench(t)
	b.put(t, "k", "v")
	b.jobs.run()
	answered, refused := 0, 0
	r := everything(3, 7)
	for range maxWaitingScans + 10 {
		b.Scan(&r, func(_ coord.ScanPiece, err error) {
			switch e, ok := err.(*coord.Error); {
			case err == nil:
				answered++
			case ok && e.Code == errcode.ResourceExhausted:
				refused++
			default:
				t.Error(err)
			}
		})
		if n := len(b.jobs.jobs); n > maxScans {
			t.Fatalf("%d jobs", n)
		}
	}
	for len(b.jobs.jobs) > 0 {
		f := b.jobs.jobs[0]
		b.jobs.jobs = b.jobs.jobs[1:]
		f()
		if n := len(b.jobs.jobs); n > maxScans {
			t.Fatalf("%d jobs", n)
		}
	}
	if answered != maxWaitingScans || refused != 10 {
		t.Errorf("%d answered, %d refused", answered, refused)
	}
}

// TestScanMeetsDamage: an object that does not decode, and an engine that is
// closed, are errors with their codes.
func TestScanMeetsDamage(t *testing.T) {
	b := newBench(t)
	a := at("bad")
	batch := engine.NewBatch()
	batch.Set(appendKey(nil, &a), []byte("no object"))
	if _, err := b.db.Apply(batch, engine.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.jobs.run()
	code := func() (code errcode.Code) {
		r := everything(3, 7)
		r.Mode = coord.ScanDigests
		b.Scan(&r, func(_ coord.ScanPiece, err error) { code = err.(*coord.Error).Code })
		b.jobs.run()
		return code
	}
	if c := code(); c != errcode.CorruptedData {
		t.Errorf("damage: %s", c)
	}
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
	if c := code(); c != errcode.Unavailable {
		t.Errorf("closed: %s", c)
	}
}
