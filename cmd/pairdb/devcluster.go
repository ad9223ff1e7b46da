package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/node"
	"github.com/pairdb/pairdb/node/freeport"
)

const (
	devStartTimeout = 60 * time.Second
	// devDrain is what a child is given for requests under way, devStopTimeout
	// for all of its end.
	devDrain       = 5 * time.Second
	devStopTimeout = 15 * time.Second
	devPoll        = 20 * time.Millisecond
	// devStartTries is how often new ports are chosen after one was taken
	// between the choice and its use.
	devStartTries = 5
	// devTailBytes and devTailLines bound what is shown of a log.
	devTailBytes = 16 << 10
	devTailLines = 20
)

// errStartTimeout is the cause of a start that took too long.
var errStartTimeout = errors.New("the nodes did not come to serve in time")

// devNode is one child process. Its fields are fixed once start has returned,
// but for err, which is set before done is closed.
type devNode struct {
	name             string
	dataDir          string
	addrFile, logger string // file names
	gossipPort       int
	cmd              *exec.Cmd
	at               node.Addresses
	done             chan struct{}
	err              error
}

// devCluster is a cluster of child processes on loopback. It is used by one
// goroutine.
type devCluster struct {
	exe   string
	nodes []*devNode
	// startTimeout is what the children get until they serve, stopTimeout what
	// they get to end after SIGTERM.
	startTimeout, stopTimeout time.Duration
	// ended gets each child of the last start that has ended.
	ended chan *devNode
}

func newDevCluster(exe, dir string, n int) *devCluster {
	c := &devCluster{exe: exe, startTimeout: devStartTimeout, stopTimeout: devStopTimeout}
	for i := range n {
		name := "n" + strconv.Itoa(i+1)
		c.nodes = append(c.nodes, &devNode{
			name:     name,
			dataDir:  filepath.Join(dir, name),
			addrFile: filepath.Join(dir, name+".addr.json"),
			logger:   filepath.Join(dir, name+".log"),
		})
	}
	return c
}

// start runs the children and returns once all serve. After an error none is
// left.
func (c *devCluster) start(ctx context.Context) error {
	for try := 1; ; try++ {
		err := c.startOnce(ctx)
		if err == nil {
			return nil
		}
		clash := c.portClash()
		if serr := c.stop(); serr != nil {
			err = errors.Join(err, serr)
		}
		if !clash || try == devStartTries || ctx.Err() != nil {
			return err
		}
	}
}

func (c *devCluster) startOnce(ctx context.Context) error {
	ports, err := freeport.Take(len(c.nodes))
	if err != nil {
		return err
	}
	var seeds []string
	for i, n := range c.nodes {
		n.gossipPort = ports[i]
		seeds = append(seeds, net.JoinHostPort("127.0.0.1", strconv.Itoa(n.gossipPort)))
	}
	c.ended = make(chan *devNode, len(c.nodes))
	for _, n := range c.nodes {
		if err := n.start(c.exe, len(c.nodes), seeds, c.ended); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.startTimeout, errStartTimeout)
	defer cancel()
	for _, n := range c.nodes {
		if err := n.awaitAddresses(ctx); err != nil {
			return c.notServing(err)
		}
	}
	return c.notServing(c.awaitServing(ctx))
}

func (c *devCluster) endpoints() []string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.at.GRPC)
	}
	return all
}

// awaitServing returns once every node serves and reaches all others: a node is
// healthy before it has met them again, and the first command is not to fail.
func (c *devCluster) awaitServing(ctx context.Context) (err error) {
	cl, err := client.New(client.Options{Endpoints: c.endpoints(), UserAgent: "pairdb-cli"})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	if err := c.await(ctx, func() bool { return healthError(cl.Health(ctx)) == nil }); err != nil {
		return err
	}
	for _, endpoint := range c.endpoints() {
		if err := c.awaitReach(ctx, endpoint); err != nil {
			return err
		}
	}
	return nil
}

// awaitReach returns once a node can read at ALL.
func (c *devCluster) awaitReach(ctx context.Context, endpoint string) (err error) {
	cl, err := client.New(client.Options{Endpoints: []string{endpoint}, UserAgent: "pairdb-cli"})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	return c.await(ctx, func() bool {
		_, err := cl.Get(ctx, "reach", client.WithLevel(client.LevelAll))
		return err == nil || errors.Is(err, client.ErrKeyNotFound)
	})
}

// await returns once ready, asked now and then, says so.
func (c *devCluster) await(ctx context.Context, ready func() bool) error {
	poll := time.NewTicker(healthPoll)
	defer poll.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case n := <-c.ended:
			return n.crashed()
		case <-poll.C:
		}
	}
	return nil
}

