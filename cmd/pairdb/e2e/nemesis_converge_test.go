package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord/causal"
)

// dumped is a line of pairdb debug dump.
type dumped struct {
	Partition int              `json:"partition"`
	Tenant    int              `json:"tenant_number"`
	Key       string           `json:"key_hex"`
	Confirmed *dumpedConfirmed `json:"confirmed"`
	Context   []dumpedDot      `json:"context"`
	Siblings  []dumpedWrite    `json:"siblings"`
}

// dumpedConfirmed is what a line without a key says.
type dumpedConfirmed struct {
	Seen    []dumpedDot `json:"seen"`
	Expired int64       `json:"expired_unix_ms"`
}

type dumpedDot struct {
	Actor   string `json:"actor"`
	Counter uint64 `json:"counter"`
}

type dumpedWrite struct {
	dumpedDot
	HLC       uint64   `json:"hlc"`
	Flags     []string `json:"flags"`
	ExpiresAt int64    `json:"expires_at_unix_ms"`
	Key       string   `json:"idempotency_key_hex"`
	Hash      string   `json:"value_xxh3"`
}

func (d dumpedDot) dot() (causal.Dot, error) {
	actor, err := strconv.ParseUint(d.Actor, 16, 64)
	return causal.Dot{Actor: actor, Counter: d.Counter}, err
}

// dumpedFlags are the flags by their names.
var dumpedFlags = map[string]causal.Flags{
	"tombstone": causal.FlagTombstone, "expires": causal.FlagExpiry, "json": causal.FlagJSON, "stripped": causal.FlagStripped,
}

// object is the line's object, with hashes in the place of values.
func (d *dumped) object() (o causal.Object, err error) {
	for _, e := range d.Context {
		dot, err := e.dot()
		if err != nil {
			return o, err
		}
		o.Context = o.Context.With(dot)
	}
	for _, w := range d.Siblings {
		dot, err := w.dot()
		if err != nil {
			return o, err
		}
		t := causal.Sibling{Dot: dot, HLC: w.HLC, ExpiresAt: w.ExpiresAt, IdempotencyKey: []byte(w.Key), Value: []byte(w.Hash)}
		for _, f := range w.Flags {
			t.Flags |= dumpedFlags[f]
		}
		o.Siblings = append(o.Siblings, t)
	}
	return o, nil
}

// converge stops all nodes and compares all that those hold who own the same. If rounds
// have made them equal, nothing is left of what was deleted, or had expired when they were
// waited for. It returns what is confirmed, by partition.
func (s *storm) converge(places map[check.Key]place, expired time.Time) map[string]causal.Context {
	here := s.present()
	for _, i := range here {
		s.lives[i].wanted.Store(true)
		s.agents[i].signal(syscall.SIGTERM)
	}
	for _, i := range here {
		if err := s.agents[i].wait(); err != nil {
			s.wrong("%s after SIGTERM: %v", s.agents[i].name, err)
		}
	}
	owners := make(map[string][]string)
	for _, p := range places {
		owners[p.partition] = p.owners
	}
	all := make([]*dumpedNode, len(here))
	var dumps []check.Dump
	var work sync.WaitGroup
	for n, i := range here {
		work.Go(func() { all[n] = s.dump(i) })
	}
	work.Wait()
	of := make(map[check.Key][]string)
	confirmed := make(map[string]causal.Context)
	for _, d := range all {
		for k, p := range d.partitions {
			if owners[p] == nil {
				s.wrong("%s holds %s of partition %s, in which nobody has written", d.Replica, k, p)
			}
			of[k] = owners[p]
		}
		for p, c := range d.confirmed {
			confirmed[p] = causal.JoinContext(confirmed[p], c.Seen)
		}
		dumps = append(dumps, d.Dump)
		s.note("objects compared", len(d.Objects))
	}
	found := check.Convergence(dumps, func(k check.Key) []string { return of[k] })
	if s.rounds {
		found = append(found, check.Leftovers(dumps, expired)...)
	}
	for _, v := range found {
		s.wrong("%v", v)
	}
	return confirmed
}

// dumpedNode is all that a node holds. Keys have the tenant's number in place of its
// name.
type dumpedNode struct {
	check.Dump
	partitions map[check.Key]string
	confirmed  map[string]causal.Confirmed // by partition
}

