package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	peerv1 "github.com/pairdb/pairdb/api/pairdb/peer/v1"
	"github.com/pairdb/pairdb/gossip/ring"
)

// Metadata of a Frames stream. The dialing side says who it is, whom it wants
// and which link and lane this stream is; the other side answers with its id
// and cluster, or refuses.
const (
	mdCluster = "pairdb-cluster"
	mdFrom    = "pairdb-from"
	mdTo      = "pairdb-to"
	mdLink    = "pairdb-link"
	mdLane    = "pairdb-lane"
	// mdAccept is said by either side that understands compressed frames.
	mdAccept    = "pairdb-accept"
	acceptBlock = "s2"
)

// acceptsCompressed says that the other side does.
func acceptsCompressed(md metadata.MD) bool { return slices.Contains(md.Get(mdAccept), acceptBlock) }

const (
	peerStreamWindow = 8 << 20
	peerConnWindow   = 32 << 20
	peerBufferBytes  = 128 << 10
)

const (
	// refreshPatience is what an attempt to connect has left after a Refresh.
	refreshPatience = time.Second
	// closeGrace is how long closing a connection may take in good order.
	closeGrace = 100 * time.Millisecond
)

// A peer whose machine is gone says nothing, and neither does the network. What
// was sent to it has to be acknowledged by its kernel within peerSilence
// (TCP_USER_TIMEOUT, which gRPC sets to its keepalive's timeout), and so has a
// probe of the kernel when nothing was sent for a while (tunePeerConn). Only a
// peer whose kernel answers but whose process does not is left to gRPC's pings,
// which a client sends after 10 s without any answer at the earliest.
const (
	peerSilence     = 4 * time.Second
	clientPingAfter = 10 * time.Second
	serverPingAfter = 5 * time.Second
)

// link is a connection to a peer for each lane, with one stream. It lives and
// dies as a whole, so that a reply may come back in another lane. On one
// connection small items would wait for what large ones have in the sockets'
// buffers and in the network.
type link struct {
	p       *peer
	conns   [laneCount]*grpc.ClientConn
	sockets sockets
	cancel  context.CancelFunc
	streams [laneCount]grpc.BidiStreamingClient[peerv1.Frame, peerv1.Frame]
	// compress has a compressor for each lane if the peer understands it.
	compress [laneCount]*compressor
}

// run keeps a link to the peer until Peers is closed or the peer is no member.
func (p *peer) run() {
	opts := &p.ps.opts
	pause := time.Duration(0)
	tried := sync.OnceFunc(func() { close(p.tried) })
	defer tried()
	for {
		l, err := p.connectInWindow()
		if err == nil {
			began := time.Now()
			p.setUp()
			tried()
			opts.LinkChanged(p.id, true, "")
			err = l.serve()
			p.ps.stats.disconnect.Add(1)
			opts.LinkChanged(p.id, false, err.Error())
			opts.Logger.Info("peer link lost", "peer", p.id.Short(), "after", time.Since(began), "err", err)
			if p.ps.ctx.Err() == nil && time.Since(began) >= healthyAfter {
				pause = 0
				p.setDown(linkSeeking, err)
				continue
			}
		}
		if p.ps.ctx.Err() != nil {
			p.setDown(linkGone, ErrClosed)
			return
		}
		if _, ok := opts.Resolve(p.id); !ok {
			p.ps.forget(p)
			p.setDown(linkGone, errors.New("not a member"))
			return
		}
		p.setDown(linkDown, err)
		tried()
		if l == nil {
			p.ps.stats.connectFailures.Add(1)
		}
		if pause == 0 {
			opts.Logger.Warn("peer not reachable", "peer", p.id.Short(), "err", err)
		}
		pause = min(max(2*pause, firstBackoff), opts.MaxBackoff)
		p.sleep(pause/2 + rand.N(pause/2+1))
	}
}

