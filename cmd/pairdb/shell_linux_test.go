package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pairdb/pairdb/client/clienttest"
)

// openTerminal returns the two ends of a pseudo terminal: what a person types
// into and reads from, and what the program has for stdin and stdout.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() }) // may be closed already
	fd := int(person.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() }) // the test is over
	return person, program
}

// TestShellAtARealTerminal: the prompt, a value with the line end that a terminal
// gets, the history for the owner alone, and the terminal as it was at the end.
func TestShellAtARealTerminal(t *testing.T) {
	srv, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	person, program := openTerminal(t)
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	env := map[string]string{"XDG_STATE_HOME": state, "PAIRDB_ENDPOINT": srv.Addr()}
	var errs lockedBuffer
	a := &app{stdin: program, stdout: program, stderr: &errs, getenv: func(n string) string { return env[n] }, executable: os.Executable}
	var screen lockedBuffer
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&screen, person)
		read <- err
	}()
	ended := make(chan int, 1)
	go func() { ended <- a.run(t.Context(), []string{"shell"}) }()
	waitFor := func(what string, n int) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for strings.Count(screen.String(), what) < n {
			if time.Now().After(deadline) {
				t.Fatalf("the screen does not show %q %d times:\n%q\n%s", what, n, screen.String(), errs.String())
			}
			if err := sleep(t.Context(), 5*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Two lines of one paste: the second is kept while the first runs.
	for i, keys := range []string{"put greeting hello\rget greeting\r", "nonsense\r", "\x04"} {
		waitFor("default> ", []int{1, 3, 4}[i])
		if _, err := person.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case code := <-ended:
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("the shell does not end:\n%q", screen.String())
	}
	waitFor("hello\r\n", 1)
	if !strings.Contains(errs.String(), `no command "nonsense"`) {
		t.Errorf("stderr: %q", errs.String())
	}
	after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is left as %+v, was %+v, %v", after, before, err)
	}
	path := filepath.Join(state, "pairdb", "history")
	b, err := os.ReadFile(path)
	info, serr := os.Stat(path)
	if err != nil || serr != nil || info.Mode() != 0o600 || string(b) != "put greeting hello\nget greeting\nnonsense\n" {
		t.Errorf("the history has %q, %v, %v", b, info, err)
	}
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	<-read // a terminal that nobody holds any more reads as an error
}
