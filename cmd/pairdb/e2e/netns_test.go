package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// netns is a network namespace without a name: it is there as long as its file
// is open or a process is in it. So nothing is left of it when the test ends,
// even when it is killed, and no two tests can meet in one.
type netns struct{ file *os.File }

const ownNetns = "/proc/thread-self/ns/net"

func newNetns() (*netns, error) {
	n := &netns{}
	err := elsewhere(
		func() error { return unix.Unshare(unix.CLONE_NEWNET) },
		func() (err error) { n.file, err = os.Open(ownNetns); return err },
	)
	return n, err
}

// do runs f in the namespace. What f opens or starts itself stays there;
// goroutines that it starts are outside.
func (n *netns) do(f func() error) error {
	return elsewhere(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, f)
}

// elsewhere has the thread enter another namespace, runs f there and returns.
func elsewhere(enter, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open(ownNetns)
	if err != nil {
		return err
	}
	defer here.Close()
	if err := enter(); err != nil {
		return fmt.Errorf("enter a network namespace (as root?): %w", err)
	}
	defer func() {
		// To end the thread instead would kill the processes that it started,
		// see Pdeathsig.
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("return from a network namespace: %v", err))
		}
	}()
	return f()
}

// run runs a program in the namespace. Its file 3 is with's namespace, if there
// is one.
func (n *netns) run(with *netns, stdin string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := bounded(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if with != nil {
		cmd.ExtraFiles = []*os.File{with.file}
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	// Only the start has to be there.
	if err := n.do(cmd.Start); err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s%s", cmd, err, stdin, out.String())
	}
	return nil
}

// lan is a network of hosts on one bridge. The bridge is in a namespace of its
// own, the hub, from where each host can be reached whatever is cut.
type lan struct {
	t     *testing.T
	hub   *netns
	hosts []*netns
	// cuts counts what keeps packets of the first host from the second.
	cuts map[[2]int]int
}

func hostAddress(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }

// newLAN makes a network of n hosts, which ends with the test.
func newLAN(t *testing.T, n int) *lan {
	t.Helper()
	for program, pkg := range map[string]string{"ip": "iproute2", "nft": "nftables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test needs %s, and there is none; install it (on Debian, as root: apt-get install %s)", program, pkg)
		}
	}
	l := &lan{t: t, cuts: map[[2]int]int{}}
	add := func() *netns {
		ns, err := newNetns()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := ns.file.Close(); err != nil {
				t.Error(err)
			}
		})
		return ns
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l.hub = add()
	must(l.hub.run(nil, "link set lo up\nlink add bridge0 type bridge\naddr add 10.77.0.254/24 dev bridge0\nlink set bridge0 up\n", "ip", "-batch", "-"))
	for i := range n {
		host := add()
		l.hosts = append(l.hosts, host)
		must(l.hub.run(host, fmt.Sprintf("link add v%[1]d type veth peer name eth0 netns /proc/self/fd/3\nlink set v%[1]d master bridge0 up\n", i), "ip", "-batch", "-"))
		must(host.run(nil, fmt.Sprintf("link set lo up\naddr add %s/24 dev eth0\nlink set eth0 up\n", hostAddress(i)), "ip", "-batch", "-"))
		must(host.run(nil, `table inet nemesis {
	set cut { type ipv4_addr; }
	set cutport { type ipv4_addr . inet_service; }
	chain in {
		type filter hook input priority 0
		ip saddr @cut drop
		meta l4proto { tcp, udp } ip saddr . th dport @cutport drop
		meta l4proto { tcp, udp } ip saddr . th sport @cutport drop
	}
}
`, "nft", "-f", "-"))
	}
	return l
}

// cut keeps all packets of one host from another, until mend was called as often.
func (l *lan) cut(from, to int) {
	if l.cuts[[2]int{from, to}]++; l.cuts[[2]int{from, to}] == 1 {
		l.drop("add", from, to)
	}
}

func (l *lan) mend(from, to int) {
	if l.cuts[[2]int{from, to}]--; l.cuts[[2]int{from, to}] == 0 {
		l.drop("delete", from, to)
	}
}

// cutPort keeps what belongs to one port, at either end, from passing between one
// host and all others, whichever of them began it.
func (l *lan) cutPort(host, port int)  { l.dropPort("add", host, port) }
func (l *lan) mendPort(host, port int) { l.dropPort("delete", host, port) }

func (l *lan) dropPort(verb string, host, port int) {
	for other := range l.hosts {
		if other == host {
			continue
		}
		for from, to := range map[int]int{host: other, other: host} {
			rule := fmt.Sprintf("%s element inet nemesis cutport { %s . %d }\n", verb, hostAddress(from), port)
			if err := l.hosts[to].run(nil, rule, "nft", "-f", "-"); err != nil {
				l.t.Errorf("cut or mend a port: %v", err)
			}
		}
	}
}

func (l *lan) drop(verb string, from, to int) {
	if err := l.hosts[to].run(nil, fmt.Sprintf("%s element inet nemesis cut { %s }\n", verb, hostAddress(from)), "nft", "-f", "-"); err != nil {
		l.t.Errorf("cut or mend the network: %v", err)
	}
}

// dial connects to a host from the hub.
func (l *lan) dial(ctx context.Context, addr string) (c net.Conn, err error) {
	var d net.Dialer
	err = l.hub.do(func() (err error) { c, err = d.DialContext(ctx, "tcp", addr); return err })
	return c, err
}

// TestLAN: hosts reach each other and the hub reaches all, until one direction
// between two is cut; the others notice nothing.
func TestLAN(t *testing.T) {
	l := newLAN(t, 3)
	got := make(chan string, 100)
	var socks []*net.UDPConn
	for i, host := range l.hosts {
		var sock *net.UDPConn
		err := host.do(func() (err error) {
			sock, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(hostAddress(i)), Port: 9})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		socks = append(socks, sock)
		t.Cleanup(func() { _ = sock.Close() }) // only ends the reader below
		go func() {
			b := make([]byte, 100)
			for {
				n, err := sock.Read(b)
				if err != nil {
					return
				}
				got <- fmt.Sprintf("%s to %d", b[:n], i)
			}
		}()
	}
	// heard has one host say something to all others, and want who hears it.
	heard := func(from int, want ...int) {
		t.Helper()
		for to := range l.hosts {
			if to == from {
				continue
			}
			if _, err := socks[from].WriteToUDP(fmt.Append(nil, from), &net.UDPAddr{IP: net.ParseIP(hostAddress(to)), Port: 9}); err != nil {
				t.Fatal(err)
			}
		}
		missing := map[string]bool{}
		for _, to := range want {
			missing[fmt.Sprintf("%d to %d", from, to)] = true
		}
		late := time.After(10 * time.Second)
		for len(missing) > 0 {
			select {
			case m := <-got:
				if !missing[m] {
					t.Fatalf("%q was heard; missing are %v", m, missing)
				}
				delete(missing, m)
			case <-late:
				t.Fatalf("nobody heard %v", missing)
			}
		}
	}
	heard(0, 1, 2)
	heard(1, 0, 2)
	heard(2, 0, 1)
	l.cut(0, 1)
	heard(0, 2)
	heard(1, 0, 2) // the other direction is open
	l.cut(0, 1)
	l.mend(0, 1)
	heard(0, 2) // one cut is left
	l.mend(0, 1)
	heard(0, 1, 2)
	if len(got) > 0 {
		t.Errorf("%q was heard in spite of a cut", <-got)
	}
}
