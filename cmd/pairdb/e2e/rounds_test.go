package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

const (
	// roundsKeys is how many keys TestRoundsOfProcesses has; PAIRDB_REPAIR_KEYS says
	// another number, and that it takes place under a load, too.
	roundsKeys = 20_000
	// roundsDiffer is how many of them differ at one of three owners.
	roundsDiffer = 1000
	// roundsSettle is how long a round waits between its beginning and its
	// comparisons: then there is a load to compare with.
	roundsSettle = 12 * time.Second
	// roundsLeaf is what a range that differs may cost to find, in bytes.
	roundsLeaf = 1024
	// roundsFor is how long the load is measured.
	roundsFor = 40 * time.Second
)

// roundsWorld is a cluster whose owners are made to differ.
type roundsWorld struct {
	*cluster
	keys int
	turn int // how often they were made to differ
}

// TestRoundsOfProcesses has 1,000 keys of many differ at one of three owners. Rounds
// bring over exactly those, each once, and then find nothing; what they cost is written
// down, and what it is to clients meanwhile. In the end the three hold the same.
func TestRoundsOfProcesses(t *testing.T) {
	t.Parallel()
	w := &roundsWorld{keys: roundsKeys}
	long := os.Getenv("PAIRDB_REPAIR_KEYS")
	flags := []string{"--set", "repair.interval=168h"}
	if long != "" {
		var err error
		if w.keys, err = strconv.Atoi(long); err != nil || w.keys < roundsKeys {
			t.Fatalf("PAIRDB_REPAIR_KEYS=%s is no number of at least %d", long, roundsKeys)
		}
		flags = append(flags, "--set", fmt.Sprintf("repair.settle=%s", roundsSettle))
	}
	w.cluster = startCluster(t, 3, flags...)
	mustRun(t, "tenant", "create", "front", "--endpoint", w.agents[0].addr.GRPC)
	began := time.Now()
	w.put(0, w.keys, func(i int) (string, string) { return roundsKey(i), "first" }, 0)
	t.Logf("%d keys loaded in %s", w.keys, time.Since(began).Round(time.Millisecond))

	w.diverge()
	w.repair()
	rounds := w.total("pairdb_repair_rounds_total")
	compared, leaves := w.total("pairdb_repair_compared_bytes_total"), w.total("pairdb_repair_differing_ranges_total")
	w.mended()
	equal := w.equalRound()
	each := compared / math.Max(leaves, 1)
	t.Logf("%.0f rounds found %.0f ranges that differed with %.0f bytes of comparisons, %.0f for each", rounds, leaves, compared, each)
	if long == "" {
		each = (compared - equal*rounds) / math.Max(leaves, 1) // few keys do not pay for a round
	}
	if leaves == 0 || each > roundsLeaf {
		t.Errorf("%.0f bytes for each range that differs", each)
	}
	if long != "" {
		w.underLoad()
	}
	w.compareReplicas()
}

func roundsKey(i int) string { return fmt.Sprintf("rounds/%07d", i) }

