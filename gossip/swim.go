package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/pairdb/pairdb/gossip/ring"
)

// card is what a node tells with every alive message: 44 bytes of metadata. It
// is a hint for finding the node; what counts is in its signed entry.
type card struct {
	id       ring.NodeID
	cluster  ring.ClusterID // zero: fresh
	version  ring.Version
	peerPort uint16
	// withdrawn says that the node cannot do its part and asks others to go
	// elsewhere.
	withdrawn bool
	// drained says that the node has sent its clients away.
	drained bool
}

const (
	cardFormat = 1
	// The flags are bits of the second byte. Nodes that do not know a flag leave it
	// alone.
	flagWithdrawn, flagDrained = 1, 2
	cardBytes                  = 1 + 1 + 16 + 2 + 16 + 8
)

func (c card) encode() []byte {
	flags := byte(0)
	if c.withdrawn {
		flags |= flagWithdrawn
	}
	if c.drained {
		flags |= flagDrained
	}
	b := append([]byte{cardFormat, flags}, c.id[:]...)
	b = binary.BigEndian.AppendUint16(b, c.peerPort)
	b = append(b, c.cluster[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(c.version))
}

func decodeCard(b []byte) (card, error) {
	if len(b) < cardBytes || b[0] != cardFormat {
		return card{}, fmt.Errorf("node metadata of %d bytes is not of this version", len(b))
	}
	c := card{
		peerPort: binary.BigEndian.Uint16(b[18:]), version: ring.Version(binary.BigEndian.Uint64(b[36:])),
		withdrawn: b[1]&flagWithdrawn != 0, drained: b[1]&flagDrained != 0,
	}
	copy(c.id[:], b[2:])
	copy(c.cluster[:], b[20:])
	return c, nil
}

// sighting is a node as the failure detector met it.
type sighting struct {
	card
	incarnation uint64
	host        string // without port
	gossip      string // host:port
	alive       bool
	leaving     bool // it said goodbye
}

// Messages of our own within memberlist's: kind u8, sender 16, then a digest of
// 16 bytes, gossiped and pushed, or the incarnation u64 of a node that leaves.
const (
	kindDigest   = 1
	kindGoodbye  = 2
	digestBytes  = 1 + 16 + 16
	goodbyeBytes = 1 + 16 + 8
)

// swimEvents are called from memberlist's goroutines, partly under its locks:
// they must return at once and never call back.
type swimEvents interface {
	// admit says why a node must not be a member, nil if it may.
	admit(s sighting) error
	// sighted reports a node that came, changed or went.
	sighted(s sighting)
	// heard reports the digest of a node.
	heard(id ring.NodeID, digest [16]byte)
	// leaving reports that a node says goodbye.
	leaving(id ring.NodeID, incarnation uint64)
	// local gives this node's card and digest.
	local() (card, [16]byte)
}

// swim is memberlist, tamed: one owner, no types of it beyond this file.
type swim struct {
	ml   *memberlist.Memberlist
	name string
	addr string
	// incarnation of this node.
	incarnation uint64
	events      swimEvents
	log         *slog.Logger
	queue       memberlist.TransmitLimitedQueue
	// mu keeps Leave, Shutdown and UpdateNode apart: Leave panics after Shutdown.
	mu     sync.Mutex
	closed bool
}

func startSwim(o *Options, self ring.NodeID, incarnation uint64, events swimEvents) (*swim, error) {
	s := &swim{name: swimName(self, incarnation), incarnation: incarnation, events: events, log: o.Logger}
	c := memberlist.DefaultLANConfig()
	c.Name = s.name
	c.Label = o.ClusterName
	c.BindAddr, c.BindPort = o.BindAddr, o.BindPort
	c.AdvertiseAddr, c.AdvertisePort = o.AdvertiseAddr, o.AdvertisePort
	if c.AdvertisePort == 0 {
		c.AdvertisePort = o.BindPort
	}
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = o.ProbeInterval, o.ProbeTimeout, o.SuspicionMult
	c.PushPullInterval, c.GossipInterval = o.PushPullInterval, o.GossipInterval
	c.TCPTimeout = 3 * time.Second
	c.GossipNodes, c.RetransmitMult = 3, 4
	c.DeadNodeReclaimTime = 30 * time.Second
	if len(o.SecretKey) > 0 {
		c.SecretKey = append([]byte(nil), o.SecretKey...)
	}
	c.Logger = log.New(&swimLog{log: o.Logger, last: map[string]time.Time{}}, "", 0)
	s.queue = memberlist.TransmitLimitedQueue{RetransmitMult: 4, NumNodes: func() int { return 8 }}
	d := delegate{s}
	c.Delegate, c.Events, c.Alive, c.Merge = d, d, d, d
	ml, err := memberlist.Create(c)
	if err != nil {
		return nil, explainBind(err, net.JoinHostPort(o.BindAddr, strconv.Itoa(o.BindPort)))
	}
	s.ml = ml
	s.addr = ml.LocalNode().Address() // not safe to ask later on
	return s, nil
}

// explainBind says what to do about a port in use. memberlist passes on only the
// text of the system's error.
func explainBind(err error, addr string) error {
	if strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
		return fmt.Errorf("listen for gossip on %s: the port is in use by another process; stop it, or choose another port with --gossip-port (0 takes a free one): %w", addr, err)
	}
	return fmt.Errorf("listen for gossip on %s: %w", addr, err)
}

// swimName is never used twice, so that a restarted node need not argue with the
// memory of its last life.
func swimName(id ring.NodeID, incarnation uint64) string {
	return id.Short() + "#" + strconv.FormatUint(incarnation, 10)
}

// address is where others reach this node's gossip.
func (s *swim) address() string { return s.addr }

