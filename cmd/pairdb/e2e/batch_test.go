package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// TestBatchIsOneFrameAndOneSync: a batch of 100 writes is one frame to each other
// owner, and as good as one sync at each.
func TestBatchIsOneFrameAndOneSync(t *testing.T) {
	c := startCluster(t, 3)
	cl := c.client(0)
	sum := func(name string, labels ...string) (n float64) {
		for _, a := range c.agents {
			v, err := a.series(name, labels...)
			if err != nil {
				t.Fatal(err)
			}
			n += v
		}
		return n
	}
	batch := func(n int) {
		var ops []client.Write
		for i := range 100 {
			ops = append(ops, client.PutOp(fmt.Sprintf("k%d", i), fmt.Append(nil, n)))
		}
		results, err := cl.Batch(t.Context(), ops, client.WithLevel(client.LevelAll))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Err != nil || r.Put.Acks != 3 {
				t.Fatalf("item %d: %+v", i, r)
			}
		}
	}
	batch(0) // connects
	const batches = 20
	// What rounds of repairs send has a lane of its own.
	const lane = `lane="small"`
	frames, items, syncs := sum("pairdb_peer_frames_sent_total", lane), sum("pairdb_peer_items_sent_total", lane), sum("pairdb_engine_wal_syncs_total")
	for n := range batches {
		batch(1 + n)
	}
	frames, items, syncs = sum("pairdb_peer_frames_sent_total", lane)-frames, sum("pairdb_peer_items_sent_total", lane)-items, sum("pairdb_engine_wal_syncs_total")-syncs
	t.Logf("a batch of 100: %.2f frames, %.2f messages, %.2f syncs on three nodes", frames/batches, items/batches, syncs/batches)
	if frames > 2*batches+4 || items < 200*batches {
		t.Errorf("%v frames with %v messages for %d batches", frames, items, batches)
	}
	if syncs > 8*batches {
		t.Errorf("%v syncs for %d batches", syncs, batches)
	}
	got, err := c.client(1).MultiGet(t.Context(), []string{"k0", "k99", "absent"})
	if err != nil || string(got[0].Get.Value) != "20" || string(got[1].Get.Value) != "20" || !errors.Is(got[2].Err, client.ErrKeyNotFound) {
		t.Errorf("%+v, %v", got, err)
	}
}

// batchWorker sends batches and remembers what it was told of each write.
type batchWorker struct {
	t       *testing.T
	clients []*client.Client
	id      int
	// dots are those of acknowledged writes, by key; maybe has those in doubt.
	dots  map[string]client.Dot
	maybe map[string]bool
	// failed counts items that failed beside others that went well.
	partly, refused int
}

// keyed sends a batch with idempotency keys, through one node after the other,
// until all of it is acknowledged, and once more.
func (w *batchWorker) keyed(n int) {
	var ops []client.Write
	var keys []string
	for i := range 50 {
		key := fmt.Sprintf("keyed/%d/%d/%d", w.id, n, i)
		keys = append(keys, key)
		ops = append(ops, client.PutOp(key, []byte(key), client.WithIdempotencyKey("once")))
	}
	left := len(ops)
	deadline := time.Now().Add(90 * time.Second)
	for attempt, more := 0, 1; more > 0; attempt++ {
		if left == 0 {
			more--
		}
		if time.Now().After(deadline) {
			w.t.Errorf("batch %d of worker %d: %d writes were never acknowledged", n, w.id, left)
			return
		}
		results, err := w.clients[(w.id+n+attempt)%3].Batch(context.Background(), ops)
		if err != nil {
			pause()
			continue
		}
		good, bad := 0, 0
		for i, r := range results {
			if r.Err != nil {
				bad++
				continue
			}
			good++
			if dot, ok := w.dots[keys[i]]; ok && (dot != r.Put.Dot || !r.Put.Duplicate) {
				w.t.Errorf("%s was %v, and now is %v, duplicate %v", keys[i], dot, r.Put.Dot, r.Put.Duplicate)
			} else if !ok {
				w.dots[keys[i]] = r.Put.Dot
				left--
			}
		}
		if good > 0 && bad > 0 {
			w.partly++
		}
	}
}

