package main

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/client/clienttest"
)

func TestParseStat(t *testing.T) {
	// The name of a program may look like the fields after it.
	const stat = "42 (a) R 1 2 (b)) S 1 42 42 0 -1 4194560 100 0 0 0 1234 66 0 0 20 0 9 0 100 1 2"
	got, err := parseStat(stat)
	if err != nil || got != 13*time.Second {
		t.Fatalf("%s, %v", got, err)
	}
	for _, bad := range []string{"", "42 a S 1", "42 (a) S 1 2 3", strings.Replace(stat, "1234", "x", 1), strings.Replace(stat, "1234", "99999999999999999999", 1)} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (a) S 1 42 42 0 -1 4194560 100 0 0 0 1234 66 0 0")
	f.Add(")")
	f.Fuzz(func(t *testing.T, s string) {
		// It must not panic; what the kernel writes is not ours to judge.
		_, _ = parseStat(s)
	})
}

func TestReadCPU(t *testing.T) {
	if _, err := readCPU([]int{os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	if got, err := readCPU(nil); got != 0 || err != nil {
		t.Fatal(got, err)
	}
	if ownCPU() <= 0 {
		t.Error("this process has used no CPU time")
	}
}

func TestPerOp(t *testing.T) {
	if got := perOp(3*time.Millisecond, 1000); got != 3 {
		t.Errorf("%v µs/op, want 3", got)
	}
	if got := perOp(time.Second, 0); got != 0 {
		t.Errorf("%v µs/op of nothing", got)
	}
}

func TestLatencyFigures(t *testing.T) {
	h := newHistogram()
	for i := range int64(1000) {
		if err := h.RecordValue(i + 1); err != nil {
			t.Fatal(err)
		}
	}
	l := latencyOf(h)
	if l.Count != 1000 || l.P50 != 500 || l.P90 != 900 || l.P99 != 990 || l.P999 != 999 || l.Max != 1000 || l.Mean < 500 || l.Mean > 501 {
		t.Errorf("%+v", l)
	}
}

func TestValues(t *testing.T) {
	for _, size := range []int{0, 1, 2, 1023, 1024, 100_000} {
		pool := randomBytes(1, size/2+valuePool)
		a, b := newValueMaker(pool, 1, 0, size), newValueMaker(randomBytes(1, size/2+valuePool), 1, 0, size)
		other := newValueMaker(pool, 1, 1, size)
		first := bytes.Clone(a.next())
		if len(first) != size || !bytes.Equal(first, b.next()) {
			t.Fatalf("size %d: the same seed gives other values", size)
		}
		if size < 1000 {
			continue
		}
		if bytes.Equal(first, a.next()) || bytes.Equal(first, other.next()) {
			t.Errorf("size %d: values repeat", size)
		}
		var packed bytes.Buffer
		w, err := flate.NewWriter(&packed, flate.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(first); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if r := float64(packed.Len()) / float64(size); r < 0.45 || r > 0.56 {
			t.Errorf("size %d compresses to %.2f", size, r)
		}
	}
}

func TestBenchSpreadsOverEndpoints(t *testing.T) {
	store := clienttest.NewStore()
	var endpoints []string
	var mu sync.Mutex
	asked := map[int]int{}
	for i := range 3 {
		s, err := clienttest.Start(store)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		s.SetHook(func(_ context.Context, method string, _ any) error {
			if strings.HasSuffix(method, "/Put") {
				mu.Lock()
				defer mu.Unlock()
				asked[i]++
			}
			return nil
		})
		endpoints = append(endpoints, s.Addr())
	}
	code, stdout, stderr := runCLI(t, t.Context(), "", "bench", "run", "--op", "put", "--count", "300", "--clients", "6", "--clients-per-conn", "2",
		"--keys", "10", "--warmup", "0s", "-o", "json", "--endpoint", strings.Join(endpoints, ","))
	if code != 0 {
		t.Fatal(stderr)
	}
	var r benchReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	if r.Ops != 300 || r.Latency["put"].Count != 300 || r.Connections != 3 || r.OpsPerSec <= 0 || store.Len() != 10 || r.Consistency != "quorum" {
		t.Errorf("%+v", r)
	}
	for i := range 3 {
		if asked[i] == 0 {
			t.Errorf("endpoint %d was never asked: %v", i, asked)
		}
	}
}

// TestBenchManyAtOnce: each key of a batch is an operation, and what fails of it
// is counted; a pipeline's requests are as many as calls would be.
func TestBenchManyAtOnce(t *testing.T) {
	store := clienttest.NewStore()
	s, err := clienttest.Start(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var mu sync.Mutex
	calls := map[string]int{}
	s.SetHook(func(_ context.Context, method string, req any) error {
		mu.Lock()
		defer mu.Unlock()
		calls[fmt.Sprintf("%s %T", method[strings.LastIndexByte(method, '/')+1:], req)]++
		if r, ok := req.(*pairdbv1.GetRequest); ok && string(r.GetKey()) == benchKey(7) {
			return clienttest.Fail(errcode.Unavailable, "not this one", nil)
		}
		return nil
	})
	run := func(args ...string) (r benchReport) {
		t.Helper()
		clear(calls)
		args = append([]string{"bench", "run", "--clients", "3", "--keys", "50", "--value-size", "10", "--warmup", "0s", "-o", "json", "--endpoint", s.Addr()}, args...)
		code, stdout, stderr := runCLI(t, t.Context(), "", args...)
		if code != 0 {
			t.Fatal(stderr)
		}
		if err := json.Unmarshal([]byte(stdout), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := run("--op", "put", "--batch", "50", "--count", "400"); r.Ops != 400 || r.Batch != 50 || calls["Batch *pairdbv1.BatchRequest"] != 8 || store.Len() != 50 || len(r.Errors) != 0 {
		t.Errorf("%+v %v", r, calls)
	}
	if r := run("--op", "get", "--no-load", "--batch", "50", "--count", "400"); r.Ops != 8*49 || r.Errors["UNAVAILABLE"] != 8 || r.Latency["get"].Count != 8*49 || calls["MultiGet *pairdbv1.MultiGetRequest"] != 8 {
		t.Errorf("%+v %v", r, calls)
	}
	if r := run("--op", "mix", "--no-load", "--pipeline", "--count", "200"); r.Ops+r.Errors["UNAVAILABLE"] != 200 || !r.Pipeline || calls["Pipeline *pairdbv1.GetRequest"]+calls["Pipeline *pairdbv1.PutRequest"] != 200 {
		t.Errorf("%+v %v", r, calls)
	}
	for _, args := range [][]string{
		{"--batch", "0"}, {"--batch", "1001"}, {"--batch", "2", "--pipeline"}, {"--batch", "11", "--keys", "10"}, {"--batch", "1000", "--value-size", "100000"},
	} {
		if code, _, _ := runCLI(t, t.Context(), "", append([]string{"bench", "run", "--endpoint", s.Addr()}, args...)...); code != int(errcode.ExitUsage) {
			t.Errorf("%v: exit %d", args, code)
		}
	}
}

func TestBenchInterrupted(t *testing.T) {
	s, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	s.SetHook(func(_ context.Context, method string, _ any) error {
		if strings.HasSuffix(method, "/Put") {
			cancel(errInterrupted)
		}
		return nil
	})
	code, stdout, _ := runCLI(t, ctx, "", "bench", "run", "--op", "put", "--duration", "1h", "--warmup", "0s", "--endpoint", s.Addr())
	if code != 130 || stdout != "" {
		t.Fatalf("exit code %d, stdout %q", code, stdout)
	}
}

func TestLoadIsClosed(t *testing.T) {
	f := &clientFlags{endpoints: []string{"127.0.0.1:1"}, tenant: "t", timeout: time.Second, level: client.LevelOne}
	l, err := newLoad(f, benchOptions{op: benchPut, clients: 3, clientsPerConn: 1, keys: 1})
	if err != nil || len(l.clients) != 3 {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
}