// put stores n keys in batches, through all nodes but those away.
func (w *roundsWorld) put(from, n int, what func(i int) (key, value string), away int) {
	w.t.Helper()
	const batch = 500
	next := make(chan int, n/batch+1)
	for i := from; i < from+n; i += batch {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	for g := range 6 {
		cl := w.client(g % (len(w.agents) - away))
		wg.Go(func() {
			for i := range next {
				ops := make([]client.Write, 0, batch)
				for k := i; k < min(i+batch, from+n); k++ {
					key, value := what(k)
					ops = append(ops, client.PutOp(key, []byte(value)))
				}
				results, err := cl.Batch(context.Background(), ops, client.WithLevel(client.LevelQuorum))
				for _, r := range results {
					err = errors.Join(err, r.Err)
				}
				if err != nil {
					w.t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// diverge overwrites random keys while one node is away, and takes away what the others
// have kept for it. All nodes have started again then, so all their counters are 0.
func (w *roundsWorld) diverge() {
	w.t.Helper()
	w.turn++
	w.stop(2)
	some := rand.New(rand.NewPCG(uint64(w.turn), 8)).Perm(w.keys)[:roundsDiffer]
	w.put(0, len(some), func(i int) (string, string) { return roundsKey(some[i]), fmt.Sprint("turn ", w.turn) }, 1)
	w.stop(0, 1)
	for _, a := range w.agents[:2] {
		if err := os.RemoveAll(filepath.Join(a.data, "hints")); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, a := range w.agents {
		a.start()
	}
	for _, a := range w.agents {
		a.waitHealthy(60 * time.Second)
	}
}

// stop ends nodes as their operator would.
func (w *roundsWorld) stop(nodes ...int) {
	w.t.Helper()
	for _, i := range nodes {
		w.agents[i].signal(syscall.SIGTERM)
	}
	for _, i := range nodes {
		if err := w.agents[i].wait(); err != nil {
			w.t.Fatalf("%s after SIGTERM: %v", w.agents[i].name, err)
		}
	}
}

// mended fails unless the rounds since the last start have found each key that differed
// and brought each over once.
func (w *roundsWorld) mended() {
	w.t.Helper()
	differed, rows := w.total("pairdb_repair_differing_keys_total"), w.total("pairdb_repair_rows_total")
	w.t.Logf("%d keys were made to differ, %.0f found, %.0f rows brought over", roundsDiffer, differed, rows)
	if differed != roundsDiffer || rows != roundsDiffer {
		w.t.Errorf("%.0f keys found and %.0f rows brought over, of %d", differed, rows, roundsDiffer)
	}
}

// equalRound repairs equal owners, and returns the bytes of the comparisons of a round.
func (w *roundsWorld) equalRound() float64 {
	w.t.Helper()
	bytes, rounds, busy := w.total("pairdb_repair_compared_bytes_total"), w.total("pairdb_repair_rounds_total"), w.cpu()
	r := w.repair()
	bytes, rounds, busy = w.total("pairdb_repair_compared_bytes_total")-bytes, w.total("pairdb_repair_rounds_total")-rounds, w.cpu()-busy
	idle := w.cpu()
	<-time.After(time.Duration(r.Seconds * float64(time.Second)))
	idle = w.cpu() - idle
	w.t.Logf("%.0f rounds over equal owners: %s; %.0f bytes of comparisons each; %s of CPU in three processes, %s in as long without", rounds, r, bytes/rounds, busy, idle)
	if r.KeysDiffered != 0 || r.RowsSent != 0 {
		w.t.Errorf("a second repair finds something: %s", r)
	}
	return bytes / rounds
}

// cpu is the CPU time of all nodes since they started, to 10 ms each.
func (w *roundsWorld) cpu() (sum time.Duration) {
	w.t.Helper()
	for _, a := range w.agents {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
		if err != nil {
			w.t.Fatal(err)
		}
		// Behind the name, which may have spaces, the 12th and 13th field are user
		// and system time in hundredths of a second.
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, field := range f[11:13] {
			n, err := strconv.Atoi(field)
			if err != nil {
				w.t.Fatal(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// underLoad has owners differ and be repaired while clients of another tenant read and
// write at a fixed rate: their p99 at most doubles.
func (w *roundsWorld) underLoad() {
	w.t.Helper()
	load := []string{"--tenant", "front", "--op", "mix", "--read-percent", "80", "--rate", "300", "--keys", "5000", "--value-size", "100", "--timeout", "2s", "--warmup", "2s"}
	first := w.startLoad(append(load, "--duration", "2s")...) // stores its keys
	first.end()
	const times = 3
	for range times {
		w.diverge()
		l := w.startLoad(append(load, "--no-load", "--duration", roundsFor.String())...)
		from, to, last := time.Duration(0), time.Duration(0), w.total("pairdb_repair_compared_bytes_total")
		for time.Since(l.began) < roundsFor-time.Second {
			now := w.total("pairdb_repair_compared_bytes_total")
			if now > last {
				if to = time.Since(l.began); from == 0 {
					from = to
				}
			}
			last = now
			<-time.After(100 * time.Millisecond)
		}
		m := l.end()
		first, end := int(from/time.Second), int(to/time.Second)+1
		if first < 5 {
			w.t.Logf("compared %s after the load began: too soon to tell", from)
			continue
		}
		before, during := m.window(2, first), m.window(first, end)
		w.t.Logf("before: %s\nwhile owners are compared and mended, seconds %d to %d: %s\np99 is %.2f times that before", before, first, end, during, float64(during.p99)/float64(before.p99))
		w.repair()
		w.mended()
		if during.p99 <= 2*before.p99 && during.bad == 0 {
			return
		}
		w.t.Logf("more than doubled, or operations failed:\n%s", m.rows())
	}
	w.t.Errorf("p99 is more than doubled by rounds, %d times of %d", times, times)
}

// compareReplicas stops all nodes and compares every sibling of every key they hold.
func (w *roundsWorld) compareReplicas() {
	w.t.Helper()
	w.stop(0, 1, 2)
	type line struct {
		Tenant   int             `json:"tenant_number"`
		Key      string          `json:"key_hex"`
		Siblings json.RawMessage `json:"siblings"`
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var dumps []*json.Decoder
	var ends []func() error
	for _, a := range w.agents {
		cmd := bounded(ctx, binary, "debug", "dump", a.data)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			w.t.Fatal(err)
		}
		dumps, ends = append(dumps, json.NewDecoder(out)), append(ends, cmd.Wait)
	}
	next := func(d *json.Decoder) string {
		for {
			var l line
			if err := d.Decode(&l); errors.Is(err, io.EOF) {
				return ""
			} else if err != nil {
				w.t.Fatal(err)
			}
			if l.Siblings != nil { // else it is about a partition
				return fmt.Sprintf("tenant %d key %s: %s", l.Tenant, l.Key, l.Siblings)
			}
		}
	}
	n := 0
	for {
		one := next(dumps[0])
		for i, d := range dumps[1:] {
			if other := next(d); other != one {
				w.t.Fatalf("object %d is\n%s\nat %s, and\n%s\nat %s", n, one, w.agents[0].name, other, w.agents[i+1].name)
			}
		}
		if one == "" {
			break
		}
		n++
	}
	for _, end := range ends {
		if err := end(); err != nil {
			w.t.Errorf("debug dump: %v", err)
		}
	}
	w.t.Logf("%d keys are the same at all three", n)
	if n < w.keys {
		w.t.Errorf("%d keys of %d", n, w.keys)
	}
}
