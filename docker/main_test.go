package docker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit bounds the whole run: what hangs is ended by it, while there is still
// time to clean up.
const limit = 10 * time.Minute

// suite is what the tests share: an engine that answers, and what is made in it.
type suite struct {
	ctx context.Context
	// root is the module's, dir a stand-in for it that has the files of docker/
	// and takes what the README's commands write.
	root, dir string
	// project names the cluster and image the image, so that neither is one of
	// somebody who uses the same engine.
	project, image string
	env            []string
}

var shared *suite

func TestMain(m *testing.M) {
	// The daemon dies with the thread that starts it.
	runtime.LockOSThread()
	os.Exit(func() (code int) {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		s, closeSuite, err := openSuite(ctx)
		if err == nil {
			shared = s
			code = m.Run()
		}
		for _, err := range []error{err, closeSuite()} {
			if err != nil {
				fmt.Fprintln(os.Stderr, "docker:", err)
				code = 1
			}
		}
		return code
	}())
}

// command is one that runs in the stand-in with the suite's environment, and is
// interrupted when the time is over.
func (s *suite) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.ctx, name, args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run runs a command and gives what it prints on standard output.
func (s *suite) run(name string, args ...string) (string, error) {
	cmd := s.command(name, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// must is run, and ends the test on an error.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := shared.run(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// poll calls f every 100 ms until it says true or fails, or the time is over.
func poll(t *testing.T, limit time.Duration, what string, f func() (bool, error)) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := f()
		if ok && err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		select {
		case <-tick.C:
		case <-shared.ctx.Done():
			t.Fatalf("%s: %v", what, context.Cause(shared.ctx))
		}
	}
}
