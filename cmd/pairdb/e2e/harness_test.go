package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pairdb/pairdb/node/freeport"
)

// binary is the pairdb under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "pairdb-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		http.DefaultClient.Timeout = webLimit
		binary = filepath.Join(dir, "pairdb")
		build := exec.Command("go", "build", "-o", binary, "github.com/pairdb/pairdb/cmd/pairdb")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "e2e: build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// addresses is the agent's --addr-file.
type addresses struct {
	NodeID string `json:"node_id"`
	Name   string `json:"name"`
	GRPC   string `json:"grpc"`
	Peer   string `json:"peer"`
	HTTP   string `json:"http"`
	Gossip string `json:"gossip"`
}

// agent is one `pairdb agent` process, started, killed and started again on
// the same data and ports.
type agent struct {
	t    *testing.T
	name string
	dir  string   // of the log and the address file
	data string   // the data directory; dir/data if it is not said
	args []string // beside data dir, name, ports and addr file
	env  []string // beside the environment of the test
	// wrap is a command that runs the process, such as a tracer.
	wrap []string
	// cloneflags are the namespaces the process gets for its own.
	cloneflags uintptr
	// netns is the network namespace it runs in; nil: that of the test.
	netns *netns
	// cgroup is a folder of the memory controller it runs in; "": that of the
	// test.
	cgroup string
	addr   addresses
	// ports are those of gRPC, peers, HTTP and gossip, the same at every start.
	ports []int

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the present process has ended
	err  error         // its Wait error, set before done is closed
	logs *os.File
}

// cluster is a set of agents founded together.
type cluster struct {
	t      *testing.T
	agents []*agent
	// loadWrap is a command that runs the load.
	loadWrap []string
}

// startCluster founds a cluster of n nodes on free loopback ports and waits
// until every node is healthy and has met the others. Everything ends with the test.
func startCluster(t *testing.T, n int, extra ...string) *cluster {
	t.Helper()
	return startClusterOn(t, make([]string, n), extra...)
}

// startClusterOn is startCluster with a node for each of disks, whose data is
// put below that folder, or into one of the test's own if it is "".
func startClusterOn(t *testing.T, disks []string, extra ...string) *cluster {
	t.Helper()
	return startClusterWith(t, disks, func(*agent) {}, extra...)
}

// startClusterWith is startClusterOn whose nodes are prepared before they start.
func startClusterWith(t *testing.T, disks []string, prepare func(*agent), extra ...string) *cluster {
	t.Helper()
	c := &cluster{t: t}
	root := t.TempDir()
	for i, disk := range disks {
		name := fmt.Sprintf("node-%d", i+1)
		a := &agent{t: t, name: name, dir: filepath.Join(root, name)}
		if disk != "" {
			a.data = filepath.Join(disk, "data")
		}
		a.args = append([]string{"--bootstrap-expect", fmt.Sprint(len(disks))}, extra...)
		if i > 0 {
			a.args = append(a.args, "--join", c.agents[0].addr.Gossip)
		}
		prepare(a)
		c.agents = append(c.agents, a)
		a.start()
	}
	for _, a := range c.agents {
		a.waitHealthy(60 * time.Second)
	}
	c.meet()
	return c
}

// meet waits until each node reaches all owners. A node is healthy before it has a
// connection to the others, and what needs one waits for it for a second at most, far
// less than for an answer once there is one.
func (c *cluster) meet() {
	c.t.Helper()
	for _, a := range c.agents {
		c.waitReached(a)
	}
}

func (c *cluster) endpoints() []string {
	return c.endpointsOf(func(a *agent) string { return a.addr.GRPC })
}

func (c *cluster) endpointsOf(f func(*agent) string) []string {
	var e []string
	for _, a := range c.agents {
		e = append(e, f(a))
	}
	return e
}

// start runs the process and waits until it has written its addresses.
func (a *agent) start() {
	a.t.Helper()
	if err := a.launch(); err != nil {
		a.t.Fatalf("start %s: %v", a.name, err)
	}
}

func (a *agent) launch() error {
	if err := a.spawn(); err != nil {
		return err
	}
	return a.readAddresses()
}

func (a *agent) addrFile() string { return filepath.Join(a.dir, "addr.json") }

