package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
)

// allSiblings asks one node for all values of a key and their context.
func allSiblings(t *testing.T, a *agent, tenant, key string) (values []string, seen string) {
	t.Helper()
	r := mustRun(t, "get", key, "--all-siblings", "-o", "json", "--tenant", tenant, "--endpoint", a.addr.GRPC)
	var got struct {
		Siblings []struct{ Value []byte }
		Context  string
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatalf("%v\n%s", err, r.stdout)
	}
	for _, s := range got.Siblings {
		values = append(values, string(s.Value))
	}
	return values, got.Context
}

// raw is one request to the HTTP port of a node, whose answer is held against
// the OpenAPI document.
func (a *agent) raw(method, path string, body []byte, headers ...string) (*http.Response, []byte) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, "http://"+a.addr.HTTP+path, bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := documented().Check(method, req.URL, req.Header, body, resp); err != nil {
		a.t.Error(err)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp, got
}

// TestSiblings makes siblings through several nodes, keeps them over the death
// of all, and resolves them.
func TestSiblings(t *testing.T) {
	c := startCluster(t, 3)
	one, two, three := c.agents[0], c.agents[1], c.agents[2]
	mustRun(t, "tenant", "create", "carts", "--conflict-policy", "siblings", "--endpoint", one.addr.GRPC)

	mustRun(t, "put", "k", "from one", "--tenant", "carts", "--endpoint", one.addr.GRPC)
	mustRun(t, "put", "k", "from two", "--tenant", "carts", "--endpoint", two.addr.GRPC)
	values, seen := allSiblings(t, three, "carts", "k")
	if !slices.Equal(values, []string{"from two", "from one"}) || seen == "" {
		t.Fatalf("the key has %q under the context %q", values, seen)
	}
	r := mustRun(t, "get", "k", "--tenant", "carts", "--endpoint", one.addr.GRPC)
	if r.stdout != "from two" || !strings.Contains(r.stderr, "2 siblings") {
		t.Errorf("get prints %q, %q", r.stdout, r.stderr)
	}

	// Siblings are durable: all processes die at once.
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
	resp, body := three.raw("GET", "/v1/kv/carts/k", nil)
	var list struct {
		Siblings []struct{ Value []byte }
	}
	if err := json.Unmarshal(body, &list); err != nil || resp.StatusCode != http.StatusMultipleChoices || len(list.Siblings) != 2 ||
		resp.Header.Get("X-PairDB-Context") == "" {
		t.Fatalf("raw get: %d %v %s %v", resp.StatusCode, resp.Header, body, err)
	}

	r = mustRun(t, "resolve", "k", "merged", "--tenant", "carts", "--endpoint", two.addr.GRPC)
	if !strings.Contains(r.stderr, "replaced 2 siblings") {
		t.Errorf("resolve says %q", r.stderr)
	}
	for _, a := range c.agents {
		if values, _ := allSiblings(t, a, "carts", "k"); !slices.Equal(values, []string{"merged"}) {
			t.Errorf("%s has %q after resolve", a.name, values)
		}
	}

	// A context that is out of date or of another key does no harm.
	mustRun(t, "put", "k", "later", "--context", seen, "--tenant", "carts", "--endpoint", three.addr.GRPC)
	if values, _ = allSiblings(t, one, "carts", "k"); !slices.Equal(values, []string{"later", "merged"}) {
		t.Errorf("after a stale context: %q", values)
	}
	for _, args := range [][]string{
		{"put", "other", "v", "--context", seen, "--tenant", "carts"},
		{"put", "k", "v", "--context", seen},
		{"delete", "k", "--context", "bm9uZQ==", "--tenant", "carts"},
	} {
		expect(t, errcode.ExitUsage, []string{"INVALID_ARGUMENT", "context"}, nil, append(args, "--endpoint", one.addr.GRPC)...)
	}
	if again, _ := allSiblings(t, two, "carts", "k"); !slices.Equal(again, values) {
		t.Errorf("bad contexts changed %q to %q", values, again)
	}
	mustRun(t, "delete", "k", "--tenant", "carts", "--endpoint", two.addr.GRPC)
	expect(t, errcode.ExitNotFound, []string{"KEY_NOT_FOUND"}, nil, "get", "k", "--tenant", "carts", "--endpoint", three.addr.GRPC)
}

