package rpc

import "sync/atomic"

// peerCounters count since the start.
type peerCounters struct {
	lanes                                               [laneCount]laneCounters
	repliesReceived, expired, expiredUnsent, lost, late atomic.Uint64
	connects, disconnect, connectFailures               atomic.Uint64
	compress                                            compressCounters
}

type laneCounters struct {
	framesSent, itemsSent, bytesSent   atomic.Uint64
	overloaded, disconnected, tooLarge atomic.Uint64
}

// PeerStats are the figures of Peers, for metrics. Those without another word
// count since the start. What Lanes has is there in sum too.
type PeerStats struct {
	FramesSent, ItemsSent, BytesSent, RepliesReceived uint64
	// Refused were not queued, Expired ran out of time, ExpiredUnsent of them
	// in the queue, Lost went with a link, Late replies came after that.
	Refused, Expired, ExpiredUnsent, Lost, Late uint64
	// ConnectFailures are attempts to connect that came to nothing.
	Connects, Disconnects, ConnectFailures uint64
	// Compression is that of requests.
	Compression CompressionStats
	// Connected peers, Pending requests and queued items and bytes now.
	Connected, Pending, QueuedItems, QueuedBytes int
	// Lanes is indexed by Lane.
	Lanes [laneCount]LaneStats
}

// LaneStats are those of one lane to all peers.
type LaneStats struct {
	FramesSent, ItemsSent, BytesSent uint64
	// Overloaded were refused because the queue was full or too many waited
	// for replies, Disconnected as there was no link, TooLarge as they fit in
	// no frame.
	Overloaded, Disconnected, TooLarge uint64
	// QueuedItems and QueuedBytes wait now.
	QueuedItems, QueuedBytes int
}

// Stats returns the figures.
func (ps *Peers) Stats() PeerStats {
	c := &ps.stats
	s := PeerStats{
		RepliesReceived: c.repliesReceived.Load(),
		Expired:         c.expired.Load(), ExpiredUnsent: c.expiredUnsent.Load(), Lost: c.lost.Load(), Late: c.late.Load(),
		Connects: c.connects.Load(), Disconnects: c.disconnect.Load(), ConnectFailures: c.connectFailures.Load(),
		Compression: c.compress.stats(),
	}
	for i := range s.Lanes {
		l, n := &c.lanes[i], &s.Lanes[i]
		n.FramesSent, n.ItemsSent, n.BytesSent = l.framesSent.Load(), l.itemsSent.Load(), l.bytesSent.Load()
		n.Overloaded, n.Disconnected, n.TooLarge = l.overloaded.Load(), l.disconnected.Load(), l.tooLarge.Load()
	}
	for _, p := range *ps.byID.Load() {
		p.addStats(&s)
	}
	for i := range s.Lanes {
		n := &s.Lanes[i]
		s.FramesSent += n.FramesSent
		s.ItemsSent += n.ItemsSent
		s.BytesSent += n.BytesSent
		s.Refused += n.Overloaded + n.Disconnected + n.TooLarge
		s.QueuedItems += n.QueuedItems
		s.QueuedBytes += n.QueuedBytes
	}
	return s
}

// addStats adds the peer's state of now.
func (p *peer) addStats(s *PeerStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.state == linkUp {
		s.Connected++
	}
	s.Pending += p.mu.pending.count
	for i := range p.mu.lanes {
		s.Lanes[i].QueuedItems += p.mu.lanes[i].items
		s.Lanes[i].QueuedBytes += p.mu.lanes[i].bytes
	}
}

// sessionCounters count since the start.
type sessionCounters struct {
	pauses                             [laneCount]atomic.Uint64
	refusedReplies, superseded, unread atomic.Uint64
	compress                           compressCounters
}

// SessionStats are the figures of the links that other nodes have to this one.
type SessionStats struct {
	// Sessions are the links now.
	Sessions int
	// Lanes is indexed by Lane.
	Lanes [laneCount]SessionLaneStats
	// RepliesRefused are reads whose reply found no room, so that they were
	// answered overloaded; Superseded and Unread are links that were ended for
	// newer ones, and because there was no room for the reply to a write. They
	// count since the start.
	RepliesRefused, Superseded, Unread uint64
	// Compression is that of replies.
	Compression CompressionStats
}

// SessionLaneStats are those of one lane of all links.
type SessionLaneStats struct {
	// Unanswered requests now, in frames of HeldBytes; ReplyBytes of replies
	// wait to be sent.
	Unanswered, HeldBytes, ReplyBytes int
	// Pauses counts, since the start, how often nothing was read from a link's
	// lane for a while because one of those was at its bound.
	Pauses uint64
}

// SessionStats returns the figures of the links to this node.
func (s *Server) SessionStats() SessionStats {
	fs := s.frames
	c := &fs.counters
	st := SessionStats{
		RepliesRefused: c.refusedReplies.Load(), Superseded: c.superseded.Load(), Unread: c.unread.Load(),
		Compression: c.compress.stats(),
	}
	for i := range st.Lanes {
		st.Lanes[i].Pauses = c.pauses[i].Load()
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	st.Sessions = len(fs.mu.sessions)
	for _, ses := range fs.mu.sessions {
		ses.addStats(&st)
	}
	return st
}

// addStats adds the session's state of now.
func (s *session) addStats(st *SessionStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range st.Lanes {
		l := &st.Lanes[i]
		l.Unanswered += s.mu.unanswered[i]
		l.HeldBytes += s.mu.held[i]
		l.ReplyBytes += s.mu.lanes[i].bytes
	}
}