// spawn starts the process and waits for nothing.
func (a *agent) spawn() error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	if a.data == "" {
		a.data = filepath.Join(a.dir, "data")
	}
	if err := os.Remove(a.addrFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if a.ports == nil {
		ports, err := freeport.Take(4)
		if err != nil {
			return err
		}
		a.ports = ports
	}
	args := []string{
		"agent", "--data-dir", a.data, "--name", a.name,
		"--addr-file", a.addrFile(), "--log-format", "json",
		"--grpc-port", strconv.Itoa(a.ports[0]), "--peer-port", strconv.Itoa(a.ports[1]),
		"--http-port", strconv.Itoa(a.ports[2]), "--gossip-port", strconv.Itoa(a.ports[3]),
	}
	logs, err := os.OpenFile(filepath.Join(a.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	args = append(append(slices.Clone(a.wrap), binary), append(args, a.args...)...)
	cmd := exec.Command(args[0], args[1:]...)
	if a.cgroup != "" {
		// It has to be there before it looks for its limit.
		cmd = exec.Command("sh", append([]string{"-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(a.cgroup, "cgroup.procs")}, cmd.Args...)...)
	}
	cmd.Env = append(os.Environ(), a.env...)
	cmd.Stdout, cmd.Stderr = logs, logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: a.cloneflags}
	start := cmd.Start
	if a.netns != nil {
		start = func() error { return a.netns.do(cmd.Start) }
	}
	if err := start(); err != nil {
		return errors.Join(err, logs.Close())
	}
	done := make(chan struct{})
	a.mu.Lock()
	first := a.cmd == nil
	a.cmd, a.done, a.logs = cmd, done, logs
	a.mu.Unlock()
	go func() {
		a.err = cmd.Wait()
		close(done)
	}()
	if first {
		watched(a)
		a.t.Cleanup(func() {
			a.kill()
			if a.t.Failed() {
				a.t.Logf("--- last log lines of %s\n%s", a.name, tail(filepath.Join(a.dir, "log"), 4000))
			}
		})
	}
	return nil
}

// readAddresses waits for the address file, which the agent renames into place.
func (a *agent) readAddresses() error {
	a.mu.Lock()
	done := a.done
	a.mu.Unlock()
	return poll(30*time.Second, func() (bool, error) {
		select {
		case <-done:
			return false, fmt.Errorf("the process ended early: %v\n%s", a.err, tail(filepath.Join(a.dir, "log"), 2000))
		default:
		}
		b, err := os.ReadFile(a.addrFile())
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, json.Unmarshal(b, &a.addr)
	})
}

// poll calls f every 20 ms until it says true, fails or the time is over.
func poll(limit time.Duration, f func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(limit)
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-over:
			return fmt.Errorf("still waiting after %s", limit)
		}
	}
}

// kill ends the process with SIGKILL and waits for it. It is no error if it
// has ended already.
func (a *agent) kill() {
	a.signal(syscall.SIGKILL)
	a.wait()
}

// wait blocks until the present process has ended and returns its error. It fails the
// test of one that hangs.
func (a *agent) wait() error {
	if err := a.endWithin(endLimit); err != nil {
		a.t.Error(err)
		if a.runs() {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.logs != nil {
		if err := a.logs.Close(); err != nil {
			a.t.Errorf("close log of %s: %v", a.name, err)
		}
		a.logs = nil
	}
	return a.err
}

func (a *agent) signal(sig syscall.Signal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd == nil {
		return
	}
	if err := a.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		a.t.Errorf("signal %s: %v", a.name, err)
	}
}

func (a *agent) waitHealthy(limit time.Duration) {
	a.t.Helper()
	r := run(a.t, nil, "health", "--wait", limit.String(), "--endpoint", a.addr.GRPC)
	if r.code != 0 {
		a.t.Fatalf("%s is not healthy after %s: exit %d\n%s%s\n%s", a.name, limit, r.code, r.stdout, r.stderr, tail(filepath.Join(a.dir, "log"), 4000))
	}
}

// result is what one CLI call printed and how it ended.
type result struct {
	code           int
	stdout, stderr string
}

// run calls the CLI as a person would and waits for it, two minutes at most.
func run(t *testing.T, stdin []byte, args ...string) result {
	t.Helper()
	return runFor(t, 2*time.Minute, stdin, args...)
}

func runFor(t *testing.T, limit time.Duration, stdin []byte, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := bounded(ctx, append([]string{binary}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		said, dump, _ := strings.Cut(errOut.String(), "SIGQUIT: quit")
		t.Fatalf("pairdb %s: still running after %s\n%s\n%s", strings.Join(args, " "), limit, said, goroutines(dump, "pairdb/pairdb/"))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("pairdb %s: %v", strings.Join(args, " "), err)
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: out.String(), stderr: errOut.String()}
}

// mustRun is run, failing the test on another exit code than 0.
func mustRun(t *testing.T, args ...string) result {
	t.Helper()
	r := run(t, nil, args...)
	if r.code != 0 {
		t.Fatalf("pairdb %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r
}

func portOf(addr string) string {
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		return addr[i+1:]
	}
	return "0"
}

func tail(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return string(b)
}
