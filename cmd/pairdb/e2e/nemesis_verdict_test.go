package e2e

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// healClient reads every key when all is well again.
const healClient = "heal"

// healPatience is within which time such a read has to succeed.
const healPatience = 3 * time.Second

// keysLimit is for what is asked of all keys. A cluster that is well takes seconds; one that
// has each call wait would take hours.
const keysLimit = 3 * time.Minute

// place is where a key lies.
type place struct {
	partition string
	owners    []string // their names
}

// keys are those of the history.
func (s *storm) keys() map[check.Key]bool {
	h, err := s.rec.History()
	if err != nil {
		s.wrong("%v", err)
	}
	keys := map[check.Key]bool{}
	for i := range h {
		keys[check.Key{Tenant: h[i].Tenant, Key: h[i].Call.Key}] = true
	}
	return keys
}

// forKeys calls f for each key of the history, several at once.
func (s *storm) forKeys(f func(worker int, k check.Key)) {
	next := make(chan check.Key)
	var workers sync.WaitGroup
	for i := range 8 {
		workers.Go(func() {
			for k := range next {
				f(i, k)
			}
		})
	}
	keys, asked := s.keys(), 0
	over := time.After(keysLimit)
feed:
	for k := range keys {
		select {
		case next <- k:
			asked++
		case <-over:
			s.wrong("only %d of %d keys could be asked for in %s", asked, len(keys), keysLimit)
			break feed
		}
	}
	close(next)
	workers.Wait()
}

