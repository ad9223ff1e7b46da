package rpc

import (
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/gossip/ring"
)

// vanishing is a listener whose connections can be made to receive nothing any
// more, not even in the kernel: for the other side the machine is gone.
type vanishing struct {
	net.Listener
	mu    sync.Mutex
	conns []*net.TCPConn
}

func (v *vanishing) Accept() (net.Conn, error) {
	c, err := v.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		v.mu.Lock()
		v.conns = append(v.conns, tcp)
		v.mu.Unlock()
	}
	return c, err
}

// vanish has the kernel drop whatever comes for the connections.
func (v *vanishing) vanish(t *testing.T) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range v.conns {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var set error
		if err := raw.Control(func(fd uintptr) {
			nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
			set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
		}); err != nil || set != nil {
			t.Fatal(err, set)
		}
	}
}

// TestVanishedPeerIsNoticed: the link to a machine that is gone without a word
// is lost within seconds, whether or not something is sent to it.
func TestVanishedPeerIsNoticed(t *testing.T) {
	for name, talk := range map[string]bool{"silent": false, "talking": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := NewServer(serverOptions(t, nodeB, clusterOf(nodeB, nodeA), echo))
			if err != nil {
				t.Fatal(err)
			}
			l := &vanishing{Listener: listen(t)}
			if err := server.ServePeers(l); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := server.Close(); err != nil {
					t.Error(err)
				}
			})
			lost := make(chan string, 10)
			opts := peersOptions(t, constant(l.Addr().String()))
			opts.Logger = nil
			opts.LinkChanged = func(_ ring.NodeID, up bool, why string) {
				if !up {
					lost <- why
				}
			}
			ps := startPeers(t, opts)
			if res := call(t, ps, coord.Message{Op: coord.OpMerge}); res.err != nil {
				t.Fatal(res.err)
			}
			l.vanish(t)
			start := time.Now()
			if talk {
				m := coord.Message{Op: coord.OpMerge, Deadline: start.Add(time.Minute)}
				ps.Send(nodeB, &m, func(coord.Reply, error) {})
			}
			select {
			case why := <-lost:
				t.Logf("after %v: %s", time.Since(start), why)
			case <-time.After(peerSilence + probeAfter + 4*time.Second):
				t.Error("nobody noticed")
			}
		})
	}
}