// plain sends a batch once. What became of each write is what it says.
func (w *batchWorker) plain(n int) {
	var ops []client.Write
	var keys []string
	for i := range 50 {
		keys = append(keys, fmt.Sprintf("plain/%d/%d/%d", w.id, n, i))
		ops = append(ops, client.PutOp(keys[i], []byte(keys[i])))
	}
	results, err := w.clients[(w.id+n)%3].Batch(context.Background(), ops)
	if err != nil {
		pause()
	}
	for i, key := range keys {
		failure := err
		if err == nil {
			failure = results[i].Err
		}
		w.note(key, failure, func() client.Dot { return results[i].Put.Dot })
	}
}

// pause keeps a node that is down from being asked all the time.
func pause() { <-time.After(20 * time.Millisecond) }

// note remembers what was said of a write.
func (w *batchWorker) note(key string, err error, dot func() client.Dot) {
	var e *client.Error
	switch {
	case err == nil:
		w.dots[key] = dot()
	case !errors.As(err, &e):
		w.t.Errorf("%s: %v", key, err)
	case e.Outcome == errcode.Indeterminate:
		w.maybe[key] = true
	case e.Outcome == errcode.NotApplied:
		w.refused++
		w.maybe[key] = false
	default:
		w.t.Errorf("%s: a write failed with the outcome %q: %v", key, e.Outcome, err)
	}
}

// pipelined sends writes on a pipeline.
func (w *batchWorker) pipelined(p *client.Pipeline, n int) {
	var keys []string
	var puts []*client.Future[*client.PutResult]
	for i := range 50 {
		keys = append(keys, fmt.Sprintf("pipe/%d/%d/%d", w.id, n, i))
		puts = append(puts, p.Put(context.Background(), keys[i], []byte(keys[i])))
	}
	for i, f := range puts {
		r, err := f.Wait(context.Background())
		w.note(keys[i], err, func() client.Dot { return r.Dot })
	}
}

