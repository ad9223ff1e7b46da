package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/engine/kerneltest"
)

// wantEqualReplicas waits until all owners hold the same of every key, where there is
// something that brings them together by itself. Until then a read at ALL does it.
var wantEqualReplicas = func(c *cluster, keys []string) {
	c.t.Helper()
	cl := c.client(0)
	for _, key := range keys {
		if _, err := cl.Get(context.Background(), key, client.WithLevel(client.LevelAll)); err != nil && !errors.Is(err, client.ErrKeyNotFound) {
			c.t.Fatalf("read %s at ALL: %v", key, err)
		}
	}
}

// steady writes large values at QUORUM and reads them back, through every node of a
// cluster, until stop is called.
type steady struct {
	mu    sync.Mutex
	acked map[string]int // the seed of each value's bytes
	wg    sync.WaitGroup
	quit  chan struct{}
	n     atomic.Int64
}

const (
	steadySize = 10_000
	steadyEach = 40 * time.Millisecond // of each of two clients at a node
)

func (c *cluster) startSteady(what string) *steady {
	s := &steady{acked: map[string]int{}, quit: make(chan struct{})}
	for i := range c.agents {
		cl, other := c.client(i), c.client((i+1)%len(c.agents))
		for range 2 {
			s.wg.Go(func() {
				pace := time.NewTicker(steadyEach)
				defer pace.Stop()
				for {
					select {
					case <-s.quit:
						return
					case <-pace.C:
					}
					seed := int(s.n.Add(1))
					key := fmt.Sprintf("%s/%d", what, seed)
					if _, err := cl.Put(context.Background(), key, junk(seed, steadySize)); err != nil {
						c.t.Errorf("put %s at QUORUM through node %d: %v", key, i+1, err)
						continue
					}
					s.mu.Lock()
					s.acked[key] = seed
					s.mu.Unlock()
					res, err := other.Get(context.Background(), key)
					if err != nil || string(res.Siblings[0].Value) != string(junk(seed, steadySize)) {
						c.t.Errorf("get %s at QUORUM through node %d: %v", key, (i+1)%len(c.agents)+1, err)
					}
				}
			})
		}
	}
	return s
}

// stop ends the load; again is no error.
func (s *steady) stop() {
	select {
	case <-s.quit:
	default:
		close(s.quit)
	}
	s.wg.Wait()
}

func (s *steady) keys() (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.acked {
		keys = append(keys, key)
	}
	return keys
}

// verify reads all that was acknowledged through a node.
func (s *steady) verify(c *cluster, node int) {
	c.t.Helper()
	cl := c.client(node)
	for key, seed := range s.acked {
		res, err := cl.Get(context.Background(), key)
		if err != nil || string(res.Siblings[0].Value) != string(junk(seed, steadySize)) {
			c.t.Fatalf("%s was acknowledged; through node %d: %v", key, node+1, err)
		}
	}
}

