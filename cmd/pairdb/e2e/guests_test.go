package e2e

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

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
// them, a thousand connections that say nothing, and others that write and read
// the largest values without a pause. The p99 of the small ones at most doubles.
func TestBadGuests(t *testing.T) {
	c := startCluster(t, 3)
	cl := c.client(0)
	for i := range 4 {
		if _, err := cl.Put(t.Context(), bigKey(i), junk(i, 10<<20)); err != nil {
			t.Fatal(err)
		}
	}
	const seconds = 8
	small := func() window {
		m := c.startLoad("--op", "mix", "--keys", "2000", "--rate", "400", "--arrivals", "even",
			"--duration", fmt.Sprintf("%ds", seconds), "--warmup", "2s", "--timeout", "5s").end()
		w := m.window(1, seconds)
		if w.bad+w.refused > 0 {
			t.Errorf("%s: %v\n%s", w, m.Errors, m.rows())
		}
		return w
	}
	alone := small()
	t.Logf("alone: %s", alone)
	for _, guest := range []struct {
		name   string
		invite func(ctx context.Context, c *cluster, wg *sync.WaitGroup)
	}{
		{"a client that never reads", deafGuest},
		{"a thousand idle connections", idleGuests},
		{"values of 10 MiB", largeGuests},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		guest.invite(ctx, c, &wg)
		w := small()
		cancel()
		wg.Wait()
		t.Logf("beside %s: %s", guest.name, w)
		if limit := max(2*alone.p99, grayFloor); w.p99 > limit {
			t.Errorf("beside %s the p99 is %s, alone %s", guest.name, w.p99, alone.p99)
		}
	}
	for _, a := range c.agents {
		rss := counter(t, fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid), "VmHWM:")
		t.Logf("%s: at most %d MiB resident", a.name, rss>>10)
		if rss>>10 > 1024 {
			t.Errorf("%s took %d MiB", a.name, rss>>10)
		}
	}
}

func bigKey(i int) string { return fmt.Sprintf("big/%d", i) }

// deafGuest asks each node 300 times for 10 MiB and reads no answer.
func deafGuest(ctx context.Context, c *cluster, wg *sync.WaitGroup) {
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
func idleGuests(ctx context.Context, c *cluster, wg *sync.WaitGroup) {
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

// largeGuests write and read values of 10 MiB, one writer and one reader at a
// time.
func largeGuests(ctx context.Context, c *cluster, wg *sync.WaitGroup) {
	for i, work := range []func(*client.Client, int) error{
		func(cl *client.Client, n int) error {
			_, err := cl.Put(ctx, bigKey(n%4), junk(n, 10<<20))
			return err
		},
		func(cl *client.Client, n int) error {
			_, err := cl.Get(ctx, bigKey(n%4))
			return err
		},
	} {
		cl := c.client(i)
		wg.Go(func() {
			n := 0
			for ; ctx.Err() == nil; n++ {
				if err := work(cl, n); err != nil && ctx.Err() == nil {
					c.t.Errorf("10 MiB: %v", err)
					return
				}
			}
			c.t.Logf("%d values of 10 MiB", n)
		})
	}
}
