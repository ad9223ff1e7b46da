package client

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	pairdbv1 "github.com/pairdb/pairdb/api/pairdb/v1"
)

const (
	// routeAfter is how many calls about keys a client makes before it asks for
	// routes: a program that makes a few has no use for them.
	routeAfter = 8
	// routeEach is how often routes are asked for again, and routePause how long
	// a tenant's are left alone when calls fail.
	routeEach  = 30 * time.Second
	routePause = time.Second
	// maxRouted bounds the tenants whose routes are kept.
	maxRouted = 64
)

// router sends calls about a key to an owner of it, when it knows one to which
// a connection stands; else they go to the endpoints as if there was no router.
// A goroutine of its own asks for routes, begun by the first calls.
type router struct {
	c     *Client
	calls atomic.Int32
	// table has the routes by tenant; it is replaced, never changed.
	table atomic.Pointer[map[string]*routes]
	want  chan string // tenants whose routes are to be asked for
	begin sync.Once
	stop  chan struct{}
	wg    sync.WaitGroup

	// conns are the connections to nodes that are no endpoints, by address. They
	// and asked belong to the goroutine, and to close once it has ended.
	conns map[string]*conn
	asked map[string]time.Time
}

func newRouter(c *Client) *router {
	r := &router{c: c, want: make(chan string, 16), stop: make(chan struct{}), conns: map[string]*conn{}, asked: map[string]time.Time{}}
	r.table.Store(&map[string]*routes{})
	return r
}

// owners appends the connections to a key's owners that can be used at once.
func (r *router) owners(dst []*conn, tenant string, key []byte) []*conn {
	if r.c.opts.NoRouting {
		return dst
	}
	t := (*r.table.Load())[tenant]
	if t == nil {
		if r.calls.Load() >= routeAfter || r.calls.Add(1) >= routeAfter {
			r.ask(tenant)
		}
		return dst
	}
	for _, i := range t.of(key) {
		cn := t.conns[i]
		if cn == nil {
			continue
		}
		switch cn.cc.GetState() {
		case connectivity.Ready:
			dst = append(dst, cn)
		case connectivity.Idle:
			cn.cc.Connect() // for a later call
		}
	}
	return dst
}

// doubt has routes asked for again after a node could not serve a call.
func (r *router) doubt(tenant string) {
	if (*r.table.Load())[tenant] != nil {
		r.ask(tenant)
	}
}

// ask has a tenant's routes asked for soon. If many are waited for already, a
// later call asks again.
func (r *router) ask(tenant string) {
	r.begin.Do(func() { r.wg.Go(r.run) })
	select {
	case r.want <- tenant:
	default:
	}
}

// run asks for routes until the client is closed.
func (r *router) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.wg.Go(func() {
		<-r.stop
		cancel()
	})
	tick := time.NewTicker(routeEach)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case tenant := <-r.want:
			if time.Since(r.asked[tenant]) >= routePause {
				r.refresh(ctx, tenant)
			}
		case <-tick.C:
			for tenant := range *r.table.Load() {
				r.refresh(ctx, tenant)
			}
			r.retire()
		}
	}
}

// refresh asks for a tenant's routes. What fails is tried again after a pause:
// meanwhile calls go where they went before.
func (r *router) refresh(ctx context.Context, tenant string) {
	old := *r.table.Load()
	if old[tenant] == nil && len(old) >= maxRouted {
		return
	}
	if len(r.asked) > 4*maxRouted {
		clear(r.asked) // pauses of tenants that have no routes
	}
	r.asked[tenant] = time.Now()
	req := &pairdbv1.RoutesRequest{TenantId: tenant}
	if t := old[tenant]; t != nil {
		req.KnownEtag = t.etag
	}
	resp, err := invoke(ctx, r.c, "routes", reads, func(ctx context.Context, cn *conn, opts ...grpc.CallOption) (*pairdbv1.RoutesResponse, error) {
		return cn.cluster.Routes(ctx, req, opts...)
	})
	if err != nil || req.KnownEtag != 0 && resp.GetEtag() == req.KnownEtag {
		return
	}
	t, err := newRoutes(resp)
	if err != nil {
		return // a node that sends nonsense is not followed
	}
	r.connect(t)
	next := maps.Clone(old)
	next[tenant] = t
	r.table.Store(&next)
}

// connect fills in the connections of routes.
func (r *router) connect(t *routes) {
	t.conns = make([]*conn, len(t.addresses))
	for i, addr := range t.addresses {
		if addr == "" {
			continue
		}
		endpoint, err := NormalizeEndpoint(addr)
		if err != nil {
			continue // it cannot be dialled from here
		}
		cn := r.known(endpoint)
		if cn == nil {
			if cn, err = dial(endpoint, r.c.opts); err != nil {
				continue
			}
			r.conns[endpoint] = cn
			r.c.watcher.add(cn)
		}
		t.conns[i] = cn
	}
}

// known returns the connection to an endpoint, nil if there is none.
func (r *router) known(endpoint string) *conn {
	for _, cn := range r.c.conns {
		if cn.endpoint == endpoint {
			return cn
		}
	}
	return r.conns[endpoint]
}

// retire closes connections that no routes name, one round after they became so:
// calls that took them from older routes have ended by then, or are cut off.
func (r *router) retire() {
	used := map[*conn]bool{}
	for _, t := range *r.table.Load() {
		for _, cn := range t.conns {
			used[cn] = true
		}
	}
	for endpoint, cn := range r.conns {
		switch {
		case used[cn]:
			cn.unused = false
		case !cn.unused:
			cn.unused = true
		default:
			delete(r.conns, endpoint)
			r.c.watcher.drop(cn)
			// Nobody waits for it, and the error of a connection that is
			// given up has no reader.
			_ = cn.cc.Close()
		}
	}
}

// close ends the goroutine and the connections.
func (r *router) close() error {
	r.begin.Do(func() {}) // none begins any more
	close(r.stop)
	r.wg.Wait()
	var errs []error
	for _, cn := range r.conns {
		errs = append(errs, cn.cc.Close())
	}
	return errors.Join(errs...)
}