// dump is all that a node holds that does not run.
func (s *storm) dump(i int) *dumpedNode {
	d := &dumpedNode{
		Dump:       check.Dump{Replica: s.agents[i].name, Objects: map[check.Key]causal.Object{}},
		partitions: map[check.Key]string{}, confirmed: map[string]causal.Confirmed{},
	}
	r := run(s.t, nil, "debug", "dump", s.agents[i].data)
	if r.code != 0 {
		s.wrong("dump %s: exit %d\n%s", d.Replica, r.code, r.stderr)
	}
	// The spans of a partition come behind its objects.
	keepers := map[string]bool{}
	d.Confirmed = func(k check.Key) causal.Confirmed { return d.confirmed[d.partitions[k]] }
	d.LWW = func(k check.Key) bool { return !keepers[k.Tenant] }
	for lines := json.NewDecoder(bytes.NewReader([]byte(r.stdout))); lines.More(); {
		var line dumped
		err := lines.Decode(&line)
		o, oerr := line.object()
		if err != nil || oerr != nil {
			s.wrong("dump %s: %v, %v", d.Replica, err, oerr)
			break
		}
		p := strconv.Itoa(line.Partition)
		if c := line.Confirmed; c != nil {
			seen, err := (&dumped{Context: c.Seen}).object()
			if err != nil {
				s.wrong("dump %s: %v", d.Replica, err)
			}
			d.confirmed[p] = causal.Confirmed{Seen: seen.Context, Expired: c.Expired}
			continue
		}
		key, err := hex.DecodeString(line.Key)
		if err != nil {
			s.wrong("dump %s: %v", d.Replica, err)
		}
		k := check.Key{Tenant: strconv.Itoa(line.Tenant), Key: string(key)}
		if strings.HasPrefix(k.Key, carts) || strings.HasPrefix(k.Key, shelves) {
			keepers[k.Tenant] = true // nobody else has such keys
		}
		d.Objects[k], d.partitions[k] = o, p
	}
	return d
}

// repaired waits until every node says that all it owns was found equal, or made so, in
// a round that began after now, and in another that has begun since; and then until it says
// that it has collected what was confirmed. What had expired when it was called is collected
// then: the first of these rounds confirmed it, but for what open votes held back, and the
// second one that. Two nodes may drive rounds at a time, so that one may confirm while what
// the other has confirmed is not released yet; and an owner that stood still is told by the
// next round what it may collect. What expired later need not be.
func (s *storm) repaired() (called time.Time) {
	called = time.Now()
	hub := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return s.lan.dial(ctx, addr)
	}}}
	for range 2 {
		began := time.Now()
		s.eachSays("repaired", func(i int) error {
			// The age is that of a moment after this one: so much younger the round is, and
			// no more, however late the answer is looked at.
			asked := time.Since(began).Seconds()
			age, err := repairedAge(hub, hostAddress(i))
			if err == nil && age >= asked {
				err = fmt.Errorf("it was last repaired %.1f s ago", age)
			}
			return err
		})
	}
	s.eachSays("swept", func(i int) error {
		m, err := gauges(hub, hostAddress(i), "pairdb_collect_pending_spans")
		if err == nil && m[0] > 0 {
			err = fmt.Errorf("it has not collected all of %v of its partitions", m[0])
		}
		return err
	})
	return called
}

// eachSays waits until a node after the other has nothing to say against it that it is so.
func (s *storm) eachSays(so string, why func(i int) error) {
	began := time.Now()
	for _, i := range s.present() {
		last := errors.New("it was not asked")
		err := poll(2*time.Minute, func() (bool, error) {
			last = why(i)
			return last == nil, nil
		})
		if err != nil {
			s.wrong("%s is not %s %v after the end of all faults: %v: %v", s.agents[i].name, so, time.Since(began).Round(time.Second), err, last)
			return
		}
	}
}

// repairedAge asks a node how long it is since all it owns was last repaired, in
// seconds.
func repairedAge(hub *http.Client, host string) (float64, error) {
	m, err := gauges(hub, host, "pairdb_repair_unconfirmed_spans", "pairdb_repaired_at_age_seconds")
	if err != nil {
		return 0, err
	}
	if m[0] > 0 {
		return 0, fmt.Errorf("%v of its partitions have not been repaired since its start", m[0])
	}
	return m[1], nil
}

// gauges asks a node for some of its series that have no labels.
func gauges(hub *http.Client, host string, names ...string) ([]float64, error) {
	resp, err := hub.Get("http://" + host + ":8080/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	values, left := make([]float64, len(names)), len(names)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if i := slices.Index(names, name); i >= 0 {
			left--
			if values[i], err = strconv.ParseFloat(value, 64); err != nil {
				return nil, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if left > 0 {
		return nil, fmt.Errorf("%d of %v are missing", left, names)
	}
	return values, nil
}
