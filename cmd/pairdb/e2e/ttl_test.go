package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// expiryOf asks one node when a key's value expires.
func expiryOf(t *testing.T, a *agent, key string) time.Time {
	t.Helper()
	r := mustRun(t, "get", key, "-o", "json", "--endpoint", a.addr.GRPC)
	var got struct {
		Siblings []struct {
			ExpiresAt time.Time `json:"expires_at"`
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || len(got.Siblings) != 1 {
		t.Fatalf("%v\n%s", err, r.stdout)
	}
	return got.Siblings[0].ExpiresAt
}

// TestValuesExpire: all nodes have the same instant, over the death of one and of
// all, and hide the value from then on and not before. They run on one clock here.
func TestValuesExpire(t *testing.T) {
	c := startCluster(t, 3)
	clients := []*client.Client{c.client(0), c.client(1), c.client(2)}
	ep := func(i int) string { return c.agents[i].addr.GRPC }
	began := time.Now()
	mustRun(t, "put", "long", "v", "--ttl", "1h", "--idempotency-key", "a", "--endpoint", ep(0))
	long := expiryOf(t, c.agents[0], "long")
	if long.Before(began.Add(time.Hour-time.Millisecond)) || long.After(time.Now().Add(time.Hour)) {
		t.Fatalf("an hour from %v is %v", began, long)
	}
	c.agents[1].kill()
	mustRun(t, "put", "missed", "v", "--ttl", "2h", "--endpoint", ep(0))
	missed := expiryOf(t, c.agents[2], "missed")
	c.agents[1].start()
	c.meet()
	// The retry does not live longer, and a node that was away agrees.
	mustRun(t, "put", "long", "v", "--ttl", "1h", "--idempotency-key", "a", "--endpoint", ep(1))
	if r := run(t, nil, "put", "long", "v", "--ttl", "2h", "--idempotency-key", "a", "--endpoint", ep(1)); r.code != errcode.ExitConflict {
		t.Errorf("another time to live with the same key: exit %d, %s", r.code, r.stderr)
	}

	// A second, watched through all nodes.
	var wg sync.WaitGroup
	for i := range 12 {
		key := fmt.Sprintf("short/%d", i)
		wg.Go(func() {
			var until time.Time
			for try := 0; ; try++ {
				until = time.Now().Add(time.Second + time.Duration(i)*50*time.Millisecond).Truncate(time.Millisecond)
				_, err := clients[i%3].Put(context.Background(), key, []byte("v"), client.WithExpiry(until))
				if err == nil {
					break
				}
				// What comes to its node too late is refused, and rightly.
				if client.CodeOf(err) != errcode.InvalidArgument || time.Now().Before(until) || try == 10 {
					t.Error(err)
					return
				}
			}
			for n, gone := 0, 0; gone < 3; n++ {
				began := time.Now()
				r, err := clients[n%3].Get(context.Background(), key)
				ended := time.Now()
				switch {
				case err == nil && (gone > 0 || !began.Before(until) || !r.Siblings[0].ExpiresAt.Equal(until)):
					t.Errorf("%s: read %v after its end, which is %v", key, began.Sub(until), r.Siblings[0].ExpiresAt)
					return
				case errors.Is(err, client.ErrKeyNotFound):
					gone++
					if ended.Before(until) {
						t.Errorf("%s: gone %v before its end", key, until.Sub(ended))
					}
				case err != nil:
					t.Errorf("%s: %v", key, err)
					return
				}
			}
			// Expired is absent.
			if _, err := clients[(i+1)%3].Put(context.Background(), key, []byte("w"), client.IfAbsent()); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		})
	}
	wg.Wait()

	mustRun(t, "put", "gone", "v", "--ttl", "1ms", "--endpoint", ep(0))
	for _, a := range c.agents {
		a.kill()
	}
	for _, a := range c.agents {
		a.start()
	}
	c.meet()
	for _, a := range c.agents {
		if got := expiryOf(t, a, "long"); !got.Equal(long) {
			t.Errorf("%s: long until %v, %v before", a.name, got, long)
		}
		if got := expiryOf(t, a, "missed"); !got.Equal(missed) {
			t.Errorf("%s: missed until %v, %v before", a.name, got, missed)
		}
		if r := run(t, nil, "get", "gone", "--consistency", "all", "--endpoint", a.addr.GRPC); r.code != errcode.ExitNotFound {
			t.Errorf("%s: an expired value came back: exit %d %q", a.name, r.code, r.stdout)
		}
	}

	for _, args := range [][]string{
		{"--ttl", "0s"},
		{"--ttl", "-5s"},
		{"--ttl", "2000000h"},
		{"--expires-at", "2001-01-01T00:00:00Z"},
		{"--ttl", "1h", "--expires-at", "2999-01-01T00:00:00Z"},
		{"--if-absent", "--if-match", "AAAA"},
	} {
		if r := run(t, nil, append([]string{"put", "long", "w", "--endpoint", ep(0)}, args...)...); r.code != errcode.ExitUsage || !strings.Contains(r.stderr, "INVALID_ARGUMENT") {
			t.Errorf("%v: exit %d, %s", args, r.code, r.stderr)
		}
	}
	if got := expiryOf(t, c.agents[1], "long"); !got.Equal(long) {
		t.Errorf("what was refused changed the expiry to %v", got)
	}
}

// TestSequentialConditionsAreExact counts up with one client, each time on the
// condition that nothing was written since, through all nodes in turn while one
// after another is killed. What is in doubt is sent again under its idempotency
// key. No step is refused, lost or done twice.
func TestSequentialConditionsAreExact(t *testing.T) {
	c := startCluster(t, 3)
	clients := []*client.Client{c.client(0), c.client(1), c.client(2)}
	const steps = 200
	first, err := clients[0].Put(context.Background(), "n", []byte("0"), client.IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	again := 0
	go func() {
		defer close(done)
		seen := first.Context
		for i, turn := 1, 0; i <= steps; i++ {
			deadline := time.Now().Add(60 * time.Second)
			for {
				turn++
				r, err := clients[turn%3].Put(context.Background(), "n", []byte(strconv.Itoa(i)),
					client.IfMatch(seen), client.WithIdempotencyKey(fmt.Sprint("step ", i)))
				if err == nil {
					seen = r.Context
					break
				}
				again++
				if code := client.CodeOf(err); code == errcode.PreconditionFailed || code == errcode.IdempotencyKeyConflict || time.Now().After(deadline) {
					t.Errorf("step %d: %v", i, err)
					return
				}
			}
		}
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
	t.Logf("%d steps, %d sent again, %d kills", steps, again, kills)
	c.meet()
	for i, cl := range clients {
		if r, err := cl.Get(context.Background(), "n", client.WithLevel(client.LevelAll)); err != nil || string(r.Value) != strconv.Itoa(steps) {
			t.Errorf("through node %d: %+v, %v", i, r, err)
		}
	}
}

// TestConditionsOverHTTP: put if absent, also through a node that missed the first
// put, and put and delete by ETag.
func TestConditionsOverHTTP(t *testing.T) {
	c := startCluster(t, 3)
	one, two := c.agents[0], c.agents[1]
	const path = "/v1/kv/default/k"
	status := func(a *agent, want int, method, body string, headers ...string) *http.Response {
		t.Helper()
		resp, got := a.raw(method, path, []byte(body), headers...)
		if resp.StatusCode != want {
			t.Fatalf("%s %v: %d %s", method, headers, resp.StatusCode, got)
		}
		return resp
	}
	two.kill()
	if resp, body := one.raw("PUT", path+"?ttl=90m", []byte("v"), "If-None-Match", "*"); resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	two.start()
	c.meet()
	status(two, http.StatusPreconditionFailed, "PUT", "w", "If-None-Match", "*")
	resp := status(two, http.StatusOK, "GET", "")
	tag := resp.Header.Get("ETag")
	if at, err := time.Parse(time.RFC3339Nano, resp.Header.Get("X-PairDB-Expires-At")); err != nil || time.Until(at) > 90*time.Minute || time.Until(at) < time.Hour {
		t.Errorf("%v", resp.Header)
	}
	status(one, http.StatusNotModified, "GET", "", "If-None-Match", tag)
	newer := status(two, http.StatusNoContent, "PUT", "w", "If-Match", tag).Header.Get("ETag")
	status(one, http.StatusPreconditionFailed, "PUT", "x", "If-Match", tag)
	status(one, http.StatusPreconditionFailed, "DELETE", "", "If-Match", tag)
	if got := status(one, http.StatusOK, "GET", "").Header.Get("ETag"); got != newer {
		t.Errorf("the ETag is %s, the put had %s", got, newer)
	}
	status(one, http.StatusNoContent, "DELETE", "", "If-Match", newer)
	status(two, http.StatusPreconditionFailed, "PUT", "x", "If-Match", newer)
	status(two, http.StatusNotFound, "GET", "")

	post := func(want int, fields string) string {
		t.Helper()
		resp, body := one.raw("POST", "/v1/key-value", []byte(`{"tenant_id":"default","key":"k","value":1`+fields+`}`))
		if resp.StatusCode != want {
			t.Errorf("%s: %d %s", fields, resp.StatusCode, body)
		}
		return string(body)
	}
	post(http.StatusOK, `,"if_absent":true,"ttl_seconds":5400`)
	post(http.StatusPreconditionFailed, `,"if_absent":true`)
	post(http.StatusBadRequest, `,"ttl_seconds":0`)
	if got := post(http.StatusBadRequest, `,"expires_at":"2001-01-01T00:00:00Z"`); !strings.Contains(got, "past") {
		t.Error(got)
	}
	if _, body := two.raw("GET", "/v1/key-value?tenant_id=default&key=k", nil); !strings.Contains(string(body), `"expires_at":"`) {
		t.Errorf("%s", body)
	}
}
