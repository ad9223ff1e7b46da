package e2e

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
	"github.com/pairdb/pairdb/client"
)

// deafConn is a connection whose reader gives up: once deaf is closed, nothing is
// taken from the socket any more.
type deafConn struct {
	net.Conn
	deaf   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (d *deafConn) Read(b []byte) (int, error) {
	select {
	case <-d.deaf:
		<-d.closed
		return 0, net.ErrClosed
	default:
		return d.Conn.Read(b)
	}
}

func (d *deafConn) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Conn.Close()
}

// TestBadGuests measures small operations on their own, and again beside guests
// that behave badly: a client that asks for the largest values and reads none of
// them, a thousand connections that say nothing, and one that reads the largest values
// without a pause. The p99 of the small ones at most doubles. Beside one that writes
// the largest values it does not: all wait for the one log of a node, and here the
// three logs for one disk. They are answered within diskFloor all the same.
func TestBadGuests(t *testing.T) { measure(t, badGuests) }

func badGuests(t *testing.T, v *verdict) {
	c := startClusterWith(t, make([]string, 3), func(a *agent) { a.env = []string{"GOMEMLIMIT=1GiB"} })
	cl := c.client(0)
	for i := range 4 {
		if _, err := cl.Put(t.Context(), bigKey(i), junk(i, 10<<20)); err != nil {
			t.Fatal(err)
		}
	}
	const seconds = 6
	small := func() window {
		m := c.startLoad("--op", "mix", "--keys", "2000", "--rate", "400", "--arrivals", "even",
			"--duration", fmt.Sprintf("%ds", seconds), "--warmup", "2s", "--timeout", "5s").end()
		w := m.window(1, seconds)
		if w.bad+w.refused > 0 {
			v.errorf("%s: %v\n%s", w, m.Errors, m.rows())
		}
		return w
	}
	alone := small()
	t.Logf("alone: %s", alone)
	const diskFloor = 400 * time.Millisecond
	for _, guest := range []struct {
		name   string
		invite func(ctx context.Context, v *verdict, c *cluster, wg *sync.WaitGroup)
		floor  time.Duration // a p99 that is well in any case
	}{
		{"a client that never reads", deafGuest, grayFloor},
		{"a thousand idle connections", idleGuests, grayFloor},
		{"a reader of 10 MiB", largeReader, grayFloor},
		{"a writer of 10 MiB", largeWriter, diskFloor},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		guest.invite(ctx, v, c, &wg)
		w := small()
		cancel()
		wg.Wait()
		t.Logf("beside %s: %s", guest.name, w)
		if limit := max(2*alone.p99, guest.floor); w.p99 > limit {
			v.errorf("beside %s the p99 is %s, alone %s", guest.name, w.p99, alone.p99)
		}
	}
	for _, a := range c.agents {
		rss := counter(t, fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid), "VmHWM:")
		t.Logf("%s: at most %d MiB resident", a.name, rss>>10)
		if rss>>10 > 1536 {
			t.Errorf("%s took %d MiB", a.name, rss>>10)
		}
	}
}

func bigKey(i int) string { return fmt.Sprintf("big/%d", i) }

// deafGuest asks each node 300 times for 10 MiB and reads no answer.
func deafGuest(ctx context.Context, _ *verdict, c *cluster, wg *sync.WaitGroup) {
	for _, a := range c.agents {
		deaf := make(chan struct{})
		cc, err := grpc.NewClient("passthrough:///"+a.addr.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(11<<20)),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
				return &deafConn{Conn: conn, deaf: deaf, closed: make(chan struct{})}, err
			}))
		if err != nil {
			c.t.Fatal(err)
		}
		kv := pairdbv1.NewKVClient(cc)
		// The connection stands, and from then on nobody reads.
		if _, err := kv.Get(ctx, &pairdbv1.GetRequest{TenantId: client.DefaultTenant, Key: []byte(bigKey(0))}); err != nil {
			c.t.Fatal(err)
		}
		close(deaf)
		for i := range 300 {
			wg.Go(func() {
				// Nobody wants the answer, nor the error when the test ends the call.
				_, _ = kv.Get(ctx, &pairdbv1.GetRequest{TenantId: client.DefaultTenant, Key: []byte(bigKey(i % 4))})
			})
		}
		context.AfterFunc(ctx, func() { _ = cc.Close() }) // as is its error
	}
}

// idleGuests opens a thousand connections to the nodes' gRPC and HTTP doors.
func idleGuests(ctx context.Context, _ *verdict, c *cluster, wg *sync.WaitGroup) {
	doors := make([]string, 0, 2*len(c.agents))
	for _, a := range c.agents {
		doors = append(doors, a.addr.GRPC, a.addr.HTTP)
	}
	for i := range 1000 {
		conn, err := net.Dial("tcp", doors[i%len(doors)])
		if err != nil {
			c.t.Fatalf("connection %d: %v", i, err)
		}
		wg.Go(func() {
			<-ctx.Done()
			if err := conn.Close(); err != nil {
				c.t.Error(err)
			}
		})
	}
}

// largeReader reads values of 10 MiB, one at a time.
func largeReader(ctx context.Context, v *verdict, c *cluster, wg *sync.WaitGroup) {
	c.large(ctx, v, wg, func(cl *client.Client, n int) error {
		_, err := cl.Get(ctx, bigKey(n%4))
		return err
	})
}

// largeWriter writes them.
func largeWriter(ctx context.Context, v *verdict, c *cluster, wg *sync.WaitGroup) {
	c.large(ctx, v, wg, func(cl *client.Client, n int) error {
		_, err := cl.Put(ctx, bigKey(n%4), junk(n, 10<<20))
		return err
	})
}

// large does the work until ctx ends.
func (c *cluster) large(ctx context.Context, v *verdict, wg *sync.WaitGroup, work func(cl *client.Client, n int) error) {
	cl := c.client(1)
	wg.Go(func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if err := work(cl, n); err != nil && ctx.Err() == nil {
				v.errorf("10 MiB: %v", err)
				return
			}
		}
		c.t.Logf("%d values of 10 MiB", n)
	})
}