// sleep waits for d, a Refresh or Close.
func (p *peer) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.kick:
	case <-p.ps.ctx.Done():
	}
}

// connectInWindow makes one attempt; whatever waits for it does not wait longer
// than the window.
func (p *peer) connectInWindow() (*link, error) {
	p.ps.wg.Add(1) // run holds one meanwhile
	window := time.AfterFunc(p.ps.opts.ConnectWindow, func() {
		defer p.ps.wg.Done()
		p.endWindow(errors.New("connecting takes too long"))
	})
	defer func() {
		if window.Stop() {
			p.ps.wg.Done()
		}
	}()
	return p.connect()
}

// connect makes one attempt.
func (p *peer) connect() (*link, error) {
	opts := &p.ps.opts
	addr, ok := opts.Resolve(p.id)
	if !ok {
		return nil, errors.New("not a member")
	}
	ctx, cancel := context.WithCancel(p.ps.ctx)
	l := &link{p: p, cancel: cancel}
	defer p.cutShort(cancel)()
	giveUp := time.AfterFunc(opts.DialTimeout, cancel)
	err := l.open(ctx, addr)
	if err == nil && !giveUp.Stop() {
		err = context.DeadlineExceeded
	}
	giveUp.Stop()
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", addr, err), l.closeConns())
	}
	return l, nil
}

// cutShort has a Refresh during an attempt leave it one second more, and makes
// the next at once: the attempt may be to an address that is none any more, or
// wait for the repetition of a packet that nobody was there for. The function
// that it returns ends this.
func (p *peer) cutShort(cancel context.CancelFunc) (stop func()) {
	over := make(chan struct{})
	p.ps.wg.Go(func() { // run holds one meanwhile
		select {
		case <-p.kick:
		case <-over:
			return
		}
		t := time.NewTimer(refreshPatience)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-over:
		}
		p.refresh()
	})
	return func() { close(over) }
}

// refresh ends the pause between attempts, or the next one.
func (p *peer) refresh() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// dial prepares a connection, which is opened with its first stream.
func (l *link) dial(addr string) (*grpc.ClientConn, error) {
	p := l.p
	opts := &p.ps.opts
	return grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(opts.Credentials),
		grpc.WithContextDialer(l.sockets.dialer(opts.Dial)),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0),
		grpc.WithInitialWindowSize(peerStreamWindow),
		grpc.WithInitialConnWindowSize(peerConnWindow),
		grpc.WithWriteBufferSize(peerBufferBytes),
		grpc.WithReadBufferSize(peerBufferBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientPingAfter, Timeout: peerSilence}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(p.ps.codec),
			grpc.MaxCallRecvMsgSize(MaxFrameBytes+64),
		),
	)
}