// join pushes and pulls state with one address.
func (s *swim) join(addr string) error {
	_, err := s.ml.Join([]string{addr})
	return err
}

// announce gossips this node's digest in place of the last one.
func (s *swim) announce(digest [16]byte) {
	card, _ := s.events.local()
	s.queue.QueueBroadcast(broadcast(digestMessage(card.id, digest)))
	s.queue.Prune(16)
}

// update tells the members of a new card.
func (s *swim) update() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if err := s.ml.UpdateNode(500 * time.Millisecond); err != nil {
		s.log.Debug("gossip is slow to spread this node's metadata", "error", err)
	}
}

// maxGoodbyes bounds the members that are told of a leave one by one.
const maxGoodbyes = 64

// leave says goodbye, to the given members over TCP, so that they know it from a crash,
// and to the failure detector, and waits until it is out, at most for timeout.
func (s *swim) leave(members []sighting, timeout time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	started := time.Now()
	card, _ := s.events.local()
	msg := append([]byte{kindGoodbye}, card.id[:]...)
	msg = binary.BigEndian.AppendUint64(msg, s.incarnation)
	var wg sync.WaitGroup
	for _, m := range members[:min(len(members), maxGoodbyes)] {
		// Not one of memberlist's own nodes: those change under its feet.
		to := &memberlist.Node{Name: swimName(m.id, m.incarnation), Addr: net.ParseIP(m.host), Port: portOf(m.gossip)}
		wg.Go(func() {
			if err := s.ml.SendReliable(to, msg); err != nil {
				s.log.Debug("a member was not told goodbye", "node", to.Name, "error", err)
			}
		})
	}
	wg.Wait() // each ends with memberlist's own time limit
	if err := s.ml.Leave(max(timeout-time.Since(started), time.Millisecond)); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

func (s *swim) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if err := s.ml.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

func digestMessage(id ring.NodeID, digest [16]byte) []byte {
	b := append([]byte{kindDigest}, id[:]...)
	return append(b, digest[:]...)
}

// broadcast is the one message this node gossips; a newer one replaces it.
type broadcast []byte

// Name implements memberlist.NamedBroadcast.
func (broadcast) Name() string { return "digest" }

// Invalidates implements memberlist.Broadcast.
func (broadcast) Invalidates(memberlist.Broadcast) bool { return false }

// Message implements memberlist.Broadcast.
func (b broadcast) Message() []byte { return b }

// Finished implements memberlist.Broadcast.
func (broadcast) Finished() {}

// delegate is how memberlist calls back.
type delegate struct{ s *swim }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte {
	c, _ := d.s.events.local()
	return c.encode()
}

// NotifyMsg implements memberlist.Delegate. The buffer is memberlist's again
// when it returns.
func (d delegate) NotifyMsg(b []byte) { d.hear(b) }

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.s.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d delegate) LocalState(bool) []byte {
	c, digest := d.s.events.local()
	return digestMessage(c.id, digest)
}

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(b []byte, _ bool) { d.hear(b) }

func (d delegate) hear(b []byte) {
	switch {
	case len(b) == digestBytes && b[0] == kindDigest:
		d.s.events.heard(ring.NodeID(b[1:17]), [16]byte(b[17:33]))
	case len(b) == goodbyeBytes && b[0] == kindGoodbye:
		d.s.events.leaving(ring.NodeID(b[1:17]), binary.BigEndian.Uint64(b[17:]))
	}
}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.sighted(n, true) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.sighted(n, true) }

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) { d.sighted(n, false) }

func (d delegate) sighted(n *memberlist.Node, alive bool) {
	if s, err := see(n, alive); err == nil && n.Name != d.s.name {
		d.s.events.sighted(s)
	}
}

// NotifyAlive implements memberlist.AliveDelegate.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.s.name {
		return nil
	}
	s, err := see(n, true)
	if err != nil {
		return err
	}
	return d.s.events.admit(s)
}

// NotifyMerge implements memberlist.MergeDelegate.
func (d delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if n.Name == d.s.name {
			continue
		}
		s, err := see(n, n.State == memberlist.StateAlive || n.State == memberlist.StateSuspect)
		if err != nil {
			return err
		}
		if err := d.s.events.admit(s); errors.Is(err, ErrOtherCluster) {
			return err
		}
	}
	return nil
}

func see(n *memberlist.Node, alive bool) (sighting, error) {
	c, err := decodeCard(n.Meta)
	if err != nil {
		return sighting{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	short, inc, ok := strings.Cut(n.Name, "#")
	incarnation, err := strconv.ParseUint(inc, 10, 64)
	if !ok || err != nil || short != c.id.Short() {
		return sighting{}, fmt.Errorf("node name %q does not fit its id %s", n.Name, c.id.Short())
	}
	return sighting{card: c, incarnation: incarnation, host: n.Addr.String(), gossip: n.Address(), alive: alive}, nil
}

// swimLog turns memberlist's log into ours: debug, but for what an operator must
// see, and that once in ten seconds for each kind.
type swimLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	last map[string]time.Time
}

var _ io.Writer = (*swimLog)(nil)

// Write implements io.Writer.
func (l *swimLog) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	text := strings.TrimPrefix(line[strings.Index(line, "]")+1:], " memberlist: ")
	for _, kind := range []string{"ecrypt", "label", "Failed to decode"} {
		if strings.Contains(text, kind) && !strings.HasPrefix(line, "[DEBUG]") {
			if l.due(kind) {
				l.log.Warn("gossip refuses a peer: check cluster name and gossip key", "message", text)
			}
			return len(b), nil
		}
	}
	l.log.Debug("gossip", "message", text)
	return len(b), nil
}

func (l *swimLog) due(kind string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last[kind]) < 10*time.Second {
		return false
	}
	l.last[kind] = now
	return true
}
