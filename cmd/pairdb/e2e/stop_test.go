package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowPut is a write whose body has not wholly arrived at the node.
type slowPut struct {
	conn net.Conn
	rest string
}

func startSlowPut(t *testing.T, a *agent, key, value string) *slowPut {
	t.Helper()
	conn, err := net.Dial("tcp", a.addr.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	body := fmt.Sprintf(`{"tenant_id":"default","key":%q,"value":%q}`, key, value)
	// The server answers 100 once the handler reads: the write is under way.
	if _, err := fmt.Fprintf(conn, "POST /v1/key-value HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(conn, line); err != nil || !strings.HasPrefix(string(line), "HTTP/1.1 100") {
		t.Fatalf("the write did not begin: %q, %v", line, err)
	}
	if _, err := io.WriteString(conn, body[:10]); err != nil {
		t.Fatal(err)
	}
	return &slowPut{conn, body[10:]}
}

// finish sends the rest and returns the first bytes of the answer.
func (p *slowPut) finish() (string, error) {
	if _, err := io.WriteString(p.conn, p.rest); err != nil {
		return "", err
	}
	b := make([]byte, len("HTTP/1.1 200"))
	_, err := io.ReadFull(p.conn, b)
	return string(b), err
}

// TestStopDrains: at SIGTERM a node says that it is not ready while it still
// serves, then shuts its doors, lets the write that is under way finish, and
// ends with 0 and nothing to recover.
func TestStopDrains(t *testing.T) {
	c := startCluster(t, 3, "--set", "timeouts.drain_delay=5s")
	a, ep := c.agents[0], "--endpoint="+c.agents[0].addr.GRPC
	for i := range 20 {
		mustRun(t, "put", fmt.Sprint("k", i), "v", ep)
	}
	unaware := c.client(0)
	slow := startSlowPut(t, a, "slow", "finished")
	a.signal(syscall.SIGTERM)
	err := poll(10*time.Second, func() (bool, error) {
		code, err := a.ready()
		if code == 0 && err == nil {
			err = errors.New("the door is shut")
		}
		return code == http.StatusServiceUnavailable, err
	})
	if err != nil {
		t.Fatalf("a stopping node never said that it is not ready: %v", err)
	}
	if _, err := unaware.Put(t.Context(), "late", []byte("served")); err != nil {
		t.Errorf("a client that has not noticed: %v", err)
	}
	if r := run(t, nil, "health", ep); r.code != 10 {
		t.Errorf("health of a stopping node: exit %d\n%s", r.code, r.stderr)
	}
	if err := poll(20*time.Second, func() (bool, error) {
		code, err := a.ready()
		return code == 0, err
	}); err != nil {
		t.Fatalf("the door is never shut: %v", err)
	}
	if answer, err := slow.finish(); err != nil || answer != "HTTP/1.1 200" {
		t.Errorf("the write under way: %q, %v", answer, err)
	}
	if err := a.wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	for key, want := range map[string]string{"slow": `"finished"`, "late": "served"} {
		if r := mustRun(t, "get", key, "--endpoint", c.agents[1].addr.GRPC); r.stdout != want {
			t.Errorf("%s: %q, want %q", key, r.stdout, want)
		}
	}
	a.start()
	a.waitHealthy(60 * time.Second)
	if log := tail(filepath.Join(a.dir, "log"), 1<<20); strings.Contains(log, "engine recovered its log") {
		t.Errorf("something was left to recover after a clean stop:\n%s", log)
	}
	c.meet()
	if r := mustRun(t, "get", "slow", ep, "-c", "all"); r.stdout != `"finished"` {
		t.Errorf("after the restart: %q", r.stdout)
	}
}

// TestSecondSignalEndsAtOnce: also where the node is the first process of its
// namespace, as in a container, to which signals without a handler do nothing.
// What was acknowledged is there at the next start.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	for name, flags := range map[string]uintptr{"process": 0, "container": syscall.CLONE_NEWPID} {
		t.Run(name, func(t *testing.T) {
			a := &agent{t: t, name: "solo", dir: t.TempDir(), args: []string{"--bootstrap", "--set", "timeouts.shutdown=1m"}, cloneflags: flags}
			a.start()
			a.waitHealthy(30 * time.Second)
			ep := "--endpoint=" + a.addr.GRPC
			for i := range 20 {
				mustRun(t, "put", fmt.Sprint("k", i), fmt.Sprint("v", i), ep, "-c", "one")
			}
			slow := startSlowPut(t, a, "slow", "never finished")
			a.signal(syscall.SIGTERM)
			if err := poll(20*time.Second, func() (bool, error) {
				code, err := a.ready()
				return code == 0, err
			}); err != nil {
				t.Fatalf("the door is never shut: %v", err)
			}
			start := time.Now()
			a.signal(syscall.SIGTERM)
			var exit *exec.ExitError
			if err := a.wait(); !errors.As(err, &exit) || time.Since(start) > 10*time.Second {
				t.Errorf("the second signal: %v after %s", err, time.Since(start))
			}
			if answer, err := slow.finish(); err == nil {
				t.Errorf("a write that never ended was answered: %q", answer)
			}
			a.start()
			a.waitHealthy(30 * time.Second)
			if log := tail(filepath.Join(a.dir, "log"), 1<<20); !strings.Contains(log, "engine recovered its log") {
				t.Error("the stop was cut short, and there was nothing to recover")
			}
			for i := range 20 {
				if r := mustRun(t, "get", fmt.Sprint("k", i), ep, "-c", "one"); r.stdout != fmt.Sprint("v", i) {
					t.Errorf("k%d: %q", i, r.stdout)
				}
			}
			if r := run(t, nil, "get", "slow", ep, "-c", "one"); r.code != 3 {
				t.Errorf("a write that was never sent whole: exit %d, %q", r.code, r.stdout)
			}
		})
	}
}
