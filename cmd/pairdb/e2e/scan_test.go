package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// scanKeys is how many keys TestScanUnderWrites has; PAIRDB_SCAN_KEYS says
// another number.
const scanKeys = 50_000

// scanned is a key that always has a value: a version, which only rises.
type scanned struct{ tried, acked, before atomic.Int32 }

// scanWorld is a cluster whose keys are written while scans go over them.
type scanWorld struct {
	t       *testing.T
	c       *cluster
	clients []*client.Client
	keys    []scanned
	done    chan struct{}
	wg      sync.WaitGroup
	writes  atomic.Int64
	failed  atomic.Int64
}

func scanKey(i int) string {
	if i%10 == 0 {
		return fmt.Sprintf("s/{group%d}/%07d", i/1000, i)
	}
	return fmt.Sprintf("s/%07d", i)
}

// keyIndex is the inverse of scanKey.
func keyIndex(key string) (int, error) { return strconv.Atoi(key[strings.LastIndexByte(key, '/')+1:]) }

// load stores version 1 of all keys.
func (w *scanWorld) load() {
	const workers = 64
	var wg sync.WaitGroup
	for g := range workers {
		wg.Go(func() {
			for i := g; i < len(w.keys); i += workers {
				if _, err := w.clients[i%len(w.clients)].Put(context.Background(), scanKey(i), []byte("1")); err != nil {
					w.t.Errorf("load %s: %v", scanKey(i), err)
					return
				}
				w.keys[i].tried.Store(1)
				w.keys[i].acked.Store(1)
			}
		})
	}
	wg.Wait()
}

// write overwrites keys, each with one writer, and makes, deletes and makes again
// keys that no scan has to show, until done is closed.
func (w *scanWorld) write(g, writers int) {
	rng := rand.New(rand.NewPCG(uint64(g), 1))
	stuck := map[int]bool{}
	for n := 0; ; n++ {
		select {
		case <-w.done:
			return
		default:
		}
		c := w.clients[rng.IntN(len(w.clients))]
		w.writes.Add(1)
		if n%4 == 0 {
			key := fmt.Sprintf("s/churn/%d", rng.IntN(1000))
			var err error
			if rng.IntN(2) == 0 {
				_, err = c.Delete(context.Background(), key)
			} else {
				_, err = c.Put(context.Background(), key, []byte("x"))
			}
			if err != nil {
				w.failed.Add(1)
			}
			continue
		}
		i := rng.IntN(len(w.keys)/writers)*writers + g
		if stuck[i] {
			continue
		}
		k := &w.keys[i]
		version := k.tried.Add(1)
		if _, err := c.Put(context.Background(), scanKey(i), []byte(strconv.Itoa(int(version)))); err != nil {
			// It may show up later, so that a newer version could be older.
			w.failed.Add(1)
			stuck[i] = true
			continue
		}
		k.acked.Store(version)
	}
}

