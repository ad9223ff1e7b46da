package node

import (
	"github.com/pairdb/pairdb/node/admission"
	"github.com/pairdb/pairdb/node/door"
)

// admissionSeries are what the gate in front of clients' operations does.
func (n *Node) admissionSeries() ([]series, func(emit)) {
	limit := gauge("pairdb_admission_limit", "Operations of clients that may be under way at once now, by class; a batch counts 1 for 8 items, a page of a scan 1 for 128 keys.", "class")
	underWay := gauge("pairdb_admission_under_way", "Operations of clients under way, by class, counted so.", "class")
	queued := gauge("pairdb_admission_queued", "Operations of clients that wait for their turn, by class, counted so.", "class")
	seconds := gauge("pairdb_admission_service_seconds", "Time that an operation takes now once it has its turn, in seconds, by class.", "class")
	refused := counter("pairdb_admission_refused_total", "Operations of clients refused with RATE_LIMITED, by class and reason.", "class", "reason")
	shedding := gauge("pairdb_admission_shedding", "1 if an operation was refused so within the last 5 s, else 0.")
	all := []series{limit, underWay, queued, seconds, refused, shedding}
	return all, func(e emit) {
		for _, c := range admission.Classes() {
			s := n.gate.Stats(c)
			e(limit, float64(s.Limit), c.String())
			e(underWay, float64(s.UnderWay), c.String())
			e(queued, float64(s.Waiting), c.String())
			e(seconds, s.Service.Seconds(), c.String())
			for _, why := range admission.Reasons() {
				e(refused, float64(s.Refused[why]), c.String(), why.String())
			}
		}
		e(shedding, boolValue(n.gate.Shedding()))
	}
}

// doorSeries are the connections of clients, and what they leave unread.
func (n *Node) doorSeries() ([]series, func(emit)) {
	open := gauge("pairdb_client_connections", "Connections of clients, by port.", "port")
	closed := counter("pairdb_client_connections_closed_total", "Connections of clients that this node refused, or closed because answers were left unread, by reason.", "reason")
	held := gauge("pairdb_client_unread_bytes", "Bytes of answers, of those of 4 KiB or more, that wait for clients to read them.")
	budget := gauge("pairdb_client_unread_budget_bytes", "Bytes of answers that may wait so before clients that do not keep up are cut off.")
	return []series{open, closed, held, budget}, func(e emit) {
		e(open, float64(n.clients.grpc.Connections()), "grpc")
		e(open, float64(n.clients.http.Connections()), "http")
		s := n.door.Stats()
		for _, why := range door.Reasons() {
			e(closed, float64(s.Closed[why]), why.String())
		}
		e(held, float64(s.Held))
		e(budget, float64(s.Budget))
	}
}
