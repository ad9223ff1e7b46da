package coord_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/check"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
)

// clientPatience is when a client gives up: its coordinator may be dead.
const clientPatience = 7 * time.Second

var (
	atOne    = []quorum.Level{quorum.One}
	atQuorum = []quorum.Level{quorum.Quorum}
	atAll    = []quorum.Level{quorum.All}
	// atMost are the levels at which a write is done once and read by all.
	atMost  = []quorum.Level{quorum.Quorum, quorum.Quorum, quorum.Quorum, quorum.All}
	atEvery = []quorum.Level{quorum.One, quorum.Quorum, quorum.All}
)

// register is a key with one writer. Package check judges it as an atomic
// register if it is written at QUORUM or ALL and goes is false.
type register struct {
	key string
	// writeAt and readAt are the levels of writes and reads, of which each
	// operation draws one.
	writeAt, readAt []quorum.Level
	// goes says that the writer goes on after a write whose fate is open.
	goes bool
	// writes is how many were made.
	writes int
	// token covers seen.
	token   []byte
	seen    causal.Context
	retired bool // the fate of the last write is open, and the writer does not go on
}

// think is the pause between two operations of a client.
func (s *simulation) think(key string) time.Duration {
	return time.Duration(s.w.rand(key).IntN(60)) * time.Millisecond * max(1, s.slower)
}

// pick is a node that is up, nil if there is hardly one.
func (s *simulation) pick(key string) *simNode {
	if s.w.chosen != nil { // most nodes may not be there
		up := slices.DeleteFunc(slices.Clone(s.w.nodes), func(n *simNode) bool { return !n.up || n.paused() })
		if len(up) == 0 {
			return nil
		}
		return up[s.w.rand(key).IntN(len(up))]
	}
	for range 20 {
		if n := s.w.nodes[s.w.rand(key).IntN(len(s.w.nodes))]; n.up && !n.paused() {
			return n
		}
	}
	return nil
}

// write is the next operation of a key's writer.
func (s *simulation) write(k *register) {
	s.w.after(s.think(k.key), func() {
		n := s.pick(k.key)
		if s.ended || k.retired {
			return
		}
		if n == nil {
			s.write(k)
			return
		}
		k.writes++
		c := check.Call{Client: "writer", Kind: check.Put, Key: k.key, Level: s.draw(k.key, k.writeAt), Value: fmt.Sprintf("%s/%d", k.key, k.writes)}
		if s.w.rand(k.key).IntN(4) == 0 {
			c.Kind, c.Value = check.Delete, ""
		}
		var token []byte
		if s.w.rand(k.key).IntN(2) == 0 && len(k.token) > 0 {
			token, c.Seen = k.token, k.seen
		}
		answer := s.call(n, simTenant, c)
		answered := false
		finish := func(r coord.WriteResponse, err error) {
			if answered {
				return
			}
			answered = true
			answer(s.wrote(k, c.Level, r, err))
			s.write(k)
		}
		s.w.after(clientPatience, func() {
			finish(coord.WriteResponse{}, &coord.Error{Code: errcode.Timeout, Outcome: errcode.Indeterminate})
		})
		if c.Kind == check.Delete {
			n.coord.StartDelete(coord.DeleteRequest{Tenant: simTenant, Key: []byte(k.key), Level: c.Level, Token: token}, finish)
		} else {
			n.coord.StartPut(coord.PutRequest{Tenant: simTenant, Key: []byte(k.key), Value: []byte(c.Value), Level: c.Level, Token: token}, finish)
		}
	})
}

// draw is one of some levels.
func (s *simulation) draw(key string, of []quorum.Level) quorum.Level {
	return of[s.w.rand(key).IntN(len(of))]
}

func (s *simulation) wrote(k *register, at quorum.Level, r coord.WriteResponse, err error) check.Answer {
	if err != nil {
		a := failed(err)
		s.done["failed "+string(a.Outcome)]++
		k.retired = a.Outcome != check.NotApplied && !k.goes
		return a
	}
	s.done["written"]++
	if at == quorum.All {
		s.done["written to all"]++
	}
	if at != quorum.One {
		k.token, k.seen = r.Token, r.Context
	}
	return check.Answer{Outcome: check.OK, Dot: r.Dot, Context: r.Context}
}

// read is the next operation of one of a key's readers.
func (s *simulation) read(k *register, client string) {
	s.w.after(s.think(k.key), func() {
		n := s.pick(k.key)
		if s.ended {
			return
		}
		if n == nil {
			s.read(k, client)
			return
		}
		level := s.draw(k.key, k.readAt)
		answer := s.call(n, simTenant, check.Call{Client: client, Kind: check.Get, Key: k.key, Level: level})
		answered := false
		finish := func(r coord.GetResponse, err error) {
			if answered {
				return
			}
			answered = true
			answer(s.saw(r, err))
			s.read(k, client)
		}
		s.w.after(clientPatience, func() { finish(coord.GetResponse{}, &coord.Error{Code: errcode.Timeout}) })
		n.coord.StartGet(coord.GetRequest{Tenant: simTenant, Key: []byte(k.key), Level: level}, finish)
	})
}
