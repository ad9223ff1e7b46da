package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client"
)

const (
	// proofMiB is how many MiB of values the clusters have that grow; PAIRDB_GROW_MIB
	// says more, and that clients read and write at a fixed rate meanwhile.
	proofMiB = 16
	// proofValue is the size of a value.
	proofValue = 4 << 10
	// proofParts is how many partitions there are.
	proofParts = 1024
	// proofMore is by how much what is fetched may exceed what has to be.
	proofMore = 1.15
	// proofFront and proofFrontValue are the keys of the clients, and the size of their
	// values.
	proofFront, proofFrontValue = 5000, 100
)

// proof is a cluster that grows.
type proof struct {
	*cluster
	keys int
	long bool
	// load is under way, one after the other, and seconds are what came of those before.
	load    *traffic
	seconds []proofSecond
	// began is when the nodes that join were started, and ended when nothing moved any
	// more; steps are when the ring was seen at another stage.
	began, ended time.Time
	steps        []proofStep
}

// proofSecond is a second of the load.
type proofSecond struct {
	at time.Time
	second
}

// proofStep is the beginning of a stage.
type proofStep struct {
	stage string
	at    time.Time
}

// TestThreeJoinAtOnce has three nodes join a loaded cluster of three at the same time.
// That is one change, in the end the ring is balanced, and hardly more was fetched than
// had to be; what it was to clients meanwhile is written down.
func TestThreeJoinAtOnce(t *testing.T) {
	p := newProof(t)
	p.cluster = startCluster(t, 3)
	p.fillUp()
	p.startLoad()
	before := p.version()
	p.began = time.Now()
	p.joinTogether(3)
	p.grown(6)
	p.told(3)
	if v := p.version(); v != before+3 {
		t.Errorf("the ring has gone from version %d to %d: one change are three, proposed, committed and finalised", before, v)
	}
	p.endLoad()
	p.complete()
}

// TestOneGrowsByLoad has a loaded cluster of one node become one of two, and then of
// three.
func TestOneGrowsByLoad(t *testing.T) {
	p := newProof(t)
	first := &agent{t: t, name: "node-1", dir: filepath.Join(t.TempDir(), "node-1"), args: []string{"--bootstrap"}}
	p.cluster = &cluster{t: t, agents: []*agent{first}}
	first.start()
	first.waitHealthy(30 * time.Second)
	p.fillUp()
	for n := 2; n <= 3; n++ {
		p.startLoad()
		p.began = time.Now()
		p.join()
		p.grown(n)
		p.told(1)
		p.endLoad()
	}
	p.complete()
}

func newProof(t *testing.T) *proof {
	p := &proof{}
	mib := proofMiB
	if v := os.Getenv("PAIRDB_GROW_MIB"); v != "" {
		var err error
		if mib, err = strconv.Atoi(v); err != nil || mib < proofMiB {
			t.Fatalf("PAIRDB_GROW_MIB=%s is no number of at least %d", v, proofMiB)
		}
		p.long = true
	}
	p.keys = mib << 20 / proofValue
	return p
}

func proofKey(i int) string { return fmt.Sprintf("grow/%07d", i) }

// proofBytes are what a key has for its value: nothing that could be compressed.
func proofBytes(i int) []byte {
	b := make([]byte, proofValue)
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}).Read(b) // never fails
	return b
}

// fillUp stores the data, and the keys of the clients.
func (p *proof) fillUp() {
	p.t.Helper()
	const batch = 64
	began := time.Now()
	next := make(chan int)
	var wg sync.WaitGroup
	for g := range 6 {
		cl := p.client(g % len(p.agents))
		wg.Go(func() {
			for i := range next {
				var ops []client.Write
				for k := i; k < min(i+batch, p.keys); k++ {
					ops = append(ops, client.PutOp(proofKey(k), proofBytes(k)))
				}
				if err := p.store(cl, ops); err != nil {
					p.t.Errorf("write: %v", err)
				}
			}
		})
	}
	for i := 0; i < p.keys && !p.t.Failed(); i += batch {
		next <- i
	}
	close(next)
	wg.Wait()
	if p.t.Failed() {
		p.t.FailNow()
	}
	p.t.Logf("%d values of %d bytes are stored in %s", p.keys, proofValue, time.Since(began).Round(time.Millisecond))
	mustRun(p.t, "tenant", "create", "front", "--endpoint", p.agents[0].addr.GRPC)
	p.cluster.startLoad(append(proofLoad(), "--duration", "2s")...).end() // stores its keys
}

