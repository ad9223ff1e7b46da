package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// devProcess is a running "pairdb dev" of real nodes.
type devProcess struct {
	cmd      *exec.Cmd
	greeting string
	stderr   *lockedBuffer
	tmp      string // its only folder for temporary files
}

// startDevProcess returns once the cluster has greeted.
func startDevProcess(t *testing.T, args ...string) *devProcess {
	t.Helper()
	d := &devProcess{stderr: &lockedBuffer{}, tmp: t.TempDir()}
	d.cmd = exec.Command("pairdb", append([]string{"dev"}, args...)...)
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.tmp)
	d.cmd.Stderr = d.stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Nothing to do if the test has ended it.
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		d.greeting += lines.Text() + "\n"
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			go io.Copy(io.Discard, stdout)
			return d
		}
	}
	t.Fatalf("dev ended before it greeted:\n%s%s", d.greeting, d.stderr)
	return nil
}

// nodes returns the endpoints and process ids of the greeting.
func (d *devProcess) nodes(t *testing.T) (endpoints []string, pids []int) {
	t.Helper()
	for line := range strings.Lines(d.greeting) {
		var name, grpc, http, log string
		var pid int
		if n, err := fmt.Sscanf(line, "  %s  gRPC %s  HTTP %s  pid %d  log %s", &name, &grpc, &http, &pid, &log); err == nil && n == 5 {
			endpoints, pids = append(endpoints, grpc), append(pids, pid)
		}
	}
	if len(endpoints) == 0 {
		t.Fatalf("no node in the greeting:\n%s", d.greeting)
	}
	return endpoints, pids
}

// watchPids returns a function that waits until all the processes are gone.
func watchPids(t *testing.T, pids []int) (gone func(limit time.Duration) error) {
	t.Helper()
	var fds []int
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds = append(fds, fd)
	}
	return func(limit time.Duration) error {
		for i, fd := range fds {
			for {
				n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
				if errors.Is(err, unix.EINTR) {
					continue
				}
				if err != nil {
					return err
				}
				if n == 0 {
					return fmt.Errorf("process %d is still there after %s", pids[i], limit)
				}
				break
			}
		}
		return nil
	}
}

// A real cluster takes a write at one node, gives it back at another, and ends
// without a trace on Ctrl-C.
func TestDevOfRealNodes(t *testing.T) {
	d := startDevProcess(t)
	endpoints, pids := d.nodes(t)
	if len(endpoints) != 3 {
		t.Fatalf("greeting:\n%s", d.greeting)
	}
	gone := watchPids(t, pids)
	if code, _, stderr := runCLI(t, t.Context(), "", "put", "greeting", "hello", "--tenant", "demo", "--endpoint", endpoints[0]); code != 0 {
		t.Fatal(stderr)
	}
	if code, stdout, stderr := runCLI(t, t.Context(), "", "get", "greeting", "--tenant", "demo", "--endpoint", endpoints[1]); code != 0 || stdout != "hello" {
		t.Fatalf("%q %s", stdout, stderr)
	}
	if code, stdout, stderr := runCLI(t, t.Context(), "", "status", "--endpoint", endpoints[2], "-o", "plain"); code != 0 || strings.Count(stdout, "\tup\t") != 3 {
		t.Fatalf("%s%s", stdout, stderr)
	}
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, d.stderr)
	}
	if err := gone(time.Second); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(d.tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Children do not outlive a dev that was killed.
func TestDevKilledTakesItsNodesAlong(t *testing.T) {
	d := startDevProcess(t, "--nodes", "1")
	_, pids := d.nodes(t)
	gone := watchPids(t, pids)
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := gone(10 * time.Second); err != nil {
		t.Error(err)
	}
}

// The same folder is a cluster again, with its data.
func TestDevUsesItsFolderAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for round, do := range []string{"put", "get"} {
		d := startDevProcess(t, "--dir", dir)
		endpoints, _ := d.nodes(t)
		args := []string{do, "k", "--tenant", "demo", "--endpoint", endpoints[round]}
		if do == "put" {
			args = append(args, "kept")
		}
		code, stdout, stderr := runCLI(t, t.Context(), "", args...)
		if code != 0 || do == "get" && stdout != "kept" {
			t.Fatalf("%s: %q %s", do, stdout, stderr)
		}
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := d.cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, d.stderr)
		}
	}
}

// dev --import ends by itself, and its figures add up.
func TestDevImportOfRealNodes(t *testing.T) {
	dir, tmp := t.TempDir(), t.TempDir()
	files := map[string]string{"empty": "", "large": strings.Repeat("0123456789abcdef", 1<<16), "a b\n..": "x", "\xff": "y"}
	for i := range 200 {
		files[fmt.Sprintf("sub/%03d", i)] = strings.Repeat("z", i*10)
	}
	writeFiles(t, dir, files)
	var size int
	for _, data := range files {
		size += len(data)
	}
	cmd := exec.Command("pairdb", "dev", "--import", dir)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	for _, verb := range []string{"imported", "verified"} {
		want := fmt.Sprintf("%s %d files, %d bytes", verb, len(files), size)
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q is missing:\n%s", want, errs.String())
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