// closeConns closes the connections. gRPC wants to say goodbye first, for which
// a peer that reads nothing would keep it up to 5 s.
func (l *link) closeConns() error {
	defer time.AfterFunc(closeGrace, l.sockets.close).Stop()
	var errs []error
	for _, conn := range l.conns {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// open opens the streams and waits until the peer has accepted them.
func (l *link) open(ctx context.Context, addr string) error {
	p := l.p
	number := fmt.Sprintf("%016x", rand.Uint64())
	for lane := range Lane(laneCount) {
		conn, err := l.dial(addr)
		if err != nil {
			return err
		}
		l.conns[lane] = conn
		conn.Connect() // both at once
	}
	for lane := range Lane(laneCount) {
		md := metadata.Pairs(mdCluster, p.cluster.String(), mdFrom, p.ps.opts.Self.String(),
			mdTo, p.id.String(), mdLink, number, mdLane, lane.String())
		if !p.ps.opts.NoCompression {
			md.Set(mdAccept, acceptBlock)
		}
		stream, err := peerv1.NewPeerClient(l.conns[lane]).Frames(metadata.NewOutgoingContext(ctx, md))
		if err != nil {
			return err
		}
		l.streams[lane] = stream
	}
	for lane, stream := range l.streams {
		md, err := stream.Header()
		if err != nil {
			return err
		}
		if len(md.Get(mdFrom)) == 0 {
			// No header of ours: the stream was refused, or it is not a peer.
			err := stream.RecvMsg(new(inFrame))
			if Lane(lane) == LaneBackground && status.Code(err) == codes.Unimplemented {
				l.streams[lane] = nil // an older node; see relay
				continue
			}
			if err != nil && err != io.EOF {
				return err
			}
			return errors.New("the other side is no PairDB node")
		}
		id, err := ring.ParseNodeID(md.Get(mdFrom)[0])
		if err != nil || id != p.id {
			return fmt.Errorf("the other side is node %q", md.Get(mdFrom)[0])
		}
		if acceptsCompressed(md) && !p.ps.opts.NoCompression {
			l.compress[lane] = newCompressor(Lane(lane), &p.ps.stats.compress)
		}
	}
	return nil
}

// serve sends and receives until the link breaks, says why, and returns when
// all its goroutines have ended. Messages are then queued no more.
func (l *link) serve() error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		cause error
	)
	broke := func(err error) {
		once.Do(func() {
			cause = err
			l.p.stopSending()
			l.cancel()
		})
	}
	for lane := range Lane(laneCount) {
		if l.streams[lane] == nil {
			wg.Go(func() { l.relay(lane) })
			continue
		}
		wg.Go(func() {
			// The status of a broken stream comes from receiving.
			if err := l.sendLoop(lane); err != nil && err != io.EOF {
				broke(err)
			}
		})
		wg.Go(func() { broke(l.receiveLoop(lane)) })
	}
	wg.Wait()
	for _, c := range l.compress {
		c.end()
	}
	if err := l.closeConns(); err != nil {
		l.p.ps.opts.Logger.Debug("closing a broken link", "peer", l.p.id.Short(), "err", err)
	}
	return cause
}

// sendLoop sends what gathers in the lane. It returns nil when the link is not
// up any more.
func (l *link) sendLoop(lane Lane) error {
	p := l.p
	o := &p.mu.lanes[lane]
	stopped := func() bool { return p.mu.state != linkUp }
	for {
		p.mu.Lock()
		f := o.take(stopped)
		waiting := o.bytes
		p.mu.Unlock()
		if f == nil {
			return nil
		}
		sealFrame(*f.buf, f.count, p.ps.opts.Now().Sub(f.begun))
		c := &p.ps.stats.lanes[lane]
		c.framesSent.Add(1)
		c.itemsSent.Add(uint64(f.count))
		out := l.compress[lane].frame(f, waiting, p.ps.pool)
		c.bytesSent.Add(uint64(len(*out.buf)))
		if err := l.streams[lane].SendMsg(out); err != nil {
			return err
		}
	}
}

// relay hands what gathers in a lane that the peer does not have to the large one.
// To the accounts of requests it has left then.
func (l *link) relay(lane Lane) {
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		f := p.mu.lanes[lane].take(func() bool { return p.mu.state != linkUp })
		if f == nil {
			return
		}
		count, size := f.count, f.size
		f.count, f.size = 0, 0
		o := &p.mu.lanes[LaneLarge]
		o.push(f)
		o.add(f, size)
		f.count, o.items = count, o.items+count-1
	}
}

// receiveLoop takes in replies until the stream ends.
func (l *link) receiveLoop(lane Lane) error {
	for {
		var in inFrame
		if err := l.streams[lane].RecvMsg(&in); err != nil {
			if err == io.EOF {
				return errors.New("the peer closed the link")
			}
			return err
		}
		if err := l.p.receive(in.payload); err != nil {
			return err
		}
	}
}

// stopSending ends the senders; messages are queued until setDown.
func (p *peer) stopSending() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.state = linkSeeking
	for i := range p.mu.lanes {
		p.mu.lanes[i].wake.Broadcast()
	}
}