// locate returns where the keys of the history lie.
func (s *storm) locate() map[check.Key]place {
	places := make(map[check.Key]place)
	s.forKeys(func(i int, k check.Key) {
		here := s.present()
		at, err := s.clients[here[i%len(here)]].Locate(s.t.Context(), k.Key, client.WithTenant(k.Tenant))
		if err != nil {
			s.wrong("locate %s: %v", k, err)
			return
		}
		p := place{partition: strconv.Itoa(int(at.GetPartition()))}
		for _, n := range at.GetOwners() {
			p.owners = append(p.owners, n.GetName())
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		places[k] = p
	})
	return places
}

// readAll reads every key of the history at QUORUM through one node and at ALL
// through another.
func (s *storm) readAll() {
	here := s.present()
	s.forKeys(func(i int, k check.Key) {
		for j, level := range []quorum.Level{quorum.Quorum, quorum.All} {
			a, _ := s.do(here[(i+j)%len(here)], check.Call{Client: healClient, Kind: check.Get, Tenant: k.Tenant, Key: k.Key, Level: level}, client.Context{})
			if len(a.Siblings) > 1 {
				s.note("siblings read", 1)
			}
		}
	})
}

// verdict judges what clients were told. confirmed is by partition what all owners had
// in the end, which contexts may have left out since.
func (s *storm) verdict(places map[check.Key]place, confirmed map[string]causal.Context) {
	h, err := s.rec.History()
	if err != nil {
		s.wrong("%v", err)
		return
	}
	for i := range h {
		h[i].Partition = places[check.Key{Tenant: h[i].Tenant, Key: h[i].Call.Key}].partition
		if a := h[i].Answer; a != nil {
			a.Settled = confirmed[h[i].Partition]
			if a.Duplicate {
				s.note("duplicates", 1)
			}
		}
	}
	for _, v := range judge(h, s.must) {
		s.wrong("%v", v)
	}
	s.note("registers", len(check.Registers(h)))
	s.note("operations", len(h))
}

// mustHeal demands of a cluster that it answers once it is healthy.
func mustHeal(o *check.Op) time.Duration {
	if o.Client == healClient {
		return healPatience
	}
	return 0
}

// judge runs every checker over a history that ends in a healthy cluster.
func judge(h check.History, must func(o *check.Op) time.Duration) []check.Violation {
	found := check.Availability(h, must)
	for _, checker := range []func(check.History) []check.Violation{
		check.Register, check.LostAck, check.Causal, check.MonotonicContexts, check.NoReappearance, check.Idempotency, check.TenantCanary, effects, lostItems,
	} {
		found = append(found, checker(h)...)
	}
	return found
}

// judgeFile judges what a run left. Without its end no read had to succeed.
func judgeFile(t *testing.T, file string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := check.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range judge(h, mustHeal) {
		t.Error(v)
	}
	t.Logf("%d operations, %d registers", len(h), len(check.Registers(h)))
}

// effect is what became of one write with an idempotency key.
type effect struct {
	ops       []check.Op
	acked     map[causal.Dot]bool
	originals int
}

// effects finds writes with idempotency keys that did not take effect exactly
// once: they are acknowledged under one dot, at most one attempt says that it
// began the write, and the last reads of a key that had but one return it, with a
// context that knows of nothing else.
func effects(h check.History) (found []check.Violation) {
	type name struct {
		check.Key
		id string
	}
	all := map[name]*effect{}
	writes := map[check.Key]int{}
	for _, o := range h {
		k := check.Key{Tenant: o.Tenant, Key: o.Call.Key}
		if o.IdempotencyKey == "" {
			continue
		}
		e := all[name{k, o.IdempotencyKey}]
		if e == nil {
			e = &effect{acked: map[causal.Dot]bool{}}
			all[name{k, o.IdempotencyKey}] = e
			writes[k]++
		}
		e.ops = append(e.ops, o)
		if o.Answer != nil && o.Answer.Outcome == check.OK {
			e.acked[o.Answer.Dot] = true
			if !o.Answer.Duplicate {
				e.originals++
			}
		}
	}
	add := func(k check.Key, text string, ops ...check.Op) {
		if len(found) < check.MaxViolations {
			found = append(found, check.Violation{Checker: "effects", Key: k, Text: text, Ops: ops})
		}
	}
	for n, e := range all {
		if len(e.acked) != 1 || e.originals > 1 {
			add(n.Key, "write \""+n.id+"\" took effect "+strconv.Itoa(len(e.acked))+" times, "+strconv.Itoa(e.originals)+" attempts began it", e.ops...)
		}
	}
	for _, o := range h {
		k := check.Key{Tenant: o.Tenant, Key: o.Call.Key}
		if o.Client != healClient || writes[k] != 1 || o.Answer == nil || o.Answer.Outcome != check.OK {
			continue
		}
		e := all[name{k, "first"}]
		if len(o.Answer.Siblings) != 1 || !e.acked[o.Answer.Siblings[0].Dot] || len(o.Answer.Context) != 1 {
			add(k, "the key's one write is not all that there is", append(slices.Clone(e.ops), o)...)
		}
	}
	return found
}

// lostItems finds items that were acknowledged to be in a cart and that the last
// reads of it do not show.
func lostItems(h check.History) (found []check.Violation) {
	bought := map[string][]check.Op{}
	for _, o := range h {
		if o.Tenant == siblingTenant && strings.HasPrefix(o.Call.Key, carts) && o.Kind == check.Put && o.Answer != nil && o.Answer.Outcome == check.OK {
			bought[o.Call.Key] = append(bought[o.Call.Key], o)
		}
	}
	for _, o := range h {
		if o.Client != healClient || o.Tenant != siblingTenant || o.Answer == nil || o.Answer.Outcome != check.OK {
			continue
		}
		in := map[string]bool{}
		for _, v := range o.Answer.Siblings {
			for _, item := range inCart(v.Value) {
				in[item] = true
			}
		}
		for _, put := range bought[o.Call.Key] {
			if item := inCart(put.Value)[0]; !in[item] && len(found) < check.MaxViolations {
				found = append(found, check.Violation{
					Checker: "carts", Key: check.Key{Tenant: o.Tenant, Key: o.Call.Key},
					Text: "the item " + item + " is lost", Ops: []check.Op{put, o},
				})
			}
		}
	}
	return found
}
