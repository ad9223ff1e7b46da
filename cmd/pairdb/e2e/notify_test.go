package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// manager is what systemd is to an agent: it listens and remembers.
type manager struct {
	socket string
	lis    *net.UnixConn
	mu     sync.Mutex
	heard  []message
}

// message is one datagram of an agent.
type message struct {
	at    time.Time
	lines []string
}

func startManager(t *testing.T, socket string) *manager {
	t.Helper()
	lis, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{socket: socket, lis: lis}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := lis.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.heard = append(m.heard, message{time.Now(), strings.Split(string(b[:n]), "\n")})
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if err := lis.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return m
}

// all returns when line was heard, each time.
func (m *manager) all(line string) (at []time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range m.heard {
		if slices.Contains(msg.lines, line) {
			at = append(at, msg.at)
		}
	}
	return at
}

func (m *manager) wait(t *testing.T, line string, times int, limit time.Duration) {
	t.Helper()
	if err := poll(limit, func() (bool, error) { return len(m.all(line)) >= times, nil }); err != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		t.Fatalf("%s was not told %d times: %v; heard %v", line, times, err, m.heard)
	}
}

// ready asks /readyz over a connection of its own: the status, or 0 if the door
// is shut, perhaps at this moment.
func (a *agent) ready() (int, error) {
	once := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := once.Get("http://" + a.addr.HTTP + "/readyz")
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// TestServiceManagerIsTold: what systemd hears of three real nodes that found a
// cluster together, at a path and at an abstract name.
func TestServiceManagerIsTold(t *testing.T) {
	root := t.TempDir()
	// Beats come twice as often as they have to, and a machine that has much to do may
	// stand still for two seconds.
	const watchdog = 6 * time.Second
	var agents []*agent
	var managers []*manager
	start := func(socket string) {
		i := len(agents)
		name := fmt.Sprintf("node-%d", i+1)
		m := startManager(t, socket)
		a := &agent{t: t, name: name, dir: filepath.Join(root, name), args: []string{"--bootstrap-expect", "3"}}
		a.env = []string{"NOTIFY_SOCKET=" + socket, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds())}
		if i > 0 {
			a.args = append(a.args, "--join", agents[0].addr.Gossip)
		}
		agents, managers = append(agents, a), append(managers, m)
		a.start()
	}
	start(filepath.Join(root, "notify-1"))
	first := managers[0]
	first.wait(t, "STATUS=starting", 1, 10*time.Second)
	// It serves its doors and waits for the others: not ready.
	if code, err := agents[0].ready(); code != http.StatusServiceUnavailable || err != nil {
		t.Errorf("alone: /readyz says %d, %v", code, err)
	}
	start(fmt.Sprintf("@pairdb-e2e-%d", os.Getpid()))
	for i, m := range managers {
		if len(m.all("READY=1"))+len(m.all("WATCHDOG=1")) > 0 {
			t.Errorf("node %d of three is ready with two", i+1)
		}
	}
	start(filepath.Join(root, "notify-3"))
	for i, m := range managers {
		m.wait(t, "READY=1", 1, time.Minute)
		if code, err := agents[i].ready(); code != http.StatusOK || err != nil {
			t.Errorf("node %d said READY: /readyz says %d, %v", i+1, code, err)
		}
	}
	for i, m := range managers {
		m.wait(t, "WATCHDOG=1", 2, 4*watchdog)
		beats := append(m.all("READY=1"), m.all("WATCHDOG=1")...)
		for k := 1; k < len(beats); k++ {
			if gap := beats[k].Sub(beats[k-1]); gap >= watchdog {
				t.Errorf("node %d would have been killed after %s of silence", i+1, gap)
			}
		}
	}

	// A process that is stopped says nothing, and goes on when it can.
	agents[2].signal(syscall.SIGSTOP)
	was := len(managers[2].all("WATCHDOG=1"))
	others := len(first.all("WATCHDOG=1"))
	first.wait(t, "WATCHDOG=1", others+2, 4*watchdog)
	if n := len(managers[2].all("WATCHDOG=1")); n > was+1 { // one may have been on its way
		t.Errorf("%d beats of a stopped process", n-was)
	}
	agents[2].signal(syscall.SIGCONT)
	managers[2].wait(t, "WATCHDOG=1", was+2, 4*watchdog)

	for i, a := range agents {
		a.signal(syscall.SIGTERM)
		if err := a.wait(); err != nil {
			t.Errorf("node %d after SIGTERM: %v", i+1, err)
		}
		m := managers[i]
		m.wait(t, "STOPPING=1", 1, 10*time.Second) // it was sent before the end
		if n := len(m.all("READY=1")); n != 1 || len(m.all("STOPPING=1")) != 1 || len(m.all("EXTEND_TIMEOUT_USEC=75000000")) != 1 {
			t.Errorf("node %d: told READY %d times, of the stop: %v", i+1, n, m.heard[len(m.heard)-1])
		}
	}
}
