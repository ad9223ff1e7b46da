package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// onceWrite is one write that is sent several times.
type onceWrite struct {
	key, value, id string

	mu    sync.Mutex
	dots  map[client.Dot]int // of the attempts that were acknowledged
	first int                // how many of them were no duplicates
}

// send sends the write through one node, with the outcome noted.
func (w *onceWrite) send(t *testing.T, c *client.Client) bool {
	r, err := c.Put(context.Background(), w.key, []byte(w.value), client.WithIdempotencyKey(w.id))
	if err != nil {
		if client.CodeOf(err) == errcode.IdempotencyKeyConflict {
			t.Errorf("%s: %v", w.key, err)
		}
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dots[r.Dot]++
	if !r.Duplicate {
		w.first++
	}
	return true
}

// TestWritesAreDoneOnce sends a few hundred writes two to four times each through
// different nodes, while one node after another is killed and comes back. Between
// the attempts other writes overwrite some of them. Every acknowledged attempt of
// a write has the same dot, and no late one undoes what came after it.
func TestWritesAreDoneOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	clients := []*client.Client{c.client(0), c.client(1), c.client(2)}
	const writes, workers = 300, 12
	all := make([]*onceWrite, writes)
	for i := range all {
		all[i] = &onceWrite{
			key: fmt.Sprintf("once/%d", i), value: fmt.Sprintf("value %d", i), id: fmt.Sprintf("id-%d", i), dots: map[client.Dot]int{},
		}
	}
	over := make([]bool, writes)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for g := range workers {
		wg.Go(func() {
			for i := g; i < writes; i += workers {
				w := all[i]
				// All at once, through nodes of which one may be dead.
				var attempts sync.WaitGroup
				for a := range 2 + i%3 {
					attempts.Go(func() { w.send(t, clients[(i+a)%3]) })
				}
				attempts.Wait()
				// Until somebody has said that it is done.
				deadline := time.Now().Add(60 * time.Second)
				for a := 0; len(w.dots) == 0; a++ {
					w.send(t, clients[(i+a)%3])
					if time.Now().After(deadline) {
						t.Errorf("%s: no attempt was acknowledged", w.key)
						return
					}
				}
				if i%2 == 0 {
					_, err := clients[(i+1)%3].Put(context.Background(), w.key, []byte("newer"))
					if over[i] = err == nil; over[i] {
						w.send(t, clients[(i+2)%3])
					}
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(done)
	}()
	kills := 0
	for running := true; running; kills++ {
		a := c.agents[kills%3]
		a.kill()
		if err := a.launch(); err != nil {
			t.Fatalf("start %s again: %v", a.name, err)
		}
		a.waitHealthy(60 * time.Second)
		select {
		case <-done:
			running = false
		default:
		}
	}
	<-done
	c.meet()
	duplicates := 0
	for i, w := range all {
		// Once more, when nothing fails.
		if !w.send(t, clients[i%3]) {
			t.Errorf("%s: a healthy cluster refuses the retry", w.key)
		}
		if len(w.dots) != 1 || w.first > 1 {
			t.Errorf("%s was done %d times: %v, begun %d times", w.key, len(w.dots), w.dots, w.first)
		}
		r, err := clients[(i+1)%3].Get(context.Background(), w.key, client.WithLevel(client.LevelQuorum))
		if err != nil {
			t.Errorf("get %s: %v", w.key, err)
			continue
		}
		for d, n := range w.dots {
			duplicates += n - 1
			switch got := string(r.Value); {
			case over[i] && got != "newer":
				t.Errorf("%s: a retry undid what came after it: %q", w.key, got)
			case i%2 == 1 && (got != w.value || r.Siblings[0].Dot != d):
				t.Errorf("%s: %q of %v, acknowledged was %v", w.key, got, r.Siblings[0].Dot, d)
			}
		}
	}
	t.Logf("%d writes, %d attempts acknowledged beside the first, %d kills", writes, duplicates, kills)
	var counted float64
	for _, a := range c.agents {
		n, err := a.series("pairdb_idempotent_duplicates_total")
		if err != nil {
			t.Fatal(err)
		}
		counted += n
	}
	if counted < writes {
		t.Errorf("the nodes count %v duplicates, at least %d retries were answered since", counted, writes)
	}
}

// TestIdempotencyAtTheEdges: the command line and HTTP carry the key, and agree.
func TestIdempotencyAtTheEdges(t *testing.T) {
	c := startCluster(t, 3)
	ep := func(i int) string { return c.agents[i].addr.GRPC }
	post := func(i int, value string) (int, string) {
		t.Helper()
		req, err := http.NewRequest("POST", "http://"+c.agents[i].addr.HTTP+"/v1/key-value", strings.NewReader(`{"tenant_id":"default","key":"h","value":`+value+`}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", "order 7")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for i, want := range []string{`"is_duplicate":false`, `"is_duplicate":true`} {
		if code, body := post(i, "1"); code != 200 || !strings.Contains(body, want) || !strings.Contains(body, `"idempotency_key":"order 7"`) {
			t.Errorf("post %d: %d %s", i, code, body)
		}
	}
	if code, body := post(2, "2"); code != 409 || !strings.Contains(body, "IDEMPOTENCY_KEY_CONFLICT") {
		t.Errorf("another value: %d %s", code, body)
	}
	mustRun(t, "put", "k", "v", "--idempotency-key", "a", "--endpoint", ep(0))
	mustRun(t, "delete", "k", "--idempotency-key", "b", "--endpoint", ep(1))
	// Neither retry brings anything back.
	for i, args := range [][]string{{"put", "k", "v", "--idempotency-key", "a"}, {"delete", "k", "--idempotency-key", "b"}} {
		r := mustRun(t, append(args, "-o", "json", "--endpoint", ep(2-i))...)
		if !strings.Contains(strings.ReplaceAll(r.stdout, " ", ""), `"is_duplicate":true`) {
			t.Errorf("%v: %s", args, r.stdout)
		}
	}
	if r := run(t, nil, "get", "k", "--endpoint", ep(0)); r.code != errcode.ExitNotFound {
		t.Errorf("the deleted key: exit %d %q", r.code, r.stdout)
	}
	if r := run(t, nil, "put", "k", "w", "--idempotency-key", "", "--endpoint", ep(0)); r.code != errcode.ExitUsage {
		t.Errorf("an empty key: exit %d\n%s", r.code, r.stderr)
	}
	if r := run(t, nil, "put", "k", "w", "--idempotency-key", "a", "--endpoint", ep(0)); r.code != errcode.ExitConflict || !strings.Contains(r.stderr, "IDEMPOTENCY_KEY_CONFLICT") {
		t.Errorf("another value: exit %d\n%s", r.code, r.stderr)
	}
}
