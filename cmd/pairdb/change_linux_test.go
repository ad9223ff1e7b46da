package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pairdb/pairdb/client/clienttest"
)

// TestAskedAtATerminal: a dangerous verb names the node and asks; only a yes begins it,
// and what is waited for is drawn.
func TestAskedAtATerminal(t *testing.T) {
	srv, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	person, program := openTerminal(t)
	var screen, out lockedBuffer
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&screen, person)
		read <- err
	}()
	a := &app{stdin: program, stdout: &out, stderr: program, getenv: func(string) string { return "" }, executable: os.Executable}
	asked := 0
	for answer, want := range map[string]int{"n\n": 1, "\n": 1, "yes\n": 0} {
		ended := make(chan int, 1)
		go func() {
			ended <- a.run(t.Context(), []string{"node", "decommission", "n1", "--wait", "--endpoint", srv.Addr()})
		}()
		asked++
		deadline := time.After(20 * time.Second)
		for strings.Count(screen.String(), "leaves for good. Go on? [y/N]") < asked {
			select {
			case code := <-ended:
				t.Fatalf("exit code %d before it asked: %s", code, screen.String())
			case <-deadline:
				t.Fatalf("it does not ask: %s", screen.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
		if _, err := person.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		if code := <-ended; code != want {
			t.Errorf("%q: exit code %d, want %d\n%s", answer, code, want, screen.String())
		}
	}
	if n := strings.Count(out.String(), "n1 leaves: done"); n != 1 {
		t.Errorf("%d were done:\n%s", n, out.String())
	}
	for _, words := range []string{"n1 (00000000000000000000000000000001) hands over its partitions", "nothing was done", "moving [#######", "10/40 spans"} {
		if !strings.Contains(screen.String(), words) {
			t.Errorf("%q is not on the screen:\n%s", words, screen.String())
		}
	}
	if code := a.run(t.Context(), []string{"cluster", "commit", "--endpoint", srv.Addr()}); code != 0 {
		t.Fatal(screen.String())
	}
	if code := a.run(t.Context(), []string{"transfers", "--watch", "--endpoint", srv.Addr()}); code != 0 {
		t.Fatal(screen.String())
	}
	for _, words := range []string{"n-new fetches: 1 run, 0 wait, 1.0 MiB of 4.0 MiB [#######", "n1 hands over: 0 run, 1 wait", "moved [#######"} {
		if !strings.Contains(screen.String(), words) {
			t.Errorf("%q is not on the screen:\n%s", words, screen.String())
		}
	}
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	<-read // the terminal is gone
}