// store writes some keys, and again what was refused because there was too much.
func (p *proof) store(cl *client.Client, ops []client.Write) error {
	for try := 0; ; try++ {
		results, err := cl.Batch(context.Background(), ops, client.WithLevel(client.LevelQuorum))
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		if err == nil || try == 20 {
			return err
		}
		<-time.After(time.Second) // the engine merges meanwhile
	}
}

func proofLoad() []string {
	return []string{
		"--tenant", "front", "--op", "mix", "--read-percent", "80", "--rate", "300", "--keys", strconv.Itoa(proofFront),
		"--value-size", strconv.Itoa(proofFrontValue), "--timeout", "10s", "--warmup", "2s",
	}
}

// proofCalm is how long the load is measured before anything happens, and proofLoadFor how
// long each load lasts; the last begins when nothing moves any more.
const proofCalm, proofLoadFor = 30 * time.Second, time.Minute

// startLoad has clients read and write, and returns when they did for a while.
func (p *proof) startLoad() {
	if !p.long {
		return
	}
	p.seconds = nil
	p.nextLoad()
	p.load.until(proofCalm)
}

func (p *proof) nextLoad() {
	p.load = p.cluster.startLoad(append(proofLoad(), "--no-load", "--duration", proofLoadFor.String())...)
}

// finishLoad waits for the end of the load that is under way.
func (p *proof) finishLoad() {
	m := p.load.end()
	for _, s := range m.Series {
		p.seconds = append(p.seconds, proofSecond{p.load.began.Add(time.Duration(s.At * float64(time.Second))), s})
	}
}

// relay begins another load when one is over.
func (p *proof) relay() {
	if p.long && time.Since(p.load.began) > proofLoadFor {
		p.finishLoad()
		p.nextLoad()
	}
}

// during is what came of the requests that were due in a time.
func (p *proof) during(from, to time.Time) window {
	var m measured
	for _, s := range p.seconds {
		if !s.at.Before(from) && s.at.Before(to) {
			m.Series = append(m.Series, s.second)
		}
	}
	return m.window(0, len(m.Series))
}

// endLoad tells what the change was to clients.
func (p *proof) endLoad() {
	p.t.Helper()
	if !p.long {
		return
	}
	p.finishLoad()
	p.nextLoad()
	p.finishLoad()
	before, joining, after := p.during(p.seconds[2].at, p.began), p.during(p.began, p.ended), p.during(p.ended, time.Now())
	p.t.Logf("clients before: %s\nwhile nodes join: %s\nafter: %s\np99 is %.2f times that before", before, joining, after, float64(joining.p99)/float64(before.p99))
	if bad := before.bad + joining.bad + after.bad; bad > 0 || joining.refused > 0 {
		p.t.Errorf("%d requests failed, %d were refused", bad, joining.refused)
	}
	if joining.p99 > 2*before.p99 {
		m := measured{}
		for _, s := range p.seconds {
			m.Series = append(m.Series, s.second)
		}
		p.t.Errorf("p99 is more than doubled while nodes join\n%s", m.rows())
	}
}

