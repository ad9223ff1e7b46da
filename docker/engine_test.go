package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// openSuite finds an engine or starts one. closeSuite takes away all that was
// made, also after an error of openSuite.
func openSuite(ctx context.Context) (s *suite, closeSuite func() error, err error) {
	var undo []func() error
	closeSuite = func() error {
		var errs []error
		for i := len(undo) - 1; i >= 0; i-- {
			errs = append(errs, undo[i]())
		}
		return errors.Join(errs...)
	}
	for _, name := range []string{"docker", "docker-compose"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, closeSuite, fmt.Errorf("there is no %s; install it (on Debian, as root: apt-get install docker.io docker-compose), or let go run ./tools/check -only docker do it", name)
		}
	}
	root, err := filepath.Abs("..")
	if err != nil {
		return nil, closeSuite, err
	}
	tmp, err := os.MkdirTemp("", "pairdb-docker-")
	if err != nil {
		return nil, closeSuite, err
	}
	undo = append(undo, func() error { return os.RemoveAll(tmp) })
	name := "pairdb-test-" + strconv.Itoa(os.Getpid())
	s = &suite{ctx: ctx, root: root, dir: filepath.Join(tmp, "clone"), project: name, image: name}
	s.env = append(os.Environ(), "COMPOSE_FILE=docker/compose.yaml", "COMPOSE_PROJECT_NAME="+name, "PAIRDB_IMAGE="+name)
	for i := range 5 {
		// Published on free ports.
		s.env = append(s.env, fmt.Sprintf("PAIRDB_GRPC_%d=", i+1), fmt.Sprintf("PAIRDB_HTTP_%d=", i+1))
	}
	if err := s.copyFiles(); err != nil {
		return nil, closeSuite, err
	}
	if _, err := s.run("docker", "version"); err != nil {
		stop, err := s.startEngine(filepath.Join(tmp, "engine"))
		undo = append(undo, stop)
		if err != nil {
			return nil, closeSuite, err
		}
	}
	undo = append(undo, s.remove)
	return s, closeSuite, nil
}

// copyFiles gives the stand-in what the README's commands read.
func (s *suite) copyFiles() error {
	if err := os.MkdirAll(filepath.Join(s.dir, "docker"), 0o700); err != nil {
		return err
	}
	b, err := os.ReadFile("compose.yaml")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "docker", "compose.yaml"), b, 0o600)
}

// remove takes everything of this run out of the engine. It works after an
// interrupt too.
func (s *suite) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.ctx = ctx
	_, err := s.run("docker-compose", "down", "--volumes", "--timeout", "1")
	errs := []error{err}
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"ps", "-aq", "--filter", "ancestor=" + s.image}, []string{"rm", "-fv"}},
		{[]string{"images", "-q", s.image}, []string{"rmi", "-f"}},
	} {
		ids, err := s.run("docker", kind.list...)
		if err == nil && ids != "" {
			_, err = s.run("docker", append(kind.remove, strings.Fields(ids)...)...)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// startEngine runs a Docker daemon whose files are all below dir. stop ends it
// and takes away what it leaves, also after an error.
func (s *suite) startEngine(dir string) (stop func() error, err error) {
	nothing := func() error { return nil }
	if os.Geteuid() != 0 {
		return nothing, errors.New("no Docker engine answers, and only root can start one: start it, or run this as root")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nothing, errors.New("no Docker engine answers, and there is no dockerd to start (on Debian, as root: apt-get install docker.io)")
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nothing, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nothing, err
	}
	defer log.Close()
	socket := "unix://" + filepath.Join(dir, "docker.sock")
	// It makes no bridge, and its networks are away from those of other engines.
	cmd := exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", socket, "--bridge", "none", "--default-address-pool", "base=10.203.0.0/16,size=24")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nothing, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() error { return stopEngine(cmd.Process, ended, dir) }
	s.env = append(s.env, "DOCKER_HOST="+socket)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for over := time.After(time.Minute); ; {
		if _, err = s.run("docker", "version"); err == nil {
			return stop, nil
		}
		select {
		case early := <-ended:
			ended <- early
			return stop, fmt.Errorf("dockerd ended: %w\n%s", early, tail(log.Name()))
		case <-over:
			return stop, fmt.Errorf("dockerd does not answer: %w\n%s", err, tail(log.Name()))
		case <-tick.C:
		}
	}
}

// stopEngine ends a daemon and, should it not have done so itself, its containerd,
// and unmounts what is left below dir. The files there are the caller's to remove.
func stopEngine(daemon *os.Process, ended <-chan error, dir string) error {
	_ = daemon.Signal(syscall.SIGTERM) // ended already, if it fails
	var errs []error
	select {
	case err := <-ended:
		if err != nil {
			errs = append(errs, fmt.Errorf("dockerd: %w\n%s", err, tail(filepath.Join(dir, "log"))))
		}
	case <-time.After(time.Minute):
		errs = append(errs, errors.New("dockerd did not end within a minute"), daemon.Kill())
		<-ended
	}
	if b, err := os.ReadFile(filepath.Join(dir, "exec", "containerd", "containerd.pid")); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && ours(pid, dir) {
			errs = append(errs, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	mounts, err := mountsBelow(dir)
	errs = append(errs, err)
	for _, m := range mounts {
		if err := syscall.Unmount(m, syscall.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	return errors.Join(errs...)
}

// ours says whether a process was started with files below dir.
func ours(pid int, dir string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(b), dir+"/")
}

// mountsBelow lists mount points below dir, the innermost first.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			found = append([]string{fields[4]}, found...)
		}
	}
	return found, lines.Err()
}

// tail gives the end of a log.
func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}
