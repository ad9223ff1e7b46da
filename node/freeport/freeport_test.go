package freeport

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

const child = "PAIRDB_FREEPORT_CHILD"

// TestTake: many processes that ask for ports at once get different ones, below
// the ephemeral range, on which they can listen again and again.
func TestTake(t *testing.T) {
	if os.Getenv(child) != "" {
		ports, err := Take(100)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports {
			os.Stdout.WriteString("port " + strconv.Itoa(p) + "\n")
		}
		os.Stdout.WriteString("held\n")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent has them all
		return
	}
	seen := map[int]bool{}
	note := func(port int) {
		if port < lowest || port >= below() || seen[port] {
			t.Errorf("port %d, seen %t", port, seen[port])
		}
		seen[port] = true
	}
	for range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestTake$")
		cmd.Env = append(os.Environ(), child+"=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = in.Close() // lets it end
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
		var text strings.Builder
		for b := make([]byte, 4096); !strings.Contains(text.String(), "held\n"); {
			n, err := out.Read(b)
			text.Write(b[:n])
			if err != nil {
				t.Fatalf("%v after %q", err, text.String())
			}
		}
		for line := range strings.SplitSeq(text.String(), "\n") {
			if p, ok := strings.CutPrefix(line, "port "); ok {
				n, err := strconv.Atoi(p)
				if err != nil {
					t.Fatal(err)
				}
				note(n)
			}
		}
	}
	mine, err := Take(100)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range mine {
		note(p)
		for range 2 {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p))
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(seen) != 400 {
		t.Errorf("%d different ports of 400", len(seen))
	}
}

// TestOccupied: a port somebody listens on is not given out.
func TestOccupied(t *testing.T) {
	ports, err := Take(2)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(ports[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:"+strconv.Itoa(ports[1]))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, p := range ports {
		if ok, err := vacant(p); ok || err != nil {
			t.Errorf("port %d is vacant: %t, %v", p, ok, err)
		}
		if ok, err := reserve(p); ok || err != nil {
			t.Errorf("port %d was reserved again: %t, %v", p, ok, err)
		}
	}
}
