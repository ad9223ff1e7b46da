package node

import "github.com/pairdb/pairdb/node/rpc"

// lanes are the lanes of the links between nodes, as a label.
var lanes = [...]rpc.Lane{rpc.LaneSmall, rpc.LaneLarge, rpc.LaneBackground}

// peerSeries are the links to other nodes.
func (n *Node) peerSeries() ([]series, func(emit)) {
	frames := counter("pairdb_peer_frames_sent_total", "Frames sent to other nodes, by lane.", "lane")
	items := counter("pairdb_peer_items_sent_total", "Requests sent to other nodes in those frames.", "lane")
	bytes := counter("pairdb_peer_bytes_sent_total", "Bytes of those frames.", "lane")
	failed := counter("pairdb_peer_items_failed_total", "Requests to other nodes without an answer, by reason.", "reason")
	refused := counter("pairdb_peer_items_refused_total", "Requests to other nodes that were not queued, by lane and reason.", "lane", "reason")
	connects := counter("pairdb_peer_connects_total", "Connections opened to other nodes.")
	failures := counter("pairdb_peer_connect_failures_total", "Attempts to connect to another node that came to nothing.")
	lost := counter("pairdb_peer_links_lost_total", "Links to other nodes that were lost.")
	connected := gauge("pairdb_peer_connected", "Other nodes with a connection.")
	pending := gauge("pairdb_peer_pending", "Requests to other nodes that wait for an answer.")
	queuedItems := gauge("pairdb_peer_queued_items", "Requests queued for other nodes, by lane.", "lane")
	queued := gauge("pairdb_peer_queued_bytes", "Bytes queued for other nodes, by lane.", "lane")
	all := []series{frames, items, bytes, failed, refused, connects, failures, lost, connected, pending, queuedItems, queued}
	return all, func(e emit) {
		s := n.peers.Stats()
		for _, lane := range lanes {
			l, name := s.Lanes[lane], lane.String()
			e(frames, float64(l.FramesSent), name)
			e(items, float64(l.ItemsSent), name)
			e(bytes, float64(l.BytesSent), name)
			e(refused, float64(l.Overloaded), name, "overloaded")
			e(refused, float64(l.Disconnected), name, "disconnected")
			e(refused, float64(l.TooLarge), name, "too large")
			e(queuedItems, float64(l.QueuedItems), name)
			e(queued, float64(l.QueuedBytes), name)
		}
		e(failed, float64(s.Refused), "refused")
		e(failed, float64(s.Expired-s.ExpiredUnsent), "expired")
		e(failed, float64(s.ExpiredUnsent), "expired in the queue")
		e(failed, float64(s.Lost), "connection lost")
		e(connects, float64(s.Connects))
		e(failures, float64(s.ConnectFailures))
		e(lost, float64(s.Disconnects))
		e(connected, float64(s.Connected))
		e(pending, float64(s.Pending))
	}
}

// sessionSeries are the links that other nodes have to this one.
func (n *Node) sessionSeries() ([]series, func(emit)) {
	sessions := gauge("pairdb_peer_sessions", "Links that other nodes have to this one.")
	unanswered := gauge("pairdb_peer_session_unanswered", "Requests of other nodes without an answer, by lane.", "lane")
	held := gauge("pairdb_peer_session_held_bytes", "Bytes of the frames with requests of other nodes without an answer, by lane.", "lane")
	replies := gauge("pairdb_peer_session_reply_bytes", "Bytes of answers to other nodes that wait to be sent, by the lane they go in.", "lane")
	pauses := counter("pairdb_peer_session_pauses_total", "How often nothing was read from a lane of a link because too much of it was unanswered or its answers were not read.", "lane")
	refused := counter("pairdb_peer_replies_refused_total", "Reads of other nodes answered as overloaded because they do not read their answers.")
	ended := counter("pairdb_peer_sessions_ended_total", "Links of other nodes ended here, by reason: newer links, or answers that were not read.", "reason")
	frames := counter("pairdb_peer_compressed_frames_total", "Frames sent compressed, with requests or replies.", "direction")
	saved := counter("pairdb_peer_compression_saved_bytes_total", "Bytes that compressing frames saved, with requests or replies.", "direction")
	switched := counter("pairdb_peer_compression_switches_total", "How often a lane of a link began or ceased to compress its frames.", "direction", "to")
	active := gauge("pairdb_peer_compressing_lanes", "Lanes of links that compress now.", "direction")
	all := []series{sessions, unanswered, held, replies, pauses, refused, ended, frames, saved, switched, active}
	return all, func(e emit) {
		s := n.server.SessionStats()
		e(sessions, float64(s.Sessions))
		for _, lane := range lanes {
			l, name := s.Lanes[lane], lane.String()
			e(unanswered, float64(l.Unanswered), name)
			e(held, float64(l.HeldBytes), name)
			e(replies, float64(l.ReplyBytes), name)
			e(pauses, float64(l.Pauses), name)
		}
		e(refused, float64(s.RepliesRefused))
		e(ended, float64(s.Superseded), "newer links")
		e(ended, float64(s.Unread), "answers not read")
		for _, d := range []struct {
			name string
			rpc.CompressionStats
		}{{"requests", n.peers.Stats().Compression}, {"replies", s.Compression}} {
			e(frames, float64(d.Frames), d.name)
			e(saved, float64(d.SavedBytes), d.name)
			e(switched, float64(d.SwitchedOn), d.name, "on")
			e(switched, float64(d.SwitchedOff), d.name, "off")
			e(active, float64(d.Active), d.name)
		}
	}
}