// TestBatchesSurviveKills: batches and pipelines go on while one node after
// another is killed and comes back. Every write is what its result says, and a
// batch sent again has the results it had.
func TestBatchesSurviveKills(t *testing.T) {
	c := startCluster(t, 3)
	clients := []*client.Client{c.client(0), c.client(1), c.client(2)}
	everywhere, err := client.New(client.Options{Endpoints: c.endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	var workers []*batchWorker
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for id := range 6 {
		w := &batchWorker{t: t, clients: clients, id: id, dots: map[string]client.Dot{}, maybe: map[string]bool{}}
		workers = append(workers, w)
		wg.Go(func() {
			p := everywhere.Pipeline()
			defer p.Close()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				switch id % 3 {
				case 0:
					w.keyed(n)
				case 1:
					w.plain(n)
				default:
					w.pipelined(p, n)
				}
			}
		})
	}
	end := sync.OnceFunc(func() {
		close(stop)
		wg.Wait()
	})
	defer end()
	for k := range 3 {
		a := c.agents[k]
		a.kill()
		if err := a.launch(); err != nil {
			t.Fatalf("start %s again: %v", a.name, err)
		}
		a.waitHealthy(60 * time.Second)
	}
	end()
	writes, doubts, refused, partly := 0, 0, 0, 0
	for _, w := range workers {
		partly, refused = partly+w.partly, refused+w.refused
		writes += len(w.dots)
		var keys []string
		for key := range w.dots {
			keys = append(keys, key)
		}
		for key, maybe := range w.maybe {
			if maybe {
				doubts++
			}
			keys = append(keys, key)
		}
		for len(keys) > 0 {
			n := min(len(keys), 500)
			w.check(keys[:n])
			keys = keys[n:]
		}
	}
	t.Logf("%d writes acknowledged, %d in doubt, %d not applied; %d batches had both", writes, doubts, refused, partly)
	if writes < 1000 {
		t.Errorf("only %d writes were acknowledged", writes)
	}
}

// check reads keys through all nodes in turn and compares with what was said.
func (w *batchWorker) check(keys []string) {
	var got []client.KeyResult
	// Nodes that have come back are dialled again after a pause.
	err := poll(30*time.Second, func() (bool, error) {
		var err error
		if got, err = w.clients[len(keys)%3].MultiGet(context.Background(), keys, client.WithLevel(client.LevelAll)); err != nil {
			return false, err
		}
		return !slices.ContainsFunc(got, func(r client.KeyResult) bool {
			return r.Err != nil && !errors.Is(r.Err, client.ErrKeyNotFound)
		}), nil
	})
	if err != nil {
		w.t.Error(err)
	}
	if len(got) < len(keys) {
		return
	}
	for i, key := range keys {
		dot, acknowledged := w.dots[key]
		r := got[i]
		switch absent := errors.Is(r.Err, client.ErrKeyNotFound); {
		case r.Err != nil && !absent:
			w.t.Errorf("%s: %v", key, r.Err)
		case acknowledged && (absent || r.Get.Siblings[0].Dot != dot || string(r.Get.Value) != key):
			w.t.Errorf("%s was acknowledged as %v: %+v, %v", key, dot, r.Get, r.Err)
		case !acknowledged && !absent && !w.maybe[key]:
			w.t.Errorf("%s was not applied, and is there", key)
		}
	}
}

// TestBatchOverHTTP: JSON lines in and out, through one node and read at another.
func TestBatchOverHTTP(t *testing.T) {
	c := startCluster(t, 3)
	post := func(i int, query, body string) (int, []string) {
		t.Helper()
		resp, err := http.Post("http://"+c.agents[i].addr.HTTP+"/v1/batch"+query, "application/x-ndjson", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	body := `{"op":"put","key":"a","value":{"n":1},"idempotency_key":"x"}` + "\n" + `{"op":"delete","key":"b"}`
	for i, want := range []string{`"is_duplicate":false`, `"is_duplicate":true`} {
		if code, lines := post(i, "?tenant_id=default&consistency=all", body); code != 200 || len(lines) != 2 || !strings.Contains(lines[0], want) || !strings.Contains(lines[1], `"status":"success"`) {
			t.Errorf("%d %v", code, lines)
		}
	}
	if code, lines := post(2, "?tenant_id=default", `{"op":"get","key":"a"}`+"\n"+`{"op":"get","key":"b"}`); code != 200 || !strings.Contains(lines[0], `"value":{"n":1}`) || !strings.Contains(lines[1], "KEY_NOT_FOUND") {
		t.Errorf("%d %v", code, lines)
	}
	if code, lines := post(0, "?tenant_id=default", `{"op":"put","key":"c","value":1}`+"\n"+`{"op":"delete","key":"c"}`); code != 400 || !strings.Contains(lines[0], "items 0 and 1 have the same key") {
		t.Errorf("%d %v", code, lines)
	}
	if code, lines := post(0, "?tenant_id=nobody", `{"op":"put","key":"c","value":1}`); code != 200 || !strings.Contains(lines[0], "TENANT_NOT_FOUND") {
		t.Errorf("%d %v", code, lines)
	}
	if r := run(t, nil, "get", "c", "--endpoint", c.agents[1].addr.GRPC); r.code != errcode.ExitNotFound {
		t.Errorf("what was refused is there: %+v", r)
	}
}

// TestBatchIsPartlyDone: with two of four nodes dead some keys have a quorum and
// some have none. Each write of a batch is as its own result says, then and once
// the nodes are back.
func TestBatchIsPartlyDone(t *testing.T) {
	c := startCluster(t, 4)
	clients := []*client.Client{c.client(0), c.client(1), c.client(2)}
	w := &batchWorker{t: t, clients: clients, dots: map[string]client.Dot{}, maybe: map[string]bool{}}
	w.plain(0)
	if len(w.dots) != 50 {
		t.Fatalf("%d of 50 writes to a healthy cluster were acknowledged", len(w.dots))
	}
	c.agents[2].kill()
	c.agents[3].kill()
	// Through the nodes that are left, until both kinds of result were seen.
	failed := func() int { return len(w.maybe) }
	for n, deadline := 3, time.Now().Add(60*time.Second); len(w.dots) == 50 || failed() == 0; n += 3 {
		if time.Now().After(deadline) {
			t.Fatalf("%d acknowledged, %d failed", len(w.dots)-50, failed())
		}
		w.plain(n)
	}
	t.Logf("%d acknowledged, %d failed, %d of them not applied", len(w.dots)-50, failed(), w.refused)
	for _, a := range c.agents[2:] {
		if err := a.launch(); err != nil {
			t.Fatal(err)
		}
		a.waitHealthy(60 * time.Second)
	}
	var keys []string
	for key := range w.dots {
		keys = append(keys, key)
	}
	for key := range w.maybe {
		keys = append(keys, key)
	}
	w.check(keys[:min(len(keys), 1000)])
}