// TestOneOfThreeDisksFillsUp has the disk of one of three nodes, 64 MiB, fill up
// under load: clients at every node, that one included, notice nothing at QUORUM, the
// node stays up and in the path for reads, and takes writes again by itself when
// there is space.
func TestOneOfThreeDisksFillsUp(t *testing.T) {
	t.Parallel()
	l := kerneltest.Mount(t, 64<<20)
	c := startClusterOn(t, []string{"", "", l.Dir})
	full := c.agents[2]
	// So that the load is what fills it, in seconds.
	if err := l.Fill("ballast", 12<<20); err != nil {
		t.Fatal(err)
	}
	s := c.startSteady("filling")
	defer s.stop()
	full.diskState("full")
	writes := s.n.Load()
	if err := poll(time.Minute, func() (bool, error) { return s.n.Load() > writes+300, nil }); err != nil {
		t.Errorf("no load while a disk is full: %v", err)
	}
	// To the last byte: metadata has no room either, and that ends nothing.
	if err := l.Fill("rest", 0); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		mustRun(t, "tenant", "create", fmt.Sprintf("late-%d", i), "--endpoint", c.agents[0].addr.GRPC)
	}
	if r := run(t, nil, "put", "k", "v", "--tenant", "late-3", "--endpoint", full.addr.GRPC); r.code != 0 {
		t.Logf("a tenant that the full node could not learn of: exit %d %s", r.code, r.stderr)
		if !strings.Contains(r.stderr, string(errcode.Unavailable)) && !strings.Contains(r.stderr, string(errcode.TenantNotFound)) {
			t.Errorf("the full node says: %s", r.stderr)
		}
	}
	refused, err := full.series("pairdb_disk_refused_writes_total", `code="DISK_FULL"`)
	if err != nil || refused == 0 {
		t.Errorf("%v writes refused, %v", refused, err)
	}
	if status, body := get(t, full, "/readyz"); status != http.StatusOK || !strings.Contains(body, "writes are refused") {
		t.Errorf("/readyz on a full disk: %d %s", status, body)
	}
	// It is there, and says itself why it takes no write.
	var e *client.Error
	if _, err := c.client(0).Put(context.Background(), "all", []byte("v"), client.WithLevel(client.LevelAll)); !errors.As(err, &e) || !strings.Contains(e.Meta[errcode.MetaCauses], "DISK_FULL") {
		t.Errorf("put at ALL: %v", err)
	}
	for _, name := range []string{"rest", "ballast"} {
		if err := l.Free(name); err != nil {
			t.Fatal(err)
		}
	}
	freed := time.Now()
	err = poll(30*time.Second, func() (bool, error) {
		_, err := c.client(2).Put(context.Background(), "all", []byte("w"), client.WithLevel(client.LevelAll))
		return err == nil, nil
	})
	back := time.Since(freed)
	t.Logf("after %d writes: it takes writes again %s after there was space, %v refused", s.n.Load(), back.Round(time.Millisecond), refused)
	if err != nil || back > 10*time.Second {
		t.Errorf("it takes no writes %s after there was space: %v", back, err)
	}
	// It learns of the tenant by and by: that is written to its disk, too.
	var late result
	if err := poll(30*time.Second, func() (bool, error) {
		late = run(t, nil, "put", "k", "v", "--tenant", "late-3", "--endpoint", full.addr.GRPC)
		return late.code == 0, nil
	}); err != nil {
		t.Errorf("a tenant made meanwhile: exit %d %s", late.code, late.stderr)
	}
	s.stop()
	wantEqualReplicas(c, s.keys())
	for i := range c.agents {
		s.verify(c, i)
	}
	// Not the process was saved, but started again by nobody.
	if log := tail(full.dir+"/log", 1<<20); strings.Count(log, `"msg":"listening"`) != 1 {
		t.Error("the node on the full disk did not stay up")
	}
}

// TestDiskTurnsReadOnly has the file system of one of three nodes turn read-only, as
// ext4 does with one that is broken: within 5 s the node says to all that it has
// withdrawn, and that it has to be started again once the disk is sound; clients at
// every node go on at QUORUM, and after the restart all is there.
func TestDiskTurnsReadOnly(t *testing.T) {
	l := kerneltest.Mount(t, 256<<20)
	c := startClusterOn(t, []string{"", "", l.Dir})
	sick := c.agents[2]
	s := c.startSteady("read-only")
	defer s.stop()
	if err := poll(time.Minute, func() (bool, error) { return s.n.Load() > 200, nil }); err != nil {
		t.Fatal(err)
	}
	// A plain remount is refused while files are open for writing: the kernel has to
	// find the file system broken.
	if err := syscall.Mount("", l.Dir, "", syscall.MS_REMOUNT, "errors=remount-ro"); err != nil {
		t.Fatalf("remount: %v", err)
	}
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(l.Device), "trigger_fs_error"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err := poll(30*time.Second, func() (bool, error) {
		for i := range c.agents {
			if got := stateOf(c, i, sick.name); got != "withdrawn" && i != 2 || i == 2 && got == "up" {
				return false, nil
			}
		}
		return true, nil
	})
	took := time.Since(began)
	t.Logf("withdrawn everywhere %s after the disk turned read-only", took.Round(time.Millisecond))
	if err != nil || took > 5*time.Second {
		t.Errorf("withdrawn after %s: %v", took, err)
	}
	writes := s.n.Load()
	if err := poll(time.Minute, func() (bool, error) { return s.n.Load() > writes+300, nil }); err != nil {
		t.Errorf("no load: %v", err)
	}
	if status, _ := get(t, sick, "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz of the node that cannot write: %d", status)
	}
	log := mustRun(t, "events", "-o", "jsonl", "--endpoint", c.agents[0].addr.GRPC).stdout
	for _, want := range []string{"restart the node once the disk is sound", "node-3 has withdrawn"} {
		if !strings.Contains(log, want) {
			t.Errorf("no event says %q:\n%s", want, log)
		}
	}
	s.stop()
	sick.kill()
	l.PowerOn(t)
	sick.start()
	began = time.Now()
	sick.waitHealthy(time.Minute)
	t.Logf("healthy %s after it was started again", time.Since(began).Round(time.Millisecond))
	c.meet()
	wantEqualReplicas(c, s.keys())
	for i := range c.agents {
		s.verify(c, i)
	}
}

// stateOf is the state of a node as another tells it.
func stateOf(c *cluster, asked int, name string) string {
	st, err := c.client(asked).Status(context.Background())
	if err != nil {
		return err.Error()
	}
	for _, n := range st.GetNodes() {
		if n.GetName() == name {
			return n.GetState()
		}
	}
	return ""
}