// notServing adds what each node logged last, if err says that time was over.
func (c *devCluster) notServing(err error) error {
	if !errors.Is(err, errStartTimeout) {
		return err
	}
	f := &failure{exit: 1, what: err.Error(), err: err}
	for _, n := range c.nodes {
		log := n.tail()
		f.why = append(f.why, n.name+": "+log[strings.LastIndexByte(log, '\n')+1:])
	}
	return f
}

// stop asks every child to end, and after a while makes it. It returns once all
// are gone; the error says which did not end as they should.
func (c *devCluster) stop() error {
	var asked []*devNode
	for _, n := range c.nodes {
		if n.done != nil && !n.hasEnded() {
			n.signal(syscall.SIGTERM)
			asked = append(asked, n)
		}
	}
	over := time.NewTimer(c.stopTimeout)
	defer over.Stop()
	var late bool
	for _, n := range asked {
		select {
		case <-n.done:
		case <-over.C:
			// All have had their time.
			late = true
			for _, m := range asked {
				m.signal(syscall.SIGKILL)
			}
			<-n.done
		}
	}
	var errs []error
	for _, n := range asked {
		if n.err != nil {
			errs = append(errs, n.crashed())
		}
	}
	if late {
		errs = append(errs, fmt.Errorf("nodes did not end within %s and were killed", c.stopTimeout))
	}
	return errors.Join(errs...)
}

// portClash reports whether a child ended because a port was taken.
func (c *devCluster) portClash() bool {
	for _, n := range c.nodes {
		if n.hasEnded() && strings.Contains(n.tail(), "in use") {
			return true
		}
	}
	return false
}

// start runs the child and tells ended when it has ended. It stays on one thread of this process until it ends,
// since the kernel ends it with the thread that started it.
func (n *devNode) start(exe string, expect int, seeds []string, ended chan<- *devNode) error {
	if err := os.Remove(n.addrFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	out, err := os.OpenFile(n.logger, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	defer out.Close() // the child has its own copy
	n.cmd = exec.Command(exe, n.args(expect, seeds)...)
	n.cmd.Stdout, n.cmd.Stderr = out, out
	n.cmd.SysProcAttr = childAttributes()
	// What the environment says of some other agent must not reach these.
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PAIRDB_AGENT_") {
			n.cmd.Env = append(n.cmd.Env, e)
		}
	}
	n.done = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := n.cmd.Start()
		if err == nil {
			started <- nil
			n.err = n.cmd.Wait()
		}
		// Whoever hears of the end finds it done.
		close(n.done)
		if err != nil {
			started <- err
			return
		}
		ended <- n // has room for every child
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	return nil
}

func (n *devNode) args(expect int, seeds []string) []string {
	args := []string{
		"agent", "--name", n.name, "--data-dir", n.dataDir, "--bind", "127.0.0.1",
		"--grpc-port", "0", "--peer-port", "0", "--http-port", "0", "--gossip-port", strconv.Itoa(n.gossipPort),
		"--addr-file", n.addrFile, "--log-format", "text", "--set", "timeouts.shutdown=" + devDrain.String(),
	}
	if expect == 1 {
		return append(args, "--bootstrap")
	}
	return append(args, "--bootstrap-expect", strconv.Itoa(expect), "--join", strings.Join(seeds, ","))
}

// awaitAddresses waits until the child has written where it listens.
func (n *devNode) awaitAddresses(ctx context.Context) error {
	poll := time.NewTicker(devPoll)
	defer poll.Stop()
	for {
		at, err := node.ReadAddrFile(n.addrFile)
		if err == nil {
			n.at = at
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("learn where %s listens: %w", n.name, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.done:
			return n.crashed()
		case <-poll.C:
		}
	}
}

func (n *devNode) hasEnded() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

// signal does nothing to a child that has ended.
func (n *devNode) signal(s os.Signal) {
	if n.done == nil || n.hasEnded() {
		return
	}
	// It may have ended just now, which is what is wanted.
	_ = n.cmd.Process.Signal(s)
}

// crashed describes a child that ended although nobody asked it to, with the
// end of its log.
func (n *devNode) crashed() error {
	reason := "exit status 0"
	if n.err != nil {
		reason = n.err.Error()
	}
	f := &failure{exit: 1, what: fmt.Sprintf("node %s ended: %s", n.name, reason), err: n.err}
	for line := range strings.Lines(n.tail()) {
		f.why = append(f.why, strings.TrimRight(line, "\n"))
	}
	return f
}

// tail returns the last lines of the child's log.
func (n *devNode) tail() string {
	f, err := os.Open(n.logger)
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	defer f.Close() // only read from: nothing is lost if closing fails
	if info, err := f.Stat(); err == nil && info.Size() > devTailBytes {
		if _, err := f.Seek(-devTailBytes, io.SeekEnd); err != nil {
			return "its log cannot be read: " + err.Error()
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, devTailBytes))
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-devTailLines):], []byte("\n")))
}