// TestSiblingLimit: the 65th blind write is refused with the context of what is
// there, and a write that carries that replaces it.
func TestSiblingLimit(t *testing.T) {
	c := startCluster(t, 3)
	mustRun(t, "tenant", "create", "carts", "--conflict-policy", "siblings", "--endpoint", c.agents[0].addr.GRPC)
	ctx := context.Background()
	clients := []*client.Client{c.client(0), c.client(1), c.client(2)}
	put := func(i int, opts ...client.CallOption) error {
		opts = append(opts, client.WithTenant("carts"), client.WithLevel(client.LevelAll))
		_, err := clients[i%3].Put(ctx, "many", fmt.Append(nil, i), opts...)
		return err
	}
	for i := range 64 {
		if err := put(i); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	err := put(64)
	var refused *client.Error
	if !errors.Is(err, client.ErrPreconditionFailed) || !errors.As(err, &refused) || refused.Outcome != errcode.NotApplied || refused.Context().IsZero() {
		t.Fatalf("put 64: %v", err)
	}
	got, err := clients[1].Get(ctx, "many", client.WithTenant("carts"))
	if err != nil || len(got.Siblings) != 64 || string(got.Value) != "63" {
		t.Fatalf("%d siblings, the first %q, %v", len(got.Siblings), got.Value, err)
	}
	warned := 0.0
	for _, a := range c.agents {
		n, err := a.series("pairdb_many_siblings_total")
		if err != nil {
			t.Fatal(err)
		}
		warned += n
	}
	if warned != 64-15 {
		t.Errorf("%v writes were counted as warnings", warned)
	}
	if err := put(65, client.WithContext(refused.Context())); err != nil {
		t.Fatal(err)
	}
	if got, err := clients[2].Get(ctx, "many", client.WithTenant("carts")); err != nil || len(got.Siblings) != 1 || string(got.Value) != "65" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestRawRoute: any bytes under any key over HTTP, contexts both ways, and what
// the route refuses.
func TestRawRoute(t *testing.T) {
	c := startCluster(t, 3)
	one, two := c.agents[0], c.agents[1]
	value := []byte("\x00\xff\n")
	for path, key := range map[string]string{"k": "k", "a//b/../c": "a//b/../c", "%2F%ff": "/\xff"} {
		resp, body := one.raw("PUT", "/v1/kv/default/"+path, value)
		if resp.StatusCode != http.StatusNoContent || len(body) > 0 || resp.Header.Get("X-PairDB-Context") == "" {
			t.Fatalf("put %s: %d %s", path, resp.StatusCode, body)
		}
		resp, body = two.raw("GET", "/v1/kv/default/"+path+"?consistency=all", nil)
		if resp.StatusCode != http.StatusOK || !bytes.Equal(body, value) || resp.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("get %s: %d %q", path, resp.StatusCode, body)
		}
		if again, _ := one.raw("GET", "/v1/kv/default/"+path, nil, "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("get %s again: %d", path, again.StatusCode)
		}
		if got, err := c.client(2).Get(context.Background(), key); err != nil || !bytes.Equal(got.Value, value) {
			t.Errorf("over gRPC %q holds %v, %v", key, got, err)
		}
		stale := resp.Header.Get("X-PairDB-Context")
		if resp, body := one.raw("DELETE", "/v1/kv/default/"+path, nil, "X-PairDB-Context", stale); resp.StatusCode != http.StatusNoContent {
			t.Errorf("delete %s: %d %s", path, resp.StatusCode, body)
		}
		if resp, body := two.raw("GET", "/v1/kv/default/"+path, nil); resp.StatusCode != http.StatusNotFound || !strings.Contains(string(body), "KEY_NOT_FOUND") {
			t.Errorf("get %s after its delete: %d %s", path, resp.StatusCode, body)
		}
		if resp, body := one.raw("PUT", "/v1/kv/default/elsewhere", nil, "X-PairDB-Context", stale); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "INVALID_ARGUMENT") {
			t.Errorf("a context of another key: %d %s", resp.StatusCode, body)
		}
	}
	for path, words := range map[string]string{"k?ttl=0s": "ttl is", "k?x=1": "unknown query parameter", "": "INVALID_KEY"} {
		if resp, body := one.raw("PUT", "/v1/kv/default/"+path, value); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), words) {
			t.Errorf("put %q: %d %s", path, resp.StatusCode, body)
		}
	}
	if resp, body := one.raw("PUT", "/v1/kv/default/large", make([]byte, 10<<20+1)); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a value over the limit: %d %s", resp.StatusCode, body)
	}
	if resp, body := one.raw("PUT", "/v1/kv/default/large", make([]byte, 10<<20)); resp.StatusCode != http.StatusNoContent {
		t.Errorf("a value of the limit: %d %s", resp.StatusCode, body)
	}
	if _, err := c.client(1).Get(context.Background(), "elsewhere"); client.CodeOf(err) != errcode.KeyNotFound {
		t.Errorf("what was refused was written: %v", err)
	}

	// The JSON route's conditional delete compares the clock and trusts it in
	// nothing else.
	put := func(a *agent, value string) {
		if resp, body := a.raw("PUT", "/v1/kv/default/json?consistency=all", []byte(value)); resp.StatusCode != http.StatusNoContent {
			t.Fatalf("put: %d %s", resp.StatusCode, body)
		}
	}
	put(one, "v1")
	clock := func() string {
		_, body := two.raw("GET", "/v1/key-value?tenant_id=default&key=json", nil)
		var got struct {
			VectorClock json.RawMessage `json:"vector_clock"`
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		return string(got.VectorClock)
	}
	old := clock()
	put(two, "v2")
	if resp, body := one.raw("DELETE", "/v1/key-value?tenant_id=default&key=json", nil, "X-Vector-Clock", old); resp.StatusCode != http.StatusPreconditionFailed {
		t.Errorf("delete with an old clock: %d %s", resp.StatusCode, body)
	}
	if resp, body := one.raw("DELETE", "/v1/key-value?tenant_id=default&key=json", nil, "X-Vector-Clock", clock()); resp.StatusCode != http.StatusOK {
		t.Errorf("delete with the present clock: %d %s", resp.StatusCode, body)
	}
	if resp, _ := two.raw("GET", "/v1/key-value?tenant_id=default&key=json", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("get after the delete: %d", resp.StatusCode)
	}
}