// scan goes over all keys and checks what it gets; half is called in the middle.
func (w *scanWorld) scan(level client.Level, half func()) {
	t := w.t
	for i := range w.keys {
		w.keys[i].before.Store(w.keys[i].acked.Load())
	}
	c, err := client.New(client.Options{Endpoints: w.c.endpoints(), Timeout: 60 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	seen := make([]bool, len(w.keys))
	churn := map[string]bool{}
	count, bad, began, writes := 0, 0, time.Now(), w.writes.Load()
	s := c.Scan(context.Background(), client.ScanOptions{Prefix: "s/"}, client.WithLevel(level))
	defer s.Close()
	for s.Next() && bad < 10 {
		it := s.Item()
		if strings.HasPrefix(it.Key, "s/churn/") {
			if churn[it.Key] {
				t.Errorf("%s is shown twice", it.Key)
				bad++
			}
			churn[it.Key] = true
			continue
		}
		i, err := keyIndex(it.Key)
		if err != nil || i >= len(seen) || seen[i] {
			t.Errorf("%s is shown twice, or never was", it.Key)
			bad++
			continue
		}
		seen[i] = true
		k := &w.keys[i]
		if v, err := strconv.Atoi(string(it.Value)); err != nil || v < int(k.before.Load()) || v > int(k.tried.Load()) {
			t.Errorf("%s is shown as %q; %d was acknowledged before the scan, the last written is %d", it.Key, it.Value, k.before.Load(), k.tried.Load())
			bad++
		}
		if count++; count == len(seen)/2 && half != nil {
			half()
		}
	}
	if err := s.Err(); err != nil {
		t.Errorf("scan: %v", err)
	}
	if count != len(seen) {
		t.Errorf("%d of %d keys that were there all the time are shown", count, len(seen))
	}
	took := time.Since(began)
	t.Logf("scan at %s: %d keys and %d others in %s, %.0f keys/s, %d entries looked at, beside %d writes",
		level, count, len(churn), took.Round(time.Millisecond), float64(count)/took.Seconds(), s.Scanned(), w.writes.Load()-writes)
}

// TestScanUnderWrites scans keys that are being overwritten, with others made and
// deleted between them, while a node is killed in the middle and comes back: every
// key is shown once, and none older than what was acknowledged before.
func TestScanUnderWrites(t *testing.T) {
	t.Parallel()
	n := scanKeys
	if v := os.Getenv("PAIRDB_SCAN_KEYS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil || n < 1000 {
			t.Fatalf("PAIRDB_SCAN_KEYS=%s is no number of at least 1000", v)
		}
	}
	w := &scanWorld{t: t, c: startCluster(t, 3), keys: make([]scanned, n), done: make(chan struct{})}
	for i := range w.c.agents {
		w.clients = append(w.clients, w.c.client(i))
	}
	began := time.Now()
	w.load()
	if t.Failed() {
		return
	}
	t.Logf("%d keys loaded in %s", n, time.Since(began).Round(time.Millisecond))
	const writers = 16
	for g := range writers {
		w.wg.Go(func() { w.write(g, writers) })
	}
	stop := sync.OnceFunc(func() {
		close(w.done)
		w.wg.Wait()
	})
	defer stop()
	w.scan(client.LevelQuorum, nil)
	victim := w.c.agents[1]
	restarted := make(chan error, 1)
	w.scan(client.LevelQuorum, func() {
		victim.kill()
		go func() { restarted <- victim.launch() }()
	})
	if err := <-restarted; err != nil {
		t.Fatalf("start %s again: %v", victim.name, err)
	}
	victim.waitHealthy(60 * time.Second)
	w.scan(client.LevelQuorum, nil)
	stop()
	t.Logf("%d writes, %d failed", w.writes.Load(), w.failed.Load())
	w.c.meet()
	w.scan(client.LevelAll, nil)
}

// TestScanAtTheEdges: the command line and HTTP agree, a token of the one goes on
// through another node, and what is refused has its code.
func TestScanAtTheEdges(t *testing.T) {
	c := startCluster(t, 3)
	ep := func(i int) string { return c.agents[i].addr.GRPC }
	kv := c.client(0)
	for i := range 20 {
		if _, err := kv.Put(t.Context(), fmt.Sprintf("{g}%02d", i), []byte(fmt.Sprint("v", i))); err != nil {
			t.Fatal(err)
		}
	}
	get := func(i int, query string) (int, []map[string]any) {
		t.Helper()
		resp, err := http.Get("http://" + c.agents[i].addr.HTTP + "/v1/scan?tenant_id=default&" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var all []map[string]any
		for line := range strings.Lines(string(body)) {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all = append(all, m)
		}
		return resp.StatusCode, all
	}
	code, all := get(0, "prefix=%7Bg%7D&limit=5")
	if code != 200 || len(all) != 6 || all[4]["key"] != "{g}04" || all[4]["value"] != "v4" {
		t.Fatalf("%d %v", code, all)
	}
	token := all[5]["next_page_token"].(string)
	// A key group comes in the order of its keys, whoever is asked.
	for i := 5; token != ""; {
		r := mustRun(t, "scan", "--prefix", "{g}", "--limit", "4", "--page-token", token, "-o", "json", "--endpoint", ep(i%3))
		var page struct {
			Items []struct {
				Key []byte `json:"key"`
			} `json:"items"`
			Next string `json:"next_page_token"`
		}
		if err := json.Unmarshal([]byte(r.stdout), &page); err != nil {
			t.Fatal(err)
		}
		for _, it := range page.Items {
			if want := fmt.Sprintf("{g}%02d", i); string(it.Key) != want {
				t.Fatalf("%s comes where %s belongs", it.Key, want)
			}
			i++
		}
		if token = page.Next; token == "" && i != 20 {
			t.Errorf("%d keys", i)
		}
	}
	if r := mustRun(t, "scan", "--keys-only", "-o", "plain", "--endpoint", ep(2), "-c", "all"); strings.Count(r.stdout, "\n") != 20 {
		t.Errorf("all keys: %q", r.stdout)
	}
	token = all[5]["next_page_token"].(string)
	if r := run(t, nil, "scan", "--prefix", "{h}", "--page-token", token, "--endpoint", ep(1)); r.code != errcode.ExitUsage || !strings.Contains(r.stderr, "INVALID_ARGUMENT") {
		t.Errorf("another prefix: exit %d %s", r.code, r.stderr)
	}
	if code, all := get(1, "prefix=%7Bg%7D&keys_only=true&page_token="+token); code != 400 || all[0]["error_code"] != "INVALID_ARGUMENT" {
		t.Errorf("without values: %d %v", code, all)
	}
	if r := run(t, nil, "scan", "--tenant", "nobody", "--endpoint", ep(1)); r.code != errcode.ExitNotFound {
		t.Errorf("no tenant: exit %d %s", r.code, r.stderr)
	}
	// The token outlives every process that there was.
	for _, a := range c.agents {
		a.kill()
	}
	for _, a := range c.agents {
		a.start()
	}
	for _, a := range c.agents {
		a.waitHealthy(60 * time.Second)
	}
	c.meet()
	if r := mustRun(t, "scan", "--prefix", "{g}", "--limit", "1", "--page-token", token, "-o", "plain", "--endpoint", ep(2)); r.stdout != "{g}05\tdjU=\n" {
		t.Errorf("after a restart: %q", r.stdout)
	}
}