// version is the version of the ring.
func (p *proof) version() uint64 {
	p.t.Helper()
	s, err := p.agents[0].ring()
	if err != nil {
		p.t.Fatal(err)
	}
	v, err := strconv.ParseUint(s.Ring.Version, 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// grown waits until there are n owners and nothing moves.
func (p *proof) grown(n int) {
	p.t.Helper()
	limit := changeLimit
	if p.long {
		limit = 40 * time.Minute // by how far it yields to the load
	}
	cl := p.client(0)
	p.steps = nil
	next := time.NewTicker(250 * time.Millisecond)
	defer next.Stop()
	for time.Since(p.began) < limit {
		st, err := cl.Status(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		stage := st.GetRing().GetStage()
		if len(p.steps) == 0 || p.steps[len(p.steps)-1].stage != stage {
			p.steps = append(p.steps, proofStep{stage, time.Now()})
		}
		owners := 0
		for _, node := range st.GetNodes() {
			if node.GetState() == "up" && node.GetPartitions() > 0 {
				owners++
			}
		}
		if owners == n && !st.GetRing().GetChanging() && st.GetRing().GetOpenIntents() == 0 {
			p.ended = time.Now()
			return
		}
		p.relay()
		<-next.C
	}
	p.t.Fatalf("the ring has not come to %d nodes in %s: %v", n, limit, p.steps)
}

// told writes down what the change of which the last nodes were part has moved, and
// compares that with the least there is.
func (p *proof) told(joined int) {
	p.t.Helper()
	fetched := 0.0
	for _, a := range p.agents[len(p.agents)-joined:] {
		fetched += metricOf(p.t, a, "pairdb_streamed_bytes_total", `direction="gained"`)
	}
	n := len(p.agents)
	copies := proofParts * min(3, n) * joined / n // of partitions, that have to move
	data := p.keys*(proofValue+len(proofKey(0))) + proofFront*(proofFrontValue+len("bench/000000000000"))
	least := float64(data) * float64(copies) / proofParts
	var said []string
	for i, s := range p.steps {
		if i > 0 {
			said = append(said, fmt.Sprintf("%s after %s", s.stage, s.at.Sub(p.began).Round(100*time.Millisecond)))
		}
	}
	p.t.Logf("%d nodes have become %d: %s", n-joined, n, strings.Join(said, ", "))
	took := p.lasted("proposed")
	p.t.Logf("%.0f bytes were fetched, of at least %.0f: %.1f %% more; in %s, %.1f MB/s", fetched, least, 100*(fetched/least-1), took.Round(100*time.Millisecond), fetched/1e6/took.Seconds())
	if fetched > proofMore*least || fetched < least {
		p.t.Errorf("%.0f bytes were fetched, of at least %.0f", fetched, least)
	}
	st, err := p.agents[0].ring()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Log(st.String())
	share := float64(proofParts*min(3, n)) / float64(n)
	for _, node := range st.Nodes {
		if d := float64(node.Partitions)/share - 1; d > 0.05 || d < -0.05 {
			p.t.Errorf("%s owns %d partitions, and its share is %.1f", node.Name, node.Partitions, share)
		}
	}
}

// lasted is how long the ring was at a stage.
func (p *proof) lasted(stage string) (sum time.Duration) {
	for i, s := range p.steps[:len(p.steps)-1] {
		if s.stage == stage {
			sum += p.steps[i+1].at.Sub(s.at)
		}
	}
	return sum
}

// complete reads some of the data through the node that came last, and has all owners
// compare everything: none may lack anything.
func (p *proof) complete() {
	p.t.Helper()
	last := len(p.agents) - 1
	p.agents[last].waitHealthy(30 * time.Second) // it may learn last that it is an owner
	cl, bad := p.client(last), 0
	for i := 0; i < p.keys; i += 61 {
		got, err := cl.Get(context.Background(), proofKey(i), client.WithLevel(client.LevelQuorum))
		if err != nil || !slices.Equal(got.Value, proofBytes(i)) {
			if bad++; bad <= 5 {
				p.t.Errorf("%s: %d bytes, %v", proofKey(i), len(got.Value), err)
			}
		}
	}
	if p.long {
		if r := p.repair(); r.KeysDiffered != 0 {
			p.t.Errorf("owners are not equal: %s", r)
		}
	}
}
